"""Images cut into blocks on disk, so that a box reads little more than itself."""

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np
from jaxtyping import Shaped

from medseg3d.arrays import ArrayCIJK, TripleInt

EDGE: Final = 32
"""Longest edge of a block, in voxels; `benchmarks/store.py` compares."""


@dataclass(frozen=True, slots=True, eq=False)
class Blocks:
    """An image as blocks of one size, each in one piece; those at the far ends are padded."""

    parts: Shaped[np.ndarray, "nI nJ nK C bI bJ bK"]
    shape_IJK: TripleInt
    file: mmap.mmap | None = None
    """What `parts` is mapped from, up to the file's end."""

    @classmethod
    def of_array(cls, array_CIJK: ArrayCIJK) -> "Blocks":
        """Take an array as it is, as one block."""
        _, size_i, size_j, size_k = array_CIJK.shape
        return cls(array_CIJK[np.newaxis, np.newaxis, np.newaxis], (size_i, size_j, size_k))

    @classmethod
    def map(cls, path: Path, shape_IJK: TripleInt) -> "Blocks":
        """Map what `write_blocks` wrote of an image of this shape; voxels are read when needed."""
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
        return cls(np.asarray(mapped), shape_IJK, mapped.base)

    def read(self, start_IJK: TripleInt, size_IJK: TripleInt) -> ArrayCIJK:
        """Copy a box; where it reaches out of the image, the outermost voxels are repeated."""
        axes = [*zip(start_IJK, size_IJK, self.shape_IJK, strict=True)]
        first = [min(max(start, 0), length - 1) for start, _, length in axes]
        last = [min(max(start + size - 1, 0), length - 1) for start, size, length in axes]
        inside = self._copy(first, [b - a + 1 for a, b in zip(first, last, strict=True)])
        spare = [n - m for n, m in zip(size_IJK, inside.shape[1:], strict=True)]
        if not any(spare):
            return inside
        before = [min(max(-a, 0), n) for a, n in zip(start_IJK, spare, strict=True)]
        pads = [(a, n - a) for a, n in zip(before, spare, strict=True)]
        return np.pad(inside, [(0, 0), *pads], mode="edge")

    def _copy(self, start_IJK: list[int], size_IJK: list[int]) -> ArrayCIJK:
        box = np.empty((self.parts.shape[3], *size_IJK), self.parts.dtype)
        edges = self.parts.shape[4:]
        cuts = [[*_cut(*axis)] for axis in zip(start_IJK, size_IJK, edges, strict=True)]
        self._fetch(*([number for number, _, _ in axis] for axis in cuts))
        for (i, from_i, to_i), (j, from_j, to_j), (k, from_k, to_k) in product(*cuts):
            box[:, to_i, to_j, to_k] = self.parts[i, j, k, :, from_i, from_j, from_k]
        return box

    def _fetch(self, blocks_i: list[int], blocks_j: list[int], blocks_k: list[int]) -> None:
        """Ask for all blocks at once: left to page faults, the disk gives much else besides."""
        if self.file is None or not hasattr(mmap, "MADV_WILLNEED"):
            return
        header = len(self.file) - self.parts.nbytes
        block = self.parts[0, 0, 0].nbytes
        for i, j in product(blocks_i, blocks_j):
            number = np.ravel_multi_index((i, j, blocks_k[0]), self.parts.shape[:3])
            start = header + int(number) * block
            early = start % mmap.PAGESIZE
            self.file.madvise(mmap.MADV_WILLNEED, start - early, early + len(blocks_k) * block)


def write_blocks(stream: BinaryIO, array_CIJK: ArrayCIJK) -> None:
    """Write an image as `.npy` of the axes nI nJ nK C bI bJ bK, block after block.

    Along each axis there are as few blocks as `EDGE` allows, of even size, so that hardly any
    padding (0) is needed.
    """
    channels, *shape_IJK = array_CIJK.shape
    counts = [-(-n // EDGE) for n in shape_IJK]
    edges = [-(-n // count) for n, count in zip(shape_IJK, counts, strict=True)]
    header = {
        "descr": np.lib.format.dtype_to_descr(array_CIJK.dtype),
        "fortran_order": False,
        "shape": (*counts, channels, *edges),
    }
    np.lib.format.write_array_header_1_0(stream, header)
    for place in np.ndindex(*counts):
        box = [slice(n * b, (n + 1) * b) for n, b in zip(place, edges, strict=True)]
        part = array_CIJK[:, *box]
        block = np.zeros((channels, *edges), array_CIJK.dtype)
        block[:, *map(slice, part.shape[1:])] = part
        stream.write(block.data)


def _cut(start: int, size: int, edge: int) -> Iterator[tuple[int, slice, slice]]:
    """Give the blocks that a span touches: number, which part of it, and where that belongs."""
    stop = start + size
    for number in range(start // edge, -(-stop // edge)):
        low, high = max(start, number * edge), min(stop, (number + 1) * edge)
        yield (
            number,
            slice(low - number * edge, high - number * edge),
            slice(low - start, high - start),
        )
