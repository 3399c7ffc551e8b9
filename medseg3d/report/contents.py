"""What a page tells about scores, ready for its template."""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from medseg3d.data.cases import Case
from medseg3d.evaluate.results import CaseResult, RegionScore, Scores
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
    has_lost_lesions,
    is_empty,
    is_penalised,
    scored_regions,
    tabled_measures,
)
from medseg3d.report.plots import Chart
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
    """Say and draw what the page tells about scores; keys are the names in the template.

    Of what no case has there is no row, no chart and no picture.
    """
    scheme, protocol = scores.scheme, scores.scheme.protocol
    dice, hd95 = deciding_measures(protocol)
    has_lesions = protocol.lesions is not None
    pictures = [*draw_worst(scores, images)]
    strips = [draw_strips(scores, measure) for measure in drawn_measures(protocol)]

    def charts(draw: Callable[[Scores, str], Chart | None]) -> list[Chart]:
        return [chart for region in scheme.regions if (chart := draw(scores, region))]

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
        "num_penalised": _count_cases(scores, is_penalised),
        "num_lost": _count_cases(scores, lambda _, score: has_lost_lesions(score)),
        "num_empty": _count_cases(scores, lambda _, score: is_empty(score)),
        "strips": [chart for chart in strips if chart],
        "by_volume": charts(draw_dice_by_volume),
        "by_size": charts(draw_detection) if has_lesions else [],
        "agreements": charts(draw_agreement),
        "pictures": pictures,
        "drawn": {picture.case.pair.case: n for n, picture in enumerate(pictures, start=1)},
        "cases": order_cases(scores) if any(case.score for case in scores.cases) else [],
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
    """Sum up each measure in each region in which it is defined at all."""
    summaries = scores.summary()

    def row(region: str, measure: str) -> Row:
        quarters = np.nanpercentile(scores.numbers(region, measure), (25, 75)).tolist()
        return Row(summaries[region][measure], *quarters)

    rows = {m: {r: row(r, m.name) for r in summaries if summaries[r][m.name].n} for m in measures}
    return {measure: row_of for measure, row_of in rows.items() if row_of}


def _count_cases(scores: Scores, holds: Callable[[CaseResult, RegionScore], bool]) -> int:
    """Count the cases with a score of which something holds in any region."""
    return sum(
        any(holds(case, score) for score in case.score.regions.values())
        for case in scores.cases
        if case.score
    )


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
