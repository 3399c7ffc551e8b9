"""The story of a training: cases → store → patches → steps → checkpoints → bundle → scores."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Final, Literal

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import nn

from medseg3d import __version__
from medseg3d.config.recipe import build_recipe
from medseg3d.config.run import RunConfig
from medseg3d.data.augment.compose import augment_batch
from medseg3d.data.cases import Case, find_cases, read_cases, write_cases
from medseg3d.data.loader import build_loader
from medseg3d.data.splits import Split, split_cases
from medseg3d.data.store import Store, StoredCases
from medseg3d.errors import ConfigError
from medseg3d.evaluate.folder import score_cases
from medseg3d.evaluate.overlap import dice
from medseg3d.evaluate.results import Scores
from medseg3d.evaluate.tables import write_scores
from medseg3d.io.events import Event
from medseg3d.labels import channels_to_values, region_masks
from medseg3d.nets.bundle import Bundle, build_recipe_net, save_bundle
from medseg3d.predict.case import choose_device, predict_image
from medseg3d.predict.cases import predict_cases
from medseg3d.predict.compose import compose_engine
from medseg3d.predict.output import Output
from medseg3d.predict.tiles import require_divisible
from medseg3d.preprocess.dataset import changed_cases, preprocess_cases
from medseg3d.train.checkpoint import load_checkpoint, save_checkpoint
from medseg3d.train.log import CHECKPOINT, RunLog, claim_run
from medseg3d.train.losses import SegmentationLoss
from medseg3d.train.optim import build_optimizer, learning_rate_at

Progress = Callable[[str, int, int], None]
"""Called with what is being done, the number done, and the number in all."""


SEED_STRIDE: Final = 1_000_003
"""Keeps the random streams of two seeds apart: step n of one is no step of the next."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TrainedRun:
    """What a finished training leaves: the bundle's file and the scores of the held-out cases."""

    model: Path
    scores: Scores


def train_run(
    config: RunConfig,
    folder: Path,
    *,
    resume: bool = False,
    watch: Callable[[Event], None] | None = None,
    progress: Progress | None = None,
) -> TrainedRun:
    """Train a network and score it on the held-out cases, through the doors its users take.

    `folder` receives config.yaml, training.csv, validation.csv, metrics.jsonl, the preprocessed
    cases (store/), checkpoint.safetensors, model.safetensors (the bundle), and validation/ with
    label maps and scores. A killed run that is resumed ends with the same weights, bit for bit on
    a CPU in 32-bit precision.

    Raises:
        ConfigError: the run cannot be done as configured, or `folder` holds another.
        FormatError, GridError, LabelError: a case is not as it should be; the message names it.
    """
    report: Progress = progress or _keep_quiet
    _require_fitting_patch(config)
    with claim_run(config, folder, resume=resume):
        return _train(config, folder, watch, report)


def _train(
    config: RunConfig, folder: Path, watch: Callable[[Event], None] | None, report: Progress
) -> TrainedRun:
    split = _prepare_cases(config, folder, report)
    gpus = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(gpus):
        trainer = Trainer(config, split, folder, watch=watch)
        trainer.run(report)
    model = folder / "model.safetensors"
    save_bundle(trainer.bundle, model)
    scores = _score_held_out(trainer, split, folder, report)
    return TrainedRun(model, scores)


