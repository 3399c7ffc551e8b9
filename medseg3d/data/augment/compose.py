"""One patch, changed at random."""

import numpy as np
from jaxtyping import Float32, Int64
from torch import Tensor

from medseg3d.config.augment import AugmentConfig
from medseg3d.data.augment.intensity import augment_intensity
from medseg3d.data.augment.spatial import augment_spatial


def augment_patch(
    rng: np.random.Generator,
    image: Float32[Tensor, "C *spatial"],
    channels: Int64[Tensor, "*spatial"],
    config: AugmentConfig,
) -> tuple[Float32[Tensor, "C *spatial"], Int64[Tensor, "*spatial"]]:
    """Change place, then grey values; depends on `rng` alone."""
    image, channels = augment_spatial(rng, image, channels, config)
    return augment_intensity(rng, image, config), channels
