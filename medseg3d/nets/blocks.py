"""What networks are made of: blocks take modules, builders take numbers.

Every convolution keeps the size (odd kernels, zero padding) or divides it by its stride.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from math import gcd
from typing import Final, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn

from medseg3d.config.network import Activation, Fusion, Norm, Projection, UShapedConfig
from medseg3d.nets.ops import CONVOLUTIONS, OPS, Ops

PerAxis: TypeAlias = tuple[int, ...]
"""One number per spatial axis."""

MAX_GROUPS: Final = 8
"""Group norm forms this many groups, or fewer where they must divide the channels."""

SQUEEZE: Final = 16
"""Squeeze-and-excitation narrows the channels by this factor (Hu et al., 2018) ..."""

MOBILE_SQUEEZE: Final = 4
MOBILE_LEAST: Final = 8
"""... and in a mobile unit by this factor, but not to fewer channels (Howard et al., 2019)."""

ACTIVATIONS: Final[dict[Activation, Callable[[], nn.Module]]] = {
    "relu": lambda: nn.ReLU(inplace=True),
    "leaky_relu": lambda: nn.LeakyReLU(0.01, inplace=True),
    "silu": nn.SiLU,
    "hard_swish": nn.Hardswish,
}

FUSIONS: Final[dict[Fusion, Callable[[Tensor, Tensor], Tensor]]] = {
    "concat": lambda skip, up: torch.cat((skip, up), dim=1),
    "concat_up_first": lambda skip, up: torch.cat((up, skip), dim=1),
    "add": torch.add,
}
"""How a skip and what comes up become one."""


@dataclass(frozen=True, slots=True)
class Style:
    """What all blocks of one network have in common; the defaults are He's residual unit."""

    spatial_dims: int
    norm: Norm
    activation: Activation
    conv_bias: bool
    projection: Projection = "auto"
    shortcut_norm: bool = True
    shortcut_pool: bool = False
    last_activation: bool = False
    sum_activation: bool = True

    @classmethod
    def of(cls, config: UShapedConfig, *, spatial_dims: int) -> "Style":
        """Take from a network's knobs those that are its blocks'."""
        names = {field.name for field in fields(cls)}
        return cls(spatial_dims=spatial_dims, **config.model_dump(include=names))

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
    """One decoder level: bring the deeper level up, fuse it with the skips, refine both."""

    def __init__(self, up: nn.Module, skip: nn.Module, *, fusion: Fusion, body: nn.Module) -> None:
        super().__init__()
        self.up = up
        self.skip = skip
        self.fusion = fusion
        self.body = body

    def forward(
        self, deeper: Float[Tensor, "B D *coarser"], *skips: Float[Tensor, "B S *spatial"]
    ) -> Float[Tensor, "B C *spatial"]:
        """Give the features of this level; several skips are stacked."""
        skip = skips[0] if len(skips) == 1 else torch.cat(skips, dim=1)
        return self.body(FUSIONS[self.fusion](self.skip(skip), self.up(deeper)))


def build_conv(
    in_channels: int,
    out_channels: int,
    *,
    style: Style,
    kernel: PerAxis,
    stride: PerAxis,
    groups: int = 1,
    active: bool = True,
) -> nn.Sequential:
    """Build convolution, norm and, if `active`, activation; without a norm there is a bias."""
    build = style.ops.conv if groups == 1 else style.ops.depthwise_conv
    conv = build(
        in_channels,
        out_channels,
        kernel,
        stride=stride,
        padding=tuple(size // 2 for size in kernel),
        groups=groups,
        bias=style.conv_bias or style.norm == "none",
    )
    activation = [style.build_activation()] if active else []
    return nn.Sequential(conv, style.build_norm(out_channels), *activation)


def build_residual_unit(
    in_channels: int, out_channels: int, *, style: Style, kernel: PerAxis, stride: PerAxis
) -> ResidualUnit:
    """Build two convolutions beside a shortcut (He et al., 2016, fig. 2)."""
    build = partial(build_conv, style=style, kernel=kernel)
    body = nn.Sequential(
        build(in_channels, out_channels, stride=stride),
        build(out_channels, out_channels, stride=style.ones, active=style.last_activation),
    )
    return _beside_shortcut(body, in_channels, out_channels, style=style, stride=stride)


def build_mobile_unit(
    in_channels: int, out_channels: int, *, style: Style, kernel: PerAxis, stride: PerAxis
) -> ResidualUnit:
    """Build a depthwise convolution, squeeze-and-excitation and a 1×1 one beside a shortcut.

    MobileNetV3's unit without expansion (Howard et al., 2019, fig. 4).
    """
    build, ones, active = partial(build_conv, style=style), style.ones, style.last_activation
    body = nn.Sequential(
        build(in_channels, in_channels, kernel=kernel, stride=stride, groups=in_channels),
        build_squeeze_excite(in_channels, style=style, squeeze=MOBILE_SQUEEZE, least=MOBILE_LEAST),
        build(in_channels, out_channels, kernel=ones, stride=ones, active=active),
    )
    return _beside_shortcut(body, in_channels, out_channels, style=style, stride=stride)


def _beside_shortcut(
    body: nn.Module, in_channels: int, out_channels: int, *, style: Style, stride: PerAxis
) -> ResidualUnit:
    """Add the shortcut: nothing, or what brings channels and size to the body's (option B)."""
    shortcut = nn.Sequential()
    if style.shortcut_pool and stride != style.ones:
        shortcut.append(style.ops.mean_pool(stride))
        stride = style.ones
    if style.projection == "always" or in_channels != out_channels or stride != style.ones:
        normed = style.shortcut_norm and style.norm != "none"
        conv = style.ops.conv(in_channels, out_channels, 1, stride=stride, bias=not normed)
        shortcut.extend([conv, style.build_norm(out_channels)] if normed else [conv])
    activation = style.build_activation() if style.sum_activation else nn.Identity()
    return ResidualUnit(body, shortcut, activation=activation)


def build_squeeze_excite(
    channels: int, *, style: Style, squeeze: int = SQUEEZE, least: int = 1
) -> SqueezeExcite:
    """Build mean over all voxels, narrow, ReLU, widen, sigmoid, as the gate of each channel."""
    narrow = max(least, channels // squeeze)
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

    Norms start as torch makes them: scale 1, shift 0. Uses torch's global generator only. Weights
    on the meta device, which hold nothing, stay so.
    Source: He et al., "Delving deep into rectifiers", 2015, eq. 10.
    """
    for module in net.modules():
        # of meta weights torch would import its compiler
        if isinstance(module, CONVOLUTIONS) and not module.weight.is_meta:
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
