"""First steps: try it out, look through a data set."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from medseg3d.cli.entry import NO_SETTINGS, Json, Out, Set, app
from medseg3d.console import (
    print_facts,
    print_json,
    print_table,
    print_text,
    progress_bars,
    say,
    say_error,
    show_event,
)


@app.command()
def demo(out: Out = Path("demo-out"), settings: Set = NO_SETTINGS, json: Json = False) -> None:
    """Train on made-up brain tumours, segment new ones, score them, and write the report.

    Example: `medseg3d demo --out demo-out`
    """
    from medseg3d.demo import run_demo

    with progress_bars() as progress:
        result = run_demo(out, settings=settings, watch=show_event, progress=progress)
    if json:
        print_json(result.scores.to_dict())
    else:
        print_text(str(result.scores))
        print_facts(result.places)
    raise typer.Exit(1 if result.scores.failed else 0)


@app.command()
def check(
    source: Annotated[
        Path, typer.Argument(help="The YAML of a run, a data set's folder, or a CSV of cases.")
    ],
    settings: Set = NO_SETTINGS,
    json: Json = False,
) -> None:
    """Look through a data set and list all that is wrong: files, grids, labels, doubles, leaks.

    Example: `medseg3d check configs/hippocampus.yaml`, or `medseg3d check DATASET`
    """
    from medseg3d.data.doubts import check_data
    from medseg3d.data.layouts import find_data_set

    found = find_data_set(source, settings)
    with progress_bars() as progress:
        checked = check_data(found.data, found.preprocess, progress=partial(progress, "checking"))
    names = [*found.data.labels.values.values()]
    if json:
        print_json(checked.to_dict())
    else:
        rows = [case.row(names) for case in checked.cases]
        print_table("Cases", ["case", "shape", "spacing mm", "axes", *names], rows)
    for doubt in checked.warnings:
        say(f"warning: {doubt}")
    for fault in checked.faults:
        say_error(fault)
    say(checked.summary(found.data.split.fold))
    raise typer.Exit(1 if checked.faults else 0)
