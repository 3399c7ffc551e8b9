"""What a run leaves behind besides weights: its configuration, and an event a line."""

import fcntl
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import yaml

from medseg3d.config.load import read_yaml
from medseg3d.config.run import RunConfig
from medseg3d.errors import ConfigError
from medseg3d.io.atomic import prepare_folder, remove_unfinished, write_atomically
from medseg3d.io.events import Event, append_event, read_events, rewrite_events

CHECKPOINT: Final = "checkpoint.safetensors"
"""A folder that holds it holds a run that has begun."""

log = logging.getLogger(__name__)


class RunLog:
    """The events of one run, each written to disk when it happens."""

    def __init__(self, path: Path, *, watch: Callable[[Event], None] | None = None) -> None:
        """Append to `path`, and tell `watch` of each event as well."""
        self.path = path
        self.watch = watch

    def write(self, event: Event) -> None:
        """Add one event."""
        append_event(self.path, event)
        if self.watch:
            self.watch(event)

    def rewind(self, step: int) -> None:
        """Drop what comes after `step`: a killed run wrote it after its last checkpoint."""
        events = read_events(self.path) if self.path.exists() else []
        rewrite_events(self.path, [e for e in events if e.step <= step and e.event != "end"])


@contextmanager
def claim_run(config: RunConfig, folder: Path, *, resume: bool) -> Iterator[None]:
    """Make a run's folder, or see that the one to resume is of this configuration; alone in it.

    Raises:
        ConfigError: the folder holds a run and `resume` is off, a run of another configuration,
            or one that is going on.
    """
    prepare_folder(folder)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # a killed process lets go of it
        except BlockingIOError:
            raise ConfigError(
                f"'{folder}' is being trained in by another process; wait, or choose another --out"
            ) from None
        if (folder / CHECKPOINT).exists():
            _require_same_run(config, folder / "config.yaml", resume=resume)
        elif resume:
            log.warning("no checkpoint in '%s' to resume from: training starts anew", folder)
        content = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
        write_atomically(folder / "config.yaml", content.encode())
        for part in (folder, folder / "store", folder / "validation"):
            remove_unfinished(part)
        yield


def _require_same_run(config: RunConfig, path: Path, *, resume: bool) -> None:
    if not resume:
        raise ConfigError(
            f"'{path.parent}' holds a run already. Go on with it by --resume, or choose another "
            "--out."
        )
    if changed := sorted(_differences(read_yaml(path), config.model_dump(mode="json"))):
        raise ConfigError(
            f"'{path.parent}' was begun with another configuration; it differs in "
            f"{', '.join(changed)}. Resume with the same, or choose another --out."
        )


def _differences(first: Any, second: Any, path: str = "") -> list[str]:
    if not (isinstance(first, dict) and isinstance(second, dict)):
        return [] if first == second else [path]
    return [
        difference
        for key in first.keys() | second.keys()
        for difference in _differences(first.get(key), second.get(key), f"{path}.{key}".strip("."))
    ]
