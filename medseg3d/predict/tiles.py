"""Where tiles lie and how much each voxel of one counts.

The grid is a product of starts along each axis, and the weight of a voxel in its tile a product of
one number per axis; so the sum of all weights at a voxel is a product too, and never stored whole.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import ceil, prod
from typing import Final

import numpy as np
from jaxtyping import Float32

from medseg3d.errors import GridError

SIGMA: Final = 1 / 8
"""Standard deviation of the Gaussian weight as a share of the tile (nnU-Net's choice)."""


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
    def longest_axis(self) -> int:
        """The axis along which a tile is the smallest share of the image."""
        shares = [tile / length for tile, length in zip(self.tile_size, self.shape, strict=True)]
        return shares.index(min(shares))

    def row(self, axis: int, start: int) -> Iterator[tuple[slice, ...]]:
        """Give the box of every tile that starts there along an axis."""
        starts = [(start,) if n == axis else here for n, here in enumerate(self.starts)]
        for corner in product(*starts):
            yield tuple(slice(a, a + t) for a, t in zip(corner, self.tile_size, strict=True))

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
