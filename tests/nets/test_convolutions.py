"""Gradients of convolutions are the gradients, quick ones too."""

import pytest
import torch
from torch import Tensor, nn

from medseg3d.nets.convolutions import Conv3d, DepthwiseConv3d, MeanPool3d
from medseg3d.nets.presets import NETS, build_net


def run(conv: nn.Module, x: Tensor) -> list[Tensor]:
    """Give the output, then the gradients of input, weight and bias."""
    x = x.clone().requires_grad_()
    result = conv(x)
    ramp = torch.linspace(-1, 1, result.numel()).reshape(result.shape).to(result.dtype)
    wanted = [x, *(p for p in conv.parameters() if p.requires_grad)]
    return [result, *torch.autograd.grad((result * ramp).sum(), wanted)]


def twins(channels: int, **knobs: object) -> tuple[nn.Conv3d, nn.Conv3d]:
    """Build the quick and the plain convolution with the same weights."""
    torch.manual_seed(0)
    quick, plain = (
        kind(channels, channels, 3, padding=1, groups=channels, **knobs)
        for kind in (DepthwiseConv3d, nn.Conv3d)
    )
    plain.load_state_dict(quick.state_dict())
    return quick, plain


@pytest.mark.parametrize("channels", [1, 6, 16, 24, 32])
@pytest.mark.parametrize("stride", [1, (1, 2, 2)])
@pytest.mark.parametrize("bias", [False, True])
def test_gradients_are_those_of_the_plain_convolution(
    channels: int, stride: int | tuple[int, ...], bias: bool
) -> None:
    quick, plain = (conv.double() for conv in twins(channels, stride=stride, bias=bias))
    x = torch.randn(2, channels, 6, 8, 4, dtype=torch.float64)
    for ours, truth in zip(run(quick, x), run(plain, x), strict=True):
        torch.testing.assert_close(ours, truth)


def test_under_autocast_it_computes_in_half_precision() -> None:
    quick, plain = twins(16)
    x = torch.randn(2, 16, 6, 8, 4)
    with torch.autocast("cpu", torch.bfloat16):
        ours, truth = run(quick, x), run(plain, x)
    assert [one.dtype for one in ours[::2]] == [torch.bfloat16, torch.float32]
    for a, b in zip(ours, truth, strict=True):
        torch.testing.assert_close(a, b, rtol=0.02, atol=0.02)


def test_a_frozen_weight_gets_no_gradient() -> None:
    quick, _ = twins(16, bias=False)
    quick.requires_grad_(False)
    result, of_x = run(quick, torch.randn(1, 16, 4, 4, 4))
    assert result.requires_grad
    assert of_x.shape == (1, 16, 4, 4, 4)


def test_a_mobile_network_has_such_convolutions() -> None:
    config = NETS["mobile_resunet"].model_copy(update={"channels": (4, 8)})
    for spatial_dims in (2, 3):
        net = build_net(config, spatial_dims=spatial_dims, in_channels=1, out_channels=2)
        deep = [m for m in net.modules() if getattr(m, "groups", 1) > 1]
        assert deep
        assert all(isinstance(m, DepthwiseConv3d) is (spatial_dims == 3) for m in deep)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("stride", [(2, 2, 2), (1, 2, 2)])
def test_means_and_their_gradients_are_those_of_mean_pooling(
    stride: tuple[int, ...], dtype: torch.dtype, training: bool
) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 16, 4, 8, 6).to(memory_format=torch.channels_last_3d)
    ours = run(MeanPool3d(stride).train(training), x.to(dtype))
    for one, truth in zip(ours, run(nn.AvgPool3d(stride), x), strict=True):
        torch.testing.assert_close(one.float(), truth, rtol=0.01, atol=0.01)


def test_means_keep_the_order_of_memory_in_training() -> None:
    x = torch.randn(2, 16, 4, 8, 6).to(memory_format=torch.channels_last_3d)
    assert MeanPool3d((2, 2, 2))(x).is_contiguous(memory_format=torch.channels_last_3d)


@pytest.mark.parametrize("size", [(2, 2, 2), (2, 4, 3), (4, 2, 2), (1, 4, 4)])
@pytest.mark.parametrize("kind", ["plain", "depthwise"])
def test_gradients_in_half_precision_are_right_of_few_voxels(
    kind: str, size: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    conv = Conv3d(32, 32, 3, padding=1) if kind == "plain" else twins(32)[0]
    x = torch.randn(2, 32, *size).to(memory_format=torch.channels_last_3d)
    truth = run(conv, x)
    poison = [torch.full((32 * 32 * 27,), 1e30) for _ in range(4)]
    del poison  # what is left unwritten now shows
    with torch.autocast("cpu", torch.bfloat16):
        ours = run(conv, x)
    for one, true in zip(ours, truth, strict=True):
        assert (one - true).norm() < 0.02 * true.norm()
