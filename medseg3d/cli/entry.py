"""The application: how it starts and ends, and the options that verbs share."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import is_dataclass
from functools import wraps
from inspect import Parameter, Signature, signature
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import typer

from medseg3d import __version__
from medseg3d.console import print_text, say_error, show_fault, show_warnings
from medseg3d.errors import MedSegError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)

OVER = "section.key=value; repeat for more."
Set = Annotated[list[str], typer.Option("--set", metavar="KEY=VALUE", help=f"Set a knob: {OVER}")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
Out = Annotated[Path, typer.Option("--out", help="Folder for the result; made if need be.")]
NO_SETTINGS: list[str] = []


def main() -> None:
    """Run the command line; exit code 0 ok, 1 some cases failed, 2 wrong use, 3 a fault of ours."""
    # threads that wait sleep: spinning, they burn other jobs' time on a shared machine, and ours
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    show_warnings()
    try:
        app()
    except (MedSegError, OSError) as error:
        say_error(str(error))
        raise SystemExit(2) from None
    except Exception:  # noqa: BLE001  Python's own exit code 1 would say that cases failed
        show_fault()
        raise SystemExit(3) from None
    except KeyboardInterrupt:
        say_error("stopped")
        raise SystemExit(130) from None


class Terminated(KeyboardInterrupt):
    """SIGTERM has come, as from a batch system; to be treated as Ctrl-C is."""


@contextmanager
def stoppable() -> Iterator[None]:
    """Let a verb be stopped by Ctrl-C or SIGTERM; say what the exception notes, with their code."""

    def stop(_number: int, _frame: object) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except KeyboardInterrupt as stopped:
        say_error("; ".join(["stopped", *getattr(stopped, "__notes__", [])]))
        number = signal.SIGTERM if isinstance(stopped, Terminated) else signal.SIGINT
        raise typer.Exit(128 + number) from None
    finally:
        signal.signal(signal.SIGTERM, before)


def grouped(verb: Callable[..., None]) -> Callable[..., None]:
    """Let a verb take many options as one dataclass, whose fields stand on the command line."""
    own = signature(verb).parameters
    [place] = [name for name, p in own.items() if is_dataclass(p.annotation)]
    group = own[place].annotation
    options = signature(group).parameters

    @wraps(verb)
    def run(**given: Any) -> None:
        made = group(**{name: given[name] for name in options})
        verb(**{name: made if name == place else given[name] for name in own})

    shown = [[*options.values()] if name == place else [p] for name, p in own.items()]
    parameters = [p.replace(kind=Parameter.KEYWORD_ONLY) for p in chain.from_iterable(shown)]
    run.__signature__ = Signature(parameters)  # type: ignore[attr-defined] # what Typer looks at
    return run


def show_version(asked: bool) -> bool:
    """Print the version and end."""
    if asked:
        print_text(f"medseg3d {__version__}")
        raise typer.Exit
    return asked


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, help="Print the version.")
    ] = False,
) -> None:
    """Train, predict, evaluate and report medical segmentations. Not a medical device."""
