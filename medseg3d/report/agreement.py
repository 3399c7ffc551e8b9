"""Do predicted volumes agree with those of the references? After Bland and Altman, Lancet 1986."""

import math
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
from matplotlib.axes import Axes

from medseg3d.evaluate.results import Scores
from medseg3d.report.measures import is_empty, is_penalised, scored_regions
from medseg3d.report.plots import INK, Chart, draw_chart, style_dots

MM3_PER_ML: Final = 1000.0
SPREAD: Final = 1.96
"""Standard deviations on either side of the mean between which 95 % of differences lie."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """A region's volumes in ml, over the cases that have it on a side; `num_absent` have not."""

    reference_ml: tuple[float, ...]
    predicted_ml: tuple[float, ...]
    is_penalised: tuple[bool, ...]
    num_absent: int

    @property
    def means_ml(self) -> list[float]:
        """Means of the two sides."""
        return [(r + p) / 2 for r, p in zip(self.reference_ml, self.predicted_ml, strict=True)]

    @property
    def differences_ml(self) -> list[float]:
        """Predicted minus reference."""
        return [p - r for r, p in zip(self.reference_ml, self.predicted_ml, strict=True)]

    @property
    def bias_ml(self) -> float:
        """Mean difference; nan of none."""
        return float(np.mean(self.differences_ml)) if self.reference_ml else math.nan

    @property
    def limits_ml(self) -> tuple[float, float]:
        """Limits of agreement; nan of fewer than two."""
        if len(self.reference_ml) < 2:
            return math.nan, math.nan
        margin = SPREAD * float(np.std(self.differences_ml, ddof=1))
        return self.bias_ml - margin, self.bias_ml + margin

    def __str__(self) -> str:
        (low, high), n = self.limits_ml, len(self.reference_ml)
        said = [f"n = {n}"]
        if n > 1:
            said.insert(0, f"limits of agreement {low:+.3g} to {high:+.3g} ml")
        if n:
            said.insert(0, f"mean bias {self.bias_ml:+.3g} ml")
        if self.num_absent:
            said.append(f"{self.num_absent} without the region on either side")
        return ", ".join(said)


def compare_volumes(scores: Scores, region: str) -> Agreement:
    """Collect a region's volumes from all cases with a score."""
    scored = scored_regions(scores, region)
    found = [(case, score) for case, score in scored if not is_empty(score)]
    return Agreement(
        tuple(score.reference_mm3 / MM3_PER_ML for _, score in found),
        tuple(score.predicted_mm3 / MM3_PER_ML for _, score in found),
        tuple(is_penalised(case, score) for case, score in found),
        len(scored) - len(found),
    )


def draw_agreement(scores: Scores, region: str) -> Chart | None:
    """Draw differences against means, with bias and limits of agreement; None without a volume."""
    agreement = compare_volumes(scores, region)
    if not agreement.reference_ml:
        return None
    color = scores.scheme.region_color(region)
    return draw_chart(
        partial(plot_agreement, agreement=agreement, color=color),
        title=region,
        caption=str(agreement),
    )


def plot_agreement(axes: Axes, agreement: Agreement, *, color: str) -> None:
    """Plot a dot per case, hollow where it is penalised, and up to three lines."""
    means, differences = np.array(agreement.means_ml), np.array(agreement.differences_ml)
    is_hollow = np.array(agreement.is_penalised, dtype=bool)
    axes.axhline(0, color=INK, linewidth=0.6, alpha=0.4)
    for chosen, fill in ((~is_hollow, color), (is_hollow, "none")):
        dots = means[chosen], differences[chosen], "o"
        axes.plot(*dots, color=color, markerfacecolor=fill, **style_dots(len(means)))
    levels = (agreement.bias_ml, *agreement.limits_ml)
    for level, dashes in zip(levels, ("solid", "dashed", "dashed"), strict=True):
        if not math.isnan(level):
            axes.axhline(level, color=INK, linestyle=dashes, linewidth=1, zorder=3)
    axes.set(xlabel="mean of both (ml)", ylabel="predicted − reference (ml)")
    axes.set_xlim(left=0)
    axes.grid(visible=True)
