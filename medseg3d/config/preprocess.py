"""What is done to a volume before a network sees it."""

from typing import Literal

from pydantic import PositiveFloat

from medseg3d.config.section import Section


class PreprocessConfig(Section):
    """Reorient, crop, resample, normalise; all of it is undone on the way back."""

    orientation: str | None = "RAS"
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
