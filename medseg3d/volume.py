"""What is segmented: an array with its place in the world.

`Grid` is the place (shape and affine), `Volume` is an array on a grid. Spacing and orientation are
derived from the affine, never stored.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Final

import numpy as np

from medseg3d.arrays import Affine, ArrayCIJK, TripleFloat, TripleInt
from medseg3d.errors import GridError

ONE_GRID_TOLERANCE: Final = 0.01
"""Two grids are one if no corner moves by more than this share of the smallest voxel edge."""

LONGEST_MM: Final = 1e9
"""No place is further away and no voxel edge longer, nor shorter than one part in that of 1 mm."""

AXIS_LETTERS: Final = (("L", "R"), ("P", "A"), ("I", "S"))
"""Per world axis, the letter towards its negative and its positive end (RAS+)."""


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """A box of voxels in the world: `affine @ (i, j, k, 1) = (x, y, z, 1)` in RAS+ millimetres.

    Raises:
        GridError: an axis is empty, or the affine is not a finite, invertible 4×4 matrix.
    """

    shape_IJK: TripleInt
    affine: Affine

    def __post_init__(self) -> None:
        shape = tuple(int(n) for n in self.shape_IJK)
        if len(shape) != 3 or min(shape) < 1:
            raise GridError(f"a grid needs three axes of at least one voxel, got shape {shape}")
        affine = np.array(self.affine, dtype=np.float64)
        if affine.shape != (4, 4):
            raise GridError(f"an affine is a 4×4 matrix, got shape {affine.shape}")
        if not (np.abs(affine) < LONGEST_MM).all() or not np.array_equal(affine[3], (0, 0, 0, 1)):
            raise GridError(
                f"an affine is finite (below {LONGEST_MM:g} mm) with last row (0, 0, 0, 1), got\n"
                f"{affine}"
            )
        edges = np.linalg.norm(affine[:3, :3], axis=0)
        if edges.min() < 1 / LONGEST_MM or abs(np.linalg.det(affine[:3, :3] / edges)) < 1e-6:
            raise GridError(
                f"the affine is singular: two voxel axes coincide or have no length\n{affine}"
            )
        affine.setflags(write=False)
        object.__setattr__(self, "shape_IJK", shape)
        object.__setattr__(self, "affine", affine)

    @property
    def spacing_mm(self) -> TripleFloat:
        """Voxel edge lengths along I, J, K."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(x), float(y), float(z)

    @property
    def orientation(self) -> str:
        """Three letters: the world direction each voxel axis points to, e.g. "RAS" or "LPS"."""
        return "".join(
            AXIS_LETTERS[world][int(self.affine[world, voxel] > 0)]
            for voxel, world in enumerate(world_axes(self.affine))
        )

    @property
    def voxel_mm3(self) -> float:
        """Volume of one voxel."""
        return float(abs(np.linalg.det(self.affine[:3, :3])))

    def __str__(self) -> str:
        shape = "×".join(map(str, self.shape_IJK))
        spacing = " × ".join(f"{s:.4g}" for s in self.spacing_mm)
        origin = ", ".join(f"{x:.3f}" for x in self.affine[:3, 3])
        return f"{shape} voxels of {spacing} mm, {self.orientation}, first voxel at ({origin}) mm"


@dataclass(frozen=True, slots=True, eq=False)
class Volume:
    """An array over a grid, channel first; a 2D image has K = 1.

    Raises:
        GridError: the array has not four axes, or the grid is none.
    """

    array_CIJK: ArrayCIJK
    affine: Affine

    def __post_init__(self) -> None:
        if np.ndim(self.array_CIJK) != 4:
            raise GridError(
                f"a Volume's array has four axes (channel, I, J, K), got shape "
                f"{np.shape(self.array_CIJK)}; add a channel axis with array[np.newaxis]"
            )
        if np.shape(self.array_CIJK)[0] == 0:
            raise GridError("a Volume has at least one channel, got none")
        object.__setattr__(self, "array_CIJK", np.asarray(self.array_CIJK))
        object.__setattr__(self, "affine", self.grid.affine)

    @property
    def grid(self) -> Grid:
        """Shape and affine."""
        return Grid(self.shape_IJK, self.affine)

    @property
    def shape_IJK(self) -> TripleInt:
        """Number of voxels along I, J, K."""
        _, i, j, k = self.array_CIJK.shape
        return i, j, k

    @property
    def num_channels(self) -> int:
        """Length of the channel axis."""
        return int(self.array_CIJK.shape[0])

    @property
    def spacing_mm(self) -> TripleFloat:
        """Voxel edge lengths along I, J, K."""
        return self.grid.spacing_mm

    @property
    def orientation(self) -> str:
        """Three letters: the world direction each voxel axis points to."""
        return self.grid.orientation


def world_axes(affine: Affine) -> TripleInt:
    """Give for each voxel axis the world axis (0 x, 1 y, 2 z) it runs along most closely.

    Each world axis is used once; of equally good assignments the first in lexical order wins.
    """
    share = np.abs(affine[:3, :3]) / np.linalg.norm(affine[:3, :3], axis=0)
    x, y, z = max(permutations(range(3)), key=lambda axes: share[axes, range(3)].sum().round(9))
    return x, y, z


def grid_difference(first: Grid, second: Grid) -> str | None:
    """Name the first thing in which two grids differ, or None where they are one.

    Corners may differ by `ONE_GRID_TOLERANCE` of the smallest voxel edge: headers hold float32.
    """
    if first.shape_IJK != second.shape_IJK:
        return f"shape {first.shape_IJK} against {second.shape_IJK}"
    corners = np.array([(i, j, k, 1) for i in (0, 1) for j in (0, 1) for k in (0, 1)], dtype=float)
    corners[:, :3] = corners[:, :3] * first.shape_IJK - 0.5
    moved_mm = np.linalg.norm(corners @ (first.affine - second.affine).T, axis=1).max()
    if moved_mm <= ONE_GRID_TOLERANCE * min(*first.spacing_mm, *second.spacing_mm):
        return None
    if first.orientation != second.orientation:
        return f"orientation {first.orientation} against {second.orientation}"
    if not np.allclose(first.spacing_mm, second.spacing_mm, rtol=1e-4):
        return f"spacing {first.spacing_mm} mm against {second.spacing_mm} mm"
    return f"a corner lies {moved_mm:.4g} mm elsewhere"


def require_one_grid(grids: Sequence[Grid], names: Sequence[str]) -> None:
    """Check that all grids are the first one.

    Raises:
        GridError: prints both grids by name and the first difference.
    """
    for grid, name in zip(grids[1:], names[1:], strict=True):
        if difference := grid_difference(grids[0], grid):
            raise GridError(
                f"'{names[0]}' and '{name}' do not lie on one grid: {difference}\n"
                f"  {names[0]}: {grids[0]}\n  {name}: {grid}\n"
                "Bring them onto one grid first (for example resample one onto the other)."
            )
