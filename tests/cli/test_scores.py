"""Scoring as a user types it: folders, tables, challenges, and several methods."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medseg3d.io.files import read_volume, write_volume
from medseg3d.volume import Volume

Run = Callable[..., Any]
SPOTS = np.s_[4:9, 4:9, 4:9], np.s_[18:22, 18:22, 4:8]


def spots(*, shift: int = 0, num: int = 2) -> Volume:
    """Give enhancing lesions of 5×5×5 and 4×4×4 voxels, far apart."""
    array = np.zeros((1, 24, 24, 12), dtype=np.uint8)
    for spot in SPOTS[:num]:
        array[(0, *spot)] = 3
    return Volume(np.roll(array, shift, axis=1), np.eye(4))


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Write references, and predictions of two methods: one exact, one that misses a lesion."""
    for case in ("one", "two", "three"):
        for folder, volume in (
            ("references", spots()),
            ("exact", spots()),
            ("poor", spots(shift=1, num=1)),
        ):
            (tmp_path / folder).mkdir(exist_ok=True)
            write_volume(volume, tmp_path / folder / f"{case}.nii.gz")
    return tmp_path


def evaluate(run: Run, folders: Path, method: str, *more: object) -> Any:
    return run(
        "evaluate", folders / method, folders / "references", "--scheme", "brats2023",
        "--out", folders / "scores" / method, *more,
    )  # fmt: skip


def test_a_challenge_is_scored_lesion_by_lesion(run: Run, folders: Path) -> None:
    ended = evaluate(run, folders, "poor")
    assert ended.code == 0, ended.err
    assert "lesion_dice" in ended.out
    scores = json.loads((folders / "scores" / "poor" / "scores.json").read_text())
    region = scores["cases"][0]["regions"]["ET"]
    assert (region["lesion_tp"], region["lesion_fn"], region["lesion_fp"]) == (1, 1, 0)
    assert region["lesion_dice"] == pytest.approx(0.8 / 2)
    assert region["lesion_hd95"] == pytest.approx((1 + 374) / 2)
    with (folders / "scores" / "poor" / "lesions.csv").open() as stream:
        rows = [row for row in csv.DictReader(stream) if row["region"] == "ET"]
    assert [row["status"] for row in rows] == ["tp", "fn"] * 3
    assert [float(rows[1][f"center_mm_{axis}"]) for axis in "xyz"] == [19.5, 19.5, 5.5]


def test_methods_are_compared(run: Run, folders: Path) -> None:
    for method in ("exact", "poor"):
        evaluate(run, folders, method)
    scores = [folders / "scores" / method for method in ("poor", "exact")]
    ended = run("compare", *scores, "--out", folders / "comparison")
    assert ended.code == 0, ended.err
    best, other = json.loads((folders / "comparison" / "compare.json").read_text())["methods"]
    assert (best["method"], best["place"], best["score"]) == ("exact", 1, 1)
    assert (other["method"], other["place"], other["score"]) == ("poor", 2, 2)
    assert {path.name for path in (folders / "comparison").iterdir()} == {
        "compare.json", "ranks.csv", "pairs.csv"
    }  # fmt: skip
    assert "exact" in ended.out
    printed = run("compare", *scores, "--measure", "dice", "--json")
    assert json.loads(printed.out)["measures"] == ["dice"]


def test_comparing_a_method_with_nothing_is_wrong_use(run: Run, folders: Path) -> None:
    evaluate(run, folders, "exact")
    ended = run("compare", folders / "scores" / "exact")
    assert ended.code == 2
    assert "two or more" in ended.err
    ended = run("compare", folders / "scores" / "exact", folders / "references")
    assert ended.code == 2
    assert "scores.json" in ended.err


def test_one_table_names_both_sides(run: Run, folders: Path) -> None:
    table = folders / "pairs.csv"
    table.write_text("case,predicted,reference\nfirst,poor/one.nii.gz,references/two.nii.gz\n")
    ended = run("evaluate", table, "--scheme", "brats2023-met", "--json")
    assert ended.code == 0, ended.err
    (case,) = json.loads(ended.out)["cases"]
    assert case["case"] == "first"
    ended = run("evaluate", folders / "poor")
    assert ended.code == 2
    assert "alone is nothing to score" in ended.err


def test_the_policy_on_empty_masks_can_be_chosen(run: Run, folders: Path) -> None:
    for path in (folders / "poor").iterdir():
        write_volume(spots(num=0), path)
    penalty, undefined, skipped = (
        json.loads(evaluate(run, folders, "poor", "--json", *more).out)
        for more in ((), ("--set", "evaluate.empty=nan"), ("--set", "evaluate.empty=skip"))
    )
    assert penalty["summary"]["ET"]["hd95"]["mean"] == 374
    assert undefined["summary"]["ET"]["hd95"] == {
        "mean": None, "sd": None, "median": None, "low": None, "high": None, "n": 0, "undefined": 3
    }  # fmt: skip
    assert undefined["summary"]["ET"]["dice"]["mean"] == 0
    assert skipped["summary"]["ET"]["dice"]["mean"] == 0
    assert "undefined where a side is empty" in undefined["policy"]


@pytest.mark.slow
def test_many_processes_write_the_same_files(run: Run, folders: Path) -> None:
    evaluate(run, folders, "poor")
    folder = folders / "scores" / "poor"
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    evaluate(run, folders, "poor", "--set", "evaluate.workers=2")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == first


def test_real_organs_are_scored_by_a_scheme_of_ones_own(
    run: Run, shared_data: Path, tmp_path: Path
) -> None:
    folder = shared_data / "hippocampus_msd04" / "labelsTr"
    case, *_ = sorted(folder.glob("*.nii.gz"))
    (tmp_path / "mine").mkdir()
    reference = read_volume(case)
    shifted = Volume(np.roll(reference.array_CIJK, 1, axis=2), reference.affine)
    write_volume(shifted, tmp_path / "mine" / case.name)
    (tmp_path / "theirs").mkdir()
    write_volume(reference, tmp_path / "theirs" / case.name)
    scheme = tmp_path / "halves.yaml"
    scheme.write_text(
        "values: {1: anterior, 2: posterior}\nregions: {whole: [1, 2], head: [1]}\n"
        "protocol: {hausdorff: max_directed, tolerances: [0.5, 1.0], assd: true}\n"
    )
    ended = run("evaluate", tmp_path / "mine", tmp_path / "theirs", "--scheme", scheme, "--json")
    assert ended.code == 0, ended.err
    whole = json.loads(ended.out)["cases"][0]["regions"]["whole"]
    assert 0.8 < whole["dice"] < 1
    assert whole["hd95"] == 1
    assert whole["nsd_0.5"] < whole["nsd_1.0"] == pytest.approx(1)
    assert 0 < whole["assd"] < 1
