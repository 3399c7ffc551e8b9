"""Random training crops."""

import numpy as np

from medseg3d.arrays import TripleInt
from medseg3d.data.store import StoredCase


def draw_start(
    rng: np.random.Generator, case: StoredCase, *, size_IJK: TripleInt, on_foreground: bool
) -> TripleInt:
    """Draw where a patch begins.

    On the foreground, a label of the case is drawn, then one of its voxels, and the patch holds
    that voxel as near its centre as the border allows. Where the case is smaller than the patch,
    it lies in the patch's middle, and the patch begins before it.
    """
    shape = np.array(case.shape_IJK)
    size = np.array(size_IJK)
    spare = np.maximum(shape - size, 0)
    if on_foreground and case.places:
        places = case.places[int(rng.choice(sorted(case.places)))]
        centre = places[rng.integers(len(places))]
        start = np.clip(centre - size // 2, 0, spare)
    else:
        start = rng.integers(0, spare + 1)
    start_i, start_j, start_k = (start - np.maximum(size - shape, 0) // 2).tolist()
    return start_i, start_j, start_k
