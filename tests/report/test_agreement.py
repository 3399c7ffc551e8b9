"""Bland and Altman: bias, limits, and every case where its volumes are."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from medseg3d.evaluate.results import Scores
from medseg3d.report.agreement import Agreement, compare_volumes, draw_agreement, plot_agreement


def dots(axes: Axes) -> list[list[tuple[float, float]]]:
    lines = [line for line in axes.lines if line.get_marker() == "o"]
    return [[(x, y) for x, y in np.transpose(line.get_data()).tolist()] for line in lines]


def test_bias_and_limits_are_those_of_the_differences() -> None:
    agreement = Agreement((10.0, 20.0, 30.0), (11.0, 22.0, 33.0), (False,) * 3, num_absent=0)
    assert agreement.differences_ml == [1.0, 2.0, 3.0]
    assert agreement.means_ml == [10.5, 21.0, 31.5]
    assert agreement.bias_ml == pytest.approx(2)
    assert agreement.limits_ml == pytest.approx((0.04, 3.96))


def test_one_case_has_a_bias_and_no_limits_and_none_has_neither() -> None:
    one, none = Agreement((2.0,), (3.0,), (False,), 0), Agreement((), (), (), 4)
    assert one.bias_ml == 1
    assert all(math.isnan(limit) for limit in (*one.limits_ml, none.bias_ml, *none.limits_ml))
    assert str(one) == "mean bias +1 ml, n = 1"
    assert str(none) == "n = 0, 4 without the region on either side"


def test_volumes_of_a_region_are_gathered_in_ml(build_scores: Callable[..., Scores]) -> None:
    scores = build_scores(
        {"WT": {"reference_mm3": 2000.0, "predicted_mm3": 2500.0}},
        {"WT": {"reference_mm3": 3000.0, "predicted_mm3": 0.0}},
        {"WT": {"reference_mm3": 0.0, "predicted_mm3": 0.0}},
        None,
    )
    assert compare_volumes(scores, "WT") == Agreement((2.0, 3.0), (2.5, 0.0), (False, True), 1)
    chart = draw_agreement(scores, "WT")
    assert chart is not None
    assert chart.title == "WT"
    assert chart.caption == (
        "mean bias -1.25 ml, limits of agreement -6.1 to +3.6 ml, n = 2, "
        "1 without the region on either side"
    )


def test_a_region_without_volumes_is_not_drawn(build_scores: Callable[..., Scores]) -> None:
    nothing = {"WT": {"reference_mm3": 0.0, "predicted_mm3": 0.0}}
    assert draw_agreement(build_scores(nothing, None), "WT") is None


def test_dots_lie_at_mean_and_difference_and_lines_at_bias_and_limits() -> None:
    axes = Figure().add_subplot()
    agreement = Agreement((10.0, 20.0, 30.0), (11.0, 22.0, 0.0), (False, False, True), 0)
    plot_agreement(axes, agreement, color="#e69f00")
    assert dots(axes) == [[(10.5, 1.0), (21.0, 2.0)], [(15.0, -30.0)]]
    levels = [line.get_ydata()[0] for line in axes.lines if line.get_marker() != "o"]
    assert levels == pytest.approx([0, agreement.bias_ml, *agreement.limits_ml])


def test_one_case_is_drawn_without_limits() -> None:
    axes = Figure().add_subplot()
    plot_agreement(axes, Agreement((2.0,), (3.0,), (False,), 0), color="#e69f00")
    assert len([line for line in axes.lines if line.get_marker() != "o"]) == 2
