"""What a page calls the numbers of a protocol, and which of them go by rule."""

import math
from dataclasses import dataclass
from statistics import fmean
from typing import Final

from medseg3d.evaluate.protocols import COUNTS, Protocol
from medseg3d.evaluate.results import CaseResult, RegionScore, Scores

NAMES: Final = {
    "dice": "Dice",
    "hd95": "HD95",
    "assd": "ASSD",
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
    "nsd": "NSD",
    "f1": "F1",
    "f1_large": "F1, large",
    "f1_small": "F1, small",
}
DISTANCES: Final = ("hd95", "assd")
UNDRAWN: Final = ("sensitivity", "specificity")
"""Have their place in the table alone."""


@dataclass(frozen=True, slots=True)
class Measure:
    """A number of a region: its name in scores.json, and on a page."""

    name: str
    label: str
    is_distance: bool
    of_lesions: bool

    @property
    def digits(self) -> int:
        """How many to write after the point."""
        return 2 if self.is_distance else 3


def tabled_measures(protocol: Protocol) -> list[Measure]:
    """Describe every number of a protocol but the counts of lesions."""
    return [_describe(name, protocol) for name in protocol.measures if name not in COUNTS]


def drawn_measures(protocol: Protocol) -> list[Measure]:
    """Describe the numbers that are drawn, each in a chart of its own."""
    return [measure for measure in tabled_measures(protocol) if measure.name not in UNDRAWN]


def deciding_measures(protocol: Protocol) -> tuple[Measure, Measure]:
    """Give the Dice that says which cases are worst, and its HD95: of lesions, if there are any."""
    prefix = "lesion_" if protocol.lesions else ""
    return _describe(f"{prefix}dice", protocol), _describe(f"{prefix}hd95", protocol)


def mean_over_regions(case: CaseResult, measure: str) -> float:
    """Average one measure over the regions in which it is defined; nan where that is none."""
    regions = case.score.regions.values() if case.score else ()
    numbers = [float(region.measures[measure]) for region in regions]
    defined = [number for number in numbers if not math.isnan(number)]
    return fmean(defined) if defined else math.nan


def scored_regions(scores: Scores, region: str) -> list[tuple[CaseResult, RegionScore]]:
    """List each case that has a score, with that of one region."""
    return [(case, case.score.regions[region]) for case in scores.cases if case.score]


def is_penalised(case: CaseResult, score: RegionScore, *, of_lesions: bool = False) -> bool:
    """Tell whether a region's numbers go by rule: one side is empty, or the case has failed.

    Those `of_lesions` do so where a lesion was missed or made up.
    """
    if of_lesions:
        return bool(case.reason) or has_lost_lesions(score)
    return bool(case.reason) or (score.reference_mm3 > 0) != (score.predicted_mm3 > 0)


def has_lost_lesions(score: RegionScore) -> bool:
    """Tell whether a lesion was missed or made up."""
    return any(score.measures.get(count, 0) > 0 for count in ("lesion_fn", "lesion_fp"))


def is_empty(score: RegionScore) -> bool:
    """Tell whether both sides are empty."""
    return not (score.reference_mm3 or score.predicted_mm3)


def _describe(name: str, protocol: Protocol) -> Measure:
    stem = name.removeprefix("lesion_")
    of_lesions = stem != name
    kind, _, tolerance = stem.partition("_") if stem.startswith("nsd") else (stem, "", "")
    unit = "voxels" if protocol.in_voxels and not of_lesions else "mm"
    label = NAMES.get(kind, kind)
    if tolerance:
        label += f" at {float(tolerance):g} {unit}"
    if of_lesions:
        label += ", lesion-wise"
    if stem in DISTANCES:
        label += f" ({unit})"
    return Measure(name, label, stem in DISTANCES, of_lesions)
