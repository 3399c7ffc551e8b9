"""Random training crops."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from medseg3d.arrays import LabelMapIJK, TripleInt
from medseg3d.data.store import StoredCase


@dataclass(frozen=True, slots=True, eq=False)
class Patch:
    """A crop of an image with the output channel of each voxel."""

    image_CIJK: Float32[np.ndarray, "C I J K"]
    channels_IJK: LabelMapIJK


def draw_patch(
    rng: np.random.Generator, case: StoredCase, *, size_IJK: TripleInt, on_foreground: bool
) -> Patch:
    """Cut a patch at a random place.

    On the foreground, a label of the case is drawn, then one of its voxels, and the patch holds
    that voxel as near its centre as the border allows. Where the case is smaller than the patch,
    its outermost voxels are repeated on both sides, as prediction does.
    """
    shape = np.array(case.channels_IJK.shape)
    size = np.array(size_IJK)
    spare = np.maximum(shape - size, 0)
    if on_foreground and case.places:
        places = case.places[int(rng.choice(sorted(case.places)))]
        centre = places[rng.integers(len(places))]
        start = np.clip(centre - size // 2, 0, spare)
    else:
        start = rng.integers(0, spare + 1)
    box = tuple(slice(int(a), int(a + n)) for a, n in zip(start, size, strict=True))
    missing = np.maximum(size - shape, 0)
    pads = [(int(n // 2), int(n - n // 2)) for n in missing]
    return Patch(
        np.pad(case.image_CIJK[(slice(None), *box)], [(0, 0), *pads], mode="edge"),
        np.pad(case.channels_IJK[box], pads, mode="edge"),
    )
