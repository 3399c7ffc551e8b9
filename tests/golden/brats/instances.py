"""Instance by instance, as in 2026: components matched one to one, without dilation."""

import math

import numpy as np
from scipy.optimize import linear_sum_assignment

from .lesionwise import Masks, components
from .masks import Spacing, dice, mean_fraction_nsd, pooled_hd95
from .seasons import Season

Scores = dict[str, float]

WORST = {"dice": 0.0, "hd95": 373.0, "nsd": 0.0}
UNDEFINED = dict.fromkeys(WORST, math.nan)
VOXELS = (1.0, 1.0, 1.0)


def score_instances(
    season: Season, region: str, predicted: np.ndarray, reference: np.ndarray, spacing: Spacing
) -> Scores:
    a, b = (np.isin(label_map, season.regions[region]) for label_map in (predicted, reference))
    if (a & b).any():
        whole = measure(a, b, VOXELS, 0.5)
    else:
        whole = WORST if a.any() or b.any() else UNDEFINED
    found, sought = components(a), components(b)
    pairs = assign(found, sought)
    hits, false = len(pairs), len(found) - len(pairs)
    scores = {
        "dice": whole["dice"],
        "hd95": whole["hd95"],
        "nsd_0.5": whole["nsd"],
        "lesion_tp": hits,
        "lesion_fp": false,
        "lesion_fn": len(sought) - hits,
        "lesion_f1": 2 * hits / (len(found) + len(sought)) if found or sought else math.nan,
    }
    rows = [
        measure(found[pairs[n]], lesion, spacing, min(spacing)) if n in pairs else WORST
        for n, lesion in enumerate(sought)
    ]
    if season.rules == "metastases":
        sizes_mm3 = [float(lesion.sum() * np.prod(spacing)) for lesion in sought]
        return scores | score_metastases(rows, sizes_mm3, false)
    matched = [rows[n] for n in pairs]
    if matched:
        means = {key: sum(row[key] for row in matched) / len(matched) for key in WORST}
    else:
        means = WORST if found or sought else UNDEFINED
    return scores | {f"lesion_{key}": value for key, value in means.items()}


def measure(a: np.ndarray, b: np.ndarray, spacing: Spacing, tolerance: float) -> Scores:
    return {
        "dice": dice(a, b),
        "hd95": pooled_hd95(a, b, spacing),
        "nsd": mean_fraction_nsd(a, b, spacing, tolerance),
    }


def assign(found: Masks, sought: Masks) -> dict[int, int]:
    """Pair sought with found one to one, for the greatest sum of Dice; each pair overlaps."""
    gains = np.zeros((len(sought), len(found)))
    for (n, m), _ in np.ndenumerate(gains):
        gains[n, m] = dice(sought[n], found[m])
    pairs = zip(*linear_sum_assignment(gains, maximize=True), strict=True)
    return {int(n): int(m) for n, m in pairs if gains[n, m] > 0}


def score_metastases(rows: list[Scores], sizes_mm3: list[float], false: int) -> Scores:
    """Average large lesions and false ones; give F1 of large and of small ones at Dice 0.2."""
    large = [row for row, mm3 in zip(rows, sizes_mm3, strict=True) if mm3 >= 27]
    small = [row for row, mm3 in zip(rows, sizes_mm3, strict=True) if mm3 < 27]
    scores = {
        f"lesion_{key}": (sum(row[key] for row in large) + false * worst) / (len(large) + false)
        if large
        else math.nan
        for key, worst in WORST.items()
    }
    for size, those in (("large", large), ("small", small)):
        hits = sum(row["dice"] >= 0.2 for row in those)
        f1 = 2 * hits / (hits + false + len(those)) if those else math.nan
        scores[f"lesion_f1_{size}"] = f1
    return scores
