"""Preprocessed cases on disk: whole or not there, and mapped, so that a patch reads only itself."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias, overload

import numpy as np
from jaxtyping import Float32, Int16, UInt8
from scipy.ndimage import find_objects

from medseg3d.arrays import ArrayCIJK, MaskIJK, TripleFloat, TripleInt
from medseg3d.data.blocks import Blocks, write_blocks
from medseg3d.errors import ConfigError
from medseg3d.io.atomic import fill_folder, open_atomically, write_atomically
from medseg3d.labels import IGNORED, LabelScheme

ChannelsIJK: TypeAlias = UInt8[np.ndarray, "I J K"]
"""Index of each voxel's output channel, or `IGNORED`."""

MAX_PLACES: Final = 10_000
"""Voxels remembered per label and case: enough to draw from, small enough to keep in memory."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Patch:
    """A crop of an image with the output channel of each voxel."""

    image_CIJK: Float32[np.ndarray, "C I J K"]
    channels_IJK: ChannelsIJK


@dataclass(frozen=True, slots=True, eq=False)
class StoredCase:
    """One preprocessed case: image, output channels, and where each label lies."""

    id: str
    image: Blocks
    channels: Blocks
    spacing_mm: TripleFloat
    places: dict[int, Int16[np.ndarray, "P 3"]]
    """Output channel -> some of its voxels, of those that occur; not of background or ignored."""

    @classmethod
    def of_arrays(
        cls,
        case: str,
        image_CIJK: Float32[np.ndarray, "C I J K"],
        *,
        channels_IJK: ChannelsIJK,
        spacing_mm: TripleFloat,
    ) -> "StoredCase":
        """Make a case of arrays in memory, as a store would give it."""
        return cls(
            case,
            Blocks.of_array(image_CIJK),
            Blocks.of_array(channels_IJK[np.newaxis]),
            spacing_mm,
            find_places(channels_IJK),
        )

    @property
    def shape_IJK(self) -> TripleInt:
        """Number of voxels along each axis."""
        return self.image.shape_IJK

    @property
    def num_channels(self) -> int:
        """Number of the image's channels."""
        return self.image.parts.shape[3]

    @property
    def image_CIJK(self) -> Float32[np.ndarray, "C I J K"]:
        """The whole image, copied."""
        return self.image.read((0, 0, 0), self.shape_IJK)

    @property
    def channels_IJK(self) -> ChannelsIJK:
        """The output channel of every voxel, copied."""
        return self.channels.read((0, 0, 0), self.shape_IJK)[0]

    def read(self, start_IJK: TripleInt, size_IJK: TripleInt) -> Patch:
        """Read a box; where it reaches out of the case, the outermost voxels are repeated."""
        image_CIJK = self.image.read(start_IJK, size_IJK)
        return Patch(image_CIJK, self.channels.read(start_IJK, size_IJK)[0])


class Store:
    """A folder of preprocessed cases, each under its name and the key of what made it.

    What is there is never changed, so that any number of runs may read and write one store at the
    same time, with whatever configuration.
    """

    def __init__(self, folder: Path) -> None:
        """Use `folder`, which is made if need be."""
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def holds(self, case: str, key: str) -> bool:
        """Tell whether the case is there, made from what the key says."""
        return self._place(case, key).is_dir()

    def save(
        self,
        case: str,
        key: str,
        *,
        image_CIJK: Float32[np.ndarray, "C I J K"],
        channels_IJK: ChannelsIJK,
        spacing_mm: TripleFloat,
    ) -> None:
        """Write a case, unless another process was quicker.

        Raises:
            ConfigError: it cannot be written; nothing is left behind.
        """
        places = find_places(channels_IJK)
        facts = {
            "shape_IJK": channels_IJK.shape,
            "spacing_mm": spacing_mm,
            "places": {channel: len(found) for channel, found in places.items()},
        }
        with fill_folder(self._place(case, key)) as folder:
            _write_blocks(folder / "image.npy", image_CIJK)
            _write_blocks(folder / "channels.npy", channels_IJK[np.newaxis])
            with open_atomically(folder / "places.npy") as stream:
                all_places = np.concatenate([np.empty((0, 3), np.int16), *places.values()])
                np.save(stream, all_places, allow_pickle=False)
            write_atomically(folder / "case.json", json.dumps(facts).encode())

    def load(self, case: str, key: str) -> StoredCase:
        """Map a case into memory; voxels are read when they are looked at."""
        folder = self._place(case, key)
        facts = json.loads((folder / "case.json").read_text(encoding="utf-8"))
        all_places = np.load(folder / "places.npy", mmap_mode="r", allow_pickle=False)
        ends = np.cumsum([*facts["places"].values()], dtype=int)[:-1]
        places = np.split(np.asarray(all_places), ends) if facts["places"] else []
        size_i, size_j, size_k = facts["shape_IJK"]
        shape_IJK = size_i, size_j, size_k
        return StoredCase(
            id=case,
            image=Blocks.map(folder / "image.npy", shape_IJK),
            channels=Blocks.map(folder / "channels.npy", shape_IJK),
            spacing_mm=tuple(facts["spacing_mm"]),
            places=dict(zip(map(int, facts["places"]), places, strict=True)),
        )

    def _place(self, case: str, key: str) -> Path:
        return self.folder / f"{case}.{key}"


