"""The numbers of a U-shape, level by level and node by node."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from medseg3d.config.network import NestedConfig, PerLevel, PerLevelAndAxis, UShapedConfig
from medseg3d.errors import ConfigError
from medseg3d.nets.blocks import PerAxis

Place: TypeAlias = tuple[int, int]
"""Level and step of a node; step 0 is the encoder's."""


@dataclass(frozen=True, slots=True)
class Level:
    """The numbers of one level; `stride` leads down to it, the deepest has no decoder."""

    channels: int
    kernel: PerAxis
    stride: PerAxis
    encoder_blocks: int
    decoder_blocks: int


def plan_levels(config: UShapedConfig, spatial_dims: int) -> list[Level]:
    """Spell out the numbers of every level, fine to coarse.

    Raises:
        ConfigError: strides or kernel sizes are of another number of axes.
    """
    depth = len(config.channels)
    widest = (config.max_channels_3d if spatial_dims == 3 else None) or max(config.channels)
    strides = _per_level_and_axis(config.strides, depth - 1, spatial_dims)
    kernels = _per_level_and_axis(config.kernel_sizes, depth, spatial_dims)
    if wrong := [axes for axes in strides + kernels if len(axes) != spatial_dims]:
        raise ConfigError(
            f"strides and kernel_sizes of a {spatial_dims}D network have {spatial_dims} numbers "
            f"each, or one for all axes; got {wrong[0]}"
        )
    columns = (
        [min(channels, widest) for channels in config.channels],
        kernels,
        [(1,) * spatial_dims, *strides],
        _per_level(config.encoder_blocks, depth),
        [*_per_level(config.decoder_blocks, depth - 1), 0],
    )
    return [Level(*numbers) for numbers in zip(*columns, strict=True)]


def plan_nodes(config: UShapedConfig) -> Iterator[tuple[Place, int]]:
    """Give the place and number of skips of each decoder node, in order of computation.

    The first nodes of a nested network are all those of the shallower ones.
    """
    deepest, nested = len(config.channels) - 1, isinstance(config, NestedConfig)
    for depth in range(1 if nested else deepest, deepest + 1):
        for step in range(1, depth + 1):
            yield (depth - step, step), step if nested else 1


def plan_heads(config: UShapedConfig) -> list[Place]:
    """Give the nodes that have a head, fine to coarse; the first is the whole network's."""
    deepest, nested = len(config.channels) - 1, isinstance(config, NestedConfig)
    steps = range(deepest, 0, -1) if config.deep_supervision else [deepest]
    return [(0 if nested else deepest - step, step) for step in steps]


def _per_level(knob: PerLevel, count: int) -> list[int]:
    """Repeat a single number for every level."""
    return [knob] * count if isinstance(knob, int) else [*knob]


def _per_level_and_axis(knob: PerLevelAndAxis, count: int, spatial_dims: int) -> list[PerAxis]:
    """Repeat single numbers for every level and every axis."""
    entries = [knob] * count if isinstance(knob, int) else knob
    return [(entry,) * spatial_dims if isinstance(entry, int) else entry for entry in entries]
