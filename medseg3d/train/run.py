"""The story of a training: cases → store → patches → steps → checkpoints → bundle → scores."""

import logging
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from medseg3d.config.recipe import build_recipe
from medseg3d.config.run import RunConfig
from medseg3d.data.splits import Split
from medseg3d.evaluate.folder import score_cases
from medseg3d.evaluate.results import Scores
from medseg3d.evaluate.tables import write_scores
from medseg3d.io.atomic import write_atomically
from medseg3d.io.events import Event
from medseg3d.nets.bundle import Bundle, build_recipe_net, load_bundle, save_bundle
from medseg3d.predict.cases import predict_cases
from medseg3d.predict.output import Output
from medseg3d.predict.tiles import require_divisible
from medseg3d.train.arithmetic import arithmetic, kept_random_state
from medseg3d.train.cases import Progress, prepare_cases
from medseg3d.train.folder import BEST, MODEL, claim_run
from medseg3d.train.ranks import explained, join_ranks
from medseg3d.train.signals import stop_requests
from medseg3d.train.surroundings import write_surroundings
from medseg3d.train.trainer import Trainer

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TrainedRun:
    """What a finished training leaves: the bundle's file and the scores of the held-out cases."""

    model: Path
    scores: Scores

    @property
    def failed(self) -> int:
        """Number of cases that could not be segmented or scored."""
        return len(self.scores.failed)

    @property
    def folders(self) -> list[Path]:
        """Where the run is."""
        return [self.model.parent]

    @property
    def places(self) -> dict[str, Path]:
        """What to look at next."""
        return {"model": self.model, "scores": self.model.parent / "validation"}

    def to_dict(self) -> dict[str, Any]:
        """Give plain data: the model, and the scores as `evaluate` gives them."""
        return {"model": str(self.model), **self.scores.to_dict()}

    def __str__(self) -> str:
        return str(self.scores)


def train_run(
    config: RunConfig,
    folder: Path,
    *,
    resume: bool = False,
    watch: Callable[[Event], None] | None = None,
    progress: Progress | None = None,
    source: Path | None = None,
) -> TrainedRun:
    """Train a network and score it on the held-out cases, through the doors its users take.

    `folder` receives config.yaml, environment.json, training.csv, validation.csv, metrics.jsonl,
    the preprocessed cases (store/), checkpoint.safetensors, the bundles best.safetensors and
    model.safetensors, and validation/ with label maps and scores. A run that was cut off and is
    resumed ends with the same weights, bit for bit on a CPU in 32-bit precision. `source` is the
    file that the configuration is from, whose version under git is noted.

    Several processes of torchrun or Slurm that call this with the same arguments train together;
    the first alone writes, and calls `watch` and `progress`.

    Raises:
        ConfigError: the run cannot be done as configured, or `folder` holds another.
        FormatError, GridError, LabelError: a case is not as it should be; the message names it.
        Stopped: SIGINT, SIGTERM or SIGUSR1 came; the step was finished, and its state is saved.
    """
    _require_fitting_patch(config)
    with ExitStack() as stack:
        stop = stack.enter_context(stop_requests())
        ranks = join_ranks(config.train)
        stack.enter_context(explained())
        stack.enter_context(arithmetic(config.train))
        report: Progress = progress if progress and ranks.first else _keep_quiet

        def prepare() -> Split:
            stack.enter_context(claim_run(config, folder, resume=resume))
            write_surroundings(folder / "environment.json", source=source, ranks=ranks)
            return prepare_cases(config, folder, report)

        split = ranks.let_first(prepare)
        with kept_random_state():
            trainer = Trainer(config, split, folder, ranks=ranks, watch=watch)
            trainer.run(report, stop)
        return ranks.let_first(lambda: _finish(trainer, split, folder, report))


def _finish(trainer: Trainer, split: Split, folder: Path, report: Progress) -> TrainedRun:
    """Ship a bundle, and score it."""
    if trainer.epochs_closed < trainer.config.epochs:
        log.warning(
            "training ended after epoch %d of %d: %d validations brought no better mean Dice",
            trainer.epochs_closed,
            trainer.config.epochs,
            trainer.fruitless,
        )
    model = folder / MODEL
    if trainer.config.ship == "best":
        write_atomically(model, (folder / BEST).read_bytes())
    else:
        save_bundle(trainer.shipped, model)
    scores = _score_held_out(load_bundle(model), split, folder, report)
    trainer.log_dice("end", {r: measures["dice"].mean for r, measures in scores.summary().items()})
    return TrainedRun(model, scores)


def _score_held_out(bundle: Bundle, split: Split, folder: Path, report: Progress) -> Scores:
    """Segment the held-out files as a user would, and score them."""
    out = folder / "validation"
    predicted = predict_cases(bundle, split.validation, out, output=Output(existing="replace"))
    for number, case in enumerate(predicted, start=1):
        if case.reason:
            log.warning("case '%s' could not be segmented: %s", case.id, case.reason)
        report("validating", number, len(split.validation))
    scores = score_cases(out, folder / "validation.csv", scheme=bundle.recipe.labels)
    write_scores(scores, out)
    return scores


def _require_fitting_patch(config: RunConfig) -> None:
    with torch.device("meta"):
        net = build_recipe_net(build_recipe(config))
    sizes = {
        "train.patch_size": config.train.patch_size,
        "predict.tile_size": config.predict.tile_size,
    }
    for name, size in sizes.items():
        if size is not None:
            require_divisible(size, getattr(net, "divisor", (1,) * len(size)), name=name)
    # on the meta device a forward pass costs nothing and refuses what the network cannot take
    patch = (config.train.batch_size, len(config.data.images), *config.train.patch_size)
    net(torch.empty(patch, device="meta"))


def _keep_quiet(_what: str, _done: int, _total: int) -> None:
    """Report nothing."""