class StoredCases(Sequence[StoredCase]):
    """Cases of a store, each mapped when it is asked for and let go after.

    A mapped file holds a file descriptor, and a process has a thousand or so of them.
    """

    def __init__(self, store: Store, keys: Mapping[str, str]) -> None:
        """Give the cases named in `keys`, in this order, each made from what its key says."""
        self.store = store
        self.keys = dict(keys)
        self._names = [*self.keys]

    def __len__(self) -> int:
        """Give the number of cases."""
        return len(self._names)

    @overload
    def __getitem__(self, number: int) -> StoredCase: ...
    @overload
    def __getitem__(self, number: slice) -> "StoredCases": ...
    def __getitem__(self, number: int | slice) -> "StoredCase | StoredCases":
        """Map a case, or take some of the cases."""
        if isinstance(number, slice):
            return self.choose(self._names[number])
        name = self._names[number]
        return self.store.load(name, self.keys[name])

    def choose(self, names: Sequence[str]) -> "StoredCases":
        """Take the cases of these names."""
        return StoredCases(self.store, {name: self.keys[name] for name in names})


def write_keys(path: Path, keys: Mapping[str, str]) -> None:
    """Write which cases of a store are a run's: case -> key."""
    write_atomically(path, json.dumps(keys, indent=1).encode())


def read_keys(path: Path) -> dict[str, str]:
    """Read what `write_keys` wrote.

    Raises:
        ConfigError: there is none.
    """
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"'{path}' does not say which cases of the store the run is made from: {error}. "
            "Begin anew in another --out."
        ) from error


def require_labels(cases: Sequence[StoredCase], labels: LabelScheme) -> None:
    """See that there is something to learn; warn of each label that no case has.

    Raises:
        ConfigError: no case has a labelled voxel.
    """
    found = {channel for case in cases for channel in case.places}
    if not found:
        raise ConfigError(
            f"none of the {len(cases)} training cases has a labelled voxel, expected values "
            f"{[*labels.channel_values[1:]]}: there is nothing to learn. Look at the files of "
            "data.reference."
        )
    for channel, value in enumerate(labels.channel_values):
        if channel and channel not in found:
            name = labels.values[value]
            log.warning("no training case has a voxel of '%s' (value %d)", name, value)


def find_places(channels_IJK: ChannelsIJK) -> dict[int, Int16[np.ndarray, "P 3"]]:
    """Find voxels of each output channel, evenly drawn where there are more than `MAX_PLACES`.

    Background has none, nor have voxels that training ignores.
    """
    boxes = enumerate(find_objects(channels_IJK), start=1)  # of each label its box, or None
    return {
        channel: _draw_places(channels_IJK[box] == channel, [axis.start for axis in box])
        for channel, box in boxes
        if box and channel != IGNORED
    }


def _draw_places(mask: MaskIJK, start_IJK: list[int]) -> Int16[np.ndarray, "P 3"]:
    flat = np.flatnonzero(mask)
    if len(flat) > MAX_PLACES:
        flat = flat[np.random.default_rng(0).choice(len(flat), MAX_PLACES, replace=False)]
    places = np.stack(np.unravel_index(flat, mask.shape), axis=-1) + start_IJK
    return places.astype(np.int16)


def _write_blocks(path: Path, array_CIJK: ArrayCIJK) -> None:
    with open_atomically(path) as stream:
        write_blocks(stream, array_CIJK)
