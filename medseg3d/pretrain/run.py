"""The story of a pretraining: images → store → crops → steps → the encoder's file."""

from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter
from typing import Final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from medseg3d import __version__
from medseg3d.arrays import TripleInt
from medseg3d.config.data import DataConfig
from medseg3d.config.pretrain import EncoderRecipe
from medseg3d.config.run import RunConfig
from medseg3d.config.train import TrainConfig
from medseg3d.data.augment.compose import Sample, augment_batch, read_sample, whole_size
from medseg3d.data.cases import Case, find_cases, search_cases
from medseg3d.data.loader import pick_case
from medseg3d.data.splits import split_cases
from medseg3d.data.store import StoredCase
from medseg3d.errors import ConfigError
from medseg3d.io.events import Event
from medseg3d.predict.tiles import require_divisible
from medseg3d.pretrain.objectives import build_objective
from medseg3d.train.arithmetic import arithmetic, kept_random_state
from medseg3d.train.cases import Progress, store_cases
from medseg3d.train.checkpoint import (
    Checkpoint,
    parts_of,
    restore,
    resuming,
    save_checkpoint,
)
from medseg3d.train.encoder import Encoder, save_encoder
from medseg3d.train.folder import CHECKPOINT, claim_run
from medseg3d.train.launcher import find_launch
from medseg3d.train.log import RunLog
from medseg3d.train.optim import build_optimizer, learning_rate_at
from medseg3d.train.precision import quicken
from medseg3d.train.ranks import join_ranks
from medseg3d.train.tally import Tally
from medseg3d.train.trainer import SEED_STRIDE

NEAR: Final = 4
"""A second crop lies at most this part of its size away along each axis."""


def pretrain_run(
    config: RunConfig,
    folder: Path,
    *,
    resume: bool = False,
    watch: Callable[[Event], None] | None = None,
    progress: Progress | None = None,
) -> Path:
    """Train a network on images alone; give the file to start a training from.

    All images of the data set are used, or where it has references, those of training: held-out
    cases stay unseen. `folder` receives config.yaml, images.csv, metrics.jsonl, the preprocessed
    cases (store/), checkpoint.safetensors and encoder.safetensors. A killed run that is resumed
    ends with the same weights, bit for bit on a CPU in 32-bit precision.

    Raises:
        ConfigError: the run cannot be done as configured, or `folder` holds another.
        FormatError, GridError: a case is not as it should be; the message names it.
    """
    report: Progress = progress or (lambda _what, _done, _total: None)
    _require_feasible(config)
    with claim_run(config, folder, resume=resume), arithmetic(config.train):
        found = _find_cases(config.data)
        cases = store_cases(config, folder, report, tables={"images": found})
        with kept_random_state():
            pretrainer = Pretrainer(config, cases, folder, watch=watch)
            pretrainer.run(report)
        path = folder / "encoder.safetensors"
        save_encoder(pretrainer.encoder, path)
        return path


