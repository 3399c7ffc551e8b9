"""Charts: SVG to stand in a page, with its numbers in words."""

from functools import partial
from xml.etree import ElementTree

import matplotlib as mpl
from matplotlib.axes import Axes

from medseg3d.report.plots import Chart, draw_chart, shorten


def plot(axes: Axes, *, label: str = "volume") -> None:
    axes.plot((1, 2, 3), (4, 5, 6), "o", color="#e69f00")
    axes.set_xlabel(label)


def draw(label: str = "volume", caption: str = "n = 3") -> Chart:
    return draw_chart(partial(plot, label=label), title="Volumes", caption=caption)


def parse(svg: str) -> ElementTree.Element:
    """Read an element as a browser would: it knows the prefix xlink."""
    return ElementTree.fromstring(f'<html xmlns:xlink="xlink">{svg}</html>')[0]


def test_a_chart_stands_in_a_page_without_addresses_or_fonts() -> None:
    svg = draw().svg
    assert parse(svg).tag == "svg"
    for word in ("http", "font-family", "<metadata", "#010203"):
        assert word not in svg
    assert "currentColor" in svg


def test_a_chart_says_its_numbers_to_who_cannot_see_it() -> None:
    svg = parse(draw(caption='1 < 2 & "so on"').svg)
    assert svg.attrib["role"] == "img"
    assert svg.attrib["aria-label"] == 'Volumes. 1 < 2 & "so on"'


def test_names_cannot_break_out_of_a_chart() -> None:
    name = "<script>$x$</script>"
    svg = draw(label=name, caption=f'"{name}').svg
    assert "<script" not in svg
    assert name in {text.text for text in parse(svg).iter("text")}


def test_drawing_leaves_the_settings_of_matplotlib_alone_and_is_repeatable() -> None:
    before = dict(mpl.rcParams)
    assert draw() == draw()
    assert dict(mpl.rcParams) == before


def test_large_numbers_are_short_on_an_axis() -> None:
    said = [shorten(number) for number in (0.5, 20.0, 999.0, 1e3, 2e4, 2.5e6)]
    assert said == ["0.5", "20", "999", "1k", "20k", "2.5M"]
