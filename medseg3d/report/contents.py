"""What a page tells about scores, ready for its template."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import nan
from typing import Any, Final

import numpy as np

from medseg3d.data.cases import Case
from medseg3d.evaluate.results import Scores
from medseg3d.evaluate.schemes import SCHEMES, Scheme
from medseg3d.evaluate.stats import Summary
from medseg3d.report.agreement import draw_agreement
from medseg3d.report.lesions import (
    count_findings,
    draw_detection,
    draw_dice_by_volume,
    find_lesions,
)
from medseg3d.report.measures import (
    Measure,
    deciding_measures,
    drawn_measures,
    is_empty,
    is_penalised,
    scored_regions,
    tabled_measures,
)
from medseg3d.report.strips import draw_strips
from medseg3d.report.worst import draw_worst, order_cases

SEASON: Final = re.compile(r"brats(\d{4})-?(.*)")


@dataclass(frozen=True, slots=True)
class Row:
    """One measure of one region over all cases, with the quartiles."""

    summary: Summary
    low_quarter: float
    high_quarter: float


@dataclass(frozen=True, slots=True)
class Sides:
    """In how many cases a region is where; `penalised` counts failed cases too."""

    both: int
    reference_only: int
    predicted_only: int
    neither: int
    penalised: int


def describe_scores(scores: Scores, images: Mapping[str, Case]) -> dict[str, Any]:
    """Say and draw what the page tells about scores; keys are the names in the template."""
    scheme, protocol = scores.scheme, scores.scheme.protocol
    dice, hd95 = deciding_measures(protocol)
    has_lesions = protocol.lesions is not None
    pictures = [*draw_worst(scores, images)]
    scored = [(case, case.score.regions.values()) for case in scores.cases if case.score]
    return {
        "scores": scores,
        "scheme": scheme,
        "colors": {region: scheme.region_color(region) for region in scheme.regions},
        "season": _season(scheme),
        "rules": scheme.policy.split("; "),
        "unit": "voxels" if protocol.in_voxels else "mm",
        "has_lesions": has_lesions,
        "dice": dice,
        "hd95": hd95,
        "rows": _rows(scores, tabled_measures(protocol)),
        "sides": {region: _count_sides(scores, region) for region in scheme.regions},
        "counts": {r: count_findings(find_lesions(scores, r)) for r in scheme.regions},
        "num_penalised": sum(any(is_penalised(case, s) for s in found) for case, found in scored),
        "num_empty": sum(any(map(is_empty, found)) for _, found in scored),
        "strips": [draw_strips(scores, measure) for measure in drawn_measures(protocol)],
        "by_volume": [draw_dice_by_volume(scores, region) for region in scheme.regions],
        "by_size": [draw_detection(scores, r) for r in scheme.regions] if has_lesions else [],
        "agreements": [draw_agreement(scores, region) for region in scheme.regions],
        "pictures": pictures,
        "drawn": {picture.case.pair.case: n for n, picture in enumerate(pictures, start=1)},
        "cases": order_cases(scores),
    }


def _season(scheme: Scheme) -> str | None:
    """Name the challenge whose rules these are, or say that they are not quite."""
    match = SEASON.fullmatch(scheme.name)
    if match is None or scheme.name not in SCHEMES:
        return None
    year, challenge = match.groups()
    official = scheme.protocol == SCHEMES[scheme.name].protocol
    return f"BraTS {year} {challenge.upper()}".strip() + ("" if official else ", rules changed")


def _rows(scores: Scores, measures: Sequence[Measure]) -> dict[Measure, dict[str, Row]]:
    """Sum up each measure in each region."""
    summaries = scores.summary()

    def row(region: str, measure: str) -> Row:
        numbers = np.array(scores.numbers(region, measure))
        defined = numbers[~np.isnan(numbers)]
        quarters = np.percentile(defined, (25, 75)).tolist() if defined.size else (nan, nan)
        return Row(summaries[region][measure], *quarters)

    return {m: {region: row(region, m.name) for region in scores.scheme.regions} for m in measures}


def _count_sides(scores: Scores, region: str) -> Sides:
    scored = scored_regions(scores, region)
    found = Counter((s.reference_mm3 > 0, s.predicted_mm3 > 0) for _, s in scored)
    return Sides(
        both=found[True, True],
        reference_only=found[True, False],
        predicted_only=found[False, True],
        neither=found[False, False],
        penalised=sum(is_penalised(*pair) for pair in scored),
    )
