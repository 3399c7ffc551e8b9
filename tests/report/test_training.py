"""Curves of a training: as far as it was logged."""

import pytest
from matplotlib.figure import Figure

from medseg3d.io.events import Event
from medseg3d.report.training import draw_training, plot_curves

EPOCHS = [Event(event="epoch", epoch=n, step=n, loss=1 / n, learning_rate=0.1) for n in (1, 2, 3)]
LOOK = Event(event="validation", epoch=2, step=2, dice={"WT": 0.8, "ET": None}, mean_dice=0.7)


def test_a_training_is_drawn_as_far_as_it_was_logged() -> None:
    assert draw_training([]) == []
    titles = [chart.title for chart in draw_training(EPOCHS)]
    assert titles == ["Training loss", "Learning rate"]
    *_, dice = draw_training([*EPOCHS, LOOK])
    assert dice.title == "Validation Dice"
    assert dice.caption == "WT 0.8 at epoch 2; mean 0.7 at epoch 2"


def test_curves_run_through_what_was_logged() -> None:
    axes = Figure().add_subplot()
    plot_curves(axes, {"WT": [(1, 0.5), (4, 0.8)], "mean": [(1, 0.4)]})
    first, mean = axes.lines
    assert [*zip(*first.get_data(), strict=True)] == [(1, 0.5), (4, 0.8)]
    assert mean.get_linestyle() == ":"
    assert axes.get_ylim() == pytest.approx((0, 1))


def test_norms_of_stages_span_decades() -> None:
    norms = [{"encoder.0": 0.01, "heads.0": 3.0}, {"encoder.0": 0.02, "heads.0": 2.0}]
    events = [Event(event="epoch", epoch=n, step=n, gradient_norms=g) for n, g in enumerate(norms)]

    (chart,) = draw_training(events)

    assert chart.title == "Gradient norm"
    assert chart.caption == "encoder.0 0.02 at epoch 1; heads.0 2 at epoch 1"
    axes = Figure().add_subplot()
    plot_curves(axes, {"encoder.0": [(0, 0.01), (1, 0.02)], "heads.0": [(0, 3.0), (1, 2.0)]})
    assert axes.get_yscale() == "log"


def test_a_region_without_numbers_is_left_out() -> None:
    *_, dice = draw_training([LOOK])
    assert "ET" not in dice.svg
