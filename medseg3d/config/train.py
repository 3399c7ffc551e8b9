"""How a network is trained."""

from typing import Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
)

from medseg3d.config.section import Section


class AugmentConfig(Section):
    """Random changes to training patches; every probability is per patch."""

    mirror_axes: tuple[Literal[0, 1, 2], ...] = ()
    """Axes flipped with probability one half; not for labels that tell left from right."""
    affine_probability: float = Field(default=0.3, ge=0, le=1)
    """How often a patch is rotated and scaled, both in one linear interpolation."""
    rotation_degrees: NonNegativeFloat = 15.0
    """Largest angle about each axis."""
    scale: tuple[PositiveFloat, PositiveFloat] = (0.85, 1.18)
    """Range of the zoom factor."""
    noise_probability: float = Field(default=0.15, ge=0, le=1)
    """How often Gaussian noise is added."""
    noise_deviation: NonNegativeFloat = 0.1
    """Largest standard deviation of that noise, in units of the normalised image."""
    brightness_probability: float = Field(default=0.15, ge=0, le=1)
    """How often each channel is scaled by a factor of 0.75 to 1.25."""
    gamma_probability: float = Field(default=0.15, ge=0, le=1)
    """How often each channel's grey scale is bent by a gamma of 0.7 to 1.5."""

    @field_validator("scale")
    @classmethod
    def _rising(cls, scale: tuple[float, float]) -> tuple[float, float]:
        if scale[0] > scale[1]:
            raise ValueError("a range is given as smallest, largest")
        return scale

    @field_validator("mirror_axes")
    @classmethod
    def _each_axis_once(cls, axes: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(axes)) < len(axes):
            raise ValueError("an axis is named twice")
        return axes


class TrainConfig(Section):
    """Patches, optimisation, and how often to look and save."""

    patch_size: tuple[PositiveInt, ...] = (64, 64, 64)
    """Training crop along the preprocessed axes; two numbers for a 2D network."""
    batch_size: PositiveInt = 2
    """Patches per step."""
    epochs: PositiveInt = 100
    """Number of epochs."""
    steps_per_epoch: PositiveInt = 100
    """Steps between two entries of the log; validation and checkpoints count in epochs."""
    foreground_share: float = Field(default=0.5, ge=0, le=1)
    """Share of patches centred on a labelled voxel, each label equally often."""
    augment: AugmentConfig = AugmentConfig()
    """Random changes to the patches."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """AdamW, or SGD with Nesterov momentum 0.99."""
    learning_rate: PositiveFloat = 1e-3
    """Highest learning rate, reached after the warm-up."""
    warmup_steps: NonNegativeInt = 0
    """Steps over which the learning rate rises linearly."""
    weight_decay: NonNegativeFloat = 1e-4
    """Decoupled (AdamW) or L2 (SGD) weight decay."""
    clip_norm: PositiveFloat | None = 12.0
    """Largest norm of the gradient; null does not clip."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of the forward pass; fp32 is repeatable bit by bit on a CPU."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train."""
    num_workers: NonNegativeInt = 0
    """Processes that draw patches; the result does not depend on it."""
    seed: int = Field(default=0, ge=0)
    """Seed of weights, patches and augmentation."""
    validate_every: PositiveInt = 5
    """Epochs between two validations."""
    checkpoint_every: PositiveInt = 1
    """Epochs between two checkpoints."""
