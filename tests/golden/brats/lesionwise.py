"""Lesion by lesion, as in 2023 to 2025: dilation decides what is one lesion and what is hit."""

from typing import NamedTuple

import numpy as np
from scipy.ndimage import binary_dilation, generate_binary_structure, label

from .masks import Spacing, dice, mean_fraction_nsd, surfel_hd95
from .seasons import Season

ALL_18, ALL_26 = (generate_binary_structure(3, n) for n in (2, 3))

Masks = list[np.ndarray]


def dilate(mask: np.ndarray, times: int) -> np.ndarray:
    return binary_dilation(mask, ALL_18, iterations=times)


def components(mask: np.ndarray) -> Masks:
    labels, count = label(mask, ALL_26)
    return [labels == number for number in range(1, count + 1)]


def lesions(mask: np.ndarray, dilations: int) -> Masks:
    """Part a mask: what one component of the dilated mask holds is one lesion."""
    return [mask & whole for whole in components(dilate(mask, dilations))]


def unite(parts: Masks, others: Masks) -> Masks:
    """Make one lesion of all whose first touching lesion among `others` is the same."""
    united: dict[object, np.ndarray] = {}
    for number, part in enumerate(parts):
        touched = [n for n, other in enumerate(others) if (dilate(part, 1) & other).any()]
        name = ("of", touched[0]) if touched else ("alone", number)
        united[name] = united[name] | part if name in united else part
    return [*united.values()]


def find_lesions(
    season: Season, region: str, label_map: np.ndarray, smallest_voxels: dict[str, float]
) -> Masks:
    """Give the lesions of a region, each of more voxels than asked, united across tissues."""

    def of(tissue: str) -> Masks:
        mask = np.isin(label_map, {"NETC": (1,), **season.regions}[tissue])
        found = lesions(mask, season.dilations_of(tissue))
        return [lesion for lesion in found if lesion.sum() > smallest_voxels.get(tissue, 0)]

    found = of(region)
    for tissue in season.unites.get(region, ()):
        found = unite(found, of(tissue))
    return found


class Row(NamedTuple):
    """What a reference lesion got from all predicted lesions that touch its surroundings."""

    mm3: float
    hit: bool
    dice: float
    hd95: float
    nsd_05: float
    nsd_10: float


def match(found: Masks, sought: Masks, dilations: int, spacing: Spacing) -> tuple[list[Row], int]:
    """Score every sought lesion; count the found ones that touch none."""
    rows, hits = [], set()
    for lesion in sought:
        around = dilate(lesion, dilations)
        touching = [n for n, candidate in enumerate(found) if (candidate & around).any()]
        hits |= {*touching}
        united = np.zeros_like(lesion)
        for n in touching:
            united = united | found[n]
        rows.append(
            Row(
                float(lesion.sum() * np.prod(spacing)),
                bool(touching),
                dice(united, lesion),
                surfel_hd95(united, lesion, spacing),
                mean_fraction_nsd(united, lesion, spacing, 0.5),
                mean_fraction_nsd(united, lesion, spacing, 1.0),
            )
        )
    return rows, len(found) - len(hits)


def score_lesionwise(
    season: Season, region: str, predicted: np.ndarray, reference: np.ndarray, spacing: Spacing
) -> dict[str, float]:
    """Average over reference lesions above the threshold and predicted lesions that hit none."""
    n = season.dilations_of(region)
    if season.merges_predicted:
        voxel_mm3 = float(np.prod(spacing)) if season.small_in_mm3 else 1
        smallest = {x: season.threshold_of(x) / voxel_mm3 for x in ("NETC", *season.regions)}
        found = find_lesions(season, region, predicted, smallest)
        sought = find_lesions(season, region, reference, {})
    else:
        found = components(np.isin(predicted, season.regions[region]))
        sought = lesions(np.isin(reference, season.regions[region]), n)
    rows, false = match(found, sought, n, spacing)
    kept = [row for row in rows if row.mm3 > season.threshold_of(region)]
    penalty = season.penalty_in(reference)
    counted_false = false if season.false_positives_cost else 0

    def average(values: list[float], of_false: float, of_nothing: float) -> float:
        everything = values + [of_false] * counted_false
        return sum(everything) / len(everything) if everything else of_nothing

    scores = {
        "lesion_dice": average([row.dice for row in kept], 0, 1),
        "lesion_hd95": average([row.hd95 if row.hit else penalty for row in kept], penalty, 0),
        "lesion_tp": sum(row.hit for row in kept),
        "lesion_fp": false,
        "lesion_fn": sum(not row.hit for row in kept),
    }
    if season.nsd:
        scores["lesion_nsd_0.5"] = average([row.nsd_05 for row in kept], 0, 1)
        scores["lesion_nsd_1.0"] = average([row.nsd_10 for row in kept], 0, 1)
    return scores
