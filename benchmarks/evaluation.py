"""Figures of the evaluation, each printed as one document of JSON.

    OMP_NUM_THREADS=1 python benchmarks/evaluation.py surfaces [ROUNDS] > benchmarks/surfaces.json
    OMP_NUM_THREADS=1 python benchmarks/evaluation.py files [ROUNDS] > benchmarks/scores.json

`surfaces`: Dice, HD95 and NSD at 1 and 2 mm of made-up glioma regions (240×240×155) and of a CT
organ (512×512×400), each with a good and with a poor prediction, beside the HD95 and NSD of
surface-distance and the HD95 of MONAI: milliseconds by the clock in one process, medians of ROUNDS
(5) in which all take turns; the most memory that NumPy takes for a region beyond its masks, in MB;
and whether the numbers are the same. The peers are in the dev extra. It takes five minutes.
`files`: milliseconds from two compressed files of 240×240×155 to the full table of BraTS 2023, of a
glioma and of 22 metastases, in one process, medians of ROUNDS (9) in which they take turns, and the
most memory that NumPy takes at a time, the two label maps included; and the seconds of `medseg3d
evaluate` for a folder of 100 such gliomas, with two workers.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import scipy
import surface_distance
import torch
from monai.metrics import compute_hausdorff_distance
from scipy.ndimage import gaussian_filter, zoom

from medseg3d.arrays import MaskIJK, TripleFloat
from medseg3d.evaluate.folder import score_cases
from medseg3d.evaluate.overlap import dice
from medseg3d.evaluate.score import score_case
from medseg3d.evaluate.surface import hausdorff_mm, surface_scores
from medseg3d.evaluate.tables import write_scores
from medseg3d.io.files import read_volume, write_volume
from medseg3d.volume import Volume

TOLERANCES_MM = (1.0, 2.0)
Regions = dict[str, tuple[MaskIJK, MaskIJK]]


def surfaces(rounds: str = "5") -> dict[str, Any]:
    """Time every method on every case."""
    warnings.simplefilter("ignore")  # the peers' own
    torch.set_num_threads(1)
    versions = {
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "surface-distance": "0.1",
        "torch": torch.__version__,
    }
    return versions | {
        name: compare(regions, spacing_mm, int(rounds))
        for name, regions, spacing_mm in draw_cases()
    }


def files(rounds: str = "9") -> dict[str, Any]:
    """Time what a user does: files in, tables out."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        pairs = {}
        for name, maps in (("glioma", draw_glioma()), ("22 metastases", draw_metastases())):
            paths = folder / f"{name} predicted.nii.gz", folder / f"{name}.nii.gz"
            for label_map, path in zip(maps, paths, strict=True):
                write_volume(Volume(label_map[np.newaxis], np.eye(4)), path)
            pairs[name] = paths
        return {
            "ms": time_files(pairs, folder, int(rounds)),
            "peak_mb": {
                name: peak_mb(partial(score_files, *pair, scheme=SCHEMES[name]))
                for name, pair in pairs.items()
            },
            "label_map_mb": round(240 * 240 * 155 / 1e6, 1),
            "folder_of_100_s": time_folder(*pairs["glioma"], folder),
        }


SCHEMES = {"glioma": "brats2023-gli", "22 metastases": "brats2023-met"}


def time_files(
    pairs: dict[str, tuple[Path, Path]], folder: Path, rounds: int
) -> dict[str, dict[str, float]]:
    """Let the cases take turns; apart from the whole, say how long reading and scoring take."""
    times: dict[str, dict[str, list[float]]] = {
        name: {"read": [], "score": [], "files to tables": []} for name in pairs
    }
    for _ in range(rounds):
        for name, (predicted, reference) in pairs.items():
            start = time.perf_counter()
            volumes = read_volume(predicted), read_volume(reference)
            read = time.perf_counter()
            score_case(*volumes, scheme=SCHEMES[name])
            scored = time.perf_counter()
            scores = score_cases(predicted, reference, scheme=SCHEMES[name])
            write_scores(scores, folder / "scores")
            ended = time.perf_counter()
            for part, seconds in zip(
                times[name].values(), (read - start, scored - read, ended - scored), strict=True
            ):
                part.append(1000 * seconds)
    return {
        name: {part: round(statistics.median(ms), 1) for part, ms in parts.items()}
        for name, parts in times.items()
    }


