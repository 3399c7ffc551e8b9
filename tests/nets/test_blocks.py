"""Norms, activations and blocks say what they do."""

from dataclasses import replace

import pytest
import torch

from medseg3d.nets.blocks import (
    Style,
    build_conv,
    build_mobile_unit,
    build_residual_unit,
    build_squeeze_excite,
)

BATCH = Style(spatial_dims=3, norm="batch", activation="relu", conv_bias=False)
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
        ("hard_swish", [-2 / 6, 0.0, 3.0]),
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


@pytest.mark.parametrize(
    ("flags", "kinds"),
    [
        ({}, ["Conv3d", "BatchNorm3d"]),
        ({"shortcut_norm": False}, ["Conv3d"]),
        ({"shortcut_pool": True}, ["MeanPool3d", "Conv3d", "BatchNorm3d"]),
        ({"norm": "none"}, ["Conv3d"]),
    ],
)
def test_flags_decide_what_a_strided_shortcut_is(flags: dict, kinds: list[str]):
    style = replace(BATCH, **flags)
    unit = build_residual_unit(4, 6, style=style, kernel=THREES, stride=(2, 2, 2))
    assert [type(layer).__name__ for layer in unit.shortcut] == kinds
    conv = next(layer for layer in unit.shortcut if isinstance(layer, torch.nn.Conv3d))
    assert (conv.bias is None) == (kinds[-1] == "BatchNorm3d")


def test_a_pooled_shortcut_is_projected_only_where_channels_change():
    style = replace(PLAIN, shortcut_pool=True)
    unit = build_residual_unit(4, 4, style=style, kernel=THREES, stride=(1, 2, 2))
    image = torch.arange(4.0).reshape(1, 1, 1, 2, 2).expand(1, 4, 1, 2, 2)
    torch.testing.assert_close(unit.shortcut(image), torch.full((1, 4, 1, 1, 1), 1.5))


@pytest.mark.parametrize("build", [build_residual_unit, build_mobile_unit])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("after", [False, True])
def test_flags_decide_where_a_unit_is_clipped(build, last: bool, after: bool):
    style = replace(BATCH, last_activation=last, sum_activation=after)
    unit = build(8, 8, style=style, kernel=THREES, stride=ONES)
    image = torch.randn(2, 8, 4, 4, 4)
    body, total = unit.body(image), unit(image)
    assert (body.min() >= 0) == last
    torch.testing.assert_close(total, (body + image).clamp(min=0) if after else body + image)


def test_a_unit_may_always_be_projected():
    style = replace(BATCH, projection="always")
    unit = build_residual_unit(4, 4, style=style, kernel=THREES, stride=ONES)
    assert unit.shortcut[0].weight.shape == (4, 4, 1, 1, 1)


def test_a_mobile_unit_sees_each_channel_alone_and_then_each_voxel():
    unit = build_mobile_unit(8, 6, style=PLAIN, kernel=THREES, stride=(1, 2, 2))
    depthwise, gate, pointwise = unit.body
    assert depthwise[0].weight.shape == (8, 1, 3, 3, 3)
    assert gate.gate[1].weight.shape == (8, 8, 1, 1, 1)
    assert pointwise[0].weight.shape == (6, 8, 1, 1, 1)
    assert unit(torch.randn(1, 8, 2, 4, 4)).shape == (1, 6, 2, 2, 2)


def test_squeeze_excite_scales_each_channel_by_one_number_between_0_and_1():
    image = torch.rand(2, 32, 3, 4, 5) + 1
    block = build_squeeze_excite(32, style=PLAIN)
    factors = block(image) / image
    torch.testing.assert_close(factors.amin((2, 3, 4)), factors.amax((2, 3, 4)))
    assert 0 < factors.min() < factors.max() < 1
    shuffled = image.flatten(2)[..., torch.randperm(60)].reshape(image.shape)
    torch.testing.assert_close(block(shuffled) / shuffled, factors)
    assert block.gate[1].weight.shape == (2, 32, 1, 1, 1)
