"""Random changes of place: image and labels move together."""

from itertools import combinations
from math import cos, radians, sin

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from medseg3d.config.augment import AugmentConfig


def augment_spatial(
    rng: np.random.Generator,
    image: Float32[Tensor, "C *spatial"],
    channels: Int64[Tensor, "*spatial"],
    config: AugmentConfig,
) -> tuple[Float32[Tensor, "C *spatial"], Int64[Tensor, "*spatial"]]:
    """Mirror, then rotate and scale in one resampling about the patch's centre.

    Images are interpolated linearly, labels take the nearest voxel; what comes from outside the
    patch repeats its border.
    """
    axes: list[int] = [a for a in config.mirror_axes if a < channels.ndim and rng.random() < 0.5]
    if axes:
        image, channels = image.flip([a + 1 for a in axes]), channels.flip(axes)
    if rng.random() < config.affine_probability:
        matrix = draw_affine(rng, tuple(channels.shape), config)
        image = _sample(image, matrix, "bilinear")
        channels = _sample(channels[None].float(), matrix, "nearest")[0].long()
    return image, channels


def draw_affine(
    rng: np.random.Generator, shape: tuple[int, ...], config: AugmentConfig
) -> Float64[np.ndarray, "D D"]:
    """Draw a rotation about every axis times a zoom, as voxel offsets from the centre."""
    dims = len(shape)
    matrix = np.eye(dims) / rng.uniform(*config.scale)
    for first, second in combinations(range(dims), 2):
        angle = radians(rng.uniform(-config.rotation_degrees, config.rotation_degrees))
        turn = np.eye(dims)
        turn[[first, second], [first, second]] = cos(angle)
        turn[first, second], turn[second, first] = -sin(angle), sin(angle)
        matrix = matrix @ turn
    return matrix


def _sample(image: Tensor, matrix: np.ndarray, mode: str) -> Tensor:
    # grid_sample counts axes backwards and in half-widths of the patch
    width = np.array(image.shape[1:], dtype=float)
    scaled = (matrix * width[None, :] / width[:, None])[::-1, ::-1]
    theta = np.concatenate([scaled, np.zeros((len(width), 1))], axis=1)
    theta_B = torch.from_numpy(theta.astype(np.float32))[None]
    grid = affine_grid(theta_B, [1, *image.shape], align_corners=False)
    return grid_sample(image[None], grid, mode, padding_mode="border", align_corners=False)[0]
