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
    if not np.isfinite(image_CIJK).all():
        raise FormatError(
            f"the image holds {int((~np.isfinite(image_CIJK)).sum())} voxels of NaN or infinity; "
            "repair it, or read it with nonfinite='zero' (--set preprocess.nonfinite=zero)"
        )
    if how == "none":
        return image_CIJK.astype(np.float32)
    normalized = np.empty(image_CIJK.shape, dtype=np.float32)
    for channel, values in enumerate(image_CIJK):
        counted = values[values != 0] if how == "zscore_nonzero" else values
        if counted.size == 0 or counted.min() == counted.max():
            normalized[channel] = 0
            continue
        mean, deviation = counted.mean(dtype=np.float64), counted.std(dtype=np.float64)
        normalized[channel] = (values.astype(np.float64) - mean) / deviation
        if how == "zscore_nonzero":
            normalized[channel][values == 0] = 0
    return normalized
