"""Random changes to training patches."""

from typing import Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, field_validator

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
