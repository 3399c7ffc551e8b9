"""Which cases train a network and which judge it."""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medseg3d.config.data import SplitConfig
from medseg3d.data.cases import Case
from medseg3d.errors import ConfigError, FormatError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Split:
    """Training and validation cases; no case is in both."""

    training: tuple[Case, ...]
    validation: tuple[Case, ...]


def split_cases(cases: Sequence[Case], split: SplitConfig, *, folder: Path) -> Split:
    """Divide cases as the configuration says; depends on nothing but their names and the seed.

    Raises:
        ConfigError: fewer cases than folds, or one side would be empty.
        FormatError: `dataset.json` in `folder` is missing, damaged, or lists other files.
    """
    if split.source == "dataset.json":
        held_out = _listed(folder / "dataset.json", "validation", cases)
        trained = _listed(folder / "dataset.json", "training", cases)
    else:
        if len(cases) < split.num_folds:
            raise ConfigError(
                f"data.split: {len(cases)} cases cannot make {split.num_folds} folds. "
                "Add cases or lower data.split.num_folds."
            )
        order = np.random.default_rng(split.seed).permutation(len(cases))
        held_out = {cases[n].id for n in order[split.fold :: split.num_folds]}
        trained = {case.id for case in cases} - held_out
    if unlisted := len({case.id for case in cases} - trained - held_out):
        log.warning("'%s': %d cases are in neither list and left out", folder, unlisted)
    if both := sorted(trained & held_out):
        raise ConfigError(f"data.split: {', '.join(both[:5])} in both training and validation")
    if not trained or not held_out:
        raise ConfigError(
            f"data.split: {len(trained)} training and {len(held_out)} validation cases; "
            "both need at least one"
        )
    return Split(
        tuple(case for case in cases if case.id in trained),
        tuple(case for case in cases if case.id in held_out),
    )


def _listed(table: Path, key: str, cases: Sequence[Case]) -> set[str]:
    """Give the names of the cases whose image a list of `dataset.json` names."""
    by_path = {path.resolve(): case.id for case in cases for path in case.images.values()}
    try:
        entries: list[Any] = json.loads(table.read_text(encoding="utf-8"))[key]
        paths = [(table.parent / _image_of(entry)).resolve() for entry in entries]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FormatError(
            f"'{table}' needs a list '{key}' of images, or of objects with 'image': {error!r}. "
            "Mend it, or set data.split.source=folds."
        ) from error
    if absent := [path.name for path in paths if path not in by_path]:
        raise FormatError(
            f"'{table}' lists {len(absent)} images under '{key}' that the data set does not hold, "
            f"e.g. '{absent[0]}'. Correct it, or data.images."
        )
    return {by_path[path] for path in paths}


def _image_of(entry: Any) -> str:
    image = entry["image"] if isinstance(entry, dict) else entry
    if not isinstance(image, str):
        raise TypeError(f"expected a path, got {image!r}")
    return image
