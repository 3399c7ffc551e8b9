"""Grey values: from a scanner's arbitrary scale to one that networks share."""

from typing import Literal

import numpy as np
from jaxtyping import Float32

from medseg3d.arrays import ArrayCIJK
from medseg3d.errors import FormatError

Intensity = Literal["none", "zscore", "zscore_nonzero"]


def normalize_intensity(image_CIJK: ArrayCIJK, how: Intensity) -> Float32[np.ndarray, "C I J K"]:
    """Bring each channel to mean 0 and standard deviation 1.

    With `zscore_nonzero` the voxels that are exactly 0 (air after skull stripping) stay 0 and do
    not count. A channel of one single value becomes 0 everywhere. Sums run in float64.

    Raises:
        FormatError: the image holds NaN or infinity.
    """
    if image_CIJK.dtype.kind == "f" and not np.isfinite(image_CIJK).all():
        raise FormatError(
            f"the image holds {int((~np.isfinite(image_CIJK)).sum())} voxels of NaN or infinity; "
            "repair it, or read it with nonfinite='zero' (--set preprocess.nonfinite=zero)"
        )
    if how == "none":
        return image_CIJK.astype(np.float32)
    normalized = np.zeros(image_CIJK.shape, dtype=np.float32)
    for channel, values in zip(normalized, image_CIJK, strict=True):
        counted = values.ravel(order="K")
        if how == "zscore_nonzero":
            counted = counted[counted != 0]
        if counted.size == 0 or counted.min() == counted.max():
            continue
        mean, deviation = counted.mean(dtype=np.float64), counted.std(dtype=np.float64)
        # J is in the middle of any memory order: a plane turns, and is float64, within the cache
        for plane, grey in zip(channel.swapaxes(0, 1), values.swapaxes(0, 1), strict=True):
            scaled = (grey - mean) / deviation
            plane[...] = np.where(grey == 0, 0, scaled) if how == "zscore_nonzero" else scaled
    return normalized
