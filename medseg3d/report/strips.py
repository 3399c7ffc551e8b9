"""One measure in every region: a box, and every case as a dot."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cbook import boxplot_stats
from matplotlib.colors import to_rgba
from matplotlib.ticker import MaxNLocator

from medseg3d.evaluate.results import Scores
from medseg3d.report.measures import Measure, is_penalised, scored_regions
from medseg3d.report.plots import INK, Chart, draw_chart, style_dots

GOLDEN: Final = 0.618
"""Multiples of the golden ratio, modulo 1, spread evenly, however many there are."""
DISTANCE_TICKS: Final = (0, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500)


@dataclass(frozen=True, slots=True)
class Strip:
    """A measure of one region over all cases with a score: nan is undefined."""

    region: str
    color: str
    values: tuple[float, ...]
    is_penalised: tuple[bool, ...]
    penalty: str = "penalised"
    """What is said of those that are."""

    @property
    def defined(self) -> list[float]:
        """The values that are numbers."""
        return [value for value in self.values if not math.isnan(value)]

    def __str__(self) -> str:
        defined, num_penalised = self.defined, sum(self.is_penalised)
        said = [f"n = {len(defined)}"]
        if defined:
            said.insert(0, f"median {np.median(defined):.3g}")
        if num_penalised:
            said.append(f"{num_penalised} {self.penalty}")
        if len(defined) < len(self.values):
            said.append(f"{len(self.values) - len(defined)} undefined")
        return f"{self.region}: {', '.join(said)}"


def draw_strips(scores: Scores, measure: Measure) -> Chart | None:
    """Draw a row per region; distances on a scale that holds both 1 and a penalty of 374.

    Undefined numbers are counted in the caption, not drawn; None where all are.
    """
    of_lesions = measure.of_lesions
    penalty = "with lesions missed or made up" if of_lesions else "penalised"
    strips = [
        Strip(
            region,
            scores.scheme.region_color(region),
            tuple(scores.numbers(region, measure.name)),
            tuple(
                is_penalised(*pair, of_lesions=of_lesions)
                for pair in scored_regions(scores, region)
            ),
            penalty,
        )
        for region in scores.scheme.regions
    ]
    if not any(strip.defined for strip in strips):
        return None
    return draw_chart(
        partial(plot_strips, strips=strips, is_distance=measure.is_distance),
        title=measure.label,
        caption="; ".join(map(str, strips)),
        size_in=(4.6, 0.5 + 0.45 * len(strips)),
    )


def plot_strips(axes: Axes, strips: Sequence[Strip], *, is_distance: bool) -> None:
    """Plot a row per strip, the first on top; dots of penalised cases are hollow."""
    for row, strip in enumerate(strips):
        _plot_dots(axes, row, strip)
        if len(strip.defined) > 1:
            _plot_box(axes, row, strip)
    values = [value for strip in strips for value in strip.defined]
    (_scale_distance if is_distance else _scale_share)(axes, values)
    axes.set_yticks(range(len(strips)), [strip.region for strip in strips])
    axes.set_ylim(len(strips) - 0.5, -0.5)
    axes.grid(axis="x")
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0, pad=8)


def _plot_box(axes: Axes, row: int, strip: Strip) -> None:
    """Plot quartiles, median, and whiskers to the last case within 1.5 interquartile ranges."""
    (box,) = boxplot_stats(strip.defined)
    low, high = box["q1"], box["q3"]
    fill = to_rgba(strip.color, 0.28)
    axes.barh(
        row, high - low, left=low, height=0.6, color=fill, edgecolor=INK, linewidth=0.8, zorder=3
    )
    for ends in ((box["whislo"], low), (high, box["whishi"])):
        axes.plot(ends, (row, row), color=INK, linewidth=0.8, zorder=3)
    axes.plot((box["med"],) * 2, (row - 0.3, row + 0.3), color=INK, linewidth=1.6, zorder=4)


def _plot_dots(axes: Axes, row: int, strip: Strip) -> None:
    values, is_hollow = np.array(strip.values), np.array(strip.is_penalised, dtype=bool)
    heights = row + 0.5 * ((np.arange(len(values)) * GOLDEN + 0.5) % 1 - 0.5)
    for chosen, fill in ((~is_hollow, strip.color), (is_hollow, "none")):
        shown = chosen & ~np.isnan(values)
        axes.plot(
            values[shown],
            heights[shown],
            "o",
            color=strip.color,
            markerfacecolor=fill,
            clip_on=False,
            **style_dots(len(values)),
        )


def _scale_share(axes: Axes, values: Sequence[float]) -> None:
    """Let the axis end at 1; it begins at 0 unless every value is in the upper half."""
    low = math.floor(10 * min(values, default=0)) / 10
    axes.set_xlim(min(low, 0.9) if low >= 0.5 else 0, 1)
    axes.xaxis.set_major_locator(MaxNLocator(5))


def _scale_distance(axes: Axes, values: Sequence[float]) -> None:
    """Make the axis even up to about 1 and logarithmic beyond."""
    high = 1.05 * max([1.0, *values])
    axes.set_xscale("asinh", linear_width=1)
    axes.set_xlim(0, high)
    ticks = [tick for tick in DISTANCE_TICKS if tick <= high]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xticks([], minor=True)
