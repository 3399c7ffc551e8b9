"""A cross-validation: a run a fold, and the scores of all held-out cases together."""

import json
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from typing import Any

from medseg3d.config.run import RunConfig
from medseg3d.data.cases import find_cases
from medseg3d.data.splits import cut_folds
from medseg3d.errors import ConfigError
from medseg3d.evaluate.results import CaseResult, Scores, align, read_scores
from medseg3d.evaluate.stats import summarize
from medseg3d.evaluate.tables import as_csv
from medseg3d.io.atomic import prepare_folder, write_atomically
from medseg3d.io.events import Event, read_events
from medseg3d.train.cases import Progress
from medseg3d.train.folder import CHECKPOINT, MODEL, require_same_run
from medseg3d.train.launcher import is_first
from medseg3d.train.run import TrainedRun, train_run

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CrossValidation:
    """A finished run a fold, in their order."""

    runs: tuple[TrainedRun, ...]

    @property
    def scores(self) -> Scores:
        """All held-out cases, each of which one run has not seen."""
        cases: list[CaseResult] = [case for run in self.runs for case in run.scores.cases]
        return Scores(self.runs[0].scores.scheme, tuple(sorted(cases, key=_name)))

    @property
    def failed(self) -> int:
        """Number of cases that could not be segmented or scored."""
        return len(self.scores.failed)

    @property
    def folders(self) -> list[Path]:
        """Where each run is."""
        return [run.model.parent for run in self.runs]

    @property
    def places(self) -> dict[str, Path]:
        """What to look at next."""
        return {"summary": self.folders[0].parent / "summary.json", "runs": self.folders[0].parent}

    def rows(self) -> Iterator[tuple[str | float, ...]]:
        """Give region, measure, the mean of each fold, their mean and sd, that of all cases."""
        each, together = [run.scores.summary() for run in self.runs], self.scores.summary()
        for region, summaries in together.items():
            for measure, summary in summaries.items():
                means = [fold[region][measure].mean for fold in each]
                folds = summarize(means)
                yield region, measure, *means, folds.mean, folds.sd, summary.mean

    def columns(self) -> list[str]:
        """Name what `rows` gives."""
        folds = [f"fold_{number}" for number in range(len(self.runs))]
        return ["region", "measure", *folds, "mean_of_folds", "sd_of_folds", "mean_of_cases"]

    def to_dict(self) -> dict[str, Any]:
        """Give plain data: `folds`, a row a measure, and all cases as `evaluate` gives them."""
        rows = [[_null_for_nan(value) for value in row] for row in self.rows()]
        folds = [dict(zip(self.columns(), row, strict=True)) for row in rows]
        return {"folds": folds, **self.scores.to_dict()}

    def __str__(self) -> str:
        return f"{align([self.columns(), *self.rows()])}\ncases: {len(self.scores.cases)}"


def train_folds(
    config: RunConfig,
    folder: Path,
    *,
    resume: bool = False,
    watch: Callable[[Event], None] | None = None,
    progress: Progress | None = None,
    source: Path | None = None,
) -> CrossValidation:
    """Train on every fold, into `fold_0` and so on, from one store, and sum up in summary.json.

    Finished folds of a cross-validation that is resumed are passed over.

    Raises:
        ConfigError, FormatError, GridError, LabelError, Stopped: as `train_run`.
    """
    num_folds = _count_folds(config)
    if config.train.start_from and is_first():
        log.warning(
            "every fold starts from '%s'; cases that it has seen and that a fold holds out make "
            "scores too good",
            config.train.start_from,
        )
    prepare_folder(folder)
    runs = []
    for number in range(num_folds):
        own = _of_fold(config, number, folder)
        run = _finished_run(own, folder / f"fold_{number}", resume=resume) or train_run(
            own,
            folder / f"fold_{number}",
            resume=resume,
            watch=watch,
            progress=progress,
            source=source,
        )
        runs.append(run)
    validated = CrossValidation(tuple(runs))
    if is_first():
        _write(validated, folder)
    return validated


def _count_folds(config: RunConfig) -> int:
    """Count the folds, each case of which is held out in one of them and no other."""
    data = config.data
    folds = cut_folds(find_cases(data), data.split, folder=data.folder)
    held_out = Counter(case.id for fold in folds for case in fold.validation)
    doubled = sorted(case for case, count in held_out.items() if count > 1)
    if len(folds) == 1 or doubled:
        why = f"folds that hold out {', '.join(doubled[:5])} twice" if doubled else "one fold"
        raise ConfigError(
            f"data.split.source={data.split.source} gives {why}, and a cross-validation holds out "
            "each case once; set it to folds, or train without --fold all"
        )
    return len(folds)


def _of_fold(config: RunConfig, number: int, folder: Path) -> RunConfig:
    split = config.data.split.model_copy(update={"fold": number})
    store = config.data.store or folder / "store"
    data = config.data.model_copy(update={"split": split, "store": store})
    return config.model_copy(update={"data": data})


def _finished_run(config: RunConfig, folder: Path, *, resume: bool) -> TrainedRun | None:
    if not (folder / CHECKPOINT).exists():
        return None
    require_same_run(config, folder, resume=resume)
    events = folder / "metrics.jsonl"
    if not events.exists() or not any(event.event == "end" for event in read_events(events)):
        return None
    return TrainedRun(folder / MODEL, read_scores(folder / "validation"))


def _write(validated: CrossValidation, folder: Path) -> None:
    content = json.dumps(validated.to_dict(), indent=1, allow_nan=False) + "\n"
    write_atomically(folder / "summary.json", content.encode())
    table = as_csv([validated.columns(), *validated.rows()])
    write_atomically(folder / "summary.csv", table.encode())


def _null_for_nan(value: str | float) -> str | float | None:
    return None if isinstance(value, float) and isnan(value) else value


def _name(case: CaseResult) -> str:
    return case.pair.case
