"""Which images lie behind the outlines: those of the case, and nobody else's."""

import json
import shutil
from pathlib import Path

import pytest

from medseg3d.errors import ConfigError
from medseg3d.report.page import write_report

CASES = [f"BraTS-PHANTOM-0000{number}-000" for number in (1, 2, 3)]


def test_nobody_is_drawn_over_another_scan_of_the_same_name(
    evaluation: Path, tmp_path: Path
) -> None:
    scores = evaluation / "scores" / "scores.json"
    rows = (evaluation / "images.csv").read_text().splitlines()
    names = [row.split(",")[0] for row in rows[1:]]

    def page(reference: str) -> str:
        table = evaluation / "named.csv"
        lines = [
            f"{row},{reference.format(name)}" for row, name in zip(rows[1:], names, strict=True)
        ]
        table.write_text("\n".join([rows[0] + ",reference", *lines]))
        path = write_report(tmp_path / "page.html", scores=scores, images=table)
        table.unlink()
        return path.read_text()

    alone = write_report(tmp_path / "alone.html", scores=scores).read_text()
    assert page("cases/{0}/{0}-seg.nii.gz") != alone
    assert page("others/{0}-seg.nii.gz") == alone


def test_images_are_found_in_a_folder_as_the_training_found_them(
    evaluation: Path, tmp_path: Path
) -> None:
    scores = evaluation / "scores" / "scores.json"
    run = tmp_path / "run"
    run.mkdir()
    (run / "metrics.jsonl").touch()
    patterns = {"t1n": "{case}/{case}-t1n.nii.gz", "t2f": "{case}/{case}-t2f.nii.gz"}
    (run / "config.yaml").write_text(json.dumps({"data": {"images": patterns}}))

    found = write_report(
        tmp_path / "a.html", scores=scores, images=evaluation / "cases", run=run
    ).read_text()
    listed = write_report(
        tmp_path / "b.html", scores=scores, images=evaluation / "images.csv", run=run
    ).read_text()

    assert found == listed
    with pytest.raises(ConfigError, match="known from the training alone"):
        write_report(tmp_path / "c.html", scores=scores, images=evaluation / "cases")


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
    assert path.read_text().count("<span>t2f</span>") == 2
    assert path.read_text().count("<span>no image</span>") == 1
