"""Which network, by `kind`, and its knobs."""

from typing import Annotated, Literal, TypeAlias

from pydantic import Field, JsonValue, PositiveInt, model_validator

from medseg3d.config.section import Section

Norm: TypeAlias = Literal["batch", "instance", "group", "none"]
Activation: TypeAlias = Literal["relu", "leaky_relu", "silu", "hard_swish"]
Downsampling: TypeAlias = Literal["pool", "stride"]
Upsampling: TypeAlias = Literal["transpose", "linear", "linear_aligned"]
Fusion: TypeAlias = Literal["concat", "concat_up_first", "add"]
Projection: TypeAlias = Literal["auto", "always"]
Channels: TypeAlias = Annotated[tuple[PositiveInt, ...], Field(min_length=2)]
PerLevel: TypeAlias = PositiveInt | tuple[PositiveInt, ...]
PerLevelAndAxis: TypeAlias = PositiveInt | tuple[PerLevel, ...]


class UShapedConfig(Section):
    """What every U-shaped network can be asked for; levels count from fine to coarse."""

    channels: Channels
    """Channels of each level."""
    max_channels_3d: PositiveInt | None = None
    """Most channels of any level of a 3D network; null sets no limit."""
    encoder_blocks: PerLevel
    """Blocks in each encoder level: a number, or one per level."""
    decoder_blocks: PerLevel
    """Blocks in each decoder level: a number, or one per level but the deepest."""
    skip_fusion: Fusion
    """Concatenate [skip, up-sampled], or the other way round, or add a 1×1 convolution of it."""
    norm: Norm = "batch"
    """Normalisation after each convolution of a block; `group` forms up to 8 groups."""
    activation: Activation = "relu"
    """Non-linearity of the blocks; `leaky_relu` has slope 0.01."""
    conv_bias: bool = False
    """Bias in convolutions that a norm follows; all others always have one."""
    downsampling: Downsampling = "pool"
    """Max-pooling before a level, or a strided first convolution in it."""
    upsampling: Upsampling = "transpose"
    """Transposed convolution to the skip's channels; or linear interpolation, which keeps them,
    between voxel centres or, aligned, from corner voxel to corner voxel (align_corners)."""
    attention: Literal["none", "se"] = "none"
    """Squeeze-and-excitation of each skip."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of channels of the deepest level that training sets to 0."""
    strides: PerLevelAndAxis = 2
    """Downsampling: a number, or an entry per step between levels, a number or one per axis."""
    kernel_sizes: PerLevelAndAxis = 3
    """Odd kernel: a number, or an entry per level, a number or one per axis."""
    deep_supervision: bool = False
    """While training, give a list of logits: of every decoder level, fine to coarse; of a nested
    network those of every node of the finest level, the deepest first."""
    activation_checkpointing: bool = False
    """Keep only what passes between levels, and compute the rest again for the gradients."""

    @model_validator(mode="after")
    def _one_entry_per_level(self) -> "UShapedConfig":
        levels = len(self.channels)
        needed = {
            "encoder_blocks": levels,
            "decoder_blocks": levels - 1,
            "strides": levels - 1,
            "kernel_sizes": levels,
        }
        for name, count in needed.items():
            entries = getattr(self, name)
            if isinstance(entries, tuple) and len(entries) != count:
                raise ValueError(
                    f"{name} has {len(entries)} entries, {levels} levels of channels need {count}"
                )
        return self

    @model_validator(mode="after")
    def _knobs_go_together(self) -> "UShapedConfig":
        if self.upsampling != "transpose" and self.skip_fusion == "add":
            raise ValueError(
                f"skip_fusion 'add' cannot go with upsampling '{self.upsampling}', which does not "
                "bring the channels to the skip's; choose upsampling 'transpose' or skip_fusion "
                "'concat'"
            )
        if self.deep_supervision and len(self.channels) < 3:
            raise ValueError("deep_supervision needs at least three levels of channels, got two")
        if any(number % 2 == 0 for number in _numbers(self.kernel_sizes)):
            raise ValueError(f"kernel_sizes must be odd, got {self.kernel_sizes}")
        return self


class ResidualConfig(UShapedConfig):
    """What a network of residual units can be asked for besides: which residual unit it is."""

    projection: Projection = "auto"
    """A 1×1 convolution in the shortcut where channels or size change, or in every unit."""
    shortcut_norm: bool = True
    """Norm after that convolution, which then has no bias."""
    shortcut_pool: bool = False
    """Where a unit is strided, average-pool in its shortcut (ResNet-D) instead of striding it."""
    last_activation: bool = False
    """Non-linearity after the last convolution of a unit, before the sum."""
    sum_activation: bool = True
    """Non-linearity after the sum."""
    stem: bool = False
    """A convolution to the finest level's channels before the first unit."""

    @model_validator(mode="after")
    def _shortcut_is_strided(self) -> "ResidualConfig":
        if self.shortcut_pool and self.downsampling == "pool":
            raise ValueError(
                "shortcut_pool cannot go with downsampling 'pool', where no unit is strided; "
                "choose downsampling 'stride'"
            )
        return self


class NestedConfig(UShapedConfig):
    """What a nested network can be asked for besides; `decoder_blocks` counts a node's blocks."""

    depth: PositiveInt | None = None
    """Head that predicts, 1 the shallowest, null the deepest; only what it needs is computed.
    Training computes everything. Needs deep_supervision."""

    @model_validator(mode="after")
    def _depth_has_a_head(self) -> "NestedConfig":
        deepest = len(self.channels) - 1
        if self.depth is None or self.depth == deepest:
            return self
        if self.depth > deepest:
            raise ValueError(
                f"depth is {self.depth}; {deepest + 1} levels have depths 1..{deepest}"
            )
        if not self.deep_supervision:
            raise ValueError(
                f"depth {self.depth} has no head without deep_supervision, only {deepest} has"
            )
        return self