class Pretrainer:
    """One network in pretraining: weights, optimiser, and the step it is at."""

    def __init__(
        self,
        config: RunConfig,
        cases: Sequence[StoredCase],
        folder: Path,
        *,
        watch: Callable[[Event], None] | None = None,
    ) -> None:
        """Build the network and go to where the folder's checkpoint, if any, left off."""
        self.run_config = config
        self.config = as_training(config)
        self.cases = cases
        self.checkpoint = folder / CHECKPOINT
        torch.manual_seed(self.config.seed)
        self.objective = build_objective(config)
        quicken(self.objective, self.config.precision)
        optimizer = build_optimizer(self.objective, self.config)
        self.ranks = join_ranks(self.config)
        self.fabric = self.ranks.fabric
        self.learner, self.optimizer = self.fabric.setup(self.objective, optimizer)
        self.step = 0
        if self.checkpoint.exists():
            with resuming(self.checkpoint) as saved:
                restore(saved, self.objective, optimizer)
                self.fabric.strategy.precision.load_state_dict(saved.facts["scaler"])
                self.step = saved.facts["step"]
        self.log = RunLog(folder, self.config, watch=watch)
        self.log.rewind(self.step // self.config.steps_per_epoch)

    @property
    def encoder(self) -> Encoder:
        """Give what was learnt so far, and what another training must know of it."""
        run = self.run_config
        recipe = EncoderRecipe(
            images=run.data.images,
            preprocess=run.preprocess,
            spatial_dims=run.spatial_dims,
            network=run.network,
            pretrain=run.pretrain,
        )
        return Encoder(self.objective.weights(), recipe, __version__)

    def run(self, report: Progress) -> None:
        """Train to the last epoch, saving as often as training does."""
        config = self.config
        last_step = config.epochs * config.steps_per_epoch
        views = ViewStream(self.cases, config, num_views=self.objective.num_views)
        numbers = range(self.step * config.batch_size, last_step * config.batch_size)
        batches = iter(
            DataLoader(
                views,
                config.batch_size,
                sampler=numbers,
                collate_fn=list,
                num_workers=config.num_workers,
                pin_memory=self.fabric.device.type == "cuda",
            )
        )
        while self.step < last_step:
            started, tally = perf_counter(), Tally()
            for _ in range(config.steps_per_epoch):
                tally.add(self.train_step(next(batches)))
                report("pretraining", self.step, last_step)
            tally.settle(self.ranks, step=self.step)
            epoch = self.step // config.steps_per_epoch
            self.log.write(
                Event(
                    event="epoch",
                    epoch=epoch,
                    step=self.step,
                    loss=float(np.mean(tally.losses)),
                    learning_rate=learning_rate_at(self.step - 1, config),
                    seconds=round(perf_counter() - started, 3),
                )
            )
            if epoch % config.checkpoint_every == 0 or self.step == last_step:
                self.save()

    def train_step(self, places: Sequence[Sequence[Sample]]) -> Float[Tensor, ""]:
        """Take one optimiser step on the views of a batch of places; give its loss."""
        # masks and dropout depend on the step alone, so that a resumed run draws the same
        torch.manual_seed(self.config.seed * SEED_STRIDE + self.step)
        self.learner.train()
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate_at(self.step, self.config)
        samples = [sample for views in zip(*places, strict=True) for sample in views]
        loss: Tensor = self.learner(augment_batch(samples, self.fabric.device)[0])
        self.optimizer.zero_grad()
        self.fabric.backward(loss)
        if self.config.clip_norm is not None:
            self.fabric.clip_gradients(
                self.learner,
                self.optimizer,
                max_norm=self.config.clip_norm,
                error_if_nonfinite=False,  # the scaler of 16-bit floats passes over such a step
            )
        self.optimizer.step()
        self.step += 1
        return loss.detach()

    def save(self) -> None:
        """Write the checkpoint."""
        parts = parts_of(self.objective, self.optimizer.optimizer)
        facts = {"step": self.step, "scaler": self.fabric.strategy.precision.state_dict()}
        save_checkpoint(self.checkpoint, Checkpoint(parts, facts))


class ViewStream(Dataset[list[Sample]]):
    """The endless sequence of places to look at; place n depends on the seed and n only.

    Every case is seen once before any is seen again. Views of one place are crops that lie near
    each other, each changed at random on its own.
    """

    def __init__(self, cases: Sequence[StoredCase], config: TrainConfig, *, num_views: int) -> None:
        """Draw from `cases` as `config` says."""
        self.cases = cases
        self.config = config
        self.num_views = num_views

    def __getitem__(self, number: int) -> list[Sample]:
        """Read what the views of place `number` are made of."""
        rng = np.random.default_rng((self.config.seed, number))
        case = pick_case(self.cases, number, seed=self.config.seed)
        size = self.config.patch_size
        starts = draw_starts(rng, case.shape_IJK, whole_size(size), count=self.num_views)
        return [
            read_sample(rng, case, start, size=size, config=self.config.augment) for start in starts
        ]


def draw_starts(
    rng: np.random.Generator, shape_IJK: TripleInt, size_IJK: TripleInt, *, count: int
) -> list[TripleInt]:
    """Draw where crops begin: the first anywhere, the others near it.

    Where the case is smaller than the crop, it lies in its middle, as in training.
    """
    shape, size = np.array(shape_IJK), np.array(size_IJK)
    spare, margin = np.maximum(shape - size, 0), np.maximum(size - shape, 0) // 2
    first = rng.integers(0, spare + 1)
    shifts = rng.integers(-(size // NEAR), size // NEAR + 1, size=(count, 3))
    shifts[0] = 0
    return [tuple(start) for start in (np.clip(first + shifts, 0, spare) - margin).tolist()]


def as_training(config: RunConfig) -> TrainConfig:
    """Give the knobs of training with those of pretraining in their place."""
    own = config.pretrain
    return config.train.model_copy(
        update={
            "patch_size": own.patch_size or config.train.patch_size,
            "batch_size": own.batch_size,
            "epochs": own.epochs,
            "steps_per_epoch": own.steps_per_epoch,
            "optimizer": "adamw",
            "schedule": "cosine",
            "learning_rate": own.learning_rate,
            "augment": own.augment or config.train.augment,
        }
    )


def _require_feasible(config: RunConfig) -> None:
    training = as_training(config)
    if (count := max(training.devices, find_launch().count)) > 1:
        raise ConfigError(
            f"pretraining runs as one process on one device, not as {count}; set train.devices=1 "
            "and start it without torchrun or srun"
        )
    with torch.device("meta"):
        net = build_objective(config).net
    require_divisible(training.patch_size, net.divisor, name="pretrain.patch_size")
    # on the meta device a forward pass costs nothing and refuses what the network cannot take
    patch = (training.batch_size, len(config.data.images), *training.patch_size)
    net(torch.empty(patch, device="meta"))


def _find_cases(data: DataConfig) -> list[Case]:
    """Find images to learn from: all but those of patients that training would hold out."""
    cases = find_cases(data.model_copy(update={"reference": None}))
    missing = "zeros" if data.missing == "zeros" else "refuse"  # `drop` says what it leaves out
    complete, _ = search_cases(data.model_copy(update={"missing": missing}))
    labelled = [case for case in complete if case.reference]
    if not labelled:
        return cases
    held_out = split_cases(labelled, data.split, folder=data.folder).validation
    unseen = {case.patient for case in held_out}
    references = {case.reference for case in labelled}  # which the pattern of an image may fit
    return [
        case
        for case in cases
        if case.patient not in unseen and references.isdisjoint(case.images.values())
    ]
