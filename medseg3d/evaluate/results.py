"""What scoring gives: scores of a lesion, a region, a case, a folder; each also as plain data."""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final, TypeAlias

from pydantic import ValidationError

from medseg3d import __version__
from medseg3d.arrays import TripleFloat
from medseg3d.errors import FormatError
from medseg3d.evaluate.pairs import Pair
from medseg3d.evaluate.schemes import Scheme
from medseg3d.evaluate.stats import Summary, summarize

Measures: TypeAlias = Mapping[str, float | int]
"""Name of a measure -> its number; nan where it is undefined."""


@dataclass(frozen=True, slots=True)
class LesionScore:
    """One lesion: of the reference (`tp` found, `fn` missed), made up (`fp`), or `ignored`."""

    status: str
    center_mm: TripleFloat
    reference_mm3: float
    predicted_mm3: float
    measures: Measures

    def to_dict(self) -> dict[str, Any]:
        """Give plain data, measures beside the rest."""
        facts = {"status": self.status, "center_mm": [*self.center_mm]}
        volumes = {"reference_mm3": self.reference_mm3, "predicted_mm3": self.predicted_mm3}
        return {**facts, **volumes, **self.measures}


LESION_FACTS: Final = ("status", "center_mm", "reference_mm3", "predicted_mm3")


@dataclass(frozen=True, slots=True)
class RegionScore:
    """One region: the measures of the scheme's protocol in its order, volumes, and voxels.

    `lesions` is None where the protocol knows none.
    """

    measures: Measures
    reference_mm3: float
    predicted_mm3: float
    tp_voxels: int
    fp_voxels: int
    fn_voxels: int
    lesions: tuple[LesionScore, ...] | None = None

    @property
    def facts(self) -> dict[str, float | int]:
        """Volumes and numbers of voxels, by name."""
        return {name: getattr(self, name) for name in REGION_FACTS}

    def to_dict(self) -> dict[str, Any]:
        """Give plain data, measures beside the rest; undefined measures are nan."""
        numbers = {**self.measures, **self.facts}
        if self.lesions is None:
            return numbers
        lesions = enumerate((lesion.to_dict() for lesion in self.lesions), start=1)
        return {**numbers, "lesions": [{"lesion": n, **lesion} for n, lesion in lesions]}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "RegionScore":
        """Read what `to_dict` gave, None for nan allowed."""
        measures = _nan_for_null(content, but=(*REGION_FACTS, "lesions"))
        lesions = content.get("lesions")
        return cls(
            measures,
            **{name: content[name] for name in REGION_FACTS},
            lesions=None if lesions is None else tuple(_read_lesion(lesion) for lesion in lesions),
        )


REGION_FACTS: Final = ("reference_mm3", "predicted_mm3", "tp_voxels", "fp_voxels", "fn_voxels")


@dataclass(frozen=True, slots=True)
class CaseScore:
    """Scores of one case, by region in the scheme's order."""

    scheme: str
    regions: dict[str, RegionScore]

    def to_dict(self) -> dict[str, Any]:
        """Give plain data: `{"scheme": …, "regions": {region: {measure: number, …}}}`."""
        regions = {region: score.to_dict() for region, score in self.regions.items()}
        return {"scheme": self.scheme, "regions": regions}

    def __str__(self) -> str:
        names = [*next(iter(self.regions.values())).measures, "reference_mm3", "predicted_mm3"]
        rows = [
            [region, *score.measures.values(), score.reference_mm3, score.predicted_mm3]
            for region, score in self.regions.items()
        ]
        return align([[self.scheme, *names], *rows])


