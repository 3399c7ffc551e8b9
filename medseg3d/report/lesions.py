"""What was found, missed and made up, and of which size: lesion by lesion, or case by case."""

import math
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from statistics import median
from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from medseg3d.evaluate.results import RegionScore, Scores
from medseg3d.report.measures import scored_regions
from medseg3d.report.plots import INK, Chart, draw_chart, shorten, style_dots

STATUSES: Final = {"tp": "found", "fn": "missed", "fp": "made up"}
BOUNDS_MM3: Final = (0.0, 10.0, 100.0, 1e3, 1e4, math.inf)
"""Sizes that are counted apart."""
MARKERS: Final = {"tp": "o", "fn": "v", "fp": "x"}
STEPS: Final = ((1, 1.5, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,))
"""Where a logarithmic axis may have its ticks within a decade, from the finest on."""
MOST_TICKS: Final = 4


@dataclass(frozen=True, slots=True)
class Finding:
    """A lesion or, without a protocol for lesions, a case's whole region.

    `mm3` is the reference's volume, or the predicted one of what was made up.
    """

    status: str
    mm3: float
    dice: float


@dataclass(frozen=True, slots=True)
class Counts:
    """How many were found, missed, made up, and too small to count."""

    tp: int
    fn: int
    fp: int
    ignored: int = 0

    @property
    def sensitivity(self) -> float:
        """Share of the reference's that were found; nan of none."""
        return self.tp / (self.tp + self.fn) if self.tp + self.fn else math.nan

    @property
    def f1(self) -> float:
        """2 tp / (2 tp + fn + fp); nan of none."""
        total = 2 * self.tp + self.fn + self.fp
        return 2 * self.tp / total if total else math.nan


def find_lesions(scores: Scores, region: str) -> list[Finding]:
    """List a region's lesions in all cases; or the region itself, where the protocol has none."""
    each = _whole if scores.scheme.protocol.lesions is None else _lesions
    return [finding for _, score in scored_regions(scores, region) for finding in each(score)]


def count_findings(findings: Sequence[Finding]) -> Counts:
    """Count findings by what became of them."""
    statuses = [finding.status for finding in findings]
    return Counts(*(statuses.count(status) for status in ("tp", "fn", "fp", "ignored")))


def count_by_size(findings: Sequence[Finding]) -> dict[str, Counts]:
    """Count findings by size, under the size in words; sizes that do not occur are left out."""
    bins: list[list[Finding]] = [[] for _ in pairwise(BOUNDS_MM3)]
    for finding in findings:
        bins[bisect_right(BOUNDS_MM3, finding.mm3) - 1].append(finding)
    names = (_size_name(*bounds) for bounds in pairwise(BOUNDS_MM3))
    return {name: count_findings(some) for name, some in zip(names, bins, strict=True) if some}


def draw_dice_by_volume(scores: Scores, region: str) -> Chart | None:
    """Draw Dice against volume, but for what is ignored or without Dice; None of nothing."""
    found = find_lesions(scores, region)
    shown = [f for f in found if f.status in STATUSES and not math.isnan(f.dice)]
    if not shown:
        return None
    return draw_chart(
        partial(plot_dice_by_volume, findings=shown, color=scores.scheme.region_color(region)),
        title=region,
        caption=_said_of_dice(shown),
    )


def plot_dice_by_volume(axes: Axes, findings: Sequence[Finding], *, color: str) -> None:
    """Plot a mark per finding: a dot, a hollow triangle, a cross."""
    style = style_dots(len(findings))
    for status, marker in MARKERS.items():
        some = [finding for finding in findings if finding.status == status]
        axes.plot(
            [finding.mm3 for finding in some],
            [finding.dice for finding in some],
            marker,
            color=color,
            markerfacecolor=color if status == "tp" else "none",
            clip_on=False,
            **style | {"markersize": style["markersize"] * (1 if status == "tp" else 1.4)},
        )
    _scale_volumes(axes, [finding.mm3 for finding in findings])
    axes.set(ylabel="Dice", ylim=(-0.05, 1.02))
    axes.grid(visible=True)


