"""What networks are made of: blocks take modules, builders take numbers.

Every convolution keeps the size (odd kernels, zero padding) or divides it by its stride.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import gcd
from typing import Final, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn

from medseg3d.config.network import Activation, Fusion, Norm
from medseg3d.nets.ops import CONVOLUTIONS, OPS, Ops

PerAxis: TypeAlias = tuple[int, ...]
"""One number per spatial axis."""

MAX_GROUPS: Final = 8
"""Group norm forms this many groups, or fewer where they must divide the channels."""

SQUEEZE: Final = 16
"""Squeeze-and-excitation narrows the channels by this factor (Hu et al., 2018)."""

ACTIVATIONS: Final[dict[Activation, Callable[[], nn.Module]]] = {
    "relu": lambda: nn.ReLU(inplace=True),
    "leaky_relu": lambda: nn.LeakyReLU(0.01, inplace=True),
    "silu": nn.SiLU,
}


@dataclass(frozen=True, slots=True)
class Style:
    """What all blocks of one network have in common."""

    spatial_dims: int
    norm: Norm
    activation: Activation
    conv_bias: bool

    @property
    def ops(self) -> Ops:
        """The layers of this dimensionality."""
        return OPS[self.spatial_dims]

    @property
    def ones(self) -> PerAxis:
        """The stride that keeps the size, the kernel that sees one voxel."""
        return (1,) * self.spatial_dims

    def build_norm(self, channels: int) -> nn.Module:
        """Build the norm, with learnt scale and shift; "none" lets everything through."""
        match self.norm:
            case "batch":
                return self.ops.batch_norm(channels)
            case "instance":
                return self.ops.instance_norm(channels, affine=True)
            case "group":
                return nn.GroupNorm(gcd(MAX_GROUPS, channels), channels)
            case "none":
                return nn.Identity()

    def build_activation(self) -> nn.Module:
        """Build the non-linearity."""
        return ACTIVATIONS[self.activation]()


class ResidualUnit(nn.Module):
    """`activation(body(x) + shortcut(x))`."""

    def __init__(self, body: nn.Module, shortcut: nn.Module, *, activation: nn.Module) -> None:
        super().__init__()
        self.body = body
        self.shortcut = shortcut
        self.activation = activation

    def forward(self, features: Float[Tensor, "B C *spatial"]) -> Float[Tensor, "B D *coarser"]:
        """Add what the body makes of the features to what the shortcut does."""
        return self.activation(self.body(features) + self.shortcut(features))


class SqueezeExcite(nn.Module):
    """Scale each channel by what a gate makes of all of them (Hu et al., 2018)."""

    def __init__(self, gate: nn.Module) -> None:
        super().__init__()
        self.gate = gate

    def forward(self, features: Float[Tensor, "B C *spatial"]) -> Float[Tensor, "B C *spatial"]:
        """Multiply the features by their gate, one number per channel."""
        return features * self.gate(features)


class UpLevel(nn.Module):
    """One decoder level: bring the deeper level up, fuse it with the skip, refine both."""

    def __init__(
        self,
        up: nn.Module,
        skip: nn.Module,
        *,
        fuse: Callable[[Tensor, Tensor], Tensor],
        body: nn.Module,
    ) -> None:
        super().__init__()
        self.up = up
        self.skip = skip
        self.fuse = fuse
        self.body = body

    def forward(
        self, deeper: Float[Tensor, "B D *coarser"], skip: Float[Tensor, "B S *spatial"]
    ) -> Float[Tensor, "B C *spatial"]:
        """Give the features of this level."""
        return self.body(self.fuse(self.skip(skip), self.up(deeper)))


def concat(
    skip: Float[Tensor, "B S *spatial"], up: Float[Tensor, "B U *spatial"]
) -> Float[Tensor, "B C *spatial"]:
    """Stack the channels, the skip's first."""
    return torch.cat((skip, up), dim=1)


FUSIONS: Final[dict[Fusion, Callable[[Tensor, Tensor], Tensor]]] = {
    "concat": concat,
    "add": torch.add,
}


def build_conv(
    in_channels: int, out_channels: int, *, style: Style, kernel: PerAxis, stride: PerAxis
) -> nn.Sequential:
    """Build convolution, norm, activation."""
    conv = build_linear_conv(in_channels, out_channels, style=style, kernel=kernel, stride=stride)
    return nn.Sequential(*conv, style.build_activation())


def build_linear_conv(
    in_channels: int, out_channels: int, *, style: Style, kernel: PerAxis, stride: PerAxis
) -> nn.Sequential:
    """Build convolution and norm; without a norm the convolution has a bias."""
    conv = style.ops.conv(
        in_channels,
        out_channels,
        kernel,
        stride=stride,
        padding=tuple(size // 2 for size in kernel),
        bias=style.conv_bias or style.norm == "none",
    )
    return nn.Sequential(conv, style.build_norm(out_channels))


def build_residual_unit(
    in_channels: int, out_channels: int, *, style: Style, kernel: PerAxis, stride: PerAxis
) -> ResidualUnit:
    """Build two convolutions beside a shortcut (He et al., 2016, fig. 2 and option B).

    The shortcut is the identity, or a 1×1 convolution and norm where channels or size change.
    """
    build_bare = partial(build_linear_conv, style=style)
    body = nn.Sequential(
        build_conv(in_channels, out_channels, style=style, kernel=kernel, stride=stride),
        build_bare(out_channels, out_channels, kernel=kernel, stride=style.ones),
    )
    shortcut: nn.Module = nn.Identity()
    if in_channels != out_channels or stride != style.ones:
        shortcut = build_bare(in_channels, out_channels, kernel=style.ones, stride=stride)
    return ResidualUnit(body, shortcut, activation=style.build_activation())


def build_squeeze_excite(channels: int, *, style: Style) -> SqueezeExcite:
    """Build mean over all voxels, narrow, ReLU, widen, sigmoid, as the gate of each channel."""
    narrow = max(1, channels // SQUEEZE)
    gate = nn.Sequential(
        style.ops.global_pool(1),
        style.ops.conv(channels, narrow, 1),
        nn.ReLU(inplace=True),
        style.ops.conv(narrow, channels, 1),
        nn.Sigmoid(),
    )
    return SqueezeExcite(gate)


def initialise(net: nn.Module) -> None:
    """Draw weights of convolutions from He's normal distribution (fan-in), set biases to 0.

    Norms start as torch makes them: scale 1, shift 0. Uses torch's global generator only.
    Source: He et al., "Delving deep into rectifiers", 2015, eq. 10.
    """
    for module in net.modules():
        if isinstance(module, CONVOLUTIONS):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
