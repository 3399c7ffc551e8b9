"""The main job on made-up data: train, predict, evaluate, report, each through its user's door."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from medseg3d.config.load import load_config
from medseg3d.data.cases import write_cases
from medseg3d.data.inputs import find_inputs
from medseg3d.data.phantom import write_phantoms
from medseg3d.evaluate.folder import score_cases
from medseg3d.evaluate.results import Scores
from medseg3d.evaluate.tables import write_scores
from medseg3d.io.events import Event
from medseg3d.nets.bundle import load_bundle
from medseg3d.predict.cases import predict_cases
from medseg3d.predict.output import Output
from medseg3d.report.page import write_report
from medseg3d.train.cases import Progress
from medseg3d.train.folder import CHECKPOINT
from medseg3d.train.run import train_run

QUICKSTART: Final = Path(__file__).parent / "config" / "quickstart.yaml"
NUM_KNOWN: Final = 18
NUM_NEW: Final = 5


@dataclass(frozen=True, slots=True)
class Demo:
    """Where everything is, and the scores of the new cases."""

    places: dict[str, Path]
    scores: Scores


def run_demo(
    folder: Path,
    *,
    num_cases: tuple[int, int] = (NUM_KNOWN, NUM_NEW),
    settings: Sequence[str] = (),
    watch: Callable[[Event], None] | None = None,
    progress: Progress | None = None,
) -> Demo:
    """Make phantoms, train on some, segment and score others, and write the report.

    The same call on the same folder goes on where the last one stopped. `num_cases` are those to
    learn from and those to segment; `settings` change the training, such as `train.epochs=20`.

    Raises:
        ConfigError: the folder cannot be written to, or was made with other settings.
    """
    known, new = folder / "phantoms", folder / "new-phantoms"
    run = folder / "run"
    known_cases, new_cases = num_cases
    begun = (run / CHECKPOINT).exists()
    if not begun:  # a training goes on with the very files that it began with
        write_phantoms(known, num_cases=known_cases, seed=0)
    write_phantoms(new, num_cases=new_cases, seed=1)

    config = load_config(QUICKSTART, [f"data.folder={known}", *settings])
    model = train_run(config, run, resume=begun, watch=watch, progress=progress).model

    bundle = load_bundle(model)
    cases = find_inputs([new], bundle.recipe.images)
    predictions = folder / "predictions"
    output = Output(existing="replace")
    for number, _ in enumerate(predict_cases(bundle, cases, predictions, output=output), start=1):
        if progress:
            progress("predicting", number, len(cases))

    scores = score_cases(predictions, new, scheme="brats2023")
    write_scores(scores, predictions)
    images = folder / "new-phantoms.csv"
    write_cases(images, cases)
    report = write_report(
        folder / "report.html", scores=predictions / "scores.json", images=images, run=run
    )
    places = {
        "cases": known,
        "new cases": new,
        "model": model,
        "predictions": predictions,
        "report": report,
    }
    return Demo(places, scores)
