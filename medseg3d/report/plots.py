"""Charts as SVG that takes on the page's font and text colour, light or dark, and says its numbers.

What is drawn is said elsewhere (`strips`, `lesions`, `agreement`, `training`), by functions that
plot on given axes.
"""

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from math import sqrt
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK: Final = "#010203"
"""Stands for the page's text colour until the SVG is written."""
STYLE: Final[Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "medseg3d",
    "font.size": 9,
    "text.parse_math": False,
    "legend.frameon": False,
    "grid.alpha": 0.12,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    **dict.fromkeys(("axes.edgecolor", "axes.labelcolor", "grid.color", "text.color"), INK),
    **dict.fromkeys(("xtick.color", "ytick.color"), INK),
}
SMALL_IN: Final = (3.1, 2.3)
"""Width and height of a chart of which three stand beside each other."""


@dataclass(frozen=True, slots=True)
class Chart:
    """A drawing, and its numbers in words for whoever cannot see it."""

    title: str
    caption: str
    svg: str


def draw_chart(
    plot: Callable[[Axes], None],
    *,
    title: str,
    caption: str,
    size_in: tuple[float, float] = SMALL_IN,
) -> Chart:
    """Draw what `plot` puts on a pair of axes, without touching the settings of matplotlib."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=size_in, layout="constrained")
        axes = figure.add_subplot()
        for patch in (figure.patch, axes.patch):
            patch.set_alpha(0)
        plot(axes)
        return Chart(title, caption, _svg(figure, f"{title}. {caption}"))


def style_dots(number: int) -> dict[str, Any]:
    """Make dots smaller and fainter the more there are, so that a crowd shows where it is dense."""
    crowd = max(1.0, number / 100)
    return {
        "markersize": 3.6 / crowd**0.25,
        "markeredgewidth": 1 / sqrt(crowd),
        "alpha": max(0.3, 1 / sqrt(crowd)),
    }


def shorten(number: float) -> str:
    """Write a round number for a crowded axis: 20k for 20000."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:g}{letter}"
    return f"{number:g}"


def _svg(figure: Figure, words: str) -> str:
    """Write an element to stand in a page: without header, addresses, fonts, or ids of groups."""
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r' xmlns(:xlink)?="[^"]*"|font-family: [^;]*; |(?<=<g) id="[^"]*"', "", text)
    return text.replace("<svg", f'<svg role="img" aria-label="{escape(words)}"', 1)
