"""What is done with results."""

from pathlib import Path
from typing import Annotated

import typer

from medseg3d.cli.entry import NO_SETTINGS, Json, Set, app
from medseg3d.console import print_facts, print_json, print_text, progress_bars, say_error

SCHEME = "Name (brats2023, hippocampus, …) or YAML; without it every value is a region."
SCORES = "Folder for scores.json and tables; only printed if left out."
METHODS = "What `evaluate --out` wrote for each method: folders called like them, or NAME=FOLDER."
COMPARISON = "Folder for compare.json, ranks.csv and pairs.csv; only printed if left out."
MEASURE = "Rank and test by this one, repeat for more; those that BraTS ranks by if left out."
IMAGES = "CSV or, with --run, folder of the images; a training's own cases are known."


@app.command()
def evaluate(
    predicted: Annotated[Path, typer.Argument(help="Folder or .csv of label maps, or one.")],
    reference: Annotated[
        Path | None, typer.Argument(help="The same of references; not if a .csv holds both.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help=SCORES)] = None,
    scheme: Annotated[str | None, typer.Option("--scheme", help=SCHEME)] = None,
    settings: Set = NO_SETTINGS,
    json: Json = False,
) -> None:
    """Score label maps against references, by the rules of a challenge or of your own.

    Example: `medseg3d evaluate results/ references/ --scheme brats2023 --out scores`
    """
    from medseg3d.config.evaluate import EvaluateRun
    from medseg3d.config.load import override_section
    from medseg3d.evaluate.folder import score_cases
    from medseg3d.evaluate.tables import write_scores
    from medseg3d.io.atomic import prepare_folder

    config = override_section(EvaluateRun(), settings).evaluate
    if out:
        prepare_folder(out)
    with progress_bars() as progress:
        scores = score_cases(
            predicted,
            reference,
            scheme=scheme,
            empty=config.empty,
            predicted_pattern=config.predicted,
            reference_pattern=config.reference,
            workers=config.workers,
            progress=lambda done, total: progress("scoring", done, total),
        )
    for case in scores.failed:
        say_error(f"case '{case.pair.case}': {case.reason}")
    if json:
        print_json(scores.to_dict())
    else:
        print_text(str(scores))
    if out:
        write_scores(scores, out)
    raise typer.Exit(1 if scores.failed else 0)


@app.command()
def compare(
    methods: Annotated[list[Path], typer.Argument(metavar="SCORES...", help=METHODS)],
    out: Annotated[Path | None, typer.Option("--out", help=COMPARISON)] = None,
    measures: Annotated[list[str], typer.Option("--measure", help=MEASURE)] = NO_SETTINGS,
    json: Json = False,
) -> None:
    """Rank methods as BraTS does, and test whether one is better than another.

    Example: `medseg3d compare scores/unet scores/resunet --out comparison`
    """
    from medseg3d.evaluate.comparison import compare_methods, name_methods, write_comparison

    comparison = compare_methods(name_methods(methods), measures=measures or None)
    if out:
        write_comparison(comparison, out)
    if json:
        print_json(comparison.to_dict())
    else:
        print_text(str(comparison))


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
