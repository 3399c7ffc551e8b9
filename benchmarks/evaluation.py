"""Figures of the evaluation, each printed as one document of JSON.

    OMP_NUM_THREADS=1 python benchmarks/evaluation.py surfaces [ROUNDS] > benchmarks/surfaces.json

`surfaces`: Dice, HD95 and NSD at 1 and 2 mm of made-up glioma regions (240×240×155) and of a CT
organ (512×512×400), each with a good and with a poor prediction, beside the HD95 and NSD of
surface-distance and the HD95 of MONAI: milliseconds by the clock in one process, medians of ROUNDS
(5) in which all take turns; the most memory that NumPy takes for a region beyond its masks, in MB;
and whether the numbers are the same. The peers are in the dev extra. It takes five minutes.
"""

import json
import statistics
import sys
import time
import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import scipy
import surface_distance
import torch
from monai.metrics import compute_hausdorff_distance
from scipy.ndimage import gaussian_filter, zoom

from medseg3d.arrays import MaskIJK, TripleFloat
from medseg3d.evaluate.overlap import dice
from medseg3d.evaluate.surface import hausdorff_mm, surface_scores

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
    figures = {"surfaces": surfaces}
    name, *rest = sys.argv[1:] or ["surfaces"]
    print(json.dumps(figures[name](*rest), indent=2))
