"""Lesions as instances, matched one to one: BraTS 2026, as panoptica does it.

Instances are components. Of all ways to pair them one to one, that with the greatest sum of Dice is
taken; a pair that shares no voxel is none.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import numpy as np
import scipy

from medseg3d.evaluate.blobs import Blob, components, connect, neighbours, shared_voxels
from medseg3d.evaluate.lesions import Lesion, LesionScores, Ruler, Status, mean
from medseg3d.evaluate.overlap import Mask
from medseg3d.evaluate.protocols import MatchedInstances

SMALLEST_DICE: Final = 1e-6
"""Pairs below it are none; and a pair that is none costs this more than one with Dice 0."""


def score_instances(
    reference: Mask, predicted: Mask, ruler: Ruler, rules: MatchedInstances
) -> LesionScores:
    """Score one region; without any lesion every measure but the counts is nan."""
    references, predictions = components(reference), components(predicted)
    matches = _match(references, predictions)
    lesions = []
    for n, blob in enumerate(references):
        claimed = [predictions[matches[n]]] if n in matches else []
        status: Status = "tp" if claimed else "fn"
        lesions.append(ruler.measure(blob, claimed, status=status))
    made_up = sorted({*range(len(predictions))} - {*matches.values()})
    lesions += [ruler.measure(None, [predictions[n]], status="fp") for n in made_up]
    return LesionScores(_average(lesions, rules), tuple(lesions))


def _average(lesions: Sequence[Lesion], rules: MatchedInstances) -> dict[str, float]:
    tp, fp, fn = ([x for x in lesions if x.status == status] for status in ("tp", "fp", "fn"))
    by_size, scored = {}, tp or lesions
    if rules.large_mm3 is not None:
        large = [lesion for lesion in tp + fn if lesion.reference_mm3 >= rules.large_mm3]
        small = [lesion for lesion in tp + fn if lesion.reference_mm3 < rules.large_mm3]
        scored = large + fp if large else []
        by_size = {
            "lesion_f1_large": _detection(large, len(fp), rules.detection_dice),
            "lesion_f1_small": _detection(small, len(fp), rules.detection_dice),
        }
    return {
        "lesion_dice": mean([lesion.dice for lesion in scored]),
        "lesion_hd95": mean([lesion.hd95 for lesion in scored]),
        "lesion_nsd": mean([lesion.nsd["nsd"] for lesion in scored]),
        "lesion_tp": float(len(tp)),
        "lesion_fp": float(len(fp)),
        "lesion_fn": float(len(fn)),
        "lesion_f1": _f1(len(tp), len(fp) + len(fn)),
        **by_size,
    }


def _detection(lesions: Sequence[Lesion], made_up: int, least_dice: float) -> float:
    """Give the F1 of lesions of one size; all that was made up counts against it."""
    found = sum(lesion.dice >= least_dice for lesion in lesions)
    return _f1(found, len(lesions) - found + made_up) if lesions else math.nan


def _f1(found: int, wrong: int) -> float:
    return 2 * found / (2 * found + wrong) if found or wrong else math.nan


def _match(references: Sequence[Blob], predictions: Sequence[Blob]) -> dict[int, int]:
    """Pair references with predictions, each at most once, by the greatest sum of Dice."""
    shares = {}
    for n, near in enumerate(neighbours(references, predictions, 0)):
        for m in near:
            one, other = references[n], predictions[m]
            dice = 2 * shared_voxels(one, other) / (one.voxels + other.voxels)
            if dice >= SMALLEST_DICE:
                shares[n, m] = dice
    edges = [(n, len(references) + m) for n, m in shares]
    parts = connect(len(references) + len(predictions), edges)
    groups: dict[int, dict[tuple[int, int], float]] = {}
    for (n, m), dice in shares.items():  # who shares nothing, not by way of others, is no rival
        groups.setdefault(int(parts[n]), {})[n, m] = dice
    return {n: m for group in groups.values() for n, m in _assign(group)}


def _assign(shares: Mapping[tuple[int, int], float]) -> Iterator[tuple[int, int]]:
    """Choose of pairs that share voxels those with the greatest sum of Dice."""
    rows, columns = (sorted({*side}) for side in zip(*shares, strict=True))
    costs = np.full((len(rows), len(columns)), 1 + SMALLEST_DICE)
    for (n, m), dice in shares.items():
        costs[rows.index(n), columns.index(m)] = 1 - dice
    for row, column in zip(*scipy.optimize.linear_sum_assignment(costs), strict=True):
        if costs[row, column] < 1:
            yield rows[row], columns[column]
