"""CPU-milliseconds of a case without its network, step by step, printed as one document of JSON.

    OMP_NUM_THREADS=1 python benchmarks/case.py [ROUNDS] > benchmarks/case.json

Four channels of 240×240×155 int16 at 1 mm, smooth noise in a brain of 140×175×140 voxels and 0
around it, are read from `.nii.gz`, turned from LPS to RAS, cropped to the brain, brought to mean 0
and deviation 1, and resampled to a coarser spacing and to a finer one; a tumour of three labels
goes from there back onto the grid of the files and into a `.nii.gz`. Where voxels change, other
ways to do that stand beside it, for one channel and for the label map, crop and grid being the
same. Medians of ROUNDS (5) on one thread, after one that does not count; the files lie in memory
where the machine has /dev/shm. It takes two minutes.
"""

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import monai
import nibabel
import numpy as np
import scipy
import SimpleITK
import torch
from monai.data import MetaTensor
from monai.transforms import Spacing
from scipy.ndimage import gaussian_filter, zoom

from medseg3d.config.preprocess import PreprocessConfig
from medseg3d.geometry.orient import reorient_volume
from medseg3d.geometry.resample import resample_label_map, resample_volume, spaced_grid
from medseg3d.io.files import read_volume, write_volume
from medseg3d.preprocess.pipeline import preprocess_volume
from medseg3d.volume import Volume

SHAPE = (240, 240, 155)
BRAIN = (140, 175, 140)
LPS = np.diag([-1.0, -1, 1, 1])
SPACINGS = {"kept": None, "coarser": (1.25, 1.25, 1.5), "finer": (0.8, 0.8, 0.8)}
SHM = Path("/dev/shm")
Action = Callable[[], object]


def case(rounds: str = "5") -> dict[str, Any]:
    """Measure a case at each spacing."""
    SimpleITK.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    torch.set_num_threads(1)
    images_CIJK, label_map = draw_case()
    with tempfile.TemporaryDirectory(dir=SHM if SHM.is_dir() else None) as folder:
        files = [Path(folder) / f"{number}.nii.gz" for number in range(len(images_CIJK))]
        for image_IJK, path in zip(images_CIJK, files, strict=True):
            nibabel.save(nibabel.Nifti1Image(image_IJK, LPS), path)
        measured = {
            name: measure_case(files, label_map, spacing_mm, int(rounds))
            for name, spacing_mm in SPACINGS.items()
        }
        others = measure_reading(files, label_map, Path(folder), int(rounds))
    versions = {m.__name__: m.__version__ for m in (monai, nibabel, np, scipy, SimpleITK)}
    return versions | measured | {"files by nibabel": others}


def draw_case() -> tuple[np.ndarray, Volume]:
    """Draw four channels of a brain, and a bumpy tumour of three labels in it."""
    rng = np.random.default_rng(0)
    places = np.ix_(*((np.arange(n) - n / 2) for n in SHAPE))
    brain = sum((x / (n / 2)) ** 2 for x, n in zip(places, BRAIN, strict=True)) < 1
    images_CIJK = np.zeros((4, *SHAPE), dtype="i2")
    for image_IJK in images_CIJK:
        smooth = gaussian_filter(rng.standard_normal(SHAPE, dtype=np.float32), 4)
        grey = 400 + 80 * smooth / smooth.std() + 15 * rng.standard_normal(SHAPE)
        image_IJK[brain] = grey.clip(1)[brain].round()
    middle = sum((x - offset) ** 2 for x, offset in zip(places, (25, -20, 10), strict=True))
    away = np.sqrt(middle) + 4 * smooth / smooth.std()
    labels = (away < 32).astype("u1") + (away < 20) + (away < 12)
    return images_CIJK, Volume(labels[np.newaxis], LPS)


