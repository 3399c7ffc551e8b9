"""What training minimises."""

from typing import Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat

from medseg3d.config.section import Section


class LossConfig(Section):
    """A term that compares regions plus one that compares voxels."""

    region_term: Literal["dice", "tversky", "none"] = "dice"
    """Soft overlap of each output channel but the background's."""
    voxel_term: Literal["cross_entropy", "focal", "none"] = "cross_entropy"
    """Mean over voxels: of the softmax over values, or of the sigmoid of each region."""
    region_weight: NonNegativeFloat = 1.0
    """Factor of the region term."""
    voxel_weight: NonNegativeFloat = 1.0
    """Factor of the voxel term."""
    per_batch: bool = True
    """Overlap of the whole batch at once, or the mean of each patch's own."""
    tversky_false_positives: float = Field(default=0.3, ge=0, le=1)
    """Weight of false positives in `tversky`; 0.5 and 0.5 is Dice."""
    tversky_false_negatives: float = Field(default=0.7, ge=0, le=1)
    """Weight of false negatives in `tversky`."""
    focal_gamma: PositiveFloat = 2.0
    """How much `focal` turns away from voxels that are right already."""
