"""Scores as files: JSON for machines, tables for people and statistics programs."""

import csv
import io
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from medseg3d.evaluate.results import LESION_FACTS, REGION_FACTS, Scores
from medseg3d.io.atomic import prepare_folder, write_atomically


def write_scores(scores: Scores, folder: str | Path) -> None:
    """Write `scores.json`, and tables of the same numbers.

    `scores.csv` has a row per number, `scores_wide.csv` a row per case, `lesions.csv` a row per
    lesion where the protocol knows any; that of an earlier evaluation is removed. The folder is
    made where it is missing. Failed cases are in all of them but the last, with the reason. An
    undefined number is `nan` in the tables and null in JSON.

    Raises:
        ConfigError: the folder is not writable, or the disk is full.
    """
    folder = Path(folder)
    files = {
        "scores.json": json.dumps(scores.to_dict(), indent=1, allow_nan=False) + "\n",
        "scores.csv": as_csv(_long_rows(scores)),
        "scores_wide.csv": as_csv(_wide_rows(scores)),
    }
    if scores.scheme.protocol.lesions is not None:
        files["lesions.csv"] = as_csv(_lesion_rows(scores))
    prepare_folder(folder)
    (folder / "lesions.csv").unlink(missing_ok=True)  # of an evaluation before this one
    for name, text in files.items():
        write_atomically(folder / name, text.encode())


def as_csv(rows: Iterable[Iterable[object]]) -> str:
    """Write rows as the text of a CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _long_rows(scores: Scores) -> Iterator[tuple[object, ...]]:
    yield "case", "status", "region", "measure", "value", "reason"
    for case in scores.cases:
        regions = case.score.regions if case.score else {}
        numbers: list[tuple[object, ...]] = [
            (region, name, number)
            for region, score in regions.items()
            for name, number in {**score.measures, **score.facts}.items()
        ]
        for number in numbers or [("", "", "")]:
            yield case.pair.case, case.status, *number, case.reason


def _wide_rows(scores: Scores) -> Iterator[tuple[object, ...]]:
    names = (*scores.scheme.protocol.measures, *REGION_FACTS)
    columns = [(region, name) for region in scores.scheme.regions for name in names]
    yield "case", "status", *(f"{region}_{name}" for region, name in columns), "reason"
    for case in scores.cases:
        regions = case.score.regions if case.score else {}
        numbers = {
            (region, name): number
            for region, score in regions.items()
            for name, number in {**score.measures, **score.facts}.items()
        }
        cells = (numbers.get(column, "") for column in columns)
        yield case.pair.case, case.status, *cells, case.reason


def _lesion_rows(scores: Scores) -> Iterator[tuple[object, ...]]:
    rows = [
        (case.pair.case, region, number, lesion)
        for case in scores.cases
        for region, score in (case.score.regions if case.score else {}).items()
        for number, lesion in enumerate(score.lesions or (), start=1)
    ]
    status, center, *volumes = LESION_FACTS
    places = [f"{center}_{axis}" for axis in "xyz"]
    measures = [*dict.fromkeys(name for *_, lesion in rows for name in lesion.measures)]
    yield ("case", "region", "lesion", status, *places, *volumes, *measures)
    for case, region, number, lesion in rows:
        numbers = (lesion.measures.get(name, "") for name in measures)
        sizes = lesion.reference_mm3, lesion.predicted_mm3
        yield case, region, number, lesion.status, *lesion.center_mm, *sizes, *numbers
