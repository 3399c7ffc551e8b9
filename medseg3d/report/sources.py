"""What a page is made of: the scores of `evaluate` and the events of a training, read back."""

import json
from pathlib import Path
from statistics import fmean
from typing import Any, Literal, TypeAlias

from pydantic import BaseModel, ValidationError

from medseg3d.errors import FormatError
from medseg3d.evaluate.schemes import Scheme, find_scheme

Event: TypeAlias = dict[str, Any]


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
    """One measure of one region over all cases that have a score."""

    mean: float | None
    sd: float | None
    median: float | None
    low: float | None
    high: float | None
    n: int


class ScoresFile(BaseModel):
    """What `evaluate` writes as scores.json."""

    medseg3d: str
    scheme: str
    policy: str
    labels: Scheme | None = None
    regions: list[str]
    cases: list[ScoredCase]
    summary: dict[str, dict[Literal["dice", "hd95", "reference_mm3", "predicted_mm3"], Average]]

    @property
    def found_scheme(self) -> Scheme:
        """The scheme the file carries, or the known one of its name.

        Raises:
            ConfigError: the file carries none and no scheme has that name.
        """
        return self.labels or find_scheme(self.scheme)


def read_scores(path: Path) -> ScoresFile:
    """Read scores.json.

    Raises:
        FormatError: the file is missing, no JSON, or not the scores of `evaluate`.
    """
    try:
        return ScoresFile.model_validate_json(path.read_bytes())
    except OSError as error:
        raise FormatError(f"scores '{path}' cannot be read: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "(top)"
        raise FormatError(
            f"'{path}' is not a scores.json of `medseg3d evaluate`: {where}: {first['msg']}; "
            f"{error.error_count()} fault(s) in all"
        ) from error


def read_events(path: Path) -> list[Event]:
    """Read the metrics.jsonl of a training; a last line that a kill cut off does not count.

    Raises:
        FormatError: the file is missing, or a line is no event.
    """
    try:
        *lines, _ = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise FormatError(
            f"'{path}' cannot be read: {error}. Name the folder of a training, which holds it."
        ) from error
    return [_event(line, f"'{path}', line {number}") for number, line in enumerate(lines, start=1)]


def _event(line: str, source: str) -> Event:
    try:
        event = json.loads(line)
    except json.JSONDecodeError as error:
        raise FormatError(f"{source}: no JSON: {error}") from error
    if not isinstance(event, dict) or not {"event", "epoch"} <= event.keys():
        raise FormatError(f"{source}: expected an object with 'event' and 'epoch', got {line[:80]}")
    return event
