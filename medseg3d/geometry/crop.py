"""Cutting boxes out of grids and putting them back."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from medseg3d.arrays import Affine, ArrayIJK, TripleInt
from medseg3d.errors import GridError
from medseg3d.volume import Grid, Volume


@dataclass(frozen=True, slots=True)
class Box:
    """A half-open box of voxels: `start` is inside, `stop` is not.

    Raises:
        GridError: it begins before voxel 0 or holds no voxel.
    """

    start: TripleInt
    stop: TripleInt

    def __post_init__(self) -> None:
        if min(self.start) < 0 or min(self.shape_IJK) < 1:
            raise GridError(
                f"a box begins at voxel 0 or later and holds at least one voxel along each axis, "
                f"got {self.start} to {self.stop}"
            )

    @classmethod
    def whole(cls, grid: Grid) -> "Box":
        """Give the box of all voxels of a grid."""
        return cls((0, 0, 0), grid.shape_IJK)

    @property
    def shape_IJK(self) -> TripleInt:
        """Number of voxels along I, J, K."""
        (a, b, c), (i, j, k) = self.start, self.stop
        return i - a, j - b, k - c

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """Index of the box in an array of I, J, K."""
        (a, b, c), (i, j, k) = self.start, self.stop
        return slice(a, i), slice(b, j), slice(c, k)

    def crop_grid(self, grid: Grid) -> Grid:
        """Give the grid of the voxels in the box; each keeps its place in the world.

        Raises:
            GridError: the box reaches beyond the grid.
        """
        if any(stop > size for stop, size in zip(self.stop, grid.shape_IJK, strict=True)):
            raise GridError(
                f"the box {self.start} to {self.stop} reaches beyond a grid of {grid.shape_IJK} "
                "voxels; cut it to the grid, or pad the volume first"
            )
        return Grid(self.shape_IJK, _moved(grid.affine, self.start))


def crop_volume(volume: Volume, box: Box) -> Volume:
    """Cut a box out of a volume; its array becomes a view of the old one.

    Raises:
        GridError: the box reaches beyond the volume.
    """
    affine = box.crop_grid(volume.grid).affine
    return Volume(volume.array_CIJK[:, *box.slices], affine)


def pad_volume(
    volume: Volume, *, before: TripleInt, after: TripleInt, value: float = 0.0
) -> Volume:
    """Add voxels of one value around a volume, in the volume's dtype.

    A volume cropped to `box` goes back into its place with `before=box.start` and `after` the
    rest of the old shape.

    Raises:
        GridError: a width is negative.
    """
    if min(*before, *after) < 0:
        raise GridError(
            f"padding adds voxels, got {before} before and {after} after; crop to take them away"
        )
    widths = [(0, 0), *zip(before, after, strict=True)]
    padded = np.pad(volume.array_CIJK, widths, constant_values=value)
    return Volume(padded, _moved(volume.affine, (-before[0], -before[1], -before[2])))


def nonzero_box(channels: Iterable[ArrayIJK]) -> Box:
    """Find the smallest box outside of which every channel is 0; all of an image of zeros.

    NaN counts as not 0.
    """
    arrays = [*channels]
    corners = [found for found in map(_nonzero_corners, arrays) if found]
    if not corners:
        return Box((0, 0, 0), arrays[0].shape)
    starts, stops = zip(*corners, strict=True)
    (a, b, c), (i, j, k) = np.min(starts, axis=0).tolist(), np.max(stops, axis=0).tolist()
    return Box((a, b, c), (i, j, k))


def _nonzero_corners(array_IJK: ArrayIJK) -> tuple[TripleInt, TripleInt] | None:
    """Find where the box around all that is not 0 starts and stops, or None in an image of zeros.

    Goes plane by plane in the order of memory, so that nothing is read twice and little is kept.
    """
    slowest, *rest = axes = np.argsort(array_IJK.strides, kind="stable")[::-1].tolist()
    planes = array_IJK.transpose(axes)
    filled = np.zeros(planes.shape[0], dtype=bool)
    shadow = np.zeros(planes.shape[1:], dtype=bool)
    for number, plane in enumerate(planes):
        nonzero = plane != 0
        filled[number] = nonzero.any()
        shadow |= nonzero
    if not filled.any():
        return None
    hits = {slowest: filled, rest[0]: shadow.any(axis=1), rest[1]: shadow.any(axis=0)}
    (a, i), (b, j), (c, k) = (np.flatnonzero(hits[axis])[[0, -1]].tolist() for axis in range(3))
    return (a, b, c), (i + 1, j + 1, k + 1)


def _moved(affine: Affine, start: TripleInt) -> Affine:
    """Give the affine of a grid whose first voxel is this one's voxel `start`."""
    moved = affine.copy()
    moved[:3, 3] = affine[:3, :3] @ start + affine[:3, 3]
    return moved
