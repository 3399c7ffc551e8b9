"""The cases of a run: found, split, and preprocessed."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from medseg3d.config.run import RunConfig
from medseg3d.data.cases import Case, find_cases, read_cases, write_cases
from medseg3d.data.splits import Split, cut_folds, split_cases, write_splits
from medseg3d.data.store import Store, StoredCases, read_keys, require_labels, write_keys
from medseg3d.errors import ConfigError
from medseg3d.preprocess.dataset import changed_cases, preprocess_cases
from medseg3d.train.folder import CHECKPOINT

log = logging.getLogger(__name__)

STORED: Final = "stored.json"
"""File of a run that says which of a store's cases are its own: case -> key."""

Progress = Callable[[str, int, int], None]
"""Called with what is being done, the number done, and the number in all."""


def prepare_cases(config: RunConfig, folder: Path, report: Progress) -> Split:
    """Split the data set, write down how, and bring its cases into the store.

    Raises:
        ConfigError: there are no references, or the run in `folder` began with other cases.
        FormatError, GridError, LabelError: a case is not as it should be; the message names it.
    """
    if config.data.reference is None:
        raise ConfigError("data.reference: training needs the pattern of the reference label maps")
    cases = find_cases(config.data)
    chosen, root = config.data.split, config.data.folder
    split = split_cases(cases, chosen, folder=root)
    store = _open_store(config, folder)
    if (folder / CHECKPOINT).exists():
        _require_same_cases(split.training, folder / "training.csv")
        _require_same_cases(split.validation, folder / "validation.csv")
        before = read_keys(folder / STORED)
        if changed := changed_cases(
            cases, store, config.preprocess, config.data.labels, before=before
        ):
            raise ConfigError(
                f"the files of {', '.join(changed[:5])} changed since the run began. "
                "Restore them, or begin anew in another --out."
            )
    write_splits(folder / "splits.json", cut_folds(cases, chosen, folder=root))
    write_cases(folder / "training.csv", split.training)
    write_cases(folder / "validation.csv", split.validation)
    stored = preprocess_cases(
        [*split.training, *split.validation],
        store,
        config.preprocess,
        config.data.labels,
        workers=max(1, config.train.num_workers),
        progress=lambda done, total: report("preprocessing", done, total),
    )
    write_keys(folder / STORED, stored.keys)
    require_labels(stored.choose([case.id for case in split.training]), config.data.labels)
    _tell_of_flips(config)
    return split


def stored_cases(config: RunConfig, folder: Path) -> StoredCases:
    """Give the preprocessed cases of a run that `prepare_cases` was called for."""
    return StoredCases(_open_store(config, folder), read_keys(folder / STORED))


def _tell_of_flips(config: RunConfig) -> None:
    """Warn where training flips what labels' names tell apart: the flipped ones are wrong."""
    for place, letter in enumerate(config.preprocess.orientation or ""):
        axis = next(n for n, ends in enumerate(("LR", "PA", "IS")) if letter in ends)
        what = config.data.labels.sides.get(axis)
        if what and "ijk"[place] in config.flipped:
            log.warning(
                "labels tell %s, and train.augment.mirror_axes holds %d, which flips them: what is "
                "learnt will mix them up unless that is meant", what, place,
            )  # fmt: skip


def _open_store(config: RunConfig, folder: Path) -> Store:
    return Store(config.data.store or folder / "store")


def _require_same_cases(cases: Sequence[Case], table: Path) -> None:
    """See that a run goes on with the cases it began with."""
    before, now = {case.id for case in read_cases(table)}, {case.id for case in cases}
    if changed := [f"-{name}" for name in before - now] + [f"+{name}" for name in now - before]:
        raise ConfigError(
            f"the data set changed since the run began, so that {table.stem} cases differ: "
            f"{', '.join(sorted(changed)[:5])}. Restore it, or begin anew in another --out."
        )
