"""Every BraTS season's scores the slow way: full-size masks and loops, after the rules' words.

Nothing is shared with `medseg3d.evaluate`, which must give the same numbers. What a rule leaves
undefined is nan.
"""

import numpy as np

from .instances import score_instances
from .lesionwise import score_lesionwise
from .masks import (
    Spacing,
    dice,
    mean_fraction_nsd,
    pooled_hd95,
    sensitivity,
    specificity,
    surfel_hd95,
)
from .seasons import SEASONS, Season


def score(
    scheme: str, predicted: np.ndarray, reference: np.ndarray, spacing: Spacing
) -> dict[str, dict[str, float]]:
    """Score a label map against its reference, `{region: {measure: number}}`."""
    season = SEASONS[scheme]
    scores = {}
    for region in season.regions:
        case = season, region, predicted, reference, spacing
        if season.rules in ("instances", "metastases"):
            scores[region] = score_instances(*case)
        elif season.rules == "lesionwise":
            scores[region] = score_whole(*case) | score_lesionwise(*case)
        else:
            scores[region] = score_whole(*case)
    return scores


def score_whole(
    season: Season, region: str, predicted: np.ndarray, reference: np.ndarray, spacing: Spacing
) -> dict[str, float]:
    """Score a region as one: HD95 of surfels in mm, or in the oldest rules pooled in voxels."""
    a, b = (np.isin(label_map, season.regions[region]) for label_map in (predicted, reference))
    if not a.any() or not b.any():
        hd95 = season.penalty_in(reference) if a.any() or b.any() else 0.0
    elif season.rules == "whole":
        hd95 = pooled_hd95(a, b, (1, 1, 1))
    else:
        hd95 = surfel_hd95(a, b, spacing)
    scores = {
        "dice": dice(a, b),
        "hd95": hd95,
        "sensitivity": sensitivity(a, b),
        "specificity": specificity(a, b),
    }
    if season.nsd:
        scores["nsd_0.5"] = mean_fraction_nsd(a, b, spacing, 0.5)
        scores["nsd_1.0"] = mean_fraction_nsd(a, b, spacing, 1.0)
    return scores
