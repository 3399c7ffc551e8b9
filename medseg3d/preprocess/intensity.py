"""Grey values: from a scanner's arbitrary scale to one that networks share."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32

from medseg3d.arrays import ArrayCIJK, ArrayIJK
from medseg3d.config.preprocess import FixedScale, Scale
from medseg3d.errors import ConfigError, FormatError


def normalize_intensity(
    image_CIJK: ArrayCIJK, how: Scale | Sequence[Scale]
) -> Float32[np.ndarray, "C I J K"]:
    """Bring each channel to mean 0 and standard deviation 1, or onto a fixed scale.

    With `zscore_nonzero` the voxels that are exactly 0 (air after skull stripping) stay 0 and do
    not count. A channel of one single value becomes 0 everywhere. Sums run in float64.

    Raises:
        FormatError: the image holds NaN or infinity.
        ConfigError: there are scales for another number of channels.
    """
    if image_CIJK.dtype.kind == "f" and not np.isfinite(image_CIJK).all():
        raise FormatError(
            f"the image holds {int((~np.isfinite(image_CIJK)).sum())} voxels of NaN or infinity; "
            "repair it, or read it with nonfinite='zero' (--set preprocess.nonfinite=zero)"
        )
    scales = [how] * len(image_CIJK) if isinstance(how, str | FixedScale) else how
    if len(scales) != len(image_CIJK):
        raise ConfigError(
            f"preprocess.intensity has {len(scales)} entries, the image {len(image_CIJK)} "
            "channels; give one for all channels, or one for each"
        )
    normalized = np.zeros(image_CIJK.shape, dtype=np.float32)
    for channel, values, scale in zip(normalized, image_CIJK, scales, strict=True):
        if scale == "none":
            channel[...] = values
        elif isinstance(scale, FixedScale):
            if values.min() < values.max():  # else there is no image: a channel that a case lacks
                _rescale(values, scale, out=channel)
        elif own := _own_scale(values, scale):
            _rescale(values, own, out=channel)
        if scale == "zscore_nonzero":
            channel[values == 0] = 0
    return normalized


def _own_scale(values: ArrayIJK, how: str) -> FixedScale | None:
    """Measure a channel's mean and deviation; None where it holds one single value, or none."""
    counted = values.ravel(order="K")
    if how == "zscore_nonzero":
        counted = counted[counted != 0]
    if counted.size == 0 or counted.min() == counted.max():
        return None
    mean, deviation = counted.mean(dtype=np.float64), counted.std(dtype=np.float64)
    return FixedScale(clip=None, mean=mean, deviation=deviation)


def _rescale(values: ArrayIJK, scale: FixedScale, *, out: ArrayIJK) -> None:
    """Fill `out` with values on a scale, clipped where it says so."""
    # J is in the middle of any memory order: a plane turns, and is float64, within the cache
    for plane, grey in zip(out.swapaxes(0, 1), values.swapaxes(0, 1), strict=True):
        counted = np.clip(grey, *scale.clip) if scale.clip else grey
        plane[...] = np.subtract(counted, scale.mean, dtype=np.float64) / scale.deviation
