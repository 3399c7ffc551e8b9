"""What training minimises."""

from typing import Literal

from pydantic import Field, NonNegativeFloat, model_validator

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
    focal_gamma: float = Field(default=2.0, ge=1)
    """How much `focal` turns away from voxels that are right already."""

    @model_validator(mode="after")
    def _something_counts(self) -> "LossConfig":
        terms = {self.region_term: self.region_weight, self.voxel_term: self.voxel_weight}
        if not any(weight for term, weight in terms.items() if term != "none"):
            raise ValueError("nothing is minimised: region_term or voxel_term needs a weight")
        return self
