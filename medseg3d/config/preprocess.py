"""What is done to a volume before a network sees it."""

from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, PositiveFloat

from medseg3d.config.section import Section


def _names_each_axis_once(orientation: str) -> str:
    named = [axis for letter in orientation for axis in ("LR", "PA", "IS") if letter in axis]
    if sorted(named) != ["IS", "LR", "PA"] or len(orientation) != 3:
        raise ValueError("an orientation is one letter each of L/R, P/A and I/S, such as RAS")
    return orientation


Orientation: TypeAlias = Annotated[str, AfterValidator(_names_each_axis_once)]


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
    intensity: Literal["none", "zscore", "zscore_nonzero"] = "zscore"
    """Per channel: mean 0 and deviation 1 over all voxels, or over those that are not 0."""
    nonfinite: Literal["refuse", "zero"] = "refuse"
    """What to do with images that hold NaN or infinity: an error, or 0 in their place."""
    volume: str | None = None
    """Which volume of DICOM series that hold several, such as `time-1`; null takes the only one."""
    tilt: Literal["refuse", "correct"] = "refuse"
    """What to do with DICOM of a tilted gantry: an error, or resampling at right angles."""
    gaps: Literal["refuse", "resample"] = "refuse"
    """What to do with DICOM slices that are not evenly spaced: an error, or interpolation."""
