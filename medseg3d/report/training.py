"""The curves of a training."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import cycle
from operator import attrgetter
from typing import TypeAlias

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from medseg3d.io.events import Event
from medseg3d.labels import PALETTE
from medseg3d.report.plots import INK, Chart, draw_chart

Points: TypeAlias = list[tuple[int, float]]
"""Epoch and value."""


def draw_training(events: Sequence[Event]) -> list[Chart]:
    """Draw what a training logged over its epochs, as much as there is."""
    regions = dict.fromkeys(region for event in events for region in event.dice)
    stages = dict.fromkeys(stage for event in events for stage in event.gradient_norms)
    charts = {
        "Training loss": {"": _points(events, attrgetter("loss"))},
        "Learning rate": {"": _points(events, attrgetter("learning_rate"))},
        "Validation Dice": {
            **{region: _points(events, _dice_of(region)) for region in regions},
            "mean": _points(events, attrgetter("mean_dice")),
        },
        "Gradient norm": {stage: _points(events, _norm_of(stage)) for stage in stages},
        "Patches per second": {"": _points(events, attrgetter("patches_per_second"))},
    }
    return [
        draw_chart(partial(plot_curves, curves=curves), title=title, caption=_said(curves))
        for title, curves in charts.items()
        if any(curves.values())
    ]


def plot_curves(axes: Axes, curves: Mapping[str, Points]) -> None:
    """Plot curves over epochs; `mean` is dotted, the only one in ink as one without a name is.

    Several without a mean, such as norms, span decades.
    """
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
    elif len(curves) > 1:
        axes.set_yscale("log")
        axes.legend(loc="upper right", fontsize="small", ncols=2)


def _points(events: Sequence[Event], value_of: Callable[[Event], float | None]) -> Points:
    found = [(event.epoch, value_of(event)) for event in events]
    return [(epoch, value) for epoch, value in found if value is not None]


def _dice_of(region: str) -> Callable[[Event], float | None]:
    return lambda event: event.dice.get(region)


def _norm_of(stage: str) -> Callable[[Event], float | None]:
    return lambda event: event.gradient_norms.get(stage)


def _said(curves: Mapping[str, Points]) -> str:
    """Give the last number of each curve."""
    ends = [(name, points[-1]) for name, points in curves.items() if points]
    said = (f"{name} {value:.3g} at epoch {epoch}" for name, (epoch, value) in ends)
    return "; ".join(map(str.strip, said))
