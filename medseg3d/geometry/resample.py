"""Volumes and label maps on other grids.

Interpolation is between voxel indices, not between points of the world: both affines go into one
map from target index to source index, so that sheared and mirrored grids are as good as any. Where
axes of the two grids cross, and for B-splines, SimpleITK does it.
"""

import math
from collections.abc import Iterator
from typing import Final, Literal

import numpy as np
import scipy
from jaxtyping import Integer, Shaped

from medseg3d.arrays import ArrayIJK, LabelMapIJK, TripleFloat
from medseg3d.errors import ConfigError, GridError
from medseg3d.geometry.crop import Box
from medseg3d.volume import Grid, Volume, grid_difference

Interpolation = Literal["linear", "nearest", "bspline"]

INTERPOLATORS: Final = {
    "linear": "sitkLinear",
    "nearest": "sitkNearestNeighbor",
    "bspline": "sitkBSpline",
}
"""What SimpleITK calls them; `bspline` is of third order."""

LARGEST_GRID: Final = 2**32
"""Voxels of a grid that a spacing may ask for; beyond, the spacing is a mistake."""


def spaced_grid(grid: Grid, spacing_mm: TripleFloat) -> Grid:
    """Give the grid of another spacing over the same field of view.

    The spacing is exactly the one asked for, the centre and the directions stay, and the size is
    rounded up to whole voxels: no voxel of the old grid lies outside the new one.

    Raises:
        ConfigError: a spacing is not positive, or so small that the grid could not be stored.
    """
    if not all(0 < edge < np.inf for edge in spacing_mm):
        raise ConfigError(f"a spacing is three positive numbers of mm, got {spacing_mm}")
    ratio = np.divide(spacing_mm, grid.spacing_mm)
    i, j, k = (math.ceil(round(float(n), 6)) for n in grid.shape_IJK / ratio)
    if i * j * k > LARGEST_GRID:
        raise ConfigError(
            f"a spacing of {spacing_mm} mm makes {i}×{j}×{k} voxels out of {grid}; choose a larger "
            "one, in mm"
        )
    old_index = np.diag([*ratio, 1.0])
    old_index[:3, 3] = (np.array(grid.shape_IJK) - 1 - (np.array([i, j, k]) - 1) * ratio) / 2
    return Grid((i, j, k), grid.affine @ old_index)


def resample_volume(
    volume: Volume,
    *,
    spacing_mm: TripleFloat | None = None,
    grid: Grid | None = None,
    interpolation: Interpolation = "linear",
) -> Volume:
    """Interpolate a volume at another spacing (see `spaced_grid`), or on another grid.

    Gives float32, but `nearest` keeps an integer dtype. Up to half a voxel beyond the border the
    border's value holds, further out 0. Nothing is smoothed before voxels grow. Where the two
    grids are one, the array is given back as it is.

    Raises:
        ConfigError: not exactly one of `spacing_mm` and `grid`, an impossible spacing, an unknown
            interpolation, or a B-spline along an axis of two voxels.
    """
    if interpolation not in INTERPOLATORS:
        raise ConfigError(f"interpolation '{interpolation}' is none of {', '.join(INTERPOLATORS)}")
    if grid is None and spacing_mm is not None:
        grid = spaced_grid(volume.grid, spacing_mm)
    elif grid is None or spacing_mm is not None:
        raise ConfigError("resample_volume takes either spacing_mm or grid, got both or neither")
    if grid_difference(volume.grid, grid) is None:
        return Volume(volume.array_CIJK, grid.affine)
    if interpolation == "bspline" and 2 in volume.shape_IJK:
        # SimpleITK 2.5 reads foreign memory there: other values, or NaN, at each call
        raise ConfigError(
            f"no B-spline goes through an axis of two voxels, got {volume.grid}; "
            "choose interpolation 'linear'"
        )
    keep = interpolation == "nearest" and volume.array_CIJK.dtype.kind in "iu"
    dtype = volume.array_CIJK.dtype if keep else np.dtype(np.float32)
    resampled = np.zeros((volume.num_channels, *grid.shape_IJK), dtype=dtype)
    for channel, values in zip(resampled, volume.array_CIJK, strict=True):
        image_IJK = values.astype(dtype, copy=False)
        _interpolate(image_IJK, volume.grid, grid, interpolation, out=channel)
    return Volume(resampled, grid.affine)


