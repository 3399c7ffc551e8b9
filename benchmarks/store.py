"""Milliseconds and bytes of a training patch from the store, printed as one document of JSON.

    OMP_NUM_THREADS=1 python benchmarks/store.py [ROUNDS [FOLDER]] > benchmarks/store.json

Patches of 128³ are read at random places of a brain (4 × 240×240×155) and of a body (1 × 512×512
×800): from medseg3d's blocks, from smaller blocks and in half precision, from one plain
array as `np.load` maps it, and by Zarr where it is installed. Each way opens its file anew, as the
stream of patches does. `cold`: the file was dropped from memory before; `read_mib` is what then
came from the disk (Linux only, 0 where FOLDER's file system keeps files in memory). `warm`: it was
read just before. Medians of ROUNDS (5); 4 GB of FOLDER are needed for some minutes. With `small` in
place of ROUNDS it is one image of one channel, to see that all ways still agree.
"""

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

try:
    import zarr
except ImportError:
    zarr = None

from medseg3d.arrays import TripleInt
from medseg3d.data import blocks
from medseg3d.data.blocks import Blocks, write_blocks

SHAPES = {"brain": (4, 240, 240, 155), "body": (1, 512, 512, 800)}
SMALL = {"small": (1, 130, 129, 128)}
SIZE = (128, 128, 128)
OURS = "medseg3d"
Reader = Callable[[TripleInt], np.ndarray]
"""Opens a file and gives the patch that starts there."""


def store(rounds: str = "5", folder: str | None = None) -> dict[str, Any]:
    """Measure each image."""
    measured = {}
    small = rounds == "small"
    for name, shape in (SMALL if small else SHAPES).items():
        with tempfile.TemporaryDirectory(dir=folder) as place:
            measured[name] = measure(shape, Path(place), 1 if small else int(rounds))
    return {"cores": os.cpu_count(), "numpy": np.__version__, **measured}


def measure(shape_CIJK: tuple[int, ...], folder: Path, rounds: int) -> dict[str, Any]:
    """Let all ways take turns at the same places; every one gives the same voxels."""
    image_CIJK = np.random.default_rng(0).standard_normal(shape_CIJK, dtype=np.float32)
    ways = {**write_as_blocks(image_CIJK, folder), **write_plain(image_CIJK, folder)}
    ways |= write_by_zarr(image_CIJK, folder)
    spare = np.subtract(shape_CIJK[1:], SIZE) + 1
    starts = np.random.default_rng(1).integers(0, spare, (rounds, 3)).tolist()
    spent: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    for start in starts:
        for name, (read, path) in ways.items():
            spent[name].append(time_patch(partial(read, start), path))
    i, j, k = starts[0]
    expected = image_CIJK[:, i : i + SIZE[0], j : j + SIZE[1], k : k + SIZE[2]]
    for read, _ in ways.values():
        assert np.allclose(read(starts[0]), expected, atol=2e-3)  # one is in half precision
    return {
        "patch_mib": image_CIJK[:, :128, :128, :128].nbytes / 2**20,
        "ways": {name: summary(figures, ways[name][1]) for name, figures in spent.items()},
    }


def write_as_blocks(image_CIJK: np.ndarray, folder: Path) -> dict[str, tuple[Reader, Path]]:
    """Write blocks, also smaller ones, and in half precision."""
    shape_IJK = image_CIJK.shape[1:]
    ways = {}
    for name, edge, dtype in (
        (OURS, blocks.EDGE, "f4"),
        ("blocks of 16", 16, "f4"),
        ("half precision", blocks.EDGE, "f2"),
    ):
        path = folder / f"{edge}.{dtype}.npy"
        with blocks_of(edge), path.open("wb") as stream:
            write_blocks(stream, image_CIJK.astype(dtype, copy=False))

        def read(start: TripleInt, path: Path = path) -> np.ndarray:
            return Blocks.map(path, shape_IJK).read(start, SIZE).astype("f4", copy=False)

        ways[name] = read, path
    return ways


def write_plain(image_CIJK: np.ndarray, folder: Path) -> dict[str, tuple[Reader, Path]]:
    """Write one array, the last axis of which runs quickest."""
    path = folder / "plain.npy"
    np.save(path, image_CIJK)

    def read(start: TripleInt) -> np.ndarray:
        box = (slice(a, a + n) for a, n in zip(start, SIZE, strict=True))
        return np.array(np.load(path, mmap_mode="r")[(slice(None), *box)])

    return {"one array": (read, path)}


def write_by_zarr(image_CIJK: np.ndarray, folder: Path) -> dict[str, tuple[Reader, Path]]:
    """Write chunks of the size of our blocks by Zarr, not packed."""
    if zarr is None:
        return {}
    path = folder / "zarr"
    chunks = (len(image_CIJK), *(blocks.EDGE,) * 3)
    zarr.create_array(str(path), data=image_CIJK, chunks=chunks, compressors=None)

    def read(start: TripleInt) -> np.ndarray:
        box = (slice(a, a + n) for a, n in zip(start, SIZE, strict=True))
        return zarr.open_array(str(path), mode="r")[(slice(None), *box)]

    return {"Zarr": (read, path)}


def time_patch(read: Callable[[], np.ndarray], path: Path) -> dict[str, float]:
    """Read a patch from the disk, and again from memory."""
    drop(path)
    before, start = bytes_read(), time.perf_counter()
    read()
    cold_s, came = time.perf_counter() - start, bytes_read() - before
    start, cpu = time.perf_counter(), time.process_time()
    read()
    return {
        "cold_ms": 1000 * cold_s,
        "read_mib": came / 2**20,
        "warm_ms": 1000 * (time.perf_counter() - start),
        "warm_cpu_ms": 1000 * (time.process_time() - cpu),
    }


def summary(figures: list[dict[str, float]], path: Path) -> dict[str, float]:
    """Give medians, and the size on disk."""
    medians = {
        what: round(statistics.median(one[what] for one in figures), 1) for what in figures[0]
    }
    return medians | {"disk_mib": round(sum(f.stat().st_size for f in files_of(path)) / 2**20)}


@contextmanager
def blocks_of(edge: int) -> Iterator[None]:
    """Let blocks be cut with another edge."""
    before = blocks.EDGE
    vars(blocks)["EDGE"] = edge
    yield
    vars(blocks)["EDGE"] = before


def drop(path: Path) -> None:
    """Let the system forget what is in a file, or in the files of a folder."""
    for file in files_of(path):
        with file.open("rb") as stream:
            os.fsync(stream.fileno())
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def files_of(path: Path) -> list[Path]:
    """List the files that hold an image."""
    return [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]


def bytes_read() -> int:
    """Tell how many bytes the disk has given to this process."""
    facts = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(facts["read_bytes"])


if __name__ == "__main__":
    print(json.dumps(store(*sys.argv[1:]), indent=1))