class Trainer:
    """One network in training: weights, optimiser, and the step it is at."""

    def __init__(
        self,
        config: RunConfig,
        split: Split,
        folder: Path,
        *,
        watch: Callable[[Event], None] | None = None,
    ) -> None:
        """Build the network and go to where the folder's checkpoint, if any, left off."""
        self.config = config.train
        self.folder = folder
        store = Store(folder / "store")
        self.training = StoredCases(store, [case.id for case in split.training])
        self.validation = StoredCases(store, [case.id for case in split.validation])
        torch.manual_seed(config.train.seed)
        recipe = build_recipe(config)
        self.bundle = Bundle(build_recipe_net(recipe), recipe, __version__)
        optimizer = build_optimizer(self.bundle.net, config.train)
        self.fabric = build_fabric(config)
        self.net, self.optimizer = self.fabric.setup(self.bundle.net, optimizer)
        self.loss = SegmentationLoss()
        self.step = 0
        if self.checkpoint.exists():  # after the setup, so that all of it goes to the device
            self.step = load_checkpoint(self.checkpoint, self.bundle.net, optimizer)
        self.log = RunLog(folder / "metrics.jsonl", watch=watch)
        self.log.rewind(self.step)

    @property
    def checkpoint(self) -> Path:
        """Where the state is saved."""
        return self.folder / CHECKPOINT

    @property
    def epoch(self) -> int:
        """Number of epochs done."""
        return self.step // self.config.steps_per_epoch

    def run(self, report: Progress) -> None:
        """Train to the last epoch, looking and saving as often as configured."""
        config = self.config
        last_step = config.epochs * config.steps_per_epoch
        batches = iter(
            build_loader(self.training, config, first_step=self.step, last_step=last_step)
        )
        while self.step < last_step:
            started, losses = perf_counter(), []
            for _ in range(config.steps_per_epoch):
                losses.append(self.train_step(*augment_batch(next(batches), self.fabric.device)))
                report("training", self.step, last_step)
            self.log.write(
                Event(
                    event="epoch",
                    epoch=self.epoch,
                    step=self.step,
                    loss=float(np.mean(losses)),
                    learning_rate=learning_rate_at(self.step - 1, config),
                    seconds=round(perf_counter() - started, 3),
                )
            )
            if self.epoch % config.validate_every == 0 and self.step < last_step:
                self.validate()
            if self.epoch % config.checkpoint_every == 0 or self.step == last_step:
                save_checkpoint(self.checkpoint, self.bundle.net, self.optimizer, step=self.step)
        self.bundle.net.eval()

    def train_step(self, image: torch.Tensor, channels: torch.Tensor) -> float:
        """Take one optimiser step on a batch; give its loss.

        Raises:
            ConfigError: the loss is not finite; the weights are still those of the step before.
        """
        # whatever dropout draws depends on the step alone, so that a resumed run draws the same
        torch.manual_seed(self.config.seed * SEED_STRIDE + self.step)
        self.net.train()
        rate = learning_rate_at(self.step, self.config)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        loss = self.loss(self.net(image), channels)
        if not torch.isfinite(loss):
            raise ConfigError(
                f"the loss became {loss.item()} at step {self.step}: training diverged. Lower "
                "train.learning_rate or set train.clip_norm; the last checkpoint is still whole."
            )
        self.optimizer.zero_grad()
        self.fabric.backward(loss)
        if self.config.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.bundle.net.parameters(), self.config.clip_norm)
        self.optimizer.step()
        self.step += 1
        return loss.item()

    def validate(self) -> None:
        """Log each region's mean Dice over the held-out cases, on the preprocessed grid."""
        self.bundle.net.eval()
        labels = self.bundle.recipe.labels
        per_region: dict[str, list[float]] = {region: [] for region in labels.regions}
        engine = compose_engine([self.bundle])
        for case in self.validation:
            image_CIJK = np.asarray(case.image_CIJK)
            predicted = predict_image(engine, image_CIJK, self.bundle.recipe)
            pair = [channels_to_values(case.channels_IJK, labels), predicted.values_IJK]
            masks = zip(*(region_masks(label_map, labels) for label_map in pair), strict=True)
            for (region, reference), (_, mask) in masks:
                per_region[region].append(dice(reference, mask))
        mean = {region: float(np.mean(values)) for region, values in per_region.items()}
        self.log_dice("validation", mean)

    def log_dice(self, event: Literal["validation", "end"], mean: dict[str, float]) -> None:
        """Log each region's mean Dice, and the mean over regions."""
        self.log.write(
            Event(
                event=event,
                epoch=self.epoch,
                step=self.step,
                dice=dict(mean),
                mean_dice=float(np.mean([*mean.values()])),
            )
        )


def build_fabric(config: RunConfig) -> Fabric:
    """Set up device and precision."""
    device = choose_device(config.train.device)
    precision = "bf16-mixed" if config.train.precision == "bf16" else "32-true"
    return Fabric(accelerator=device.type, devices=1, precision=precision)  # type: ignore[arg-type]


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


def _prepare_cases(config: RunConfig, folder: Path, report: Progress) -> Split:
    if config.data.reference is None:
        raise ConfigError("data.reference: training needs the pattern of the reference label maps")
    cases = find_cases(config.data)
    split = split_cases(cases, config.data.split, folder=config.data.folder)
    store = Store(folder / "store")
    if (folder / CHECKPOINT).exists():
        _require_same_cases(split.training, folder / "training.csv")
        _require_same_cases(split.validation, folder / "validation.csv")
        if changed := changed_cases(cases, store, config.preprocess, config.data.labels):
            raise ConfigError(
                f"the files of {', '.join(changed[:5])} changed since the run began. "
                "Restore them, or begin anew in another --out."
            )
    write_cases(folder / "training.csv", split.training)
    write_cases(folder / "validation.csv", split.validation)
    preprocess_cases(
        [*split.training, *split.validation],
        store,
        config.preprocess,
        config.data.labels,
        progress=lambda done, total: report("preprocessing", done, total),
    )
    return split


def _require_same_cases(cases: Sequence[Case], table: Path) -> None:
    """See that a run goes on with the cases it began with."""
    before, now = {case.id for case in read_cases(table)}, {case.id for case in cases}
    if changed := [f"-{name}" for name in before - now] + [f"+{name}" for name in now - before]:
        raise ConfigError(
            f"the data set changed since the run began, so that {table.stem} cases differ: "
            f"{', '.join(sorted(changed)[:5])}. Restore it, or begin anew in another --out."
        )


def _score_held_out(trainer: Trainer, split: Split, folder: Path, report: Progress) -> Scores:
    """Segment the held-out files as a user would, score them, and log the final validation."""
    out = folder / "validation"
    output = Output(existing="replace")
    predicted = predict_cases(trainer.bundle, split.validation, out, output=output)
    for number, case in enumerate(predicted, start=1):
        if case.reason:
            log.warning("case '%s' could not be segmented: %s", case.id, case.reason)
        report("validating", number, len(split.validation))
    scores = score_cases(out, folder / "validation.csv", scheme=trainer.bundle.recipe.labels)
    write_scores(scores, out)
    trainer.log_dice(
        "end", {name: measures["dice"].mean for name, measures in scores.summary().items()}
    )
    return scores


def _keep_quiet(_what: str, _done: int, _total: int) -> None:
    """Report nothing."""