def score_files(predicted: Path, reference: Path, *, scheme: str) -> None:
    """Read and score a pair."""
    score_cases(predicted, reference, scheme=scheme)


def time_folder(predicted: Path, reference: Path, folder: Path) -> float:
    """Evaluate a hundred copies as the command does, with two processes."""
    for source, side in ((predicted, "mine"), (reference, "theirs")):
        (folder / side).mkdir()
        for n in range(100):
            (folder / side / f"case{n:03}.nii.gz").write_bytes(source.read_bytes())
    command = [sys.executable, "-m", "medseg3d", "evaluate", folder / "mine", folder / "theirs"]
    options = ["--scheme", "brats2023", "--set", "evaluate.workers=2", "--out", folder / "all"]
    start = time.perf_counter()
    subprocess.run([*map(str, command + options)], stdout=subprocess.PIPE, check=True)
    return round(time.perf_counter() - start, 1)


def compare(regions: Regions, spacing_mm: TripleFloat, rounds: int) -> dict[str, Any]:
    """Let the methods take turns on a case, each with all the regions."""
    times: dict[str, list[float]] = {name: [] for name in METHODS}
    found: dict[str, Any] = {}
    for _ in range(rounds):
        for name, method in METHODS.items():
            start = time.perf_counter()
            found[name] = [method(*pair, spacing_mm) for pair in regions.values()]
            times[name].append(1000 * (time.perf_counter() - start))
    ms = {name: round(statistics.median(measured), 1) for name, measured in times.items()}
    ours, theirs = found["medseg3d"], found["surface-distance"]
    border_hd95 = [
        hausdorff_mm(*pair, spacing_mm, definition="max_directed") for pair in regions.values()
    ]
    return {
        "regions": {
            region: {"dice": round(overlap, 4), "hd95": hd95, "nsd": np.round(nsd, 4).tolist()}
            for region, (overlap, hd95, nsd) in zip(regions, ours, strict=True)
        },
        "ms": ms,
        "times_faster": {name: round(ms[name] / ms["medseg3d"], 1) for name in PEERS},
        "peak_mb": {
            name: max(peak_mb(partial(method, *pair, spacing_mm)) for pair in regions.values())
            for name, method in METHODS.items()
        },
        "label_map_mb": round(next(iter(regions.values()))[0].size / 1e6, 1),
        "same_as_surface_distance": all(
            np.allclose([a[1], *a[2]], [b[0], *b[1]], rtol=0, atol=1e-9)
            for a, b in zip(ours, theirs, strict=True)
        ),
        # MONAI interpolates in single precision, also the rank
        "same_as_monai": bool(np.allclose(border_hd95, found["monai"], rtol=0, atol=1e-4)),
    }


def peak_mb(method: Callable[[], object]) -> float:
    """Give the most that NumPy holds at a time beyond what it held before."""
    tracemalloc.start()
    method()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return round(peak / 1e6, 1)


def with_medseg3d(reference: MaskIJK, predicted: MaskIJK, spacing_mm: TripleFloat) -> Any:
    """Give Dice, HD95 and NSD."""
    scores = surface_scores(reference, predicted, spacing_mm, tolerances_mm=TOLERANCES_MM)
    return dice(reference, predicted), *scores


def with_surface_distance(reference: MaskIJK, predicted: MaskIJK, spacing_mm: TripleFloat) -> Any:
    """Give HD95 and NSD."""
    found = surface_distance.compute_surface_distances(reference, predicted, spacing_mm)
    nsd = [surface_distance.compute_surface_dice_at_tolerance(found, t) for t in TOLERANCES_MM]
    return surface_distance.compute_robust_hausdorff(found, 95), nsd


def with_monai(reference: MaskIJK, predicted: MaskIJK, spacing_mm: TripleFloat) -> float:
    """Give HD95 by definition max_directed."""
    pair = [torch.from_numpy(mask)[None, None] for mask in (predicted, reference)]
    hd95 = compute_hausdorff_distance(
        *pair, include_background=True, percentile=95, spacing=spacing_mm
    )
    return hd95.item()


