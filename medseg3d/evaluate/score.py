"""Score one case, or every case of a folder, and write the scores; none is left out in silence."""

import csv
import io
import json
import math
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Final, TypeVar

import numpy as np

from medseg3d.arrays import LabelMapIJK, MaskIJK
from medseg3d.errors import GridError, LabelError, MedSegError
from medseg3d.evaluate.overlap import dice
from medseg3d.evaluate.pairs import Pair, find_pairs
from medseg3d.evaluate.results import MEASURES, CaseResult, CaseScore, RegionScore, Scores
from medseg3d.evaluate.schemes import Scheme, find_scheme, scheme_of_values
from medseg3d.evaluate.surface import hausdorff_mm
from medseg3d.geometry.crop import nonzero_box
from medseg3d.io.atomic import prepare_folder, write_atomically
from medseg3d.io.files import read_volume
from medseg3d.labels import LabelScheme, as_label_map, region_masks, require_values
from medseg3d.volume import Grid, Volume, require_one_grid

__all__ = ["CaseScore", "Scores", "score_case", "score_cases", "write_scores"]

MOST_VALUES: Final = 256
"""More values than these are taken for a region each only where a scheme says so."""

Job = TypeVar("Job")
Result = TypeVar("Result")


def score_case(
    predicted: Volume, reference: Volume, *, scheme: str | Path | LabelScheme | None = None
) -> CaseScore:
    """Score a label map against its reference, region by region.

    `scheme` is a name in `SCHEMES`, a YAML file, or a scheme; without one every value is a region.
    A 2D image (K = 1) is measured in 2D. Numbers within 0.001 of an integer count as it.

    Raises:
        GridError: the two do not lie on one grid, or one has several channels.
        LabelError: values are no integers, or not the scheme's.
        ConfigError: no such scheme.
    """
    require_one_grid((reference.grid, predicted.grid), ("reference", "predicted"))
    whole = _label_map(reference, "reference"), _label_map(predicted, "predicted")
    box = nonzero_box(np.bitwise_or(*whole)[np.newaxis]).slices
    reference_IJK, predicted_IJK = (label_map[box] for label_map in whole)
    if scheme is None:
        found = scheme_of_values(_values(reference_IJK) | _values(predicted_IJK))
    else:
        found = find_scheme(scheme)
        require_values(reference_IJK, found, source="reference")
        require_values(predicted_IJK, found, source="predicted")
    masks = zip(region_masks(reference_IJK, found), region_masks(predicted_IJK, found), strict=True)
    regions = {
        region: _score_region(inside, claimed, reference.grid, found)
        for (region, inside), (_, claimed) in masks
    }
    return CaseScore(found.name, regions)


