"""What a page is made of: the scores of `evaluate`, read back."""

from pathlib import Path
from statistics import fmean
from typing import Literal

from pydantic import BaseModel, ValidationError, model_validator

from medseg3d.errors import FormatError
from medseg3d.evaluate.schemes import Scheme


class Measures(BaseModel):
    """Scores of one region in one case; None is undefined."""

    dice: float | None
    hd95: float | None
    reference_mm3: float
    predicted_mm3: float

    @property
    def penalised(self) -> bool:
        """One side is empty: `hd95` is a rule's number, not a distance."""
        return (self.reference_mm3 > 0) != (self.predicted_mm3 > 0)


class ScoredCase(BaseModel):
    """One case; a failed one has a reason, and scores only if it counts as an empty prediction."""

    case: str
    status: Literal["scored", "failed"]
    reason: str | None
    predicted: Path | None
    reference: Path | None
    regions: dict[str, Measures]

    @property
    def mean_dice(self) -> float | None:
        """Mean over the regions whose Dice is defined."""
        defined = [m.dice for m in self.regions.values() if m.dice is not None]
        return fmean(defined) if defined else None


class Average(BaseModel):
    """One measure over the `n` cases in which it is defined; None is undefined."""

    mean: float | None
    sd: float | None
    median: float | None
    low: float | None
    high: float | None
    n: int


class RegionSummary(BaseModel):
    """Averages of one region."""

    dice: Average
    hd95: Average


class ScoresFile(BaseModel):
    """What `evaluate` writes as scores.json, as far as a page tells it."""

    medseg3d: str
    policy: str
    labels: Scheme
    cases: list[ScoredCase]
    summary: dict[str, RegionSummary]

    @model_validator(mode="after")
    def _every_region_is_summed_up(self) -> "ScoresFile":
        if missing := self.labels.regions.keys() - self.summary.keys():
            raise ValueError(f"no summary of {sorted(missing)}")
        return self


def read_scores(path: Path) -> ScoresFile:
    """Read scores.json.

    Raises:
        FormatError: the file is missing, no JSON, or not the scores of `evaluate`.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise FormatError(
            f"'{path}' cannot be read: {error.strerror}. Name the scores.json of an evaluation."
        ) from error
    try:
        return ScoresFile.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "(top)"
        raise FormatError(
            f"'{path}': not as medseg3d writes it: {where}: {first['msg']} "
            f"({error.error_count()} fault(s) in all). Write it anew."
        ) from error
