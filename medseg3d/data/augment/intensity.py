"""Random changes of grey values; images are normalised, mean 0 and deviation 1."""

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from medseg3d.config.augment import AugmentConfig

BRIGHTNESS = (0.75, 1.25)
GAMMA = (0.7, 1.5)


def augment_intensity(
    rng: np.random.Generator, image: Float32[Tensor, "C *spatial"], config: AugmentConfig
) -> Float32[Tensor, "C *spatial"]:
    """Add noise, scale and bend the grey values, each with its probability."""
    if rng.random() < config.noise_probability:
        deviation = rng.uniform(0, config.noise_deviation)
        noise = rng.standard_normal(tuple(image.shape), dtype=np.float32)
        image = image + torch.from_numpy(noise) * deviation
    per_channel = (len(image),) + (1,) * (image.ndim - 1)
    if rng.random() < config.brightness_probability:
        factor = rng.uniform(*BRIGHTNESS, size=per_channel).astype(np.float32)
        image = image * torch.from_numpy(factor)
    if rng.random() < config.gamma_probability:
        exponent = torch.from_numpy(rng.uniform(*GAMMA, size=per_channel).astype(np.float32))
        image = _bend(image, exponent)
    return image


def _bend(image: Tensor, exponent: Tensor) -> Tensor:
    """Raise each channel, mapped onto 0..1, to a power; range stays as it was."""
    axes = tuple(range(1, image.ndim))
    low, high = image.amin(axes, keepdim=True), image.amax(axes, keepdim=True)
    width = (high - low).clamp_min(torch.finfo(image.dtype).tiny)
    return ((image - low) / width).pow(exponent) * width + low
