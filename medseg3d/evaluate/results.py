"""What scoring gives: scores of a region, of a case, of a folder; each also as plain data."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Final

from medseg3d import __version__
from medseg3d.evaluate.pairs import Pair
from medseg3d.evaluate.schemes import Scheme
from medseg3d.evaluate.stats import Summary, summarize


@dataclass(frozen=True, slots=True)
class RegionScore:
    """Measures of one region; `hd95` is in the scheme's unit and follows its empty-mask rules."""

    dice: float
    hd95: float
    reference_mm3: float
    predicted_mm3: float


MEASURES: Final = tuple(field.name for field in fields(RegionScore))


@dataclass(frozen=True, slots=True)
class CaseScore:
    """Scores of one case, by region in the scheme's order."""

    scheme: str
    regions: dict[str, RegionScore]

    def to_dict(self) -> dict[str, Any]:
        """Give plain data: `{"scheme": …, "regions": {region: {measure: number}}}`."""
        return asdict(self)

    def __str__(self) -> str:
        rows = [[name, *asdict(score).values()] for name, score in self.regions.items()]
        return _table([[self.scheme, *MEASURES], *rows])


@dataclass(frozen=True, slots=True)
class CaseResult:
    """What became of one case of a folder: scored, or failed for a reason.

    A missing prediction is a failure that is scored as an empty one; other failures have no score.
    """

    pair: Pair
    score: CaseScore | None
    reason: str | None

    @property
    def status(self) -> str:
        """`scored` or `failed`."""
        return "failed" if self.reason else "scored"

    def to_dict(self) -> dict[str, Any]:
        """Give plain data; an undefined number is None."""
        predicted, reference = self.pair.predicted, self.pair.reference
        regions = self.score.regions if self.score else {}
        return {
            "case": self.pair.case,
            "status": self.status,
            "reason": self.reason,
            "predicted": predicted.resolve().as_posix() if predicted else None,
            "reference": reference.resolve().as_posix() if reference else None,
            "regions": {region: _defined(asdict(score)) for region, score in regions.items()},
        }


@dataclass(frozen=True, slots=True)
class Scores:
    """Every case of a folder, in alphabetical order, under one scheme."""

    scheme: Scheme
    cases: tuple[CaseResult, ...]

    @property
    def failed(self) -> tuple[CaseResult, ...]:
        """Cases with a reason for failure, whether or not they have a score."""
        return tuple(case for case in self.cases if case.reason)

    def summary(self) -> dict[str, dict[str, Summary]]:
        """Describe each region's measures over all cases that have a score."""
        scores = [case.score for case in self.cases if case.score]
        return {
            region: {
                measure: summarize([getattr(s.regions[region], measure) for s in scores])
                for measure in MEASURES
            }
            for region in self.scheme.regions
        }

    def to_dict(self) -> dict[str, Any]:
        """Give plain data, ready for JSON: scheme, policy, cases, summary; undefined is None."""
        return {
            "medseg3d": __version__,
            "scheme": self.scheme.name,
            "policy": self.scheme.policy,
            "labels": self.scheme.model_dump(mode="json"),
            "regions": [*self.scheme.regions],
            "cases": [case.to_dict() for case in self.cases],
            "summary": {
                region: {measure: _defined(asdict(s)) for measure, s in summaries.items()}
                for region, summaries in self.summary().items()
            },
        }

    def __str__(self) -> str:
        rows = [
            [region, measure, *asdict(summary).values()]
            for region, summaries in self.summary().items()
            for measure, summary in summaries.items()
        ]
        head = ["region", "measure", *(field.name for field in fields(Summary))]
        return (
            f"{self.scheme.name}: {self.scheme.policy}\n{_table([head, *rows])}\n"
            f"{len(self.cases)} cases, {len(self.failed)} failed. "
            "low to high: 95 % interval of the mean"
        )


def _defined(numbers: Mapping[str, float]) -> dict[str, float | None]:
    return {name: None if math.isnan(number) else number for name, number in numbers.items()}


def _table(rows: Sequence[Sequence[object]]) -> str:
    """Align columns, the first to the left; fractions get four digits."""
    said = [[f"{v:.4f}" if isinstance(v, float) else str(v) for v in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*said, strict=True)]
    lines = (
        [row[0].ljust(widths[0]), *(v.rjust(w) for v, w in zip(row[1:], widths[1:], strict=True))]
        for row in said
    )
    return "\n".join("  ".join(line) for line in lines)
