"""Which slice of a grid each frame of a segmentation is."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from medseg3d.errors import GridError
from medseg3d.geometry.orient import AxisMap
from medseg3d.io.dicom.derived import plane_of
from medseg3d.io.dicom.frames import Frame, Plane
from medseg3d.io.dicom.stacks import (
    PLACE_TOLERANCE_MM,
    Stack,
    place_ids,
    stack_of,
    tolerance_mm,
)
from medseg3d.volume import ONE_GRID_TOLERANCE, Grid

MOST_SLICES: Final = 10_000
"""Of a segmentation's own grid; beyond, the distance it tells is wrong."""


def own_grid(frames: Sequence[Frame], *, spacing_mm: float | None) -> Grid:
    """Give the grid from the first to the last slice that frames lie on, with those between.

    `spacing_mm` is what the file says of the distance between slices. It holds if all distances
    are multiples of it, else the smallest distance does.

    Raises:
        GridError: the slices are not evenly spaced.
        SeriesError: a frame has no place.
    """
    for frame in frames:
        plane_of(frame)
    at = dict(zip(place_ids(frames), frames, strict=True))
    stack = stack_of("", [*at.values()])
    apart = np.diff(stack.positions_mm)
    if not apart.size:
        return stack.mean_grid
    for step in filter(None, (spacing_mm, float(apart.min()))):
        beside = np.abs(apart - np.maximum(np.rint(apart / step), 1) * step).max()
        count = round(float(np.ptp(stack.positions_mm)) / step) + 1
        if beside <= tolerance_mm(step) and count <= MOST_SLICES:
            return _with_slices(stack, count)
    raise GridError(
        f"the slices of the segmentation are not evenly spaced, at {_listed(stack)} mm; give the "
        "grid of the images it was made from (grid=…)"
    )


def find_slices(frames: Sequence[Frame], grid: Grid) -> tuple[AxisMap, list[int]]:
    """Find how a grid has to be turned for frames to be its slices (I, J), and which ones (K).

    Raises:
        GridError: a frame is no plane of the grid, or lies beyond it.
        SeriesError: a frame has no place.
    """
    planes = [plane_of(frame) for frame in frames]
    turn = _turn_towards(planes[0], grid)
    turned = turn.apply_grid(grid)
    along_i, along_j, step, origin = turned.affine[:3].T
    *shape_IJ, count = turned.shape_IJK
    corners = np.array([plane.corner_mm for plane in planes])
    slices = np.rint(np.linalg.solve(turned.affine[:3, :3], (corners - origin).T)[2])
    reach = np.array([(plane.along_i_mm, plane.along_j_mm) for plane in planes])
    beside = corners - origin - np.outer(slices, step)
    askew = (reach - (along_i, along_j)) * np.reshape(shape_IJ, (2, 1))
    moved_mm = np.linalg.norm([beside, *(beside + askew.swapaxes(0, 1))], axis=2).max(axis=0)
    edge = max(ONE_GRID_TOLERANCE * min(grid.spacing_mm), PLACE_TOLERANCE_MM)
    wrong = (moved_mm > edge) | (slices < 0) | (slices >= count)
    if wrong.any() or [*frames[0].shape_IJ] != shape_IJ:
        n = int(np.argmax(wrong))
        raise GridError(
            f"'{frames[n].name}' is no plane of the grid: {_size(frames[n].shape_IJ)} pixels "
            f"against {_size(shape_IJ)}, slice {slices[n] + 1:.0f} of {count}, "
            f"{moved_mm[n]:.4g} mm beside\n  grid: {grid}\n"
            "Give the grid of the images the segmentation was made from, or none and resample."
        )
    return turn, [int(k) for k in slices]


def _with_slices(stack: Stack, count: int) -> Grid:
    """Give the grid from the first to the last slice with `count` in all."""
    grid = stack.mean_grid
    affine = grid.affine.copy()
    affine[:3, 2] *= (grid.shape_IJK[2] - 1) / (count - 1)
    return Grid((*stack.frames[0].shape_IJ, count), affine)


def _turn_towards(plane: Plane, grid: Grid) -> AxisMap:
    """Turn a grid so that its first two axes run closest to those of a plane."""
    steps = np.linalg.solve(grid.affine[:3, :3], np.transpose([plane.along_i_mm, plane.along_j_mm]))
    i = int(np.argmax(np.abs(steps[:, 0])))
    j = max((axis for axis in range(3) if axis != i), key=lambda axis: abs(steps[axis, 1]))
    return AxisMap((i, j, 3 - i - j), (bool(steps[i, 0] < 0), bool(steps[j, 1] < 0), False))


def _size(shape_IJ: Sequence[int]) -> str:
    return "×".join(map(str, shape_IJ))


def _listed(stack: Stack) -> str:
    places = [f"{place:.2f}" for place in stack.positions_mm[:6]]
    return ", ".join(places) + (" …" if len(stack.frames) > 6 else "")