def resample_label_map(
    label_map_IJK: LabelMapIJK, source: Grid, target: Grid
) -> Integer[np.ndarray, "_ _ _"]:
    """Bring a label map from one grid onto another, in its own dtype.

    The mask of each value, background too, is interpolated linearly and the largest wins, of
    equals the lowest value. Beyond the source is background. Where the two grids are one, the
    label map itself is given back.

    Raises:
        GridError: the label map has not the shape of its grid.
    """
    if label_map_IJK.shape != source.shape_IJK:
        raise GridError(
            f"a label map of shape {label_map_IJK.shape} does not fit its grid: {source}"
        )
    if grid_difference(source, target) is None:
        return label_map_IJK
    resampled = np.zeros(target.shape_IJK, dtype=label_map_IJK.dtype)
    best, total = np.zeros((2, *target.shape_IJK), dtype=np.float32)
    for value, box, seen in _seen_values(label_map_IJK, source, target):
        mask = (label_map_IJK[box.slices] == value).astype(np.float32)
        share = np.zeros(seen.shape_IJK, dtype=np.float32)
        _interpolate(mask, box.crop_grid(source), seen.crop_grid(target), "linear", out=share)
        total[seen.slices] += share
        resampled[seen.slices][share > best[seen.slices]] = value
        np.maximum(best[seen.slices], share, out=best[seen.slices])
    resampled[best <= 1 - total] = 0
    return resampled


def _interpolate(
    image_IJK: ArrayIJK,
    source: Grid,
    target: Grid,
    interpolation: Interpolation,
    *,
    out: Shaped[np.ndarray, "_ _ _"],
) -> None:
    """Fill an array of zeros with an image on another grid."""
    from medseg3d.geometry.separable import (  # brings in scipy.sparse, slowly
        aligned_places,
        axis_weights,
        weigh_axes,
    )

    places = aligned_places(source, target)
    if places and interpolation != "bspline":
        i, j, k = (
            axis_weights(along, size, interpolation=interpolation)
            for along, size in zip(places, source.shape_IJK, strict=True)
        )
        weigh_axes(image_IJK, (i, j, k), out=out)
    else:
        out[...] = _interpolated_by_itk(image_IJK, source, target, interpolation)


def _interpolated_by_itk(
    image_IJK: ArrayIJK, source: Grid, target: Grid, interpolation: Interpolation
) -> Shaped[np.ndarray, "_ _ _"]:
    import SimpleITK

    source_index = np.linalg.solve(source.affine, target.affine)
    resampled = SimpleITK.Resample(
        SimpleITK.GetImageFromArray(image_IJK.T),
        target.shape_IJK,
        SimpleITK.AffineTransform(source_index[:3, :3].ravel(), source_index[:3, 3]),
        getattr(SimpleITK, INTERPOLATORS[interpolation]),
    )
    return SimpleITK.GetArrayFromImage(resampled).T


def _seen_values(
    label_map_IJK: LabelMapIJK, source: Grid, target: Grid
) -> Iterator[tuple[int, Box, Box]]:
    """Give each value that may be seen on the target, where it lies, and where it is seen."""
    for value, slices in enumerate(scipy.ndimage.find_objects(label_map_IJK), start=1):
        if slices is not None:
            box = _with_margin(slices, source)
            if seen := _seen_box(box, source, target):
                yield value, box, seen


def _with_margin(slices: tuple[slice, ...], grid: Grid) -> Box:
    """Give the box of a label and the voxels between which and it a linear mask is not 0."""
    (a, i), (b, j), (c, k) = (
        (max(s.start - 1, 0), min(s.stop + 1, size))
        for s, size in zip(slices, grid.shape_IJK, strict=True)
    )
    return Box((a, b, c), (i, j, k))


def _seen_box(box: Box, source: Grid, target: Grid) -> Box | None:
    """Find the target voxels that may lie in a box of source voxels, or None."""
    edges = np.array(np.meshgrid(*zip(box.start, box.stop, strict=True), [1.5])).reshape(4, 8)
    corners = np.linalg.solve(target.affine, source.affine @ (edges - 0.5))[:3]
    a, b, c = (int(n) for n in np.maximum(np.floor(corners.min(axis=1)), 0))
    i, j, k = (int(n) for n in np.minimum(np.ceil(corners.max(axis=1)) + 1, target.shape_IJK))
    return Box((a, b, c), (i, j, k)) if a < i and b < j and c < k else None
