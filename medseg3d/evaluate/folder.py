"""Score every case of a folder; none is left out in silence."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Final, Literal, TypeVar

import numpy as np

from medseg3d.errors import MedSegError
from medseg3d.evaluate.pairs import Pair, find_pairs
from medseg3d.evaluate.results import CaseResult, Scores
from medseg3d.evaluate.schemes import Scheme, find_scheme, scheme_of_values
from medseg3d.evaluate.score import read_side, score_case, values_of
from medseg3d.labels import LabelScheme, as_label_map
from medseg3d.volume import Volume

UNUSABLE: Final = (MedSegError, OSError, MemoryError)
"""What may be wrong with one case and is no reason to stop the others."""

Job = TypeVar("Job")
Result = TypeVar("Result")


def score_cases(
    predicted: str | Path | Iterable[Pair],
    reference: str | Path | None = None,
    *,
    scheme: str | Path | LabelScheme | None = None,
    empty: Literal["penalty", "nan", "skip"] | None = None,
    predicted_pattern: str | None = None,
    reference_pattern: str | None = None,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Scores:
    """Score a folder or table of predictions against that of references, or file against file.

    Files are paired as in `find_pairs`; or pairs are given. A reference without prediction is
    scored as if nothing had been found, and so is a prediction that cannot be used. A case whose
    reference is missing or unusable is not scored. Both are listed with the reason and stop no
    other. Without `scheme` every value in any of the files is a region. `empty` overrules what the
    scheme's protocol does with empty masks. `progress` is called with the number of cases done,
    and of all. With several `workers` (processes) the result is the same.

    Raises:
        ConfigError: no such scheme, or nothing to pair.
        FormatError: a table cannot be read.
    """
    if isinstance(predicted, str | Path):
        truths = None if reference is None else Path(reference)
        pairs = find_pairs(
            Path(predicted),
            truths,
            predicted_pattern=predicted_pattern,
            reference_pattern=reference_pattern,
        )
    else:
        pairs = [*predicted]
    if scheme is None:
        files = [path for pair in pairs for path in (pair.predicted, pair.reference) if path]
        found = scheme_of_values(set().union(*_each(_values_in_file, files, workers)))
    else:
        found = find_scheme(scheme)
    if empty is not None:
        protocol = found.protocol.model_copy(update={"empty": empty})
        found = found.model_copy(update={"protocol": protocol})
    results = []
    for result in _each(partial(_score_pair, scheme=found), pairs, workers):
        results.append(result)
        if progress:
            progress(len(results), len(pairs))
    return Scores(found, tuple(results))


def _score_pair(pair: Pair, *, scheme: Scheme) -> CaseResult:
    """Score a case; whatever is wrong with a prediction counts as having found nothing."""
    if pair.reference is None:
        return CaseResult(pair, None, "no reference: not scored")
    try:
        reference = read_side(pair.reference, "reference")
        if pair.predicted is None:
            return _as_empty(pair, reference, "no prediction: scored as an empty one", scheme)
        try:
            score = score_case(pair.predicted, reference, scheme=scheme)
        except UNUSABLE as error:
            reason = f"scored as an empty one: {_one_line(error)}"
            return _as_empty(pair, reference, reason, scheme)
    except UNUSABLE as error:
        return CaseResult(pair, None, f"reference not usable, not scored: {_one_line(error)}")
    return CaseResult(pair, score, None)


def _as_empty(pair: Pair, reference: Volume, reason: str, scheme: Scheme) -> CaseResult:
    nothing = np.broadcast_to(np.uint8(0), reference.array_CIJK.shape)
    score = score_case(Volume(nothing, reference.affine), reference, scheme=scheme)
    return CaseResult(pair, score, reason)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _values_in_file(path: Path) -> set[int]:
    """Collect values; a file that is no label map has none here, and fails when it is scored."""
    try:
        return values_of(as_label_map(read_side(path, "file").array_CIJK[0]))
    except UNUSABLE:
        return set()


def _each(job: Callable[[Job], Result], jobs: Iterable[Job], workers: int) -> Iterator[Result]:
    """Do jobs in order, here or in fresh processes."""
    if workers == 1:
        yield from map(job, jobs)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(job, jobs)
