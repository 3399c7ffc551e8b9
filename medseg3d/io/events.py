"""The log of a training, `metrics.jsonl`: one event a line."""

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from medseg3d.errors import FormatError
from medseg3d.io.atomic import write_atomically


class Event(BaseModel):
    """An epoch with its loss, a validation, or the end with the scores of the held-out cases."""

    model_config = ConfigDict(frozen=True)

    event: Literal["epoch", "validation", "end"]
    epoch: int
    step: int
    loss: float | None = None
    learning_rate: float | None = None
    gradient_norms: dict[str, float] = {}
    """Mean over the epoch's steps, by stage of the network."""
    seconds: float | None = None
    patches_per_second: float | None = None
    waiting_share: float | None = None
    """Share of the time without a batch to train on."""
    memory_mib: float | None = None
    """Most memory held, on a GPU during the epoch, else by the process so far."""
    dice: dict[str, float | None] = {}
    mean_dice: float | None = None

    def numbers(self) -> dict[str, float]:
        """Give what was measured by name, parts with a slash: `dice/core`."""
        found: dict[str, float] = {}
        for name, value in self.model_dump(exclude={"event", "epoch", "step"}).items():
            parts = value.items() if isinstance(value, dict) else [("", value)]
            found |= {f"{name}/{p}".strip("/"): number for p, number in parts if number is not None}
        return found


def read_events(path: Path) -> list[Event]:
    """Read the events of a training; a last line that a kill cut off does not count.

    Raises:
        FormatError: the file is missing, or a line is no event.
    """
    try:
        *lines, _ = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise FormatError(
            f"'{path}' cannot be read: {error}. Name the folder of a training; it is written there."
        ) from error
    return [_parse(line, f"'{path}', line {number}") for number, line in enumerate(lines, start=1)]


def append_event(path: Path, event: Event) -> None:
    """Add one event to a log, which is made if need be."""
    with path.open("a", encoding="utf-8") as stream:
        stream.write(_line(event))


def rewrite_events(path: Path, events: Iterable[Event]) -> None:
    """Replace a log."""
    write_atomically(path, "".join(map(_line, events)).encode())


def _line(event: Event) -> str:
    return event.model_dump_json(exclude_defaults=True) + "\n"


def _parse(line: str, source: str) -> Event:
    try:
        return Event.model_validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        raise FormatError(
            f"{source}: no event of a training: {'.'.join(map(str, first['loc']))} {first['msg']}"
        ) from error
