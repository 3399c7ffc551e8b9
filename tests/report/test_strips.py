"""Boxes and strips: every case a dot where its number is."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from medseg3d.evaluate.protocols import DilatedLesions, Protocol
from medseg3d.evaluate.results import Scores
from medseg3d.report.measures import deciding_measures, drawn_measures
from medseg3d.report.strips import Strip, draw_strips, plot_strips

ORANGE = "#e69f00"


def strip(*values: float, penalised: tuple[int, ...] = (), region: str = "WT") -> Strip:
    return Strip(region, ORANGE, values, tuple(n in penalised for n in range(len(values))))


def plot(*strips: Strip, is_distance: bool = False) -> Axes:
    axes = Figure().add_subplot()
    plot_strips(axes, strips, is_distance=is_distance)
    return axes


def dots(axes: Axes, *, hollow: bool) -> list[float]:
    lines = [line for line in axes.lines if line.get_marker() == "o"]
    found = [line for line in lines if (line.get_markerfacecolor() == "none") == hollow]
    return [x for line in found for x in np.asarray(line.get_xdata()).tolist()]


def test_dots_are_the_scores_in_order_and_penalised_ones_hollow() -> None:
    axes = plot(strip(0.9, 0.0, math.nan, 0.4, penalised=(1, 2)))
    assert dots(axes, hollow=False) == [0.9, 0.4]
    assert dots(axes, hollow=True) == [0.0]


def test_dots_lie_in_the_row_of_their_region_and_never_move() -> None:
    heights = [
        [np.asarray(line.get_ydata()).tolist() for line in axes.lines if line.get_marker() == "o"]
        for axes in (plot(strip(*[0.5] * 50), strip(*[0.6] * 50, region="core")) for _ in range(2))
    ]
    assert heights[0] == heights[1]
    first, _, second, _ = heights[0]
    assert max(abs(y) for y in first) <= 0.25
    assert max(abs(y - 1) for y in second) <= 0.25
    assert len({*first}) == 50


def test_the_box_holds_the_middle_half_and_the_bar_is_the_median() -> None:
    axes = plot(strip(0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0))
    (box,) = axes.patches
    assert box.get_x() == pytest.approx(0.55)
    assert box.get_width() == pytest.approx(0.3)
    bars = [line for line in axes.lines if line.get_linewidth() == 1.6]
    assert [[*bar.get_xdata()] for bar in bars] == [[0.7, 0.7]]


def test_a_crowd_is_faint_beneath_its_box_and_median() -> None:
    few, many = (plot(strip(*np.linspace(0, 1, n), penalised=(0,))) for n in (20, 1000))
    (lone, *_), (crowded, hollow, *_) = (
        [d for d in a.lines if d.get_marker() == "o"] for a in (few, many)
    )
    assert (lone.get_alpha(), lone.get_markersize()) == (1, 3.6)
    assert crowded.get_alpha() < 0.5
    assert crowded.get_markersize() < 2.5
    assert hollow.get_markeredgewidth() < 0.5
    (box,) = many.patches
    bars = [line for line in many.lines if line.get_linewidth() == 1.6]
    assert crowded.get_zorder() < box.get_zorder() < bars[0].get_zorder()


def test_one_case_is_a_dot_in_the_middle_of_its_row() -> None:
    axes = plot(strip(0.8), strip(math.nan, region="core"))
    assert [*axes.patches] == []
    assert axes.lines[0].get_ydata() == pytest.approx([0])
    assert dots(axes, hollow=False) == [0.8]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["WT", "core"]


def test_a_penalty_and_a_millimetre_are_both_in_sight() -> None:
    axes = plot(strip(0.0, 1.0, 374.0, penalised=(2,)), is_distance=True)
    where = axes.transData.transform([(x, 0) for x in (0.0, 1.0, 374.0)])[:, 0]
    left, right = axes.transAxes.transform([(0, 0), (1, 0)])[:, 0]
    assert dots(axes, hollow=True) == [374.0]
    assert 0.1 < (where[1] - where[0]) / (right - left) < 0.3
    assert where[2] < right


def test_an_axis_begins_below_every_dice_and_ends_at_one() -> None:
    assert plot(strip(0.81, 0.93)).get_xlim() == pytest.approx((0.8, 1))
    assert plot(strip(1.0)).get_xlim() == pytest.approx((0.9, 1))
    assert plot(strip(0.2, 0.93)).get_xlim() == pytest.approx((0, 1))
    assert plot(strip()).get_xlim() == pytest.approx((0, 1))


def test_a_chart_counts_penalised_and_undefined_cases(build_scores: Callable[..., Scores]) -> None:
    scores = build_scores(
        {"WT": {"dice": 0.8}},
        {"WT": {"dice": 0.6}, "core": {"dice": 0.0, "predicted_mm3": 0.0}},
        {"WT": {"dice": 0.0}, "core": {"dice": math.nan}},
        None,
        reasons={2: "no prediction: scored as an empty one", 3: "no reference: not scored"},
    )
    dice, _ = drawn_measures(scores.scheme.protocol)
    chart = draw_strips(scores, dice)
    assert chart is not None
    assert chart.title == "Dice"
    assert chart.caption == (
        "WT: median 0.6, n = 3, 1 penalised; core: median 0.25, n = 2, 2 penalised, 1 undefined"
    )


def test_of_lesions_those_missed_or_made_up_are_told(build_scores: Callable[..., Scores]) -> None:
    scores = build_scores(
        {"WT": {"lesion_hd95": 3.0, "lesions": (("tp", 200.0, 0.8),)}},
        {"WT": {"lesion_hd95": 340.0, "lesions": (("tp", 200.0, 0.8), *[("fp", 9.0, 0.0)] * 30)}},
        protocol=Protocol(lesions=DilatedLesions()),
    )
    _, hd95 = deciding_measures(scores.scheme.protocol)
    chart = draw_strips(scores, hd95)
    assert chart is not None
    assert chart.caption.startswith("WT: median 172, n = 2, 1 with lesions missed or made up; core")


def test_a_measure_that_no_case_has_is_not_drawn(build_scores: Callable[..., Scores]) -> None:
    undefined = {"dice": math.nan}
    scores = build_scores({"WT": undefined, "core": undefined}, None)
    assert draw_strips(scores, drawn_measures(scores.scheme.protocol)[0]) is None
