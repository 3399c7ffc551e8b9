"""How much two masks share."""

from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, Shaped

from medseg3d.errors import GridError, LabelError

Mask: TypeAlias = Shaped[np.ndarray, "..."]
"""A boolean array of any number of axes; numbers are taken where all of them are 0 or 1."""


def dice(reference: Mask, predicted: Mask) -> float:
    """Measure twice the shared voxels over the voxels of both.

    Two empty masks agree: 1. An empty and a non-empty one share nothing: 0.

    Raises:
        GridError: the shapes differ.
        LabelError: an array is no mask.
    """
    reference, predicted = paired_masks(reference, predicted)
    shared = int(np.count_nonzero(reference & predicted))
    voxels = int(np.count_nonzero(reference)) + int(np.count_nonzero(predicted))
    return 2 * shared / voxels if voxels else 1.0


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
