"""Charts: SVG to stand in a page, true to the numbers."""

import re
from xml.etree import ElementTree

import matplotlib as mpl
import pytest

from medseg3d.io.events import Event
from medseg3d.report.plots import draw_strips, draw_training
from medseg3d.report.sources import Measures

COLORS = {"WT": "#e69f00", "core": "#56b4e9"}


def measures(dice: float | None = 0.5, hd95: float | None = 3.0, *, found: bool = True) -> Measures:
    return Measures(dice=dice, hd95=hd95, reference_mm3=10.0, predicted_mm3=10.0 if found else 0.0)


def parse(svg: str) -> ElementTree.Element:
    """Read an element as a browser would: it knows the prefix xlink."""
    return ElementTree.fromstring(f'<html xmlns:xlink="xlink">{svg}</html>')


def dots(svg: str, color: str) -> list[dict[str, str]]:
    found = [element.attrib for element in parse(svg).iter("use")]
    return [attributes for attributes in found if f"stroke: {color}" in attributes["style"]]


def test_a_chart_stands_in_a_page_without_addresses_or_fonts() -> None:
    svg = draw_strips("dice", [{"WT": measures()}], COLORS, label="Dice")
    assert svg.startswith("<svg")
    assert parse(svg)[0].tag == "svg"
    for word in ("http", "font-family", "<metadata", "#010203"):
        assert word not in svg
    assert "currentColor" in svg


def test_every_case_with_a_number_is_a_dot() -> None:
    cases = [{"WT": measures(dice)} for dice in (0.2, 0.9, None, 0.4)]
    svg = draw_strips("dice", cases, COLORS, label="Dice")
    assert len(dots(svg, COLORS["WT"])) == 3
    assert not dots(svg, COLORS["core"])
    assert {"WT", "core", "Dice"} <= {text.text for text in parse(svg).iter("text")}


def test_dots_lie_where_their_numbers_are() -> None:
    cases = [{"WT": measures(dice)} for dice in (0.0, 0.5, 1.0)]
    left, middle, right = sorted(
        float(dot["x"])
        for dot in dots(draw_strips("dice", cases, COLORS, label="Dice"), COLORS["WT"])
    )
    assert middle - left == pytest.approx(right - middle)


def test_a_penalty_is_hollow_and_does_not_stretch_the_axis() -> None:
    cases = [{"WT": measures(hd95=4.0)}, {"WT": measures(hd95=374.0, found=False)}]
    distance, penalty = sorted(
        dots(draw_strips("hd95", cases, COLORS, label="HD95"), COLORS["WT"]),
        key=lambda dot: float(dot["x"]),
    )
    assert "fill: none" not in distance["style"]
    assert float(penalty["x"]) < 1.2 * float(distance["x"])
    assert re.search(r"fill-opacity: 0|fill: none", penalty["style"])


def test_names_cannot_break_out_of_a_chart() -> None:
    name = "<script>$x$</script>"
    svg = draw_strips("dice", [{name: measures()}], {name: "#e69f00"}, label="Dice")
    assert "<script" not in svg
    assert name in {text.text for text in parse(svg).iter("text")}


def test_a_training_is_drawn_as_far_as_it_was_logged() -> None:
    epochs = [
        Event(event="epoch", epoch=n, step=n, loss=1 / n, learning_rate=0.1) for n in (1, 2, 3)
    ]
    look = Event(event="validation", epoch=2, step=2, dice={"WT": 0.8, "ET": None}, mean_dice=0.8)
    assert draw_training([]) == {}
    assert [*draw_training(epochs)] == ["Training loss", "Learning rate"]
    charts = draw_training([*epochs, look])
    assert [*charts] == ["Training loss", "Learning rate", "Validation Dice"]
    words = {text.text for text in parse(charts["Validation Dice"]).iter("text")}
    assert {"WT", "mean", "epoch"} <= words
    assert "ET" not in words


def test_drawing_leaves_the_settings_of_matplotlib_alone_and_is_repeatable() -> None:
    before = dict(mpl.rcParams)
    first, second = (
        draw_strips("dice", [{"WT": measures()}], COLORS, label="Dice") for _ in range(2)
    )
    assert first == second
    assert dict(mpl.rcParams) == before
