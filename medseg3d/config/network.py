"""Which network, by `kind`, and its knobs."""

from typing import Annotated, Literal, TypeAlias

from pydantic import Field, PositiveInt, model_validator

from medseg3d.config.section import Section

Norm: TypeAlias = Literal["batch", "instance", "group", "none"]
Activation: TypeAlias = Literal["relu", "leaky_relu", "silu"]
Fusion: TypeAlias = Literal["concat", "add"]
Channels: TypeAlias = Annotated[tuple[PositiveInt, ...], Field(min_length=2)]
PerLevel: TypeAlias = PositiveInt | tuple[PositiveInt, ...]
PerLevelAndAxis: TypeAlias = PositiveInt | tuple[PerLevel, ...]


class UShapedConfig(Section):
    """What every U-shaped network can be asked for; levels count from fine to coarse."""

    channels: Channels
    """Channels of each level."""
    encoder_blocks: PerLevel
    """Blocks in each encoder level: a number, or one per level."""
    decoder_blocks: PerLevel
    """Blocks in each decoder level: a number, or one per level but the deepest."""
    skip_fusion: Fusion
    """Concatenate [skip, up-sampled], or add a 1×1 convolution of the skip."""
    norm: Norm = "batch"
    """Normalisation after each convolution of a block; `group` forms up to 8 groups."""
    activation: Activation = "relu"
    """Non-linearity of the blocks; `leaky_relu` has slope 0.01."""
    conv_bias: bool = False
    """Bias in convolutions that a norm follows; all others always have one."""
    downsampling: Literal["pool", "stride"] = "pool"
    """Max-pooling before a level, or a strided first convolution in it."""
    upsampling: Literal["transpose", "linear"] = "transpose"
    """Transposed convolution to the skip's channels, or linear interpolation, which keeps them."""
    attention: Literal["none", "se"] = "none"
    """Squeeze-and-excitation of each skip."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of channels of the deepest level that training sets to 0."""
    strides: PerLevelAndAxis = 2
    """Downsampling: a number, or an entry per step between levels, a number or one per axis."""
    kernel_sizes: PerLevelAndAxis = 3
    """Odd kernel: a number, or an entry per level, a number or one per axis."""
    deep_supervision: bool = False
    """While training, give the logits of every decoder level, fine to coarse."""

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
        if self.upsampling == "linear" and self.skip_fusion == "add":
            raise ValueError(
                "skip_fusion 'add' cannot go with upsampling 'linear', which does not bring the "
                "channels to the skip's; choose upsampling 'transpose' or skip_fusion 'concat'"
            )
        if self.deep_supervision and len(self.channels) < 3:
            raise ValueError("deep_supervision needs at least three levels of channels, got two")
        if any(number % 2 == 0 for number in _numbers(self.kernel_sizes)):
            raise ValueError(f"kernel_sizes must be odd, got {self.kernel_sizes}")
        return self


class UNetConfig(UShapedConfig):
    """U-Net (Ronneberger et al., 2015) with batch norm; a block is one convolution."""

    kind: Literal["unet"] = "unet"
    """The network."""
    channels: Channels = (64, 128, 256, 512, 1024)
    """Channels of each level."""
    encoder_blocks: PerLevel = 2
    """Convolutions in each encoder level: a number, or one per level."""
    decoder_blocks: PerLevel = 2
    """Convolutions in each decoder level: a number, or one per level but the deepest."""
    skip_fusion: Fusion = "concat"
    """Concatenate [skip, up-sampled], or add a 1×1 convolution of the skip."""


class ResUNetConfig(UShapedConfig):
    """Residual U-Net; a block is a residual unit of two convolutions."""

    kind: Literal["resunet"] = "resunet"
    """The network."""
    channels: Channels = (32, 64, 128, 256, 512)
    """Channels of each level."""
    encoder_blocks: PerLevel = 2
    """Residual units in each encoder level: a number, or one per level."""
    decoder_blocks: PerLevel = 1
    """Residual units in each decoder level: a number, or one per level but the deepest."""
    skip_fusion: Fusion = "add"
    """Concatenate [skip, up-sampled], or add a 1×1 convolution of the skip."""


def _numbers(entries: PerLevelAndAxis) -> list[int]:
    """List the numbers of a knob, whatever its depth."""
    if isinstance(entries, int):
        return [entries]
    return [number for entry in entries for number in _numbers(entry)]


NetworkConfig: TypeAlias = Annotated[UNetConfig | ResUNetConfig, Field(discriminator="kind")]