def measure_case(
    files: list[Path], label_map: Volume, spacing_mm: tuple[float, ...] | None, rounds: int
) -> dict[str, Any]:
    """Time the steps, and what else could be done where voxels change."""
    config = PreprocessConfig(crop="nonzero", intensity="zscore_nonzero", spacing_mm=spacing_mm)
    volume = read_volume(files)
    preprocessed = preprocess_volume(volume, config)
    labels_IJK = preprocessed.follow(label_map)
    restored = preprocessed.restore(labels_IJK)
    target = files[0].with_name("labels.nii.gz")
    steps: dict[str, Action] = {
        "read": lambda: read_volume(files),
        "preprocess": lambda: preprocess_volume(volume, config),
        "restore": lambda: preprocessed.restore(labels_IJK),
        "write": lambda: write_volume(restored, target, like=files[0]),
    }
    milliseconds = cpu_ms(steps, rounds)
    measured = {
        "shape": preprocessed.volume.shape_IJK,
        "dtype_read": str(volume.array_CIJK.dtype),
        "cpu_ms": milliseconds | {"all": round(sum(milliseconds.values()), 1)},
    }
    if spacing_mm is None:
        return measured
    start, stop = preprocessed.box.start, preprocessed.box.stop
    kept = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    cropped = reorient_volume(Volume(volume.array_CIJK[:1, *kept], LPS))
    return measured | resampling(cropped, labels_IJK, spacing_mm, rounds)


def resampling(
    cropped: Volume, labels_IJK: np.ndarray, spacing_mm: tuple[float, ...], rounds: int
) -> dict[str, Any]:
    """Time one channel to another spacing, and the label map back, in several ways."""
    image = Volume(np.ascontiguousarray(cropped.array_CIJK, dtype="f4"), cropped.affine)
    grid = spaced_grid(image.grid, spacing_mm)
    factors = np.divide(grid.shape_IJK, image.shape_IJK)
    spacing = Spacing(spacing_mm, mode="bilinear", padding_mode="border")
    tensor = MetaTensor(torch.from_numpy(image.array_CIJK), affine=torch.tensor(image.affine))
    picture = SimpleITK.GetImageFromArray(image.array_CIJK[0].T)
    index = np.linalg.solve(image.affine, grid.affine)
    moved = SimpleITK.AffineTransform(index[:3, :3].ravel(), index[:3, 3])

    def masks_by_scipy() -> np.ndarray:
        back = np.divide(image.shape_IJK, labels_IJK.shape)
        masks = [zoom((labels_IJK == value).astype("f4"), back, order=1) for value in range(4)]
        return np.argmax(masks, axis=0)

    return {
        "one_channel_ms": cpu_ms(
            {
                "medseg3d": lambda: resample_volume(image, grid=grid),
                "SimpleITK linear": lambda: SimpleITK.Resample(
                    picture, grid.shape_IJK, moved, SimpleITK.sitkLinear
                ),
                "scipy order 1": lambda: zoom(image.array_CIJK[0], factors, order=1),
                "scipy order 3": lambda: zoom(image.array_CIJK[0], factors, order=3),
                "MONAI Spacing bilinear": lambda: spacing(tensor),
            },
            rounds,
        ),
        "label_map_back_ms": cpu_ms(
            {
                "medseg3d": lambda: resample_label_map(labels_IJK, grid, image.grid),
                "scipy order 1, argmax": masks_by_scipy,
            },
            rounds,
        ),
    }


def measure_reading(
    files: list[Path], label_map: Volume, folder: Path, rounds: int
) -> dict[str, float]:
    """Time nibabel as most code calls it."""
    labels, target = label_map.array_CIJK[0], folder / "nibabel.nii.gz"
    return cpu_ms(
        {
            "read": lambda: [nibabel.load(path).get_fdata() for path in files],
            "write": lambda: nibabel.save(nibabel.Nifti1Image(labels, LPS), target),
        },
        rounds,
    )


def cpu_ms(ways: dict[str, Action], rounds: int) -> dict[str, float]:
    """Give the median CPU-milliseconds of each way; all take turns."""
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds + 1):
        for name, act in ways.items():
            start = time.process_time()
            act()
            spent[name].append(1000 * (time.process_time() - start))
    return {name: round(statistics.median(ms[1:]), 1) for name, ms in spent.items()}


if __name__ == "__main__":
    print(json.dumps(case(*sys.argv[1:]), indent=1))
