"""Which cases train a network and which judge it."""

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from medseg3d.config.data import SplitConfig
from medseg3d.data.cases import Case
from medseg3d.errors import ConfigError, FormatError
from medseg3d.io.atomic import write_atomically

log = logging.getLogger(__name__)

Sides: TypeAlias = tuple[set[str], set[str]]
"""Names of cases to train on and to hold out."""


@dataclass(frozen=True, slots=True)
class Split:
    """Training and validation cases; no case is in both."""

    training: tuple[Case, ...]
    validation: tuple[Case, ...]


def split_cases(cases: Sequence[Case], split: SplitConfig, *, folder: Path) -> Split:
    """Divide cases as the configuration says, for its fold; else as `cut_folds`.

    Raises:
        ConfigError: there is no such fold, or one side would be empty.
        FormatError: as `cut_folds`.
    """
    folds = cut_folds(cases, split, folder=folder)
    if split.fold >= len(folds):
        raise ConfigError(
            f"data.split.fold is {split.fold}, and '{split.source}' has {len(folds)}; they count "
            "from 0"
        )
    fold = folds[split.fold]
    if unlisted := len(cases) - len(fold.training) - len(fold.validation):
        log.warning("'%s': %d cases are in neither list and left out", folder, unlisted)
    return fold


def cut_folds(cases: Sequence[Case], split: SplitConfig, *, folder: Path) -> list[Split]:
    """Give every fold of a configuration; depends on nothing but names, patients and the seed.

    Cases of one patient are on one side. `dataset.json` is one fold.

    Raises:
        ConfigError: fewer patients than folds, one side would be empty, or a patient on both.
        FormatError: the file of splits below `folder` is missing, damaged, or names other cases.
    """
    if split.source == "dataset.json":
        held_out = _listed(folder / split.source, "validation", cases)
        sides = [(_listed(folder / split.source, "training", cases), held_out)]
    elif split.source == "folds":
        sides = list(_shuffled(cases, split))
    else:
        sides = _read_splits(folder / split.source, cases)
    return [_sorted(cases, *names) for names in sides]


def write_splits(path: Path, folds: Sequence[Split]) -> None:
    """Write folds as nnU-Net's `splits_final.json`, so that `data.split.source` can name them."""
    content = [
        {"train": [case.id for case in fold.training], "val": [case.id for case in fold.validation]}
        for fold in folds
    ]
    write_atomically(path, json.dumps(content, indent=1).encode())


def _shuffled(cases: Sequence[Case], split: SplitConfig) -> Iterator[Sides]:
    named = sorted((case.id, case.patient) for case in cases)  # tables have rows in any order
    patients = [*dict.fromkeys(patient for _, patient in named)]
    if len(patients) < split.num_folds:
        who = "cases" if len(patients) == len(cases) else f"patients of {len(cases)} cases"
        raise ConfigError(
            f"data.split: {len(patients)} {who} cannot make {split.num_folds} folds. "
            "Add cases or lower data.split.num_folds."
        )
    order = np.random.default_rng(split.seed).permutation(len(patients))
    for fold in range(split.num_folds):
        held_out = {patients[n] for n in order[fold :: split.num_folds]}
        validation = {case.id for case in cases if case.patient in held_out}
        yield {case.id for case in cases} - validation, validation


def _sorted(cases: Sequence[Case], trained: set[str], held_out: set[str]) -> Split:
    """Put cases on their sides, in their order, and see that no patient is on both."""
    if both := sorted(trained & held_out):
        raise ConfigError(f"data.split: {', '.join(both[:5])} in both training and validation")
    if not trained or not held_out:
        raise ConfigError(
            f"data.split: {len(trained)} training and {len(held_out)} validation cases; "
            "both need at least one"
        )
    training = tuple(case for case in cases if case.id in trained)
    validation = tuple(case for case in cases if case.id in held_out)
    leaking = {case.patient for case in training} & {case.patient for case in validation}
    if leaking:
        pairs = [
            f"{patient} ({', '.join(case.id for case in cases if case.patient == patient)})"
            for patient in sorted(leaking)
        ]
        raise ConfigError(
            f"data.split: {len(leaking)} patients are in both training and validation, so that the "
            f"scores would be too good: {'; '.join(pairs[:5])}. Put all cases of a patient on one "
            "side, or correct data.patient."
        )
    return Split(training, validation)


def _read_splits(path: Path, cases: Sequence[Case]) -> list[Sides]:
    try:
        folds: list[Any] = json.loads(path.read_text(encoding="utf-8"))
        sides = [(_names_in(fold["train"]), _names_in(fold["val"])) for fold in folds]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FormatError(
            f"'{path}' needs a list of folds, each with 'train' and 'val', lists of case names: "
            f"{error!r}. Mend it, or set data.split.source=folds."
        ) from error
    named = set().union(*(names for side in sides for names in side))
    if unknown := sorted(named - {case.id for case in cases}):
        raise FormatError(
            f"'{path}' names {len(unknown)} cases that the data set does not hold, e.g. "
            f"'{unknown[0]}'; it holds '{cases[0].id}'. Correct it, or data.images."
        )
    return sides


def _names_in(side: Any) -> set[str]:
    if not isinstance(side, list) or not all(isinstance(name, str) for name in side):
        raise TypeError(f"expected a list of names, got {side!r:.60}")
    return {*side}


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
