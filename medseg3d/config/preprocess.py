"""What is done to a volume before a network sees it."""

from collections.abc import Callable
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import (
    AfterValidator,
    Field,
    FiniteFloat,
    PositiveFloat,
    ValidationError,
    WrapValidator,
    field_validator,
)

from medseg3d.config.section import Section

SCALES: Final = (
    "expected none, zscore, zscore_nonzero, or a fixed scale such as "
    "{clip: [-200, 300], mean: 50, deviation: 80}; or a list of these, one per channel"
)


def _names_each_axis_once(orientation: str) -> str:
    named = [axis for letter in orientation for axis in ("LR", "PA", "IS") if letter in axis]
    if sorted(named) != ["IS", "LR", "PA"] or len(orientation) != 3:
        raise ValueError("an orientation is one letter each of L/R, P/A and I/S, such as RAS")
    return orientation


def _in_one_sentence(given: Any, validate: Callable[[Any], Any]) -> Any:
    try:
        return validate(given)
    except ValidationError as error:  # else one fault for each thing that it is not
        raise ValueError(SCALES) from error


Orientation: TypeAlias = Annotated[str, AfterValidator(_names_each_axis_once)]


class FixedScale(Section):
    """The same scale for every image, where grey values mean the same in each, as in CT."""

    clip: tuple[FiniteFloat, FiniteFloat] | None = None
    """Smallest and largest value that counts, what is beyond becomes it; null clips nothing."""
    mean: FiniteFloat
    """Value that becomes 0."""
    deviation: PositiveFloat
    """Distance from it that becomes 1."""

    @field_validator("clip")
    @classmethod
    def _rising(cls, clip: tuple[float, float] | None) -> tuple[float, float] | None:
        if clip and clip[0] >= clip[1]:
            raise ValueError("a range is given as smallest, largest")
        return clip


Scale: TypeAlias = Literal["none", "zscore", "zscore_nonzero"] | FixedScale
"""How the grey values of one channel are brought to a scale that networks share."""

Intensity: TypeAlias = Scale | Annotated[tuple[Scale, ...], Field(min_length=1)]
"""One scale for all channels, or one for each."""


class PreprocessConfig(Section):
    """Reorient, crop, resample, normalise; all of it is undone on the way back."""

    orientation: Orientation | None = "RAS"
    """Axis order and directions the network is fed in; null keeps the file's own."""
    crop: Literal["none", "nonzero"] = "none"
    """`nonzero` cuts away the border in which every channel is 0 (skull-stripped brains)."""
    spacing_mm: tuple[PositiveFloat, PositiveFloat, PositiveFloat] | None = None
    """Voxel edges after resampling, along the axes of `orientation`; null keeps the file's own."""
    interpolation: Literal["linear", "bspline"] = "linear"
    """How images are resampled; label maps go through linear interpolation of each label."""
    intensity: Annotated[Intensity, WrapValidator(_in_one_sentence)] = "zscore"
    """Per channel: mean 0 and deviation 1 over all voxels (`zscore`, the default), or over those
    that are not 0 (`zscore_nonzero`); or a fixed scale. One for all channels, or a list."""
    nonfinite: Literal["refuse", "zero"] = "refuse"
    """What to do with images that hold NaN or infinity: an error, or 0 in their place."""
    volume: str | None = None
    """Which volume of DICOM series that hold several, such as `time-1`; null takes the only one."""
    tilt: Literal["refuse", "correct"] = "refuse"
    """What to do with DICOM of a tilted gantry: an error, or resampling at right angles."""
    gaps: Literal["refuse", "resample"] = "refuse"
    """What to do with DICOM slices that are not evenly spaced: an error, or interpolation."""

    def scales(self, num_channels: int) -> tuple[Scale, ...]:
        """Spell out the scale of each channel.

        Raises:
            ValueError: there are scales for another number of channels.
        """
        if not isinstance(self.intensity, tuple):
            return (self.intensity,) * num_channels
        if len(self.intensity) != num_channels:
            raise ValueError(
                f"preprocess.intensity has {len(self.intensity)} entries, for {num_channels} "
                "channels; give one for all, or one for each"
            )
        return self.intensity
