"""A whole data set, preprocessed once into a store, by several processes if asked."""

import logging
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from threading import Thread
from typing import Final

import numpy as np

from medseg3d.config.preprocess import PreprocessConfig
from medseg3d.data.case_log import named_in_log
from medseg3d.data.cases import Case, read_images
from medseg3d.data.store import Store, StoredCases
from medseg3d.errors import ConfigError, MedSegError
from medseg3d.io.atomic import remove_unfinished
from medseg3d.io.files import read_label_map
from medseg3d.labels import LabelScheme, values_to_channels
from medseg3d.preprocess.pipeline import preprocess_volume
from medseg3d.preprocess.sources import find_keys

ABANDONED_S: Final = 3600.0
"""Age from which an unfinished case is a killed process's: writing one takes seconds."""


@dataclass(frozen=True, slots=True)
class Job:
    """One case to be preprocessed, with all that another process needs for it."""

    case: Case
    key: str
    store: Store
    config: PreprocessConfig
    labels: LabelScheme


@dataclass(frozen=True, slots=True)
class Done:
    """What became of a case: what was logged in another process, and the error, if any."""

    case: Case
    fault: MedSegError | None = None
    said: tuple[logging.LogRecord, ...] = ()


def preprocess_cases(
    cases: Sequence[Case],
    store: Store,
    config: PreprocessConfig,
    labels: LabelScheme,
    *,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> StoredCases:
    """Bring every case into the store, except those that are there already, from the same files.

    A case without a reference is background throughout.

    With several `workers` these are fresh processes, so that a script needs its
    `if __name__ == "__main__":`. What is stored does not depend on their number. Stopped by
    KeyboardInterrupt, cases are stored or not begun.

    Raises:
        FormatError: files are not what they claim to be, or hold NaN.
        GridError: a case's files do not lie on one grid.
        LabelError: references hold values that the scheme does not know.
        MedSegError: cases failed in more than one of these ways; every one is named.
        ConfigError: a process was killed, or the store cannot be written to.
    """
    remove_unfinished(store.folder, older_than_s=ABANDONED_S)
    keys = find_keys(cases, store, config, labels)
    jobs = [
        Job(case, keys[case.id], store, config, labels)
        for case in cases
        if not store.holds(case.id, keys[case.id])
    ]
    num_there = len(cases) - len(jobs)
    report = progress or _keep_quiet
    report(num_there, len(cases))
    faults = {}
    for number, done in enumerate(_do_jobs(jobs, workers), start=num_there + 1):
        _repeat(done)
        if done.fault:
            faults[done.case.id] = done.fault
        report(number, len(cases))
    _require_none(faults, len(cases))
    return StoredCases(store, keys)


def changed_cases(
    cases: Sequence[Case],
    store: Store,
    config: PreprocessConfig,
    labels: LabelScheme,
    *,
    before: Mapping[str, str],
) -> list[str]:
    """Name the cases of `before` (case -> key) that would not be made from the same things now."""
    now = find_keys(cases, store, config, labels)
    return [case for case, key in now.items() if before.get(case, key) != key]


def _do_jobs(jobs: Sequence[Job], workers: int) -> Iterator[Done]:
    """Do jobs in order here, or in fresh processes, giving them as they finish."""
    workers = min(workers, len(jobs))
    if workers <= 1:
        yield from map(_do_job, jobs)
        return
    pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=_begin_work)
    try:
        with _held_back({signal.SIGINT, signal.SIGTERM}):  # processes start with it and keep it
            futures = [pool.submit(_do_job_elsewhere, job) for job in jobs]
        for future in as_completed(futures):
            yield future.result()
    except BrokenProcessPool as error:
        raise ConfigError(
            f"one of {workers} processes that preprocess was killed, most likely because memory "
            "ran out. Take fewer workers; cases that are done are kept."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _do_job(job: Job) -> Done:
    case = job.case
    try:
        with named_in_log(case):
            _preprocess_case(job)
    except MedSegError as error:
        return Done(case, error)
    return Done(case)


def _preprocess_case(job: Job) -> None:
    case, config, labels = job.case, job.config, job.labels
    image = read_images(case.paths, config)
    preprocessed = preprocess_volume(image, config)
    del image
    channels_IJK = np.zeros(preprocessed.volume.shape_IJK, dtype=np.uint8)
    if case.reference is not None:
        label_map = preprocessed.follow(read_label_map(case.reference, labels))
        channels_IJK = values_to_channels(label_map, labels)
    job.store.save(
        case.id,
        job.key,
        image_CIJK=preprocessed.volume.array_CIJK,
        channels_IJK=channels_IJK,
        spacing_mm=preprocessed.volume.spacing_mm,
    )


class Notebook(logging.Handler):
    """Keeps what is logged, to be told elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record, as text: its parts may be known here only."""
        record.msg, record.args, record.exc_info = record.getMessage(), (), None
        self.records.append(record)


@contextmanager
def _held_back(signals: set[signal.Signals]) -> Iterator[None]:
    """Let signals wait: shells and Slurm send them to all processes, where one is to decide."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin_work() -> None:
    """Let this process end when its parent is killed."""
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _do_job_elsewhere(job: Job) -> Done:
    notebook, logger = Notebook(), logging.getLogger("medseg3d")
    logger.addHandler(notebook)
    try:
        done = _do_job(job)
    finally:
        logger.removeHandler(notebook)
    return Done(done.case, done.fault, tuple(notebook.records))


def _repeat(done: Done) -> None:
    """Log here what was logged in another process."""
    for record in done.said:
        logging.getLogger(record.name).handle(record)


def _require_none(faults: Mapping[str, MedSegError], num_cases: int) -> None:
    if not faults:
        return
    lines = [f"case '{case}': {error}" for case, error in sorted(faults.items())]
    kinds = {type(error) for error in faults.values()}
    kind = kinds.pop() if len(kinds) == 1 else MedSegError
    if len(lines) == 1:
        raise kind(lines[0]) from next(iter(faults.values()))
    told = f"{len(lines)} of {num_cases} cases cannot be preprocessed:\n  " + "\n  ".join(lines)
    raise kind(told) from next(iter(faults.values()))


def _keep_quiet(_done: int, _total: int) -> None:
    """Report nothing."""