def score_cases(
    predicted: str | Path,
    reference: str | Path,
    *,
    scheme: str | Path | LabelScheme | None = None,
    reference_pattern: str | None = None,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Scores:
    """Score a folder of predictions against a folder or table of references, or file against file.

    Files are paired as in `find_pairs`. A reference without prediction is scored as if nothing had
    been found. A case that cannot be scored does not stop the others. Both are listed with the
    reason. Without `scheme` every value in any of the files is a region. `progress` is called with
    the number of cases done, and of all. With several `workers` (processes) the result is the same.

    Raises:
        ConfigError: no such scheme, or nothing to pair.
        FormatError: the table cannot be read.
    """
    pairs = find_pairs(Path(predicted), Path(reference), pattern=reference_pattern)
    if scheme is None:
        files = [path for pair in pairs for path in (pair.predicted, pair.reference) if path]
        found = scheme_of_values(set().union(*_each(_values_in_file, files, workers)))
    else:
        found = find_scheme(scheme)
    results = []
    for result in _each(partial(_score_pair, scheme=found), pairs, workers):
        results.append(result)
        if progress:
            progress(len(results), len(pairs))
    return Scores(found, tuple(results))


def write_scores(scores: Scores, folder: str | Path) -> None:
    """Write `scores.json`, `scores.csv` (a row per number) and `scores_wide.csv` (a row per case).

    The folder is made where it is missing. Failed cases are in all three, with the reason. An
    undefined number is `nan` in the tables and null in JSON.

    Raises:
        ConfigError: the folder is not writable, or the disk is full.
    """
    folder = Path(folder)
    files = {
        "scores.json": json.dumps(scores.to_dict(), indent=1, allow_nan=False) + "\n",
        "scores.csv": _csv(_long_rows(scores)),
        "scores_wide.csv": _csv(_wide_rows(scores)),
    }
    prepare_folder(folder)
    for name, text in files.items():
        write_atomically(folder / name, text.encode())


def _score_region(
    reference: MaskIJK, predicted: MaskIJK, grid: Grid, scheme: Scheme
) -> RegionScore:
    return RegionScore(
        dice=dice(reference, predicted),
        hd95=_hd95(reference, predicted, grid, scheme),
        reference_mm3=float(np.count_nonzero(reference) * grid.voxel_mm3),
        predicted_mm3=float(np.count_nonzero(predicted) * grid.voxel_mm3),
    )


def _hd95(reference: MaskIJK, predicted: MaskIJK, grid: Grid, scheme: Scheme) -> float:
    """Measure in the scheme's unit, or give its rule for empty masks."""
    spacing = (1.0, 1.0, 1.0) if scheme.in_voxels else grid.spacing_mm
    filled = reference.any(), predicted.any()
    if not all(filled):
        rule = scheme.one_empty if any(filled) else scheme.both_empty
        diagonal = math.hypot(*np.multiply(grid.shape_IJK, spacing))
        return diagonal if rule == "diagonal" else float(rule)
    if grid.shape_IJK[2] == 1:
        return hausdorff_mm(
            reference[:, :, 0], predicted[:, :, 0], spacing[:2], definition=scheme.hausdorff
        )
    return hausdorff_mm(reference, predicted, spacing, definition=scheme.hausdorff)


def _score_pair(pair: Pair, *, scheme: Scheme) -> CaseResult:
    """Score a case; whatever is wrong with a prediction counts as having found nothing."""
    if pair.reference is None:
        return CaseResult(pair, None, "no reference: not scored")
    try:
        reference = read_volume(pair.reference)
        nothing = Volume(np.zeros_like(reference.array_CIJK), reference.affine)
        empty = score_case(nothing, reference, scheme=scheme)
    except (MedSegError, OSError) as error:
        return CaseResult(pair, None, f"reference not usable, not scored: {_one_line(error)}")
    if pair.predicted is None:
        return CaseResult(pair, empty, "no prediction: scored as an empty one")
    try:
        score = score_case(read_volume(pair.predicted), reference, scheme=scheme)
    except (MedSegError, OSError) as error:
        return CaseResult(pair, empty, f"scored as an empty one: {_one_line(error)}")
    return CaseResult(pair, score, None)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _values_in_file(path: Path) -> set[int]:
    """Collect values; a file that is no label map has none here, and fails when it is scored."""
    try:
        return _values(_label_map(read_volume(path), str(path)))
    except (MedSegError, OSError):
        return set()


def _values(label_map: LabelMapIJK) -> set[int]:
    values = np.flatnonzero(np.bincount(label_map.ravel(order="K"))).tolist()
    if len(values) > MOST_VALUES:
        raise LabelError(
            f"{len(values)} different values, from {values[0]} to {values[-1]}: is it an image? "
            "Name a scheme to score it as a label map."
        )
    return {*values}


def _label_map(volume: Volume, source: str) -> LabelMapIJK:
    if volume.num_channels != 1:
        raise GridError(
            f"{source}: {volume.num_channels} channels; a label map has one. Choose the channel, "
            "or write the decided labels instead of probabilities."
        )
    return as_label_map(volume.array_CIJK[0], source=source)


def _each(job: Callable[[Job], Result], jobs: Iterable[Job], workers: int) -> Iterator[Result]:
    """Do jobs in order, here or in fresh processes."""
    if workers == 1:
        yield from map(job, jobs)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(job, jobs)


def _long_rows(scores: Scores) -> Iterator[tuple[object, ...]]:
    yield "case", "status", "region", "measure", "value", "reason"
    for case in scores.cases:
        regions = case.score.regions if case.score else {}
        numbers = [(r, *number) for r, score in regions.items() for number in asdict(score).items()]
        for number in numbers or [("", "", "")]:
            yield case.pair.case, case.status, *number, case.reason


def _wide_rows(scores: Scores) -> Iterator[tuple[object, ...]]:
    columns = [(region, measure) for region in scores.scheme.regions for measure in MEASURES]
    yield "case", "status", *(f"{region}_{measure}" for region, measure in columns), "reason"
    for case in scores.cases:
        regions = case.score.regions if case.score else {}
        numbers = [getattr(regions[r], m) if r in regions else "" for r, m in columns]
        yield case.pair.case, case.status, *numbers, case.reason


def _csv(rows: Iterable[tuple[object, ...]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
