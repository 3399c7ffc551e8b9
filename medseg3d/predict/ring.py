"""The part of an image's sums that tiles still add to.

Rows of tiles are finished one after the other along one axis. Planes before the next row get
nothing more: they leave, and their places are taken by new ones.
"""

from collections.abc import Iterator, Sequence
from typing import Final

import torch
from jaxtyping import Float, Float32
from torch import Tensor


class SlabRing:
    """As many planes as a tile is long; plane n lies at n modulo that length. Sums in float32."""

    def __init__(
        self, channels: int, shape: Sequence[int], axis: int, length: int, device: torch.device
    ) -> None:
        """Begin with zeros; `shape` is the image's, of which `axis` is kept to `length` planes."""
        kept = [length if n == axis else size for n, size in enumerate(shape)]
        self._sums = torch.zeros((channels, *kept), device=device)
        self._axis: Final = axis
        self._length: Final = length

    def add(
        self,
        box: Sequence[slice],
        logits: Float[Tensor, "L *tile"],
        weight: Float32[Tensor, "*tile"],
    ) -> None:
        """Add a tile's weighted logits; the box is as long as the ring along its axis."""
        dim = self._axis + 1
        logits = logits.to(torch.float32, memory_format=torch.contiguous_format)
        for planes, place in self._pieces(box[self._axis].start, box[self._axis].stop):
            inside = [place if n == self._axis else part for n, part in enumerate(box)]
            first, count = planes.start - box[self._axis].start, planes.stop - planes.start
            self._sums[(slice(None), *inside)].addcmul_(
                logits.narrow(dim, first, count), weight.narrow(self._axis, first, count)
            )

    def take(self, start: int, stop: int) -> Iterator[tuple[slice, Float32[Tensor, "L *slab"]]]:
        """Give planes that are complete, in one or two parts, and forget each thereafter."""
        for planes, place in self._pieces(start, stop):
            part = self._sums.narrow(self._axis + 1, place.start, place.stop - place.start)
            yield planes, part
            part.zero_()

    def _pieces(self, start: int, stop: int) -> Iterator[tuple[slice, slice]]:
        """Give planes and their places in the ring, cut where it begins anew."""
        while start < stop:
            place = start % self._length
            count = min(stop - start, self._length - place)
            yield slice(start, start + count), slice(place, place + count)
            start += count
