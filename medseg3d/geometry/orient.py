"""Turning voxel axes, without touching where a voxel lies."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Shaped

from medseg3d.arrays import Affine, ArrayCIJK, TripleInt
from medseg3d.errors import ConfigError
from medseg3d.volume import AXIS_LETTERS, Grid, Volume, world_axes


@dataclass(frozen=True, slots=True)
class AxisMap:
    """A permutation of the voxel axes, some of them reversed; knows its own inverse.

    New axis n is old axis `axes[n]`, walked backwards where `flipped[n]`.
    """

    axes: TripleInt
    flipped: tuple[bool, bool, bool]

    @property
    def inverse(self) -> "AxisMap":
        """The map that undoes this one."""
        i, j, k = (self.axes.index(axis) for axis in range(3))
        return AxisMap((i, j, k), (self.flipped[i], self.flipped[j], self.flipped[k]))

    def apply_array(self, array_CIJK: ArrayCIJK) -> Shaped[np.ndarray, "C _ _ _"]:
        """Turn an array; gives a view."""
        steps = tuple(slice(None, None, -1 if flip else 1) for flip in self.flipped)
        return array_CIJK.transpose(0, *(axis + 1 for axis in self.axes))[:, *steps]

    def apply_grid(self, grid: Grid) -> Grid:
        """Turn a grid: every voxel keeps its place in the world."""
        old_index = np.zeros((4, 4))
        old_index[3, 3] = 1
        for new, (old, flip) in enumerate(zip(self.axes, self.flipped, strict=True)):
            old_index[old, new] = -1 if flip else 1
            old_index[old, 3] = grid.shape_IJK[old] - 1 if flip else 0
        i, j, k = (grid.shape_IJK[axis] for axis in self.axes)
        return Grid((i, j, k), grid.affine @ old_index)

    def apply(self, volume: Volume) -> Volume:
        """Turn a volume; its array becomes a view of the old one."""
        return Volume(self.apply_array(volume.array_CIJK), self.apply_grid(volume.grid).affine)


def plan_axes(affine: Affine, orientation: str) -> AxisMap:
    """Find how voxel axes have to be turned to run towards `orientation`, such as "RAS".

    Oblique axes count as the world direction they are closest to and stay oblique.

    Raises:
        ConfigError: not one letter of each of L/R, P/A, I/S.
    """
    letters = orientation.upper()
    if sorted(_world_axis(letter) for letter in letters) != [0, 1, 2]:
        raise ConfigError(
            f"orientation '{orientation}' is none; write one letter of each of L/R, P/A and I/S, "
            "in the order of the voxel axes, for example 'RAS', 'LPS' or 'PIR'"
        )
    present = world_axes(affine)
    i, j, k = (present.index(_world_axis(letter)) for letter in letters)
    backwards = [
        bool(affine[_world_axis(letter), axis] > 0) != (letter in "RAS")
        for letter, axis in zip(letters, (i, j, k), strict=True)
    ]
    return AxisMap((i, j, k), (backwards[0], backwards[1], backwards[2]))


def reorient_volume(volume: Volume, orientation: str = "RAS") -> Volume:
    """Turn a volume's axes towards `orientation`; its array becomes a view of the old one.

    `plan_axes` gives the same turn as a value, to be undone with its `inverse`.

    Raises:
        ConfigError: `orientation` is none.
    """
    return plan_axes(volume.affine, orientation).apply(volume)


def _world_axis(letter: str) -> int:
    """Give the world axis a letter lies on, -1 for any other letter."""
    return next((axis for axis, ends in enumerate(AXIS_LETTERS) if letter in ends), -1)
