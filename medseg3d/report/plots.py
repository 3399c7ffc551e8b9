"""Charts as SVG that takes on the page's font and text colour, light or dark."""

import io
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from operator import attrgetter
from typing import Any, Final, Literal, TypeAlias

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from medseg3d.io.events import Event
from medseg3d.labels import PALETTE
from medseg3d.report.sources import Measures

Points: TypeAlias = list[tuple[int, float]]

INK: Final = "#010203"
"""Stands for the page's text colour until the SVG is written."""
STYLE: Final[Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "medseg3d",
    "font.size": 9,
    "text.parse_math": False,
    "legend.frameon": False,
    "grid.alpha": 0.12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    **dict.fromkeys(("axes.edgecolor", "axes.labelcolor", "grid.color", "text.color"), INK),
    **dict.fromkeys(("xtick.color", "ytick.color"), INK),
}


def draw_strips(
    measure: Literal["dice", "hd95"],
    cases: Sequence[Mapping[str, Measures]],
    colors: Mapping[str, str],
    *,
    label: str,
) -> str:
    """Draw a row per region: a dot per case, a band over the middle half, a bar at the median.

    A dot is hollow where one side is empty; its HD95, a rule's number, lies at the right edge if
    it is beyond. Undefined numbers are not drawn.
    """
    rows = {
        region: [
            (value, case[region].penalised)
            for case in cases
            if region in case and (value := getattr(case[region], measure)) is not None
        ]
        for region in colors
    }
    measured = [value for dots in rows.values() for value, penalised in dots if not penalised]
    edge = 1.0 if measure == "dice" else 1.1 * max([1.0, *measured])
    with mpl.rc_context(STYLE):
        figure, axes = _figure(4.8, 0.6 + 0.45 * len(colors))
        for row, (region, dots) in enumerate(rows.items()):
            if dots:
                _draw_row(axes, row, dots, color=colors[region], edge=edge)
        axes.set_yticks(range(len(rows)), [*rows])
        axes.set(xlabel=label, xlim=(0, edge), ylim=(len(rows) - 0.5, -0.5))
        axes.grid(axis="x")
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
        return _svg(figure)


def draw_training(events: Sequence[Event]) -> dict[str, str]:
    """Draw what a training logged over its epochs: title -> chart, for as much as there is."""
    regions = dict.fromkeys(region for event in events for region in event.dice)
    charts = {
        "Training loss": {"": _points(events, attrgetter("loss"))},
        "Learning rate": {"": _points(events, attrgetter("learning_rate"))},
        "Validation Dice": {
            **{region: _points(events, _dice_of(region)) for region in regions},
            "mean": _points(events, attrgetter("mean_dice")),
        },
    }
    return {title: _draw_curves(curves) for title, curves in charts.items() if any(curves.values())}


def _points(events: Sequence[Event], value_of: Callable[[Event], float | None]) -> Points:
    found = [(event.epoch, value_of(event)) for event in events]
    return [(epoch, value) for epoch, value in found if value is not None]


def _dice_of(region: str) -> Callable[[Event], float | None]:
    return lambda event: event.dice.get(region)


def _draw_curves(curves: Mapping[str, Points]) -> str:
    with mpl.rc_context(STYLE):
        figure, axes = _figure(3.1, 2.1)
        for (name, points), color in zip(curves.items(), cycle(PALETTE), strict=False):
            alone = name in ("", "mean")
            axes.plot(
                *zip(*points, strict=True),
                label=name,
                color=INK if alone else color,
                linestyle="dotted" if name == "mean" else "solid",
                marker="o" if len(points) < 30 else None,
                markersize=3,
                linewidth=1.4,
            )
        axes.set_xlabel("epoch")
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
        axes.grid(visible=True)
        if "mean" in curves:
            axes.set_ylim(0, 1)
            axes.legend(loc="lower right")
        return _svg(figure)


def _draw_row(
    axes: Axes, row: int, dots: Sequence[tuple[float, bool]], *, color: str, edge: float
) -> None:
    low, middle, high = np.percentile([value for value, _ in dots], (25, 50, 75))
    axes.plot((low, high), (row, row), color=color, alpha=0.3, linewidth=14, solid_capstyle="butt")
    axes.plot((middle, middle), (row - 0.24, row + 0.24), color=INK, linewidth=1.6)
    for number, (value, penalised) in enumerate(dots):
        # multiples of the golden ratio spread evenly, however many there are
        height = row + 0.5 * ((number * 0.618) % 1 - 0.5)
        fill = "none" if penalised else color
        axes.plot(min(value, edge), height, "o", color=color, mfc=fill, markersize=4, clip_on=False)


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.add_subplot()
    axes.patch.set_alpha(0)
    return figure, axes


def _svg(figure: Figure) -> str:
    """Write an element to stand in a page: without header, addresses, fonts, or ids of groups."""
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    return re.sub(r' xmlns(:xlink)?="[^"]*"|font-family: [^;]*; |(?<=<g) id="[^"]*"', "", text)