class UNetConfig(UShapedConfig):
    """U-Net (Ronneberger et al., 2015) with batch norm; a block is one convolution."""

    kind: Literal["unet"] = "unet"
    """The network."""
    channels: Channels = (64, 128, 256, 512, 1024)
    encoder_blocks: PerLevel = 2
    decoder_blocks: PerLevel = 2
    skip_fusion: Fusion = "concat"


class ResUNetConfig(ResidualConfig):
    """Residual U-Net; a block is a residual unit of two convolutions."""

    kind: Literal["resunet"] = "resunet"
    """The network."""
    channels: Channels = (32, 64, 128, 256, 512)
    encoder_blocks: PerLevel = 2
    decoder_blocks: PerLevel = 1
    skip_fusion: Fusion = "add"


class ResUNetShortcutConfig(ResidualConfig):
    """U-Net with a 1×1 convolution beside each encoder level; a decoder block is a convolution."""

    kind: Literal["resunet_shortcut"] = "resunet_shortcut"
    """The network."""
    channels: Channels = (64, 128, 256, 512, 1024)
    encoder_blocks: PerLevel = 1
    decoder_blocks: PerLevel = 2
    skip_fusion: Fusion = "concat_up_first"
    projection: Projection = "always"
    shortcut_norm: bool = False
    last_activation: bool = True
    sum_activation: bool = False


class ResUNetLinearConfig(ResidualConfig):
    """Residual U-Net without norms, with linear up-sampling; a block is a residual unit."""

    kind: Literal["resunet_linear"] = "resunet_linear"
    """The network."""
    channels: Channels = (64, 128, 256)
    encoder_blocks: PerLevel = 1
    decoder_blocks: PerLevel = 1
    skip_fusion: Fusion = "concat_up_first"
    norm: Norm = "none"
    upsampling: Upsampling = "linear"


class UNetPlusPlusConfig(NestedConfig):
    """UNet++ (Zhou et al., 2018): a node at every level and step; a block is one convolution."""

    kind: Literal["unetplusplus"] = "unetplusplus"
    """The network."""
    channels: Channels = (32, 64, 128, 256, 512)
    encoder_blocks: PerLevel = 2
    decoder_blocks: PerLevel = 2
    skip_fusion: Fusion = "concat"
    conv_bias: bool = True
    upsampling: Upsampling = "linear_aligned"


class ResUNetPlusPlusConfig(NestedConfig, ResidualConfig):
    """UNet++ whose nodes are residual units of two convolutions."""

    kind: Literal["resunetplusplus"] = "resunetplusplus"
    """The network."""
    channels: Channels = (32, 64, 128, 256, 512)
    encoder_blocks: PerLevel = 1
    decoder_blocks: PerLevel = 1
    skip_fusion: Fusion = "concat"
    upsampling: Upsampling = "linear_aligned"


class ResEncConfig(ResidualConfig):
    """nnU-Net's residual encoder and plain decoder (Isensee et al., 2024).

    M and L are one network: nnU-Net's plans for more memory enlarge patch and batch. An encoder
    block is a residual unit, a decoder block one convolution.
    """

    kind: Literal["resenc_m", "resenc_l"] = "resenc_m"
    """The network."""
    channels: Channels = (32, 64, 128, 256, 512, 512)
    max_channels_3d: PositiveInt | None = 320
    encoder_blocks: PerLevel = (1, 3, 4, 6, 6, 6)
    decoder_blocks: PerLevel = 1
    skip_fusion: Fusion = "concat_up_first"
    norm: Norm = "instance"
    activation: Activation = "leaky_relu"
    conv_bias: bool = True
    downsampling: Downsampling = "stride"
    deep_supervision: bool = True
    shortcut_pool: bool = True
    stem: bool = True


class MobileResUNetConfig(ResidualConfig):
    """Residual U-Net for real time, of MobileNetV3's units (Howard et al., 2019) without expansion.

    A block is a depthwise-separable convolution with squeeze-and-excitation. The finest level,
    where the time goes, is narrow.
    """

    kind: Literal["mobile_resunet"] = "mobile_resunet"
    """The network."""
    channels: Channels = (16, 64, 128, 256, 512)
    encoder_blocks: PerLevel = 2
    decoder_blocks: PerLevel = 1
    skip_fusion: Fusion = "add"
    activation: Activation = "hard_swish"
    sum_activation: bool = False
    stem: bool = True


class MonaiConfig(Section):
    """A network of MONAI's, by its own arguments; needs the extra `train`."""

    kind: Literal["monai"] = "monai"
    """The network."""
    name: str
    """Class in monai.networks.nets, such as SegResNet."""
    arguments: dict[str, JsonValue] = Field(default_factory=dict)
    """What it is built with besides spatial_dims, in_channels and out_channels."""
    divisor: PositiveInt = 32
    """Image sizes must be multiples of it; MONAI's networks do not say theirs."""


def _numbers(entries: PerLevelAndAxis) -> list[int]:
    """List the numbers of a knob, whatever its depth."""
    if isinstance(entries, int):
        return [entries]
    return [number for entry in entries for number in _numbers(entry)]


UShaped: TypeAlias = (
    UNetConfig
    | ResUNetConfig
    | ResUNetShortcutConfig
    | ResUNetLinearConfig
    | UNetPlusPlusConfig
    | ResUNetPlusPlusConfig
    | ResEncConfig
    | MobileResUNetConfig
)
NetworkConfig: TypeAlias = Annotated[UShaped | MonaiConfig, Field(discriminator="kind")]
