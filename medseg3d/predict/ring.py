"""The part of an image's sums that tiles still add to.

Tiles are taken row by row along one axis, and in each row along a second. A window of a tile's
size along both goes with them; what leaves it is complete, or waits aside for the next row.
"""

from collections.abc import Iterator
from functools import reduce
from itertools import pairwise
from typing import Final

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from medseg3d.predict.slab import Slab
from medseg3d.predict.tiles import Box, Column, TileGrid, gaussian_weight


class SlabRing:
    """Sums in float32. In the window, plane n of the second axis lies at n modulo its length."""

    def __init__(
        self, tile: Float[Tensor, "L *tile"], grid: TileGrid, *, num_maps: int, counted: bool
    ) -> None:
        """Begin with zeros, as many channels as a tile has, of which the last may be maps.

        `counted` sums up the weights too: where not all of the grid's tiles come.
        """
        self._grid: Final = grid
        self._num_maps: Final = num_maps
        self._counted: Final = counted
        self._weight: Final = reduce(
            torch.mul, (self._along(n, gaussian_weight(t)) for n, t in enumerate(grid.tile_size))
        ).to(tile.device)
        self._outer, self._inner, *_ = grid.axes
        starts = grid.starts[self._outer]
        shared = [a + self._grid.tile_size[self._outer] - b for a, b in pairwise(starts)]
        window, waiting = [*grid.shape], [*grid.shape]
        window[self._outer] = self._grid.tile_size[self._outer]
        window[self._inner] = self._grid.tile_size[self._inner]
        waiting[self._outer] = max(shared, default=0)
        channels = len(tile) + counted
        self._window = torch.zeros((channels, *window), device=tile.device)
        self._waiting = torch.zeros((channels, *waiting), device=tile.device)
        self._shared = dict(zip(starts[1:], shared, strict=True))

    def add(self, box: Box, logits: Float[Tensor, "L *tile"]) -> None:
        """Add a tile; it belongs to the column that is finished next."""
        dim = self._inner + 1
        logits = logits.to(torch.float32, memory_format=torch.contiguous_format)
        begin = box[self._inner].start
        for planes, place in self._pieces(box[self._inner]):
            inside = [*box]
            inside[self._outer], inside[self._inner] = slice(None), place
            first, count = planes.start - begin, planes.stop - planes.start
            sums = self._window[(slice(None), *inside)]
            weight = self._weight.narrow(self._inner, first, count)
            sums[: len(logits)].addcmul_(logits.narrow(dim, first, count), weight)
            if self._counted:
                sums[-1] += weight

    def finish(self, column: Column) -> Iterator[Slab]:
        """Give what is complete, in one or two parts, each only until the next is asked for."""
        rows, dim = column.complete[self._outer], self._outer + 1
        earlier, done = self._shared.get(rows.start, 0), rows.stop - rows.start
        later = self._grid.tile_size[self._outer] - done
        for planes, place in self._pieces(column.complete[self._inner]):
            part = self._along_inner(self._window, place)
            waiting = self._along_inner(self._waiting, planes)
            part.narrow(dim, 0, earlier).add_(waiting.narrow(dim, 0, earlier))
            box = [*column.complete]
            box[self._inner] = planes
            yield self._slab(tuple(box), part.narrow(dim, 0, done))
            waiting.narrow(dim, 0, later).copy_(part.narrow(dim, done, later))
            part.zero_()

    def _slab(self, box: Box, sums: Float32[Tensor, "L *slab"]) -> Slab:
        num_logits = len(sums) - self._counted - self._num_maps
        logits, maps = sums[:num_logits], sums[num_logits : num_logits + self._num_maps]
        if self._counted:
            return Slab(box, logits, maps, (sums[-1],))
        weights = [
            self._along(axis, self._grid.weight_sums(axis)[part]).to(sums.device)
            for axis, part in enumerate(box)
        ]
        return Slab(box, logits, maps, tuple(weights))

    def _along(self, axis: int, values: Float32[np.ndarray, "_"]) -> Float32[Tensor, "..."]:
        shape = [1] * len(self._grid.shape)
        shape[axis] = -1
        return torch.from_numpy(values).view(shape)

    def _along_inner(self, sums: Tensor, planes: slice) -> Tensor:
        return sums.narrow(self._inner + 1, planes.start, planes.stop - planes.start)

    def _pieces(self, planes: slice) -> Iterator[tuple[slice, slice]]:
        """Give planes and their places in the window, cut where it begins anew."""
        start, length = planes.start, self._grid.tile_size[self._inner]
        while start < planes.stop:
            place = start % length
            count = min(planes.stop - start, length - place)
            yield slice(start, start + count), slice(place, place + count)
            start += count
