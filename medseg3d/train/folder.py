"""The folder of a run: who may use it, and for what."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import yaml

from medseg3d.config.load import read_yaml
from medseg3d.config.run import RunConfig
from medseg3d.errors import ConfigError
from medseg3d.io.atomic import prepare_folder, remove_unfinished, write_atomically

CHECKPOINT: Final = "checkpoint.safetensors"
"""A folder that holds it holds a run that has begun."""
BEST: Final = "best.safetensors"
"""The bundle of the best validation."""
MODEL: Final = "model.safetensors"
"""The bundle to predict with."""

FIRST_FOLD: Final = "fold_0"
"""Folder in that of a cross-validation."""

FREE: Final = {"train.device", "train.devices", "train.num_workers", "train.tensorboard"}
"""Knobs that a resumed run may change: they say where and beside what it runs."""


@contextmanager
def claim_run(config: RunConfig, folder: Path, *, resume: bool) -> Iterator[None]:
    """Make a run's folder, or see that the one to resume is of this configuration; alone in it.

    A folder without a run is begun in either way, so that one command serves a job that may be
    started again.

    Raises:
        ConfigError: the folder holds a run and `resume` is off, a run of another configuration,
            one that is going on, or a run a fold.
    """
    if (folder / FIRST_FOLD).is_dir():
        raise ConfigError(
            f"'{folder}' holds a cross-validation, a run in each fold_N; a single run belongs "
            "beside it. Choose another --out, or go on with --fold all --resume."
        )
    prepare_folder(folder)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # a killed process lets go of it
        except BlockingIOError:
            raise ConfigError(
                f"'{folder}' is being trained in by another process; wait, or choose another --out"
            ) from None
        if (folder / CHECKPOINT).exists():
            require_same_run(config, folder, resume=resume)
        write_config(config, folder)
        for part in (folder, folder / "store", folder / "validation"):
            remove_unfinished(part)
        yield


def write_config(config: RunConfig, folder: Path) -> None:
    """Write config.yaml."""
    content = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
    write_atomically(folder / "config.yaml", content.encode())


def require_same_run(config: RunConfig, folder: Path, *, resume: bool) -> None:
    """See that a folder's run may go on, with this configuration.

    Raises:
        ConfigError: `resume` is off, or the configuration is another.
    """
    if not resume:
        raise ConfigError(
            f"'{folder}' holds a run already. Go on with it by --resume, or choose another --out."
        )
    before = read_yaml(folder / "config.yaml")
    if changed := sorted({*_differences(before, config.model_dump(mode="json"))} - FREE):
        raise ConfigError(
            f"'{folder}' was begun with another configuration; it differs in "
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
