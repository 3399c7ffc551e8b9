"""Milliseconds to read and write compressed volumes, printed as one document of JSON.

    OMP_NUM_THREADS=1 python benchmarks/files.py [ROUNDS] > benchmarks/files.json

Images of 240×240×155 int16 are read, and label maps of as many voxels written: a glioma of BRATS
2015 from ../shared/data where it lies beside the checkout (its image brought back to integers of 12
bits), and a made-up head with noise everywhere in it. Beside medseg3d stand nibabel, once as most
code calls it (`get_fdata`, float64) and once with the stored dtype kept, and SimpleITK: medians by
the clock of ROUNDS (9) in one process, in which all take turns; the files lie in memory where the
machine has /dev/shm. medseg3d waits for the disk to have what it writes (fsync), the others do not.
They write files of their own usual compression, so their sizes are told too. It takes ten seconds.
"""

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import SimpleITK
from scipy.ndimage import gaussian_filter

from medseg3d.io.files import read_volume, write_volume
from medseg3d.volume import Volume

SHAPE = (240, 240, 155)
BRATS = Path(__file__).parents[2] / "shared/data/brats2015_nc/brats_2013_pat0001_1"
SHM = Path("/dev/shm")
Action = Callable[[], object]


def files(rounds: str = "9") -> dict[str, Any]:
    """Time every reader and writer on every case."""
    with tempfile.TemporaryDirectory(dir=SHM if SHM.is_dir() else None) as folder:
        return {
            "nibabel": nibabel.__version__,
            "numpy": np.__version__,
            "SimpleITK": SimpleITK.Version_VersionString(),
        } | {
            name: compare(image, labels, Path(folder), int(rounds))
            for name, image, labels in cases()
        }


def cases() -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Give the name, the image and the label map of each case."""
    if BRATS.is_dir():
        flair = np.asarray(nibabel.load(BRATS / "Flair_subtrMeanDivStd.nii.gz").dataobj)
        scaled = (flair - flair.min()) / np.ptp(flair) * 4095
        labels = np.asarray(nibabel.load(BRATS / "OTMultiClass.nii.gz").dataobj)
        yield "glioma", scaled.round().astype("i2"), labels.astype("u1")
    yield "head with noise", *draw_head()


def draw_head() -> tuple[np.ndarray, np.ndarray]:
    """Draw a noisy head in air, and 40 organs with bumpy borders that fill it."""
    rng = np.random.default_rng(0)
    axes = [(np.arange(n) - n / 2) / n for n in SHAPE]
    away = sum(axis**2 for axis in np.ix_(*axes))
    head = away < 0.45**2
    smooth = gaussian_filter(rng.standard_normal(SHAPE, dtype=np.float32), 8)
    smooth /= smooth.std()
    image = np.where(head, 1000 + 300 * smooth + 40 * rng.standard_normal(SHAPE), 0)
    organs = np.where(head, 20 + 10 * smooth, 0).clip(0, 40)
    return np.asfortranarray(image.round().astype("i2")), np.asfortranarray(organs.astype("u1"))


def compare(image: np.ndarray, labels: np.ndarray, folder: Path, rounds: int) -> dict[str, Any]:
    """Let all readers, then all writers, take turns."""
    affine = np.diag([-1.0, -1, 1, 1])
    source = folder / "image.nii.gz"
    nibabel.save(nibabel.Nifti1Image(image, affine), source)
    targets = {name: folder / f"{name}.nii.gz" for name in ("medseg3d", "nibabel", "SimpleITK")}
    readers: dict[str, Action] = {
        "medseg3d": lambda: read_volume(source).array_CIJK[0],
        "nibabel get_fdata": lambda: nibabel.load(source).get_fdata(),
        "nibabel dataobj": lambda: np.asarray(nibabel.load(source).dataobj),
        "SimpleITK": lambda: SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(source)).T,
    }
    label_map = Volume(labels[np.newaxis], affine)
    picture = SimpleITK.GetImageFromArray(labels.T)
    writers: dict[str, Action] = {
        "medseg3d": partial(write_volume, label_map, targets["medseg3d"]),
        "nibabel": lambda: nibabel.save(nibabel.Nifti1Image(labels, affine), targets["nibabel"]),
        "SimpleITK": partial(SimpleITK.WriteImage, picture, targets["SimpleITK"], True),
    }
    reading, writing = time_turns(readers, rounds), time_turns(writers, rounds)
    return {
        "read_ms": reading,
        "read_times_faster": times_faster(reading),
        "same_voxels": all(np.array_equal(read(), image) for read in readers.values()),
        "write_ms": writing,
        "write_times_faster": times_faster(writing),
        "written_kb": {name: round(path.stat().st_size / 1e3) for name, path in targets.items()},
    }


def time_turns(actions: dict[str, Action], rounds: int) -> dict[str, float]:
    """Give the median milliseconds of each action; the first round does not count."""
    times: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(rounds + 1):
        for name, action in actions.items():
            start = time.perf_counter()
            action()
            times[name].append(1000 * (time.perf_counter() - start))
    return {name: round(statistics.median(ms[1:]), 2) for name, ms in times.items()}


def times_faster(times: dict[str, float]) -> dict[str, float]:
    """Hold every time against the first."""
    own, *others = times.items()
    return {name: round(ms / own[1], 1) for name, ms in others}


if __name__ == "__main__":
    print(json.dumps(files(*sys.argv[1:]), indent=2))
