"""The U-shape: levels down, nodes up, skips between them; one class for every kind of block.

A node (level, step) refines what comes up from (level + 1, step - 1), fused with the earlier steps
of its level; (level, 0) is the encoder's. Of L levels below the finest, a U-Net has the nodes with
level + step = L, a nested network (UNet++) all with level + step <= L.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import TypeAlias

from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from medseg3d.config.network import NestedConfig, Norm, ResidualConfig, UShapedConfig
from medseg3d.errors import GridError
from medseg3d.nets.blocks import PerAxis, Style, UpLevel, build_conv, build_squeeze_excite
from medseg3d.nets.levels import Level, Place, plan_heads, plan_levels, plan_nodes
from medseg3d.nets.ops import BATCH_NORMS


class UNet(nn.Module):
    """Encoder levels (fine to coarse), decoder nodes in order of computation, heads fine to coarse.

    `depth` is the number of levels below the finest that prediction goes down to. The size of the
    input must be a multiple of `divisor` along each axis.
    """

    def __init__(
        self,
        encoder: Sequence[nn.Module],
        decoder: Mapping[Place, UpLevel],
        *,
        heads: Mapping[Place, nn.Module],
        depth: int,
        in_channels: int,
        divisor: PerAxis,
        norm: Norm,
        checkpointing: bool,
    ) -> None:
        super().__init__()
        self.encoder = nn.ModuleList(encoder)
        self.decoder = nn.ModuleList(decoder.values())
        self.heads = nn.ModuleList(heads.values())
        self.places = [*decoder]
        self.head_places = [*heads]
        self.depth = depth
        self.in_channels = in_channels
        self.divisor = divisor
        self.norm = norm
        self.checkpointing = checkpointing

    def forward(
        self, image: Float[Tensor, "B C *spatial"]
    ) -> Float[Tensor, "B L *spatial"] | list[Float[Tensor, "B L ..."]]:
        """Give logits; with several heads and in training mode a list, fine to coarse.

        Raises:
            GridError: axes, channels or size do not fit the network.
        """
        require_fit(image, in_channels=self.in_channels, divisor=self.divisor)
        depth = len(self.encoder) - 1 if self.training else self.depth
        if depth == len(self.encoder) - 1:
            self._require_neighbours(image)
        features, made = image, {}
        for level, encode in zip(range(depth + 1), self.encoder, strict=False):
            features = made[level, 0] = self._run(encode, features)
        for (level, step), node in zip(self.places, self.decoder, strict=True):
            if level + step <= depth:
                skips = [made[level, k] for k in range(step) if (level, k) in made]
                made[level, step] = self._run(node, made[level + 1, step - 1], *skips)
        if self.training and len(self.heads) > 1:
            return [head(made[at]) for head, at in zip(self.heads, self.head_places, strict=True)]
        return self.heads[self.head_places.index((0, depth))](made[0, depth])

    def _run(self, part: nn.Module, *features: Tensor) -> Tensor:
        """Compute a level or node, keeping its inside for the gradients or not."""
        if not (self.checkpointing and self.training):
            return part(*features)
        return checkpoint(
            part,
            *features,
            use_reentrant=False,
            context_fn=lambda: (nullcontext(), _unmoved_statistics(part)),  # first, repeated
        )

    def _require_neighbours(self, image: Float[Tensor, "B C *spatial"]) -> None:
        """Refuse what would leave a norm with nothing to average over."""
        size = tuple(image.shape[2:])
        alone = self.norm == "batch" and self.training and len(image) == 1
        if (alone or self.norm == "instance") and size == self.divisor:
            raise GridError(
                f"size {size} leaves one voxel in the deepest level, where {self.norm} norm is "
                "undefined; double the size along one axis"
            )


def require_fit(
    image: Float[Tensor, "B C *spatial"], *, in_channels: int, divisor: PerAxis
) -> None:
    """Refuse what would fail deeper down in a network, or be broadcast silently.

    Raises:
        GridError: axes, channels or size do not fit the network.
    """
    dims = len(divisor)
    if image.ndim != dims + 2:
        raise GridError(
            f"a {dims}D network takes (batch, channel, {dims} spatial axes), "
            f"got shape {tuple(image.shape)}"
        )
    channels, size = image.shape[1], tuple(image.shape[2:])
    if channels != in_channels:
        raise GridError(
            f"the network was built for {in_channels} input channels, got {channels}; "
            "give the channels it was trained on, in their order"
        )
    if any(length % number for length, number in zip(size, divisor, strict=True)):
        raise GridError(
            f"size {size} is not a multiple of the network's divisor {divisor}; "
            "pad the image, or call predict_logits, which pads and crops back"
        )


@contextmanager
def _unmoved_statistics(part: nn.Module) -> Iterator[None]:
    """Let no batch norm count the same batch twice."""
    norms = [module for module in part.modules() if isinstance(module, BATCH_NORMS)]
    kept = [(norm, norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, momentum, count in kept:
            norm.momentum, norm.num_batches_tracked = momentum, count


BlockBuilder: TypeAlias = Callable[..., nn.Module]
"""`(in_channels, out_channels, *, style, kernel, stride)` -> a block that divides by the stride."""

Blocks: TypeAlias = tuple[BlockBuilder, BlockBuilder]
"""What the levels of the encoder and of the decoder are made of."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is known before the first module is built."""

    config: UShapedConfig
    style: Style
    levels: list[Level]
    blocks: Blocks