def draw_detection(scores: Scores, region: str) -> Chart | None:
    """Draw how many lesions of each size were found, missed and made up; None without lesions."""
    found = [finding for finding in find_lesions(scores, region) if finding.status in STATUSES]
    if not found:
        return None
    counts = count_by_size(found)
    return draw_chart(
        partial(plot_detection, counts=counts, color=scores.scheme.region_color(region)),
        title=region,
        caption="; ".join(f"{size} mm³: {_said_of_counts(c)}" for size, c in counts.items()),
    )


def plot_detection(axes: Axes, counts: Mapping[str, Counts], *, color: str) -> None:
    """Plot a stack for each size with its F1 on top: found, missed (empty), made up (hatched)."""
    styles: dict[str, dict[str, Any]] = {
        "tp": {"color": color},
        "fn": {"facecolor": "none", "edgecolor": color},
        "fp": {"facecolor": "none", "edgecolor": INK, "hatch": "////", "linewidth": 0.6},
    }
    heights = [0] * len(counts)
    for status, style in styles.items():
        numbers = [getattr(count, status) for count in counts.values()]
        axes.bar(range(len(counts)), numbers, bottom=heights, width=0.7, **style)
        heights = [height + number for height, number in zip(heights, numbers, strict=True)]
    for place, (height, count) in enumerate(zip(heights, counts.values(), strict=True)):
        axes.annotate(
            f"{count.f1:.2f}", (place, height), (0, 3), textcoords="offset points", ha="center"
        )
    axes.set_xticks(range(len(counts)), [*counts])
    axes.set(xlabel="volume (mm³)", ylabel="lesions")
    axes.set_xlim(-0.6, max(len(counts), 1) - 0.4)
    axes.set_ylim(0, 1.18 * max([1, *heights]))
    axes.yaxis.set_major_locator(MaxNLocator("auto", integer=True))


def _lesions(score: RegionScore) -> Iterator[Finding]:
    for lesion in score.lesions or ():
        mm3 = lesion.predicted_mm3 if lesion.status == "fp" else lesion.reference_mm3
        yield Finding(lesion.status, mm3, float(lesion.measures["dice"]))


def _whole(score: RegionScore) -> Iterator[Finding]:
    dice = float(score.measures["dice"])
    if score.reference_mm3:
        status = "tp" if score.predicted_mm3 else "fn"
        yield Finding(status, score.reference_mm3, dice)
    elif score.predicted_mm3:
        yield Finding("fp", score.predicted_mm3, dice)


def _scale_volumes(axes: Axes, volumes_mm3: Sequence[float]) -> None:
    """Make the axis logarithmic, and wide enough for a number or two."""
    low, high = min(volumes_mm3) / 1.6, max(volumes_mm3) * 1.6
    ticks = _log_ticks(low, high)
    axes.set(xscale="log", xlim=(low, high), xlabel="volume (mm³)")
    axes.set_xticks(ticks, [shorten(tick) for tick in ticks])
    axes.set_xticks([], minor=True)


def _log_ticks(low: float, high: float) -> list[float]:
    """Choose up to four round numbers; two at least, where `high` is 2.5 times `low`."""
    decades = range(math.floor(math.log10(low)), math.floor(math.log10(high)) + 1)
    choices = [
        [number for d in decades for step in steps if low <= (number := step * 10.0**d) <= high]
        for steps in STEPS
    ]
    ticks = next((choice for choice in choices if len(choice) <= MOST_TICKS), choices[-1])
    return ticks[:: math.ceil(len(ticks) / MOST_TICKS)]


def _size_name(low: float, high: float) -> str:
    if low == 0:
        return f"< {high:g}"
    return f"≥ {shorten(low)}" if math.isinf(high) else f"{shorten(low)}–{shorten(high)}"


def _said_of_dice(findings: Sequence[Finding]) -> str:
    counts = count_findings(findings)
    found = [finding.dice for finding in findings if finding.status == "tp"]
    middle = f"; median Dice of those found {median(found):.3f}" if found else ""
    return f"{counts.tp} found, {counts.fn} missed, {counts.fp} made up{middle}"


def _said_of_counts(counts: Counts) -> str:
    f1 = "" if math.isnan(counts.f1) else f", F1 {counts.f1:.2f}"
    return f"{counts.tp} of {counts.tp + counts.fn} found, {counts.fp} made up{f1}"
