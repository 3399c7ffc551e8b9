"""What only shows among all cases: doubles, leaks, channels mixed up, outliers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medseg3d.config.data import DataConfig
from medseg3d.config.preprocess import PreprocessConfig
from medseg3d.data.doubts import CheckedData, check_data
from medseg3d.io.files import read_volume, write_volume
from medseg3d.volume import Volume

SHAPE = (8, 7, 6)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give a folder of ten sound cases; t2 is always brighter than t1."""
    rng = np.random.default_rng(0)
    for n in range(10):
        case = tmp_path / f"p{n}_a"
        case.mkdir()
        label_map = np.zeros((1, *SHAPE), np.uint8)
        label_map[0, 1 : 3 + n % 5, 2:4, n % 3 : 4] = 1
        label_map[0, 0, 0, : 1 + n // 3] = 1 + n % 2
        for name, level in (("t1", 100), ("t2", 300)):
            write(case / f"{name}.nii.gz", rng.normal(level, 20, (1, *SHAPE)).astype(np.float32))
        write(case / "seg.nii.gz", label_map)
    return tmp_path


def write(path: Path, array: np.ndarray, *, affine: np.ndarray | None = None) -> None:
    write_volume(Volume(array, np.eye(4) if affine is None else affine), path)


def check(folder: Path, **knobs: Any) -> CheckedData:
    data = {
        "folder": folder,
        "images": {"t1": "{case}/t1.nii.gz", "t2": "{case}/t2.nii.gz"},
        "reference": "{case}/seg.nii.gz",
        "labels": {"values": {1: "core", 2: "shell"}},
    }
    return check_data(DataConfig.model_validate(data | knobs), PreprocessConfig())


def copy(source: Path, target: Path) -> None:
    target.write_bytes(source.read_bytes())


def test_a_sound_data_set_has_neither_faults_nor_warnings(folder: Path):
    seen = []
    data = DataConfig.model_validate(
        {"folder": folder, "images": {"t1": "{case}/t1.nii.gz"}, "labels": "hippocampus"}
    )
    check_data(data, PreprocessConfig(), progress=lambda *done: seen.append(done))
    checked = check(folder)
    assert (checked.faults, checked.warnings) == ((), ())
    assert checked.summary(0) == "10 cases (8 training, 2 validation), 0 faults, 0 warnings"
    assert len(checked.folds) == 5
    assert seen == [(n, 10) for n in range(1, 11)]


def test_missing_files_do_not_hide_other_faults(folder: Path):
    (folder / "p0_a/t1.nii.gz").unlink()
    write(folder / "p1_a/t1.nii.gz", np.full((1, *SHAPE), 5, np.int16))
    (folder / "p2_a/t2.nii.gz").write_text("no scan")
    faults = check(folder).faults
    assert [fault.split(":")[0] for fault in faults] == [
        "case 'p0_a'",
        "case 'p1_a'",
        "case 'p2_a'",
    ]
    assert "no t1" in faults[0]


def test_the_same_image_in_two_cases_is_a_fault_also_in_another_dtype(folder: Path):
    image = read_volume(folder / "p0_a/t1.nii.gz").array_CIJK.round().astype(np.int16)
    write(folder / "p0_a/t1.nii.gz", image)
    write(folder / "p7_a/t1.nii.gz", image.astype(np.float64))
    (fault,) = check(folder).faults
    assert "the same voxels: t1 of case 'p0_a', t1 of case 'p7_a'; these are cases of one" in fault


def test_one_scan_in_place_of_two_channels_is_a_fault(folder: Path):
    copy(folder / "p4_a/t2.nii.gz", folder / "p4_a/t1.nii.gz")
    (fault,) = check(folder).faults
    assert fault == "the same voxels: t1 of case 'p4_a', t2 of case 'p4_a'"


def test_a_reference_among_the_images_is_a_fault(folder: Path):
    copy(folder / "p4_a/seg.nii.gz", folder / "p4_a/t1.nii.gz")
    same, mask = check(folder).faults
    assert same == "the same voxels: t1 of case 'p4_a', reference of case 'p4_a'"
    assert mask.startswith("channel t1 looks like a label map in 'p4_a'")


def test_the_same_reference_in_two_cases_is_a_fault(folder: Path):
    copy(folder / "p4_a/seg.nii.gz", folder / "p5_a/seg.nii.gz")
    (fault,) = check(folder).faults
    assert fault.startswith("the same voxels: reference of case 'p4_a', reference of case 'p5_a'")


def test_a_channel_of_masks_in_all_cases_may_be_meant_so(folder: Path):
    rng = np.random.default_rng(1)
    for n in range(10):
        write(folder / f"p{n}_a/t2.nii.gz", rng.integers(0, 3, (1, *SHAPE)).astype(np.uint8))
    checked = check(folder)
    assert checked.faults == ()
    assert checked.warnings[0].startswith("channel t2 looks like a label map in all cases")


def test_empty_references_are_told_and_are_a_fault_where_all_are(folder: Path):
    empty = np.zeros((1, *SHAPE), np.uint8)
    write(folder / "p0_a/seg.nii.gz", empty)
    checked = check(folder)
    assert checked.faults == ()
    assert checked.warnings == ("case 'p0_a': reference: no voxel is labelled",)
    for n in range(10):
        write(folder / f"p{n}_a/seg.nii.gz", empty)
    assert check(folder).faults == ("all 10 references are empty: there is nothing to learn",)


def test_a_value_that_is_nowhere_is_told(folder: Path):
    checked = check(folder, labels={"values": {1: "core", 2: "shell", 3: "rim"}})
    assert checked.warnings == ("value 3, 'rim', is in no reference",)


def test_patients_on_both_sides_of_given_splits_are_a_fault(folder: Path):
    (folder / "p0_a").rename(folder / "p1_b")
    names = [path.name for path in sorted(folder.iterdir())]
    splits = [{"train": names[:1], "val": names[1:]}]
    (folder / "splits.json").write_text(json.dumps(splits))
    checked = check(folder, patient="(.*)_", split={"source": "splits.json"})
    (fault,) = checked.faults
    assert "1 patients are in both training and validation" in fault
    assert "p1 (p1_a, p1_b)" in fault
    assert checked.summary(0).startswith("10 cases (not split)")


def test_voxels_far_longer_than_the_median_are_told_by_the_axis_of_the_body(folder: Path):
    turned = np.array([[0, 0, 1, 0], [0, 1, 0, 0], [4, 0, 0, 0], [0, 0, 0, 1]], float)
    for name in ("t1", "t2", "seg"):
        path = folder / f"p3_a/{name}.nii.gz"
        write(path, read_volume(path).array_CIJK, affine=turned)
    assert check(folder).warnings == (
        "case 'p3_a': voxels of 4 mm along z, where the median is 1 mm",
    )


def test_channels_that_have_changed_places_are_told(folder: Path):
    first, second = (folder / f"p3_a/{name}.nii.gz" for name in ("t1", "t2"))
    content = first.read_bytes()
    copy(second, first)
    second.write_bytes(content)
    checked = check(folder)
    assert checked.faults == ()
    (warning,) = checked.warnings
    assert warning == (
        "case 'p3_a': from dark to bright its channels are t2, t1, in 9 of 10 cases t1, t2: are "
        "files mixed up?"
    )


def test_where_scanners_differ_no_order_of_brightness_is_the_right_one(folder: Path):
    for n in range(4):
        first, second = (folder / f"p{n}_a/{name}.nii.gz" for name in ("t1", "t2"))
        content = first.read_bytes()
        copy(second, first)
        second.write_bytes(content)
    assert check(folder).warnings == ()


def test_all_of_it_is_plain_data(folder: Path):
    write(folder / "p1_a/t1.nii.gz", np.full((1, *SHAPE), 5, np.int16))
    told = json.loads(json.dumps(check(folder).to_dict()))
    assert told["faults"] == ["case 'p1_a': t1: every voxel is 5"]
    assert told["warnings"] == []
    assert told["cases"][1]["spacing_mm"] == [1, 1, 1]
    assert told["cases"][1]["faults"] == ["t1: every voxel is 5"]
