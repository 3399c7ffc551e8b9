"""Where tiles lie and how much each voxel of one counts."""

from collections.abc import Iterator, Sequence
from itertools import product
from math import ceil
from typing import Final

import numpy as np
from jaxtyping import Float32

from medseg3d.errors import GridError

SIGMA: Final = 1 / 8
"""Standard deviation of the Gaussian weight as a share of the tile (nnU-Net's choice)."""


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


def plan_starts(length: int, tile: int, overlap: float) -> list[int]:
    """Place the fewest tiles along one axis whose neighbours share at least `overlap` of a tile.

    The tiles are evenly spaced, the first at 0 and the last at the end; `length >= tile`.
    """
    step = max(tile * (1 - overlap), 1)
    gaps = ceil((length - tile) / step)
    return [round(n * (length - tile) / gaps) for n in range(gaps + 1)] if gaps else [0]


def plan_tiles(
    shape: Sequence[int], tile_size: Sequence[int], *, overlap: float
) -> Iterator[tuple[slice, ...]]:
    """Give the box of every tile, the last axis fastest; together they cover every voxel."""
    axes = [plan_starts(n, t, overlap) for n, t in zip(shape, tile_size, strict=True)]
    for starts in product(*axes):
        yield tuple(slice(a, a + t) for a, t in zip(starts, tile_size, strict=True))


def gaussian_weight(length: int) -> Float32[np.ndarray, " length"]:
    """Weigh the voxels along one axis of a tile: 1 in the centre, positive to the last voxel."""
    offsets = np.arange(length) - (length - 1) / 2
    return np.exp(-0.5 * (offsets / (length * SIGMA)) ** 2).astype(np.float32)