PEERS = {"surface-distance": with_surface_distance, "monai": with_monai}
METHODS: dict[str, Callable[..., Any]] = {"medseg3d": with_medseg3d, **PEERS}


def draw_cases() -> Iterator[tuple[str, Regions, TripleFloat]]:
    """Draw references with a good and a poor prediction, stored as NIfTI files store them."""
    for quality, error in (("good", 0.04), ("poor", 0.12)):
        depths = draw_depths((240, 240, 155), (42, 36, 33), error)
        regions = {name: cut(depths, stop) for name, stop in (("WT", 1), ("TC", 0.6))}
        core, rim = cut(depths, 0.38), regions["TC"]
        regions["ET"] = rim[0] & ~core[0], rim[1] & ~core[1]
        yield f"glioma, {quality}", regions, (1.0, 1.0, 1.0)
    for quality, error in (("good", 0.02), ("poor", 0.06)):
        depths = draw_depths((512, 512, 400), (130, 105, 85), error)
        yield f"CT organ, {quality}", {"organ": cut(depths, 1)}, (0.75, 0.75, 1.0)


def draw_glioma() -> tuple[np.ndarray, np.ndarray]:
    """Draw a glioma's oedema, core and rim, and a good prediction of them."""
    reference, predicted = (
        np.select([depth < 0.38, depth < 0.6, depth < 1], [1, 3, 2], 0).astype(np.uint8)
        for depth in draw_depths((240, 240, 155), (42, 36, 33), 0.04)
    )
    return np.asfortranarray(predicted), np.asfortranarray(reference)


def draw_metastases() -> tuple[np.ndarray, np.ndarray]:
    """Draw 22 metastases with a rim and oedema; two are missed, and two made up."""
    rng = np.random.default_rng(0)
    maps = [np.zeros((240, 240, 155), np.uint8, order="F") for _ in range(2)]
    for n in range(24):
        radius = rng.uniform(2, 8)
        center = rng.uniform(30, [210, 210, 125])
        for label_map, seen in zip(maps, (n not in (0, 1), n not in (2, 3)), strict=True):
            shift = rng.normal(0, 0.5, size=3)
            axes = [
                np.arange(size) - c - s
                for size, c, s in zip(label_map.shape, center, shift, strict=True)
            ]
            away = sum(axis**2 for axis in np.ix_(*axes)) / radius**2
            for value, stop in ((2, 1.0), (3, 0.6), (1, 0.2)):
                if seen:
                    label_map[away < stop] = value
    return maps[0], maps[1]


def cut(depths: tuple[np.ndarray, np.ndarray], stop: float) -> tuple[MaskIJK, MaskIJK]:
    """Fill what is less deep."""
    reference, predicted = (depth < stop for depth in depths)
    return reference, predicted


def draw_depths(
    shape: tuple[int, int, int], radii: tuple[int, int, int], error: float
) -> tuple[np.ndarray, np.ndarray]:
    """Draw a bumpy ellipsoid, 0 in its middle and 1 on its surface, and a prediction of it."""
    rng = np.random.default_rng(0)
    axes = [(np.arange(n, dtype=np.float32) - n / 2) / r for n, r in zip(shape, radii, strict=True)]
    away = np.sqrt(sum(axis**2 for axis in np.ix_(*axes)))
    reference = away + 0.12 * bumps(rng, shape, max(radii) / 6)
    predicted = reference + error * bumps(rng, shape, max(radii) / 14)
    return np.asfortranarray(reference), np.asfortranarray(predicted)


def bumps(rng: np.random.Generator, shape: tuple[int, int, int], width: float) -> np.ndarray:
    """Draw smooth noise of deviation 1, on a grid of half the size."""
    noise = rng.standard_normal([-(-n // 2) for n in shape], dtype=np.float32)
    noise = gaussian_filter(noise, width / 2)
    fine = zoom(noise / noise.std(), 2, order=1)
    return fine[tuple(slice(n) for n in shape)]


if __name__ == "__main__":
    figures = {"surfaces": surfaces, "files": files}
    name, *rest = sys.argv[1:] or ["surfaces"]
    print(json.dumps(figures[name](*rest), indent=2))
