"""The log of a run: an event a line, and curves for TensorBoard where they are asked for."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from medseg3d.config.train import TrainConfig
from medseg3d.extras import import_extra
from medseg3d.io.events import Event, append_event, read_events, rewrite_events


class RunLog:
    """The events of one run, each written to disk when it happens."""

    def __init__(
        self, folder: Path, config: TrainConfig, *, watch: Callable[[Event], None] | None = None
    ) -> None:
        """Append to the folder's metrics.jsonl, and tell `watch` of each event as well.

        Raises:
            MissingExtraError: `tensorboard` is asked for and not installed.
        """
        self.path = folder / "metrics.jsonl"
        self.watch = watch
        self.board = folder / "tensorboard" if config.tensorboard else None
        self._curves: Any = None
        if self.board:
            import_extra("tensorboard", extra="tensorboard")

    def write(self, event: Event) -> None:
        """Add one event."""
        append_event(self.path, event)
        self._draw(event)
        if self.watch:
            self.watch(event)

    def rewind(self, epoch: int) -> None:
        """Drop what comes after an epoch: a run that was cut off writes it again."""
        events = read_events(self.path) if self.path.exists() else []
        kept = [e for e in events if e.epoch <= epoch and e.event != "end"]
        rewrite_events(self.path, kept)
        if self.board:
            for old in self.board.glob("events.out.tfevents.*"):
                old.unlink()
            for event in kept:
                self._draw(event)

    def _draw(self, event: Event) -> None:
        if not self.board:
            return
        if self._curves is None:
            writers = import_extra("torch.utils.tensorboard", extra="tensorboard")
            self._curves = writers.SummaryWriter(str(self.board))
        for name, value in event.numbers().items():
            self._curves.add_scalar(f"{event.event}/{name}", value, event.step)
        self._curves.flush()