def build_unet(
    config: UShapedConfig, blocks: Blocks, *, spatial_dims: int, in_channels: int, out_channels: int
) -> UNet:
    """Build the U-shape that `config` describes, nested or not.

    Raises:
        ConfigError: strides or kernel sizes are of another number of axes.
    """
    style = Style.of(config, spatial_dims=spatial_dims)
    levels = plan_levels(config, spatial_dims)
    plan = Plan(config, style, levels, blocks)
    head = partial(style.ops.conv, out_channels=out_channels, kernel_size=1)
    depth = config.depth if isinstance(config, NestedConfig) else None
    return UNet(
        build_encoder(plan, in_channels),
        {at: build_node(plan, at[0], num_skips=skips) for at, skips in plan_nodes(config)},
        heads={at: head(levels[at[0]].channels) for at in plan_heads(config)},
        depth=depth or len(levels) - 1,
        in_channels=in_channels,
        divisor=tuple(map(prod, zip(*(level.stride for level in levels), strict=True))),
        norm=config.norm,
        checkpointing=config.activation_checkpointing,
    )


def build_encoder(plan: Plan, in_channels: int) -> list[nn.Sequential]:
    """Build the encoder's levels, with a stem before and dropout behind where asked for."""
    config, style, finest = plan.config, plan.style, plan.levels[0]
    stem = nn.Sequential()
    if isinstance(config, ResidualConfig) and config.stem:
        stem = build_conv(
            in_channels, finest.channels, style=style, kernel=finest.kernel, stride=style.ones
        )
        in_channels = finest.channels
    widths = [in_channels, *(level.channels for level in plan.levels)]
    encoder = [
        build_encoder_level(plan, level, in_channels=width)
        for level, width in zip(plan.levels, widths, strict=False)
    ]
    encoder[0] = nn.Sequential(*stem, *encoder[0])
    if config.dropout:
        encoder[-1].append(style.ops.dropout(config.dropout))
    return encoder


def build_encoder_level(plan: Plan, level: Level, *, in_channels: int) -> nn.Sequential:
    """Build blocks; before them goes a pooling, or into the first one the stride."""
    style = plan.style
    build = partial(plan.blocks[0], out_channels=level.channels, style=style, kernel=level.kernel)
    pooled = plan.config.downsampling == "pool" and level.stride != style.ones
    return nn.Sequential(
        *([style.ops.max_pool(level.stride)] if pooled else []),
        build(in_channels, stride=style.ones if pooled else level.stride),
        *(build(level.channels, stride=style.ones) for _ in range(level.encoder_blocks - 1)),
    )


def build_node(plan: Plan, at: int, *, num_skips: int) -> UpLevel:
    """Build up-sampling to level `at`, what its skips pass through, and blocks."""
    config, style, (level, deeper) = plan.config, plan.style, plan.levels[at : at + 2]
    up_channels, skip_channels = deeper.channels, num_skips * level.channels
    if config.upsampling == "transpose":
        up_channels = level.channels
        up = style.ops.transposed_conv(
            deeper.channels, up_channels, deeper.stride, stride=deeper.stride
        )
    else:
        mode, aligned = style.ops.interpolation, config.upsampling == "linear_aligned"
        up = nn.Upsample(scale_factor=deeper.stride, mode=mode, align_corners=aligned)
    skip = nn.Sequential()
    if config.attention == "se":
        skip.append(build_squeeze_excite(skip_channels, style=style))
    if config.skip_fusion == "add":
        skip.append(style.ops.conv(skip_channels, level.channels, 1))
    fused = level.channels if config.skip_fusion == "add" else skip_channels + up_channels
    build = partial(plan.blocks[1], out_channels=level.channels, style=style)
    widths = [fused] + [level.channels] * (level.decoder_blocks - 1)
    body = [build(width, kernel=level.kernel, stride=style.ones) for width in widths]
    return UpLevel(up, skip, fusion=config.skip_fusion, body=nn.Sequential(*body))
