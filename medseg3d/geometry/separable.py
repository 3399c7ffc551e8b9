"""Interpolation along one axis after another, between grids whose axes run alike.

That is nearly every pair of grids there is, and many times quicker than the general way.
"""

from functools import reduce
from typing import Final, Literal

import numpy as np
from jaxtyping import Float64, Shaped
from scipy.sparse import csr_array

from medseg3d.arrays import ArrayIJK
from medseg3d.volume import Grid

MOST_DRIFT: Final = 1e-7
"""Axes run alike if none leads further aside, in voxels, over its length: values round as much."""


def aligned_places(source: Grid, target: Grid) -> list[Float64[np.ndarray, "_"]] | None:
    """Give the source index of each target voxel along I, J, K, or None if axes cross."""
    source_index = np.linalg.solve(source.affine, target.affine)
    starts, steps = source_index[:3, 3], source_index.diagonal()[:3]
    aside = np.abs(source_index[:3, :3] - np.diag(steps)) @ target.shape_IJK
    if aside.max() > MOST_DRIFT:
        return None
    axes = zip(starts, steps, target.shape_IJK, strict=True)
    return [start + step * np.arange(size) for start, step, size in axes]


def axis_weights(
    places: Float64[np.ndarray, "_"], size: int, *, interpolation: Literal["linear", "nearest"]
) -> csr_array:
    """Give what each voxel of an axis counts at each place: a matrix, places by voxels.

    Up to half a voxel beyond the border it counts alone, further out nothing does. Between two
    voxels the nearest is the later one. What counts nothing is not stored: its NaN goes nowhere.
    Linear weights are float64, so that values are rounded once, at the end; those of the nearest
    are integers, so that integers stay what they are.
    """
    rows = np.flatnonzero((places >= -0.5) & (places < size - 0.5))
    inside = places[rows].clip(0, size - 1)
    if interpolation == "nearest":
        first, share = np.floor(inside + 0.5).astype(int), np.zeros(len(rows), dtype=np.uint8)
    else:
        first = np.floor(inside).astype(int)
        share = inside - first
    columns = np.concatenate([first, np.minimum(first + 1, size - 1)])
    shares = np.concatenate([1 - share, share])
    weights = csr_array((shares, (np.tile(rows, 2), columns)), shape=(len(places), size))
    weights.eliminate_zeros()
    return weights


def weigh_axes(
    image_IJK: ArrayIJK,
    weights: tuple[csr_array, csr_array, csr_array],
    *,
    out: Shaped[np.ndarray, "_ _ _"],
) -> None:
    """Fill an array of zeros with an image weighed along each axis.

    Goes plane by plane, so that what lies between two axes stays in the processor's cache.
    """
    along_i, along_j, along_k = weights
    for j in np.flatnonzero(np.diff(along_j.indptr)):
        row = slice(*along_j.indptr[j : j + 2])
        near = zip(along_j.data[row], along_j.indices[row], strict=True)
        plane_IK = reduce(np.add, (weight * image_IJK[:, n] for weight, n in near))
        out[:, j] = along_i @ (along_k @ plane_IK.T).T
