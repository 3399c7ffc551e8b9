"""How verbs speak to a terminal: results on stdout, everything else on stderr."""

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, SupportsFloat, TypeAlias

from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

if TYPE_CHECKING:
    from medseg3d.io.events import Event

Report: TypeAlias = Callable[[str, SupportsFloat, int], None]
"""Called with what is being done, the number done, one of them perhaps in part, and that in all."""

SPEED_PERIOD_S: Final = 600.0
"""Time over which speed is averaged; a step may take minutes."""

out = Console(emoji=False)
err = Console(stderr=True, emoji=False)


def show_warnings() -> None:
    """Send medseg3d's log to stderr from WARNING on."""
    handler = RichHandler(console=err, show_time=False, show_path=False)
    logging.getLogger("medseg3d").addHandler(handler)


def say(text: str) -> None:
    """Tell the user what happens."""
    err.print(escape(text), highlight=False, soft_wrap=True)


def show_fault() -> None:
    """Show the exception at hand, which nobody foresaw."""
    err.print_exception()
    say_error("a fault of medseg3d, not of your data; please report it with the lines above")


def say_error(text: str) -> None:
    """Tell the user what went wrong."""
    err.print(f"[bold red]error:[/] {escape(text)}", highlight=False, soft_wrap=True)


def show_event(event: "Event") -> None:
    """Tell the user of one event of a training."""
    if event.event == "epoch":
        say(f"epoch {event.epoch:4d}   loss {event.loss:.4f}   {event.seconds:.1f} s")
    else:
        dice = "   ".join(f"{region} {value:.4f}" for region, value in event.dice.items())
        say(f"{event.event} Dice   {dice}   mean {event.mean_dice:.4f}")


def print_json(content: Any) -> None:
    """Print for machines: one JSON document on stdout, with null for what is not a number."""
    print(json.dumps(_plain(content), indent=2))  # noqa: T201


def print_text(text: str) -> None:
    """Print a result that is laid out already."""
    out.print(escape(text), highlight=False, soft_wrap=True)


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a table for people; numbers with three decimals, right-aligned."""
    table = Table(title=escape(title), title_justify="left", box=None, pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(escape(column), justify="left" if number == 0 else "right")
    for row in rows:
        table.add_row(*(f"{x:.3f}" if isinstance(x, float) else escape(str(x)) for x in row))
    out.print(table)


def print_facts(facts: Mapping[str, Any]) -> None:
    """Print name and value, one pair a line."""
    width = max(map(len, facts))
    for name, value in facts.items():
        out.print(
            f"[bold]{escape(name):<{width}}[/]  {escape(str(value))}",
            highlight=False,
            soft_wrap=True,
        )


def as_text(value: Any) -> str:
    """Write a value for people: numbers short, several of them with × or ; between, none as –."""
    if value is None:
        return "–"
    if isinstance(value, list):
        return "; ".join(map(as_text, value))
    if isinstance(value, tuple):
        return " × ".join(map(as_text, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


@contextmanager
def progress_bars() -> Iterator[Report]:
    """Show a bar with the time left for each thing that is reported as being done."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(
        *columns, console=err, transient=True, speed_estimate_period=SPEED_PERIOD_S
    ) as bars:
        tasks: dict[str, Any] = {}

        def report(what: str, done: SupportsFloat, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(escape(what), total=total)
            bars.update(tasks[what], completed=float(done))
            if float(done) >= total:
                bars.remove_task(tasks.pop(what))

        yield report


def _plain(content: Any) -> Any:
    """Turn values into what JSON has; NaN and infinity become null."""
    if is_dataclass(content) and not isinstance(content, type):
        return {f.name: _plain(getattr(content, f.name)) for f in fields(content)}
    if isinstance(content, Mapping):
        return {str(key): _plain(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_plain(value) for value in content]
    if isinstance(content, float):
        return content if isfinite(content) else None
    if hasattr(content, "tolist"):
        return _plain(content.tolist())
    return str(content) if isinstance(content, Path) else content
