"""Where tiles lie and how much each voxel of one counts.

The grid is a product of starts along each axis, and the weight of a voxel in its tile a product of
one number per axis; so the sum of all weights at a voxel is a product too, and never stored whole.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from math import ceil, prod
from typing import Final, TypeAlias

import numpy as np
from jaxtyping import Float32

from medseg3d.errors import GridError

SIGMA: Final = 1 / 8
"""Standard deviation of the Gaussian weight as a share of the tile (nnU-Net's choice)."""


Box: TypeAlias = tuple[slice, ...]


@dataclass(frozen=True, slots=True)
class Column:
    """Tiles that follow each other, and what no later tile adds to."""

    tiles: list[Box]
    complete: Box


@dataclass(frozen=True, slots=True)
class TileGrid:
    """Tiles of one size that together cover every voxel of an image."""

    shape: tuple[int, ...]
    tile_size: tuple[int, ...]
    starts: tuple[tuple[int, ...], ...]
    """First voxel of each tile along each axis, ascending."""

    @property
    def num_tiles(self) -> int:
        """Tiles in all."""
        return prod(map(len, self.starts))

    @property
    def axes(self) -> list[int]:
        """The axes, first the one along which a tile is the smallest share of the image."""
        shares = [tile / length for tile, length in zip(self.tile_size, self.shape, strict=True)]
        return sorted(range(len(shares)), key=shares.__getitem__)

    def columns(self) -> Iterator[Column]:
        """Give all tiles, along the second of the axes within each step along the first."""
        outer, inner, *_ = self.axes
        steps = [
            [*pairwise((*here, end))] for here, end in zip(self.starts, self.shape, strict=True)
        ]
        for (a, next_a), (b, next_b) in product(steps[outer], steps[inner]):
            starts: list[Sequence[int]] = [*self.starts]
            starts[outer], starts[inner] = (a,), (b,)
            complete = [slice(0, end) for end in self.shape]
            complete[outer], complete[inner] = slice(a, next_a), slice(b, next_b)
            yield Column([self._box(corner) for corner in product(*starts)], tuple(complete))

    def _box(self, corner: Sequence[int]) -> Box:
        return tuple(slice(a, a + t) for a, t in zip(corner, self.tile_size, strict=True))

    def weight_sums(self, axis: int) -> Float32[np.ndarray, " length"]:
        """Sum the weights of all tiles along one axis; their product is a voxel's sum."""
        weight = gaussian_weight(self.tile_size[axis])
        sums = np.zeros(self.shape[axis], dtype=np.float32)
        for start in self.starts[axis]:
            sums[start : start + len(weight)] += weight
        return sums


def plan_tiles(shape: Sequence[int], tile_size: Sequence[int], *, overlap: float) -> TileGrid:
    """Plan the fewest tiles of which neighbours share at least `overlap` of a tile.

    Raises:
        GridError: the image is smaller than a tile.
    """
    if any(length < tile for length, tile in zip(shape, tile_size, strict=True)):
        raise GridError(f"an image of {tuple(shape)} voxels is smaller than a tile, {tile_size}")
    starts = [plan_starts(n, t, overlap) for n, t in zip(shape, tile_size, strict=True)]
    return TileGrid(tuple(shape), tuple(tile_size), tuple(map(tuple, starts)))


def plan_starts(length: int, tile: int, overlap: float) -> list[int]:
    """Place the fewest tiles along one axis whose neighbours share at least `overlap` of a tile.

    The tiles are evenly spaced, the first at 0 and the last at the end; `length >= tile`.
    """
    step = max(tile * (1 - overlap), 1)
    gaps = ceil((length - tile) / step)
    return [round(n * (length - tile) / gaps) for n in range(gaps + 1)] if gaps else [0]


def gaussian_weight(length: int) -> Float32[np.ndarray, " length"]:
    """Weigh the voxels along one axis of a tile: 1 in the centre, positive to the last voxel."""
    offsets = np.arange(length) - (length - 1) / 2
    return np.exp(-0.5 * (offsets / (length * SIGMA)) ** 2).astype(np.float32)


def require_divisible(size: Sequence[int], divisor: Sequence[int], *, name: str) -> None:
    """Check that a network can halve a tile as often as it needs to.

    Raises:
        GridError: `size` is no multiple of `divisor`; says the next larger one that is.
    """
    fitting = tuple(-(-n // d) * d for n, d in zip(size, divisor, strict=True))
    if fitting != tuple(size):
        raise GridError(
            f"{name} {tuple(size)} is no multiple of the network's divisor {tuple(divisor)}; "
            f"the next larger one is {fitting}"
        )
