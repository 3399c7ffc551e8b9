"""Preprocessed cases on disk, memory-mapped, so that drawing a patch reads only the patch."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np
from jaxtyping import Float32, Int16

from medseg3d.arrays import LabelMapIJK, TripleFloat, TripleInt
from medseg3d.io.atomic import write_atomically

MAX_PLACES = 10_000
"""Voxels remembered per label and case: enough to draw from, small enough to keep in memory."""


@dataclass(frozen=True, slots=True, eq=False)
class Patch:
    """A crop of an image with the output channel of each voxel."""

    image_CIJK: Float32[np.ndarray, "C I J K"]
    channels_IJK: LabelMapIJK


@dataclass(frozen=True, slots=True, eq=False)
class StoredCase:
    """One preprocessed case: image, output channels, and where each label lies."""

    id: str
    image_CIJK: Float32[np.ndarray, "C I J K"]
    channels_IJK: LabelMapIJK
    spacing_mm: TripleFloat
    places: dict[int, Int16[np.ndarray, "P 3"]]

    @property
    def shape_IJK(self) -> TripleInt:
        """Number of voxels along each axis."""
        size_i, size_j, size_k = self.channels_IJK.shape
        return size_i, size_j, size_k

    def read(self, start_IJK: TripleInt, size_IJK: TripleInt) -> Patch:
        """Read a box; where it reaches out of the case, the outermost voxels are repeated."""
        spans = [
            np.clip(np.arange(start, start + size), 0, length - 1)
            for start, size, length in zip(start_IJK, size_IJK, self.shape_IJK, strict=True)
        ]
        box = tuple(slice(int(span[0]), int(span[-1]) + 1) for span in spans)
        inside = np.ix_(*(span - span[0] for span in spans))
        image, channels = self.image_CIJK[(slice(None), *box)], self.channels_IJK[box]
        if channels.shape == size_IJK:
            return Patch(np.array(image), np.array(channels))
        return Patch(np.ascontiguousarray(image[:, *inside]), channels[inside])


class StoredCases(Sequence[StoredCase]):
    """Cases of a store, each mapped when it is asked for and let go after.

    A mapped file holds a file descriptor, and a process has a thousand or so of them.
    """

    def __init__(self, store: "Store", names: Sequence[str]) -> None:
        """Give the cases called `names`, in this order."""
        self.store = store
        self.names = names

    def __len__(self) -> int:
        """Give the number of cases."""
        return len(self.names)

    @overload
    def __getitem__(self, number: int) -> StoredCase: ...
    @overload
    def __getitem__(self, number: slice) -> "StoredCases": ...
    def __getitem__(self, number: int | slice) -> "StoredCase | StoredCases":
        """Map a case, or take some of the cases."""
        if isinstance(number, slice):
            return StoredCases(self.store, self.names[number])
        return self.store.load(self.names[number])


class Store:
    """A folder of preprocessed cases, each under the key of what made it."""

    def __init__(self, folder: Path) -> None:
        """Use `folder`, which is made if need be."""
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def holds(self, case: str, key: str | None = None) -> bool:
        """Tell whether the case is there, complete, and, if asked, made from the same things."""
        mark = self._path(case, "key")
        return mark.is_file() and key in (None, mark.read_text(encoding="utf-8"))

    def save(
        self,
        case: str,
        key: str,
        *,
        image_CIJK: Float32[np.ndarray, "C I J K"],
        channels_IJK: LabelMapIJK,
        spacing_mm: TripleFloat,
    ) -> None:
        """Write a case; its key comes last, so that an interrupted write does not count."""
        self._path(case, "key").unlink(missing_ok=True)
        channels_IJK = np.ascontiguousarray(channels_IJK)
        places = {str(c): _places(channels_IJK == c) for c in np.unique(channels_IJK) if c > 0}
        for part, arrays in (("image", image_CIJK), ("channels", channels_IJK)):
            stream = io.BytesIO()
            np.save(stream, np.ascontiguousarray(arrays), allow_pickle=False)
            write_atomically(self._path(case, f"{part}.npy"), stream.getvalue())
        stream = io.BytesIO()
        np.savez(stream, allow_pickle=False, spacing_mm=spacing_mm, **places)
        write_atomically(self._path(case, "places.npz"), stream.getvalue())
        write_atomically(self._path(case, "key"), key.encode())

    def load(self, case: str) -> StoredCase:
        """Map a case into memory; voxels are read when they are looked at."""
        with np.load(self._path(case, "places.npz"), allow_pickle=False) as places:
            return StoredCase(
                id=case,
                image_CIJK=np.load(self._path(case, "image.npy"), mmap_mode="r"),
                channels_IJK=np.load(self._path(case, "channels.npy"), mmap_mode="r"),
                spacing_mm=tuple(places["spacing_mm"].tolist()),
                places={int(c): places[c] for c in places.files if c != "spacing_mm"},
            )

    def _path(self, case: str, suffix: str) -> Path:
        return self.folder / f"{case}.{suffix}"


def _places(mask: np.ndarray) -> Int16[np.ndarray, "P 3"]:
    flat = np.flatnonzero(mask)
    if len(flat) > MAX_PLACES:
        flat = flat[np.random.default_rng(0).choice(len(flat), MAX_PLACES, replace=False)]
    return np.stack(np.unravel_index(flat, mask.shape), axis=-1).astype(np.int16)
