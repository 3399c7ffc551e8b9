"""Lesions, found, missed, made up: counted, and where their numbers are."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from medseg3d.evaluate.protocols import DilatedLesions, Protocol
from medseg3d.evaluate.results import Scores
from medseg3d.report.lesions import (
    Counts,
    Finding,
    count_by_size,
    count_findings,
    draw_detection,
    draw_dice_by_volume,
    find_lesions,
    plot_detection,
    plot_dice_by_volume,
)

BY_LESION = Protocol(lesions=DilatedLesions())
SOME = (("tp", 200.0, 0.8), ("fn", 60.0, 0.0), ("fp", 70.0, 0.0), ("ignored", 5.0, 0.3))


def marks(axes: Axes, marker: str) -> list[tuple[float, float]]:
    lines = [line for line in axes.lines if line.get_marker() == marker]
    return [(x, y) for line in lines for x, y in np.transpose(line.get_data()).tolist()]


def test_lesions_of_all_cases_are_gathered(build_scores: Callable[..., Scores]) -> None:
    scores = build_scores(
        {"WT": {"lesions": SOME}}, {"WT": {"lesions": SOME[:1]}}, None, protocol=BY_LESION
    )
    found = find_lesions(scores, "WT")
    assert found == [*(Finding(*lesion) for lesion in SOME), Finding("tp", 200.0, 0.8)]
    assert count_findings(found) == Counts(tp=2, fn=1, fp=1, ignored=1)
    assert find_lesions(scores, "core") == []


def test_without_a_protocol_for_lesions_a_case_is_one(
    build_scores: Callable[..., Scores],
) -> None:
    scores = build_scores(
        {"WT": {"dice": 0.7, "reference_mm3": 300.0}},
        {"WT": {"dice": 0.0, "reference_mm3": 300.0, "predicted_mm3": 0.0}},
        {"WT": {"dice": 0.0, "reference_mm3": 0.0, "predicted_mm3": 90.0}},
        {"WT": {"dice": 1.0, "reference_mm3": 0.0, "predicted_mm3": 0.0}},
    )
    assert find_lesions(scores, "WT") == [
        Finding("tp", 300.0, 0.7),
        Finding("fn", 300.0, 0.0),
        Finding("fp", 90.0, 0.0),
    ]


def test_marks_lie_at_volume_and_dice() -> None:
    axes = Figure().add_subplot()
    found = [Finding(*lesion) for lesion in SOME[:3]]
    plot_dice_by_volume(axes, [*found, Finding("tp", 3000.0, 0.9)], color="#e69f00")
    assert marks(axes, "o") == [(200.0, 0.8), (3000.0, 0.9)]
    assert marks(axes, "v") == [(60.0, 0.0)]
    assert marks(axes, "x") == [(70.0, 0.0)]
    low, high = axes.get_xlim()
    assert axes.get_xscale() == "log"
    assert low < 60
    assert high > 3000


@given(low=st.floats(0.01, 1e6), ratio=st.floats(1, 1e7))
@settings(deadline=None, max_examples=30)
@example(low=2210.0, ratio=1.4)
def test_an_axis_of_volumes_has_two_to_four_numbers(low: float, ratio: float) -> None:
    axes = Figure().add_subplot()
    found = [Finding("tp", mm3, 0.9) for mm3 in (low, low * ratio)]
    plot_dice_by_volume(axes, found, color="#e69f00")
    ticks = [label.get_text() for label in axes.get_xticklabels()]
    minor = [label.get_text() for label in axes.get_xticklabels(minor=True)]
    assert 2 <= len(ticks) <= 4
    assert minor == []
    assert all(
        left <= tick <= right for left, right in [axes.get_xlim()] for tick in axes.get_xticks()
    )


def test_numbers_of_a_narrow_axis_are_round() -> None:
    axes = Figure().add_subplot()
    plot_dice_by_volume(
        axes, [Finding("tp", mm3, 0.9) for mm3 in (2210.0, 3080.0)], color="#e69f00"
    )
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1.5k", "2k", "3k"]


def test_ignored_lesions_and_those_without_dice_are_not_drawn(
    build_scores: Callable[..., Scores],
) -> None:
    lesions = (*SOME, ("tp", 100.0, math.nan))
    scores = build_scores({"WT": {"lesions": lesions}}, protocol=BY_LESION)
    chart = draw_dice_by_volume(scores, "WT")
    assert chart is not None
    assert chart.caption == "1 found, 1 missed, 1 made up; median Dice of those found 0.800"
    assert draw_dice_by_volume(scores, "core") is None


def test_sizes_are_counted_apart() -> None:
    found = [
        Finding("tp", 9.9, 0.5),
        Finding("tp", 10.0, 0.5),
        Finding("fn", 99.0, 0.0),
        Finding("fp", 50.0, 0.0),
        Finding("fn", 10_000.0, 0.0),
    ]
    counts = count_by_size(found)
    assert counts == {
        "< 10": Counts(1, 0, 0),
        "10–100": Counts(1, 1, 1),
        "≥ 10k": Counts(0, 1, 0),
    }
    assert counts["10–100"].f1 == pytest.approx(0.5)
    assert counts["10–100"].sensitivity == pytest.approx(0.5)
    assert counts["≥ 10k"].f1 == 0
    assert math.isnan(Counts(0, 0, 0).f1)
    assert math.isnan(Counts(0, 0, 3).sensitivity)


def test_stacks_are_as_high_as_the_counts() -> None:
    axes = Figure().add_subplot()
    plot_detection(axes, {"< 10": Counts(3, 2, 1), "≥ 10k": Counts(4, 0, 0)}, color="#e69f00")
    bars = [(bar.get_y(), bar.get_height()) for bar in axes.patches]
    assert bars == [(0, 3), (0, 4), (3, 2), (4, 0), (5, 1), (4, 0)]
    assert [text.get_text() for text in axes.texts] == ["0.67", "1.00"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["< 10", "≥ 10k"]


def test_a_chart_of_detection_says_its_numbers(build_scores: Callable[..., Scores]) -> None:
    scores = build_scores({"WT": {"lesions": SOME}}, protocol=BY_LESION)
    chart = draw_detection(scores, "WT")
    assert chart is not None
    assert chart.caption == (
        "10–100 mm³: 0 of 1 found, 1 made up, F1 0.00; 100–1k mm³: 1 of 1 found, 0 made up, F1 1.00"
    )
    assert draw_detection(scores, "core") is None
