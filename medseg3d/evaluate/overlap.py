"""How much two masks share."""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, Shaped

from medseg3d.errors import GridError, LabelError

Mask: TypeAlias = Shaped[np.ndarray, "..."]
"""A boolean array of any number of axes; numbers are taken where all of them are 0 or 1."""


@dataclass(frozen=True, slots=True)
class Overlap:
    """Voxels inside both masks (`tp`), one of them (`fp` predicted, `fn` reference), or neither."""

    tp: int
    fp: int
    fn: int
    tn: int

    @property
    def in_reference(self) -> int:
        """Voxels of the reference."""
        return self.tp + self.fn

    @property
    def in_predicted(self) -> int:
        """Voxels of the prediction."""
        return self.tp + self.fp

    @property
    def dice(self) -> float:
        """Twice the shared voxels over the voxels of both; 1 where both are empty."""
        return _share(2 * self.tp, self.in_reference + self.in_predicted, of_nothing=1.0)

    @property
    def sensitivity(self) -> float:
        """Share of the reference that was found; of an empty one 1 if nothing was, else 0."""
        return _share(self.tp, self.in_reference, of_nothing=0.0 if self.fp else 1.0)

    @property
    def specificity(self) -> float:
        """Share of what lies outside the reference that was left out; 0 where nothing does."""
        return _share(self.tn, self.tn + self.fp, of_nothing=0.0)


def _share(part: int, whole: int, *, of_nothing: float) -> float:
    return part / whole if whole else of_nothing


def count_overlap(reference: Mask, predicted: Mask, *, num_voxels: int | None = None) -> Overlap:
    """Count the voxels that two masks share and do not.

    `num_voxels` is the size of the volume that they were cut out of; what was cut off is outside
    both.

    Raises:
        GridError: the shapes differ.
        LabelError: an array is no mask.
    """
    reference, predicted = paired_masks(reference, predicted)
    tp = int(np.count_nonzero(reference & predicted))
    fn = int(np.count_nonzero(reference)) - tp
    fp = int(np.count_nonzero(predicted)) - tp
    return Overlap(tp, fp, fn, (num_voxels or reference.size) - tp - fp - fn)


def dice(reference: Mask, predicted: Mask) -> float:
    """Measure twice the shared voxels over the voxels of both.

    Two empty masks agree: 1. An empty and a non-empty one share nothing: 0.

    Raises:
        GridError: the shapes differ.
        LabelError: an array is no mask.
    """
    return count_overlap(reference, predicted).dice


def paired_masks(
    reference: Mask, predicted: Mask
) -> tuple[Bool[np.ndarray, "..."], Bool[np.ndarray, "..."]]:
    """Give two masks as booleans of one shape.

    Raises:
        GridError: the shapes differ.
        LabelError: an array is no mask.
    """
    if reference.shape != predicted.shape:
        raise GridError(
            f"the reference mask has shape {reference.shape}, the predicted one {predicted.shape}; "
            "a pair that is scored lies on one grid"
        )
    return _as_mask(reference, "reference"), _as_mask(predicted, "predicted")


def _as_mask(array: Mask, source: str) -> Bool[np.ndarray, "..."]:
    if array.dtype == np.bool_:
        return array
    mask = np.asarray(array == 1)
    if not np.array_equal(mask, array):
        raise LabelError(
            f"{source}: values from {array.min()} to {array.max()}, dtype {array.dtype}; a mask "
            "holds False and True, or 0 and 1. Choose a region first, for example array == 2."
        )
    return mask
