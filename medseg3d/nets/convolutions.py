"""What a CPU does slowly, wrongly or not at all in 3D, done another way.

oneDNN knows no quick gradients of a depthwise convolution of volumes. Those of a convolution among
BLOCK channels take a fifth of the time, though they say BLOCK times as much: what is wanted lies on
their diagonal.
"""

from collections.abc import Sequence
from math import gcd, prod
from typing import Any, Final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import avg_pool3d, conv3d

BLOCK: Final = 16
"""Channels that oneDNN's quick kernels take together."""

UNSOUND: Final = 2
"""Voxels along the first axis of which oneDNN, in bf16 and for kernels of three, leaves gradients
of weights unwritten (torch 2.13); such few are convolved in the precision of the weights."""


class Conv3d(nn.Conv3d):
    """torch's, but under autocast with sound gradients of UNSOUND sizes too."""

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        # what is exported does not train, and must not branch on a size
        if not self.training or x.device.type != "cpu" or x.shape[2] != UNSOUND:
            return super()._conv_forward(x, weight, bias)
        with torch.autocast("cpu", enabled=False):
            return super()._conv_forward(x.to(weight.dtype), weight, bias)


class DepthwiseConv3d(nn.Conv3d):
    """A convolution of each channel for itself, whose gradients take no longer than the rest."""

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if not self.training or x.device.type != "cpu":
            return super()._conv_forward(x, weight, bias)
        return convolve_channels(x, weight, bias, stride=self.stride, padding=self.padding)  # type: ignore[arg-type] # numbers, no word


class MeanPool3d(nn.Module):
    """Mean over blocks of voxels; torch's own knows no half precision on a CPU."""

    def __init__(self, stride: tuple[int, ...]) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Float[Tensor, "B C *spatial"]) -> Float[Tensor, "B C *coarser"]:
        """Give the mean of each block of the stride's size, in the order of memory of `x`."""
        exact = not self.training and x.dtype == torch.float32
        if exact or x.device.type != "cpu":
            return avg_pool3d(x, self.stride)
        weight = x.new_full((x.shape[1], 1, *self.stride), 1 / prod(self.stride))
        return convolve_channels(x, weight, None, stride=self.stride, padding=(0, 0, 0))


def convolve_channels(
    x: Float[Tensor, "B C *spatial"],
    weight: Float[Tensor, "C 1 *kernel"],
    bias: Float[Tensor, " C"] | None,
    *,
    stride: Sequence[int],
    padding: Sequence[int],
) -> Float[Tensor, "B C *coarser"]:
    """Convolve each channel for itself on a CPU, with quick gradients; autocast is heeded."""
    if torch.is_autocast_enabled("cpu"):
        half = torch.get_autocast_dtype("cpu")
        dtype = weight.dtype if x.shape[2] == UNSOUND else half
        x, weight = x.to(dtype), weight.to(dtype)
        bias = None if bias is None else bias.to(dtype)
    with torch.autocast("cpu", enabled=False):
        result: Tensor = _Convolution.apply(x, weight, bias, stride, padding)  # type: ignore[no-untyped-call]
    return result


class _Convolution(torch.autograd.Function):
    """conv3d with as many groups as channels."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: Sequence[int],
        padding: Sequence[int],
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return conv3d(x, weight, bias, stride, padding, groups=len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        channels = len(weight)
        block = gcd(BLOCK, channels)
        diagonal = torch.eye(block, dtype=weight.dtype).tile(channels // block, 1)
        diagonal = diagonal[..., None, None, None]
        of_x, of_weight, of_bias = torch.ops.aten.convolution_backward(
            gradient,
            x,
            weight * diagonal,
            [channels],
            ctx.stride,
            ctx.padding,
            [1, 1, 1],
            False,  # not transposed
            [0, 0, 0],
            channels // block,
            ctx.needs_input_grad[:3],
        )
        if of_weight is not None:
            of_weight = (of_weight * diagonal).sum(1, keepdim=True)
        return of_x, of_weight, of_bias, None, None
