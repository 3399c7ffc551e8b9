"""The command line: one function a verb, imports inside, no logic."""

import os
from pathlib import Path
from typing import Annotated

import typer

from medseg3d import __version__
from medseg3d.console import (
    print_facts,
    print_json,
    print_table,
    print_text,
    progress_bars,
    say,
    say_error,
    show_event,
    show_fault,
    show_warnings,
)
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
INPUT = "Files (one per channel, or one per case), folders of cases, or a CSV."
SCHEME = "Name (brats2023, hippocampus, …) or YAML; without it every value is a region."
RUN = "Folder of the run; runs/NAME-OF-THE-YAML if left out."
SCORES = "Folder for scores.json and scores.csv; only printed if left out."
IMAGES = "CSV or, with --run, folder of the images; a training's own cases are known."
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
    nonfinite = run.preprocess.nonfinite
    with progress_bars() as progress:
        checked = []
        for case in check_cases(cases, run.data.labels, nonfinite=nonfinite):
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


@app.command()
def train(
    config: Annotated[Path, typer.Argument(help="The YAML of a run.")],
    out: Annotated[Path | None, typer.Option("--out", help=RUN)] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a run that was cut off.")
    ] = False,
    settings: Set = NO_SETTINGS,
    json: Json = False,
) -> None:
    """Train a network; OUT/model.safetensors is the bundle to predict with.

    Example: `medseg3d train configs/hippocampus.yaml --out runs/hippocampus --set train.seed=1`
    """
    from medseg3d.config.load import load_config
    from medseg3d.train.trainer import train_run

    run = load_config(config, settings)
    out = out or Path("runs") / config.stem
    with progress_bars() as progress:
        trained = train_run(run, out, resume=resume, watch=show_event, progress=progress)
    if json:
        print_json({"model": str(trained.model), **trained.scores.to_dict()})
    else:
        print_text(str(trained.scores))
        print_facts({"model": trained.model, "scores": out / "validation"})
    raise typer.Exit(1 if trained.scores.failed else 0)


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(help="A bundle, as `train` writes it.")],
    inputs: Annotated[list[Path], typer.Argument(metavar="INPUT...", help=INPUT)],
    out: Out,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace results.")] = False,
    settings: Set = NO_SETTINGS,
    json: Json = False,
) -> None:
    """Segment cases; each label map lies on exactly the grid of its images.

    Example: `medseg3d predict model.safetensors scans/ --out results`
    """
    from medseg3d.predict.case import predict_inputs

    with progress_bars() as progress:
        done = []
        for case in predict_inputs(
            model, inputs, out, settings=settings, overwrite=overwrite, progress=progress
        ):
            done.append(case)
            if case.reason:
                say_error(f"case '{case.id}': {case.reason}")
    failed = [case for case in done if case.reason]
    if json:
        print_json(done)
    else:
        say(f"{len(done) - len(failed)} of {len(done)} cases segmented into '{out}'")
    raise typer.Exit(1 if failed else 0)


@app.command()
def evaluate(
    predicted: Annotated[Path, typer.Argument(help="Folder of label maps, or one.")],
    reference: Annotated[Path, typer.Argument(help="Folder, table (.csv), or one label map.")],
    out: Annotated[Path | None, typer.Option("--out", help=SCORES)] = None,
    scheme: Annotated[str | None, typer.Option("--scheme", help=SCHEME)] = None,
    settings: Set = NO_SETTINGS,
    json: Json = False,
) -> None:
    """Score label maps against references: Dice and HD95 per region.

    Example: `medseg3d evaluate results/ references/ --scheme brats2023 --out scores`
    """
    from medseg3d.config.evaluate import EvaluateRun
    from medseg3d.config.load import override_section
    from medseg3d.evaluate.score import score_cases, write_scores

    config = override_section(EvaluateRun(), settings).evaluate
    with progress_bars() as progress:
        scores = score_cases(
            predicted,
            reference,
            scheme=scheme,
            reference_pattern=config.reference,
            workers=config.workers,
            progress=lambda done, total: progress("scoring", done, total),
        )
    if out:
        write_scores(scores, out)
    for case in scores.failed:
        say_error(f"case '{case.pair.case}': {case.reason}")
    if json:
        print_json(scores.to_dict())
    else:
        print_text(str(scores))
    raise typer.Exit(1 if scores.failed else 0)


@app.command()
def report(
    scores: Annotated[Path | None, typer.Argument(help="scores.json of `evaluate`.")] = None,
    run: Annotated[Path | None, typer.Option("--run", help="Folder of a training.")] = None,
    images: Annotated[Path | None, typer.Option("--images", help=IMAGES)] = None,
    out: Annotated[Path, typer.Option("--out", help="The page.")] = Path("report.html"),
) -> None:
    """Write one self-contained HTML page: scores, overlays of the cases, curves of the training.

    Example: `medseg3d report scores/scores.json --run runs/hippocampus --out report.html`
    """
    from medseg3d.report.page import write_report

    print_facts({"report": write_report(out, scores=scores, images=images, run=run)})


@app.command()
def prune(
    model: Annotated[Path, typer.Argument(help="A bundle of a nested network (UNet++).")],
    out: Annotated[Path, typer.Option("--out", help="The smaller bundle.")],
    depth: Annotated[int, typer.Option("--depth", help="Head to keep, 1 the shallowest.")],
) -> None:
    """Cut a UNet++ to the part that predicts at a depth; its predictions stay the same.

    Example: `medseg3d prune model.safetensors --depth 2 --out small.safetensors`
    """
    from medseg3d.deploy.prune import prune_bundle
    from medseg3d.nets.bundle import load_bundle, save_bundle

    bundle = load_bundle(model)
    pruned = prune_bundle(bundle, depth=depth)
    save_bundle(pruned, out)
    counts = [sum(p.numel() for p in b.net.parameters()) for b in (bundle, pruned)]
    print_facts({"model": out, "parameters": f"{counts[1]:,} of {counts[0]:,}"})


@app.command()
def info(
    what: Annotated[str, typer.Argument(help="A volume, a bundle, or a network's name.")],
    json: Json = False,
) -> None:
    """Say what a file is, or a network: levels, parameters, operations and memory for a tile.

    Example: `medseg3d info model.safetensors`
    """
    from medseg3d.info import describe

    facts = describe(what)
    if json:
        print_json(facts)
    else:
        print_facts(facts)
