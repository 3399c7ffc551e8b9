"""Which images lie behind the outlines: those of the case, and nobody else's."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from medseg3d.data.cases import read_cases
from medseg3d.errors import ConfigError
from medseg3d.evaluate.results import read_scores
from medseg3d.report.page import write_report
from medseg3d.report.worst import draw_worst

CASES = [f"BraTS-PHANTOM-0000{number}-000" for number in (1, 2, 3)]


def test_nobody_is_drawn_over_another_scan_of_the_same_name(evaluation: Path) -> None:
    scores = read_scores(evaluation / "scores")
    first = scores.cases[0].pair
    images = {case.id: case for case in read_cases(evaluation / "images.csv")}

    def channels(reference: Path | None) -> list[str | None]:
        named = {name: replace(case, reference=reference) for name, case in images.items()}
        alone = replace(scores, cases=scores.cases[:1])
        return [picture.channel for picture in draw_worst(alone, named)]

    assert channels(None) == channels(first.reference) == ["t2f"]
    assert channels(evaluation / "others" / "seg.nii.gz") == [None]


def test_where_images_lie_in_a_folder_is_known_from_the_training(
    evaluation: Path, tmp_path: Path
) -> None:
    scores = evaluation / "scores" / "scores.json"
    with pytest.raises(ConfigError, match="known from the training alone"):
        write_report(tmp_path / "page.html", scores=scores, images=evaluation / "cases")


@pytest.mark.slow
def test_images_are_found_in_a_folder_as_the_training_found_them(
    evaluation: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "metrics.jsonl").touch()
    patterns = {"t1n": "{case}/{case}-t1n.nii.gz", "t2f": "{case}/{case}-t2f.nii.gz"}
    (run / "config.yaml").write_text(json.dumps({"data": {"images": patterns}}))
    scores, images = evaluation / "scores" / "scores.json", evaluation / "cases"
    page = write_report(tmp_path / "page.html", scores=scores, images=images, run=run)
    assert page.read_text().count("<span>t2f</span>") == 2


@pytest.mark.slow
def test_an_image_that_is_missing_in_a_folder_costs_one_picture(
    evaluation: Path, tmp_path: Path
) -> None:
    run, images = tmp_path / "run", tmp_path / "images"
    run.mkdir()
    (run / "metrics.jsonl").touch()
    patterns = {"t1n": "cases/{case}/{case}-t1n.nii.gz", "t2f": "cases/{case}/{case}-t2f.nii.gz"}
    (run / "config.yaml").write_text(json.dumps({"data": {"images": patterns}}))
    shutil.copytree(evaluation / "cases", images)
    (images / CASES[0] / f"{CASES[0]}-t2f.nii.gz").unlink()
    scores = evaluation / "scores" / "scores.json"
    path = write_report(tmp_path / "page.html", scores=scores, images=images, run=run)
    assert path.read_text().count("<span>t2f</span>") == 1
    assert path.read_text().count("<span>no image</span>") == 1
