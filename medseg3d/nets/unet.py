"""The U-shape: levels down, levels up, skips between them; one class for every kind of block."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from math import prod
from typing import TypeAlias

from jaxtyping import Float
from torch import Tensor, nn

from medseg3d.config.network import Norm, PerLevel, PerLevelAndAxis, UShapedConfig
from medseg3d.errors import ConfigError, GridError
from medseg3d.nets.blocks import FUSIONS, PerAxis, Style, UpLevel, build_squeeze_excite


class UNet(nn.Module):
    """Encoder levels (fine to coarse), decoder levels (coarse to fine), heads (fine to coarse).

    The size of the input must be a multiple of `divisor` along each axis.
    """

    def __init__(
        self,
        encoder: Sequence[nn.Module],
        decoder: Sequence[UpLevel],
        *,
        heads: Sequence[nn.Module],
        in_channels: int,
        divisor: PerAxis,
        norm: Norm,
    ) -> None:
        super().__init__()
        self.encoder = nn.ModuleList(encoder)
        self.decoder = nn.ModuleList(decoder)
        self.heads = nn.ModuleList(heads)
        self.in_channels = in_channels
        self.divisor = divisor
        self.norm = norm

    def forward(
        self, image: Float[Tensor, "B C *spatial"]
    ) -> Float[Tensor, "B L *spatial"] | list[Float[Tensor, "B L ..."]]:
        """Give logits; with several heads and in training mode a list, fine to coarse.

        Raises:
            GridError: axes, channels or size do not fit the network.
        """
        self._require_fit(image)
        features, encoded = image, []
        for level in self.encoder:
            features = level(features)
            encoded.append(features)
        decoded = []
        for level, skip in zip(self.decoder, reversed(encoded[:-1]), strict=True):
            features = level(features, skip)
            decoded.append(features)
        if self.training and len(self.heads) > 1:
            return [head(one) for head, one in zip(self.heads, reversed(decoded), strict=True)]
        return self.heads[0](features)

    def _require_fit(self, image: Float[Tensor, "B C *spatial"]) -> None:
        """Refuse what would fail deeper down, or be broadcast silently."""
        dims = len(self.divisor)
        if image.ndim != dims + 2:
            raise GridError(
                f"a {dims}D network takes (batch, channel, {dims} spatial axes), "
                f"got shape {tuple(image.shape)}"
            )
        batch, channels, size = image.shape[0], image.shape[1], tuple(image.shape[2:])
        if channels != self.in_channels:
            raise GridError(
                f"the network was built for {self.in_channels} input channels, got {channels}; "
                "give the channels it was trained on, in their order"
            )
        if any(length % divisor for length, divisor in zip(size, self.divisor, strict=True)):
            raise GridError(
                f"size {size} is not a multiple of the network's divisor {self.divisor}; "
                "pad the image, or call predict_logits, which pads and crops back"
            )
        lonely = self.norm == "instance" or (self.norm == "batch" and self.training and batch == 1)
        if lonely and size == self.divisor:
            raise GridError(
                f"size {size} leaves one voxel in the deepest level, where {self.norm} norm is "
                "undefined; double the size along one axis"
            )


BlockBuilder: TypeAlias = Callable[..., nn.Module]
"""`(in_channels, out_channels, *, style, kernel, stride)` -> a block that divides by the stride."""


@dataclass(frozen=True, slots=True)
class Level:
    """The numbers of one level; `stride` leads down to it, the deepest has no decoder."""

    channels: int
    kernel: PerAxis
    stride: PerAxis
    encoder_blocks: int
    decoder_blocks: int


def build_unet(
    config: UShapedConfig,
    build_block: BlockBuilder,
    *,
    spatial_dims: int,
    in_channels: int,
    out_channels: int,
) -> UNet:
    """Build the U-shape that `config` describes from one kind of block.

    Raises:
        ConfigError: strides or kernel sizes are of another number of axes.
    """
    style = Style(
        spatial_dims=spatial_dims,
        norm=config.norm,
        activation=config.activation,
        conv_bias=config.conv_bias,
    )
    levels = plan_levels(config, spatial_dims)
    encoder = [
        build_encoder_level(
            config, level, style=style, build_block=build_block, in_channels=channels
        )
        for level, channels in zip(levels, (in_channels, *config.channels[:-1]), strict=True)
    ]
    if config.dropout:
        encoder[-1].append(style.ops.dropout(config.dropout))
    decoder = [
        build_decoder_level(config, level, style=style, build_block=build_block, deeper=deeper)
        for level, deeper in reversed([*pairwise(levels)])
    ]
    supervised = levels[:-1] if config.deep_supervision else levels[:1]
    return UNet(
        encoder,
        decoder,
        heads=[style.ops.conv(level.channels, out_channels, 1) for level in supervised],
        in_channels=in_channels,
        divisor=tuple(map(prod, zip(*(level.stride for level in levels), strict=True))),
        norm=config.norm,
    )


def build_encoder_level(
    config: UShapedConfig,
    level: Level,
    *,
    style: Style,
    build_block: BlockBuilder,
    in_channels: int,
) -> nn.Sequential:
    """Build blocks; before them goes a pooling, or into the first one the stride."""
    build = partial(build_block, out_channels=level.channels, style=style, kernel=level.kernel)
    pooled = config.downsampling == "pool" and level.stride != style.ones
    return nn.Sequential(
        *([style.ops.max_pool(level.stride)] if pooled else []),
        build(in_channels, stride=style.ones if pooled else level.stride),
        *(build(level.channels, stride=style.ones) for _ in range(level.encoder_blocks - 1)),
    )


def build_decoder_level(
    config: UShapedConfig, level: Level, *, style: Style, build_block: BlockBuilder, deeper: Level
) -> UpLevel:
    """Build up-sampling from the deeper level, what the skip passes through, and blocks."""
    if config.upsampling == "transpose":
        up_channels = level.channels
        up = style.ops.transposed_conv(
            deeper.channels, up_channels, deeper.stride, stride=deeper.stride
        )
    else:
        up_channels = deeper.channels
        up = nn.Upsample(scale_factor=deeper.stride, mode=style.ops.interpolation)
    skip = nn.Sequential()
    if config.attention == "se":
        skip.append(build_squeeze_excite(level.channels, style=style))
    if config.skip_fusion == "add":
        skip.append(style.ops.conv(level.channels, level.channels, 1))
    fused = level.channels if config.skip_fusion == "add" else level.channels + up_channels
    blocks = [
        build_block(channels, level.channels, style=style, kernel=level.kernel, stride=style.ones)
        for channels in [fused] + [level.channels] * (level.decoder_blocks - 1)
    ]
    return UpLevel(up, skip, fuse=FUSIONS[config.skip_fusion], body=nn.Sequential(*blocks))


def plan_levels(config: UShapedConfig, spatial_dims: int) -> list[Level]:
    """Spell out the numbers of every level, fine to coarse.

    Raises:
        ConfigError: strides or kernel sizes are of another number of axes.
    """
    depth = len(config.channels)
    strides = _per_level_and_axis(config.strides, depth - 1, spatial_dims)
    kernels = _per_level_and_axis(config.kernel_sizes, depth, spatial_dims)
    if wrong := [axes for axes in strides + kernels if len(axes) != spatial_dims]:
        raise ConfigError(
            f"strides and kernel_sizes of a {spatial_dims}D network have {spatial_dims} numbers "
            f"each, or one for all axes; got {wrong[0]}"
        )
    encoder_blocks = _per_level(config.encoder_blocks, depth)
    decoder_blocks = _per_level(config.decoder_blocks, depth - 1)
    return [
        Level(*numbers)
        for numbers in zip(
            config.channels,
            kernels,
            [(1,) * spatial_dims, *strides],
            encoder_blocks,
            [*decoder_blocks, 0],
            strict=True,
        )
    ]


def _per_level(knob: PerLevel, count: int) -> list[int]:
    """Repeat a single number for every level."""
    return [knob] * count if isinstance(knob, int) else [*knob]


def _per_level_and_axis(knob: PerLevelAndAxis, count: int, spatial_dims: int) -> list[PerAxis]:
    """Repeat single numbers for every level and every axis."""
    entries = [knob] * count if isinstance(knob, int) else knob
    return [(entry,) * spatial_dims if isinstance(entry, int) else entry for entry in entries]
