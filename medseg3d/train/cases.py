"""The cases of a run: found, split, and preprocessed."""

import logging
from collections.abc import Callable, Mapping, Sequence
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
        ConfigError: references are missing; else as `store_cases`.
        FormatError, GridError, LabelError: a case is not as it should be; the message names it.
    """
    data = config.data
    cases = find_cases(data)
    if unlabelled := [case.id for case in cases if case.reference is None]:
        raise ConfigError(
            f"training needs reference label maps; {len(unlabelled)} cases have none, e.g. "
            f"'{unlabelled[0]}'. Set data.reference to their pattern, or fill the column "
            "'reference' of data.table."
        )
    split = split_cases(cases, data.split, folder=data.folder)
    tables = {"training": split.training, "validation": split.validation}
    stored = store_cases(config, folder, report, tables=tables)
    write_splits(folder / "splits.json", cut_folds(cases, data.split, folder=data.folder))
    require_labels(stored.choose([case.id for case in split.training]), data.labels)
    _tell_of_flips(config)
    return split


def store_cases(
    config: RunConfig, folder: Path, report: Progress, *, tables: Mapping[str, Sequence[Case]]
) -> StoredCases:
    """Bring cases into the store of a run, and write down which they are, in `training.csv`, ….

    Raises:
        ConfigError: the run in `folder` began with other cases, or with other files of them.
        FormatError, GridError, LabelError: a case is not as it should be; the message names it.
    """
    store = _open_store(config, folder)
    cases = [case for table in tables.values() for case in table]
    if (folder / CHECKPOINT).exists():
        for name, table in tables.items():
            _require_same_cases(table, folder / f"{name}.csv")
        _require_same_files(cases, store, config, before=read_keys(folder / STORED))
    for name, table in tables.items():
        write_cases(folder / f"{name}.csv", table)
    stored = preprocess_cases(
        cases,
        store,
        config.preprocess,
        config.data.labels,
        workers=max(1, config.train.num_workers),
        progress=lambda done, total: report("preprocessing", done, total),
    )
    write_keys(folder / STORED, stored.keys)
    return stored


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
    if not table.exists():
        raise ConfigError(
            f"'{table.parent}' holds a run of another kind: it has no '{table.name}'. Choose "
            "another --out."
        )
    before, now = {case.id for case in read_cases(table)}, {case.id for case in cases}
    if changed := [f"-{name}" for name in before - now] + [f"+{name}" for name in now - before]:
        raise ConfigError(
            f"the data set changed since the run began, so that the cases of '{table.name}' "
            f"differ: {', '.join(sorted(changed)[:5])}. Restore it, or begin anew in another --out."
        )


def _require_same_files(
    cases: Sequence[Case], store: Store, config: RunConfig, *, before: Mapping[str, str]
) -> None:
    """See that a run goes on with the files it began with."""
    labels = config.data.labels
    if changed := changed_cases(cases, store, config.preprocess, labels, before=before):
        raise ConfigError(
            f"the files of {', '.join(changed[:5])} changed since the run began. "
            "Restore them, or begin anew in another --out."
        )
