"""How a network comes about."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from medseg3d.cli.entry import NO_SETTINGS, Json, Set, app
from medseg3d.console import (
    print_facts,
    print_json,
    print_text,
    progress_bars,
    say,
    say_error,
    show_event,
)
from medseg3d.errors import ConfigError, MissingExtraError

RUN = "Folder of the run; runs/NAME-OF-THE-YAML if left out."
RESUME = "Go on with a run that was cut off; begin it where there is none."
FOLD = "The held-out fold, instead of data.split.fold; or `all`, one run after the other."


@app.command()
def train(
    config: Annotated[Path, typer.Argument(help="The YAML of a run.")],
    out: Annotated[Path | None, typer.Option("--out", help=RUN)] = None,
    resume: Annotated[bool, typer.Option("--resume", help=RESUME)] = False,
    fold: Annotated[str | None, typer.Option("--fold", metavar="N|all", help=FOLD)] = None,
    settings: Set = NO_SETTINGS,
    json: Json = False,
) -> None:
    """Train a network; OUT/model.safetensors is the bundle to predict with.

    Example: `medseg3d train configs/hippocampus.yaml --out runs/hippocampus --set train.seed=1`
    """
    from medseg3d.config.load import load_config

    chosen = [f"data.split.fold={fold}"] if fold not in (None, "all") else []
    run = load_config(config, [*settings, *chosen])
    out = out or Path("runs") / config.stem

    from medseg3d.predict.allocator import keep_memory
    from medseg3d.train.folds import train_folds
    from medseg3d.train.launcher import find_launch, is_first, start_processes
    from medseg3d.train.run import train_run

    if run.train.devices > 1 and find_launch().launcher == "none":
        raise typer.Exit(start_processes(sys.argv[1:], run.train.devices))
    if run.predict.keep_memory:
        keep_memory()
    begin: Any = train_folds if fold == "all" else train_run
    with _one_voice(), _going_on_later(), progress_bars() as progress:
        trained = begin(run, out, resume=resume, watch=show_event, progress=progress, source=config)
    if is_first():
        for folder in trained.folders:
            _report(folder)
        if json:
            print_json(trained.to_dict())
        else:
            print_text(str(trained))
            print_facts(trained.places)
    raise typer.Exit(1 if trained.failed else 0)


@contextmanager
def _one_voice() -> Iterator[None]:
    """Let the first of several processes say what is wrong with what all were asked."""
    from medseg3d.train.launcher import is_first
    from medseg3d.train.ranks import leave_ranks

    try:
        yield
    except ConfigError:
        if is_first():
            raise
        raise typer.Exit(2) from None
    finally:
        leave_ranks()


@contextmanager
def _going_on_later() -> Iterator[None]:
    """End as the signal asks that stopped a training; on Slurm, SIGUSR1 asks to start it again."""
    from medseg3d.train.launcher import exit_code, is_first, requeue, slurm_job
    from medseg3d.train.signals import Stopped

    try:
        yield
    except Stopped as stopped:
        job = slurm_job()
        if is_first():
            say(f"{stopped}; the same command with --resume goes on from here")
            if job and exit_code(stopped.signal) == 0 and (reason := requeue(job)):
                say_error(f"Slurm does not start job {job} again: {reason}")
                raise typer.Exit(128 + stopped.signal) from None
        raise typer.Exit(exit_code(stopped.signal)) from None


def _report(run: Path) -> None:
    """Write the page with curves and worst cases, where what draws it is installed."""
    with suppress(MissingExtraError):
        from medseg3d.report.page import write_report

        write_report(run / "report.html", scores=None, run=run)
