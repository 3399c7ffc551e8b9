"""Norms, activations and blocks say what they do."""

import pytest
import torch

from medseg3d.nets.blocks import (
    Style,
    build_conv,
    build_residual_unit,
    build_squeeze_excite,
)

PLAIN = Style(spatial_dims=3, norm="none", activation="relu", conv_bias=False)
ONES, THREES = (1, 1, 1), (3, 3, 3)


@pytest.mark.parametrize(
    ("norm", "split", "averaged"),
    [
        ("batch", (3, 12, 1), (0, 2, 3)),
        ("instance", (3, 12, 1), (2, 3)),
        ("group", (3, 4, 3), (2, 3)),
    ],
)
def test_norm_whitens_what_it_averages_over(norm: str, split: tuple[int, ...], averaged):
    image = torch.randn(3, 12, 4, 5, 6) * 7 + 2
    whitened = Style(3, norm, "relu", conv_bias=False).build_norm(12)(image)
    parts = image.reshape(*split, -1)
    expected = (parts - parts.mean(averaged, keepdim=True)) / parts.std(
        averaged, correction=0, keepdim=True
    )
    torch.testing.assert_close(whitened, expected.reshape(image.shape), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("activation", "expected"),
    [
        ("relu", [0.0, 0.0, 3.0]),
        ("leaky_relu", [-0.02, 0.0, 3.0]),
        ("silu", [-2 / (1 + 2.718281828**2), 0.0, 3 / (1 + 2.718281828**-3)]),
    ],
)
def test_activation_is_the_one_asked_for(activation: str, expected: list[float]):
    activate = Style(2, "none", activation, conv_bias=False).build_activation()
    torch.testing.assert_close(activate(torch.tensor([-2.0, 0.0, 3.0])), torch.tensor(expected))


@pytest.mark.parametrize(
    ("norm", "conv_bias", "has_bias"),
    [("batch", False, False), ("batch", True, True), ("none", False, True), ("none", True, True)],
)
def test_a_convolution_goes_without_bias_only_before_a_norm(norm, conv_bias, has_bias):
    block = build_conv(
        2, 3, style=Style(3, norm, "relu", conv_bias=conv_bias), kernel=THREES, stride=ONES
    )
    assert (block[0].bias is not None) == has_bias


@pytest.mark.parametrize(
    ("channels", "stride", "projected"),
    [(4, ONES, False), (6, ONES, True), (4, (1, 2, 2), True)],
)
def test_the_shortcut_is_projected_only_where_channels_or_size_change(channels, stride, projected):
    unit = build_residual_unit(4, channels, style=PLAIN, kernel=THREES, stride=stride)
    assert any(True for _ in unit.shortcut.parameters()) == projected
    assert unit(torch.randn(1, 4, 2, 4, 6)).shape == (
        1,
        channels,
        *(n // s for n, s in zip((2, 4, 6), stride, strict=True)),
    )


def test_squeeze_excite_scales_each_channel_by_one_number_between_0_and_1():
    image = torch.rand(2, 32, 3, 4, 5) + 1
    block = build_squeeze_excite(32, style=PLAIN)
    factors = block(image) / image
    torch.testing.assert_close(factors.amin((2, 3, 4)), factors.amax((2, 3, 4)))
    assert 0 < factors.min() < factors.max() < 1
    shuffled = image.flatten(2)[..., torch.randperm(60)].reshape(image.shape)
    torch.testing.assert_close(block(shuffled) / shuffled, factors)
    assert block.gate[1].weight.shape == (2, 32, 1, 1, 1)
