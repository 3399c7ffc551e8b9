"""One network in training, from step to step."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Final, Literal

import numpy as np
import torch
from lightning_fabric.plugins.precision import Precision

from medseg3d.config.run import RunConfig
from medseg3d.data.augment.compose import Sample, augment_batch
from medseg3d.data.loader import build_loader
from medseg3d.data.splits import Split
from medseg3d.io.events import Event
from medseg3d.nets.bundle import Bundle, save_bundle
from medseg3d.train.cases import Progress, stored_cases
from medseg3d.train.checkpoint import (
    Checkpoint,
    parts_of,
    restore,
    resuming,
    save_checkpoint,
)
from medseg3d.train.ema import Ema
from medseg3d.train.folder import BEST, CHECKPOINT
from medseg3d.train.gradients import GradientWatch
from medseg3d.train.log import RunLog
from medseg3d.train.losses import build_loss
from medseg3d.train.network import begin_network
from medseg3d.train.optim import build_optimizer, learning_rate_at
from medseg3d.train.ranks import Ranks, join_ranks
from medseg3d.train.signals import Stopped, StopRequest
from medseg3d.train.tally import Tally, memory_peak_mib
from medseg3d.train.validation import validate_cases

SEED_STRIDE: Final = 1_000_003
"""Keeps the random streams of two seeds apart: batch n of one is no batch of the next."""
RANK_STRIDE: Final = 2**40
"""Keeps those of two processes apart."""


class Trainer:
    """A network, its optimiser, and the step they are at; the same on each process of a run."""

    def __init__(
        self,
        config: RunConfig,
        split: Split,
        folder: Path,
        *,
        ranks: Ranks | None = None,
        watch: Callable[[Event], None] | None = None,
    ) -> None:
        """Build the network and go to where the folder's checkpoint, if any, left off."""
        self.config = config.train
        self.folder = folder
        self.ranks = ranks or join_ranks(config.train)
        stored = stored_cases(config, folder)
        self.training = stored.choose([case.id for case in split.training])
        self.validation = stored.choose([case.id for case in split.validation])
        self.fabric = self.ranks.fabric
        resumed = (folder / CHECKPOINT).exists()
        self.bundle = begin_network(config, self.ranks, resumed=resumed)
        optimizer = build_optimizer(self.bundle.net, config.train)
        self.net, self.optimizer = self.fabric.setup(self.bundle.net, optimizer)
        decay = config.train.ema_decay
        self.ema = None if decay is None else Ema(self.bundle.net, decay=decay)
        self.gradients = GradientWatch(self.bundle.net)
        loss = build_loss(config.train.loss, config.data.labels, outputs=config.outputs)
        self.loss = loss.to(self.fabric.device)
        self.step = 0
        self.epochs_closed = 0
        self.best: float | None = None
        self.fruitless = 0
        self.tally = Tally()
        self.log = RunLog(folder, config.train, watch=watch) if self.ranks.first else None
        if resumed:  # after the setup, so that all of it goes to the device
            with resuming(self.checkpoint) as saved:
                self._restore(saved)
        if self.log:
            self.log.rewind(self.epochs_closed)

    @property
    def shipped(self) -> Bundle:
        """The network that is validated and shipped: the mean of the weights, where one is kept."""
        return self.bundle if self.ema is None else replace(self.bundle, net=self.ema.net)

    @property
    def checkpoint(self) -> Path:
        """Where the state is saved."""
        return self.folder / CHECKPOINT

    @property
    def last_step(self) -> int:
        """Number of steps after which training ends, unless it ends early."""
        return self.config.epochs * self.config.steps_per_epoch

    @property
    def finished(self) -> bool:
        """Tell whether all epochs are done, or the last validations brought nothing."""
        patience = self.config.patience
        out_of_patience = patience is not None and self.fruitless >= patience
        return out_of_patience or self.epochs_closed == self.config.epochs

    def run(self, report: Progress, stop: StopRequest) -> None:
        """Train to the end, looking and saving as often as configured.

        Raises:
            ConfigError: the loss is not finite; the checkpoint is older than that.
            Stopped: a signal came; the state after the last step is saved.
        """
        batches = self._batches()
        with stop.awaited():
            while not self.finished:
                end = (self.epochs_closed + 1) * self.config.steps_per_epoch
                while self.step < end:
                    self.train_step(batches)
                    report("training", self.step, self.last_step)
                    self._obey(stop)
                self._close_epoch(stop)
                self._obey(stop)
        self.bundle.net.eval()

    def train_step(self, batches: Iterator[list[Sample]]) -> None:
        """Take one optimiser step on the next batch, or the next few."""
        begun = perf_counter()
        config = self.config
        self.net.train()
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate_at(self.step, config)
        self.optimizer.zero_grad()
        losses = []
        for number in range(config.accumulate):
            asked = perf_counter()
            image, channels = augment_batch(next(batches), self.fabric.device)
            self.tally.waited += perf_counter() - asked
            self._seed(self.step * config.accumulate + number)
            more_to_come = number + 1 < config.accumulate
            with self.fabric.no_backward_sync(self.net, enabled=more_to_come):
                loss = self.loss(self.net(image), channels)
                self.fabric.backward(loss / config.accumulate)
            losses.append(loss.detach())
        self.precision.unscale_gradients(self.optimizer.optimizer)
        self.gradients.clip(config.clip_norm)
        self.optimizer.step()
        if self.ema:
            self.ema.update(self.bundle.net)
        self.step += 1
        self.tally.add(torch.stack(losses).mean())
        self.tally.seconds += perf_counter() - begun

    def validate(self, stop: StopRequest | None = None) -> float | None:
        """Log each region's mean Dice over the held-out cases, on the preprocessed grid.

        Gives the mean over regions, or None where a signal came before all cases were seen.
        """
        means = validate_cases(self.shipped, self.validation, ranks=self.ranks, stop=stop)
        return None if means is None else self.log_dice("validation", means)

    def log_dice(self, event: Literal["validation", "end"], means: dict[str, float]) -> float:
        """Log each region's mean Dice, and the mean over regions, which is given back."""
        mean = float(np.mean([*means.values()]))
        self._write(
            Event(event=event, epoch=self.epoch, step=self.step, dice=means, mean_dice=mean)
        )
        return mean

    @property
    def epoch(self) -> int:
        """Number of epochs whose steps are done."""
        return self.step // self.config.steps_per_epoch

    @property
    def precision(self) -> Precision:
        """What scales losses and gradients in fp16, and does nothing else."""
        return self.fabric.strategy.precision

    def _batches(self) -> Iterator[list[Sample]]:
        loader = build_loader(
            self.training,
            self.config,
            first_step=self.step,
            last_step=self.last_step,
            rank=self.ranks.number,
            ranks=self.ranks.count,
            pin_memory=self.fabric.device.type == "cuda",
        )
        return iter(loader)

    def _seed(self, batch: int) -> None:
        """Let what dropout draws depend on the batch alone, so that a resumed run does the same."""
        torch.manual_seed(self.config.seed * SEED_STRIDE + batch + self.ranks.number * RANK_STRIDE)

    def _close_epoch(self, stop: StopRequest) -> None:
        """Log an epoch, look at the held-out cases, and save, each if it is time.

        Where a signal cuts the look short, the epoch stays open, and a resumed run comes here
        first.
        """
        self.tally.settle(self.ranks, step=self.step)
        if not self.tally.gradient_norms:
            self.tally.gradient_norms = self.gradients.end_epoch()
        self._write(self._epoch_event())
        mean, last = None, self.step == self.last_step
        if last or self.epoch % self.config.validate_every == 0:
            mean = self.validate(stop)
            if mean is None:
                return
            self._judge(mean)
        self.tally = Tally()
        self.epochs_closed = self.epoch
        # the best weights and the number that says how good they are stay together
        is_best = mean is not None and not self.fruitless
        if self.finished or is_best or self.epoch % self.config.checkpoint_every == 0:
            self.save()

    def _epoch_event(self) -> Event:
        seconds = self.tally.seconds
        patches = self.config.steps_per_epoch * self.config.accumulate * self.config.batch_size
        return Event(
            event="epoch",
            epoch=self.epoch,
            step=self.step,
            loss=float(np.mean(self.tally.losses)),
            learning_rate=learning_rate_at(self.step - 1, self.config),
            gradient_norms=self.tally.gradient_norms,
            seconds=round(seconds, 3),
            patches_per_second=round(patches / seconds, 3),
            waiting_share=round(self.tally.waited / seconds, 4),
            memory_mib=memory_peak_mib(self.fabric.device),
        )

    def _judge(self, mean: float) -> None:
        """Keep the weights of the best validation."""
        if self.best is None or mean > self.best:
            self.best, self.fruitless = mean, 0
            if self.ranks.first:
                save_bundle(self.shipped, self.folder / BEST)
        else:
            self.fruitless += 1

    def _obey(self, stop: StopRequest) -> None:
        """Save and stop if a signal has come to any process."""
        if self.ranks.any(stop):
            self.tally.settle(self.ranks, step=self.step)
            self.save()
            raise Stopped(max(number for number in self.ranks.gather(stop.signal) if number))

    def _write(self, event: Event) -> None:
        if self.log:
            self.log.write(event)

    def save(self) -> None:
        """Write the checkpoint."""
        if not self.ranks.first:
            return
        parts = {
            **parts_of(self.bundle.net, self.optimizer.optimizer),
            "gradients": self.gradients.state(),
            "ema": self.ema.state() if self.ema else {},
        }
        facts = {
            "step": self.step,
            "epochs_closed": self.epochs_closed,
            "best": self.best,
            "fruitless": self.fruitless,
            "tally": self.tally.state(),
            "scaler": self.precision.state_dict(),
        }
        save_checkpoint(self.checkpoint, Checkpoint(parts, facts))

    def _restore(self, saved: Checkpoint) -> None:
        facts = saved.facts
        restore(saved, self.bundle.net, self.optimizer.optimizer)
        self.gradients.load(saved.parts["gradients"])
        if self.ema:
            self.ema.load(saved.parts["ema"])
        self.precision.load_state_dict(facts["scaler"])
        self.step, self.epochs_closed = facts["step"], facts["epochs_closed"]
        self.best, self.fruitless = facts["best"], facts["fruitless"]
        self.tally = Tally(*facts["tally"])