@dataclass(frozen=True, slots=True)
class CaseResult:
    """What became of one case of a folder: scored, or failed for a reason.

    A missing or unusable prediction is a failure that is scored as an empty one; other failures
    have no score.
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
            "regions": {region: _null_for_nan(s.to_dict()) for region, s in regions.items()},
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

    def numbers(self, region: str, measure: str) -> list[float]:
        """Give one measure of one region over all cases that have a score."""
        scores = [case.score for case in self.cases if case.score]
        return [float(score.regions[region].measures[measure]) for score in scores]

    def summary(self) -> dict[str, dict[str, Summary]]:
        """Describe each region's measures over all cases that have a score."""
        measures = self.scheme.protocol.measures
        return {
            region: {measure: summarize(self.numbers(region, measure)) for measure in measures}
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
            "measures": [*self.scheme.protocol.measures],
            "cases": [case.to_dict() for case in self.cases],
            "summary": {
                region: {measure: _null_for_nan(asdict(s)) for measure, s in summaries.items()}
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
        policy = self.scheme.policy.replace("; ", "\n  ")
        return (
            f"{self.scheme.name}\n  {policy}\n{align([head, *rows])}\n"
            f"cases: {len(self.cases)}, failed: {len(self.failed)}. "
            "low to high: 95 % interval of the mean"
        )


def read_scores(path: str | Path) -> Scores:
    """Read the scores.json that `write_scores` wrote, or that of a folder.

    Raises:
        FormatError: the file is missing, no JSON, or not the scores of `evaluate`.
    """
    path = Path(path)
    path = path / "scores.json" if path.is_dir() else path
    try:
        content = json.loads(path.read_bytes())
        scheme = Scheme.model_validate(content["labels"])
        cases = tuple(_read_case(case, scheme) for case in content["cases"])
        if doubled := [n for n, times in Counter(c.pair.case for c in cases).items() if times > 1]:
            raise ValueError(f"case '{doubled[0]}' is in it twice")  # noqa: TRY301
        return Scores(scheme, cases)
    except OSError as error:
        raise FormatError(
            f"'{path}' cannot be read: {error.strerror}. Name the scores.json of an evaluation."
        ) from error
    except ValidationError as error:
        raise _foreign(path, f"labels: {error.errors()[0]['msg']}") from error
    except KeyError as error:
        raise _foreign(path, f"{error} is missing") from error
    except (TypeError, ValueError, AttributeError) as error:
        raise _foreign(path, str(error)) from error


def _foreign(path: Path, why: str) -> FormatError:
    return FormatError(f"'{path}': not as medseg3d writes it: {why}. Evaluate anew.")


def _read_case(content: Mapping[str, Any], scheme: Scheme) -> CaseResult:
    sides = [None if content[s] is None else Path(content[s]) for s in ("predicted", "reference")]
    regions = {r: RegionScore.from_dict(score) for r, score in content["regions"].items()}
    for region in scheme.regions if regions else ():
        if missing := [m for m in scheme.protocol.measures if m not in regions[region].measures]:
            raise KeyError(f"case '{content['case']}', {region}: {', '.join(missing)}")
    score = CaseScore(scheme.name, regions) if regions else None
    return CaseResult(Pair(content["case"], *sides), score, content["reason"])


def _read_lesion(content: Mapping[str, Any]) -> LesionScore:
    x, y, z = content["center_mm"]
    volumes = content["reference_mm3"], content["predicted_mm3"]
    measures = _nan_for_null(content, but=("lesion", *LESION_FACTS))
    return LesionScore(content["status"], (x, y, z), *volumes, measures)


def _null_for_nan(content: Any) -> Any:
    if isinstance(content, Mapping):
        return {name: _null_for_nan(value) for name, value in content.items()}
    if isinstance(content, list):
        return [_null_for_nan(value) for value in content]
    return None if isinstance(content, float) and math.isnan(content) else content


def _nan_for_null(content: Mapping[str, Any], *, but: Sequence[str]) -> dict[str, float | int]:
    rest = {name: value for name, value in content.items() if name not in but}
    for name, value in rest.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise TypeError(f"{name} is {value!r}, expected a number or null")
    return {name: math.nan if value is None else value for name, value in rest.items()}


def align(rows: Sequence[Sequence[object]]) -> str:
    """Lay rows out as text: the first column to the left, fractions with four digits."""
    said = [[f"{v:.4f}" if isinstance(v, float) else str(v) for v in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*said, strict=True)]
    lines = (
        [row[0].ljust(widths[0]), *(v.rjust(w) for v, w in zip(row[1:], widths[1:], strict=True))]
        for row in said
    )
    return "\n".join("  ".join(line) for line in lines)
