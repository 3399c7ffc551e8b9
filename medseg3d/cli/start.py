"""First steps: try it out, look through a data set."""

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
    config: Annotated[Path, typer.Argument(help="The YAML of a run.")],
    settings: Set = NO_SETTINGS,
    json: Json = False,
) -> None:
    """Look through a data set: damaged files, grids that differ, foreign labels; all at once.

    Example: `medseg3d check configs/hippocampus.yaml`
    """
    from medseg3d.config.load import load_config
    from medseg3d.data.cases import find_cases
    from medseg3d.data.check import check_cases
    from medseg3d.data.splits import split_cases

    run = load_config(config, settings)
    cases = find_cases(run.data)
    split = split_cases(cases, run.data.split, folder=run.data.folder)
    with progress_bars() as progress:
        checked = []
        for case in check_cases(cases, run.data.labels, config=run.preprocess):
            checked.append(case)
            progress("checking", len(checked), len(cases))
    faulty = [case for case in checked if case.faults]
    if json:
        print_json(checked)
    else:
        names = [*run.data.labels.values.values()]
        rows = [case.row(names) for case in checked]
        print_table("Cases", ["case", "shape", "spacing mm", "axes", *names], rows)
    for case in faulty:
        say_error(f"case '{case.id}': " + "; ".join(case.faults))
    say(
        f"{len(checked)} cases ({len(split.training)} training, {len(split.validation)} "
        f"validation), {len(faulty)} with faults"
    )
    raise typer.Exit(1 if faulty else 0)
