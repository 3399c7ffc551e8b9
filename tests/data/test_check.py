"""What a data set is told before hours are spent on it."""

from pathlib import Path

import numpy as np
import pytest

from medseg3d.config.data import DataConfig
from medseg3d.config.preprocess import PreprocessConfig
from medseg3d.data.cases import Case, find_cases
from medseg3d.data.check import CheckedCase, check_cases
from medseg3d.io.files import write_volume
from medseg3d.labels import LabelScheme
from medseg3d.volume import Volume

SCHEME = LabelScheme(values={2: "core", 1: "shell"})
SHAPE = (6, 5, 4)


@pytest.fixture
def case(tmp_path: Path) -> Case:
    """Give a case of two channels and a reference, in which nothing is wrong."""
    rng = np.random.default_rng(0)
    labels = np.zeros((1, *SHAPE), dtype=np.uint8)
    labels[0, 0, 0, :3] = 1
    labels[0, 1, 0, 0] = 2
    files = {
        "t1": rng.random((1, *SHAPE), dtype=np.float32),
        "t2": rng.random((1, *SHAPE), dtype=np.float32),
        "seg": labels,
    }
    for name, array in files.items():
        write_volume(Volume(array, np.eye(4)), tmp_path / f"{name}.nii.gz")
    paths = {name: tmp_path / f"{name}.nii.gz" for name in files}
    return Case("p1", {"t1": paths["t1"], "t2": paths["t2"]}, paths["seg"])


def check(case: Case) -> CheckedCase:
    (checked,) = check_cases([case], SCHEME, config=PreprocessConfig())
    return checked


def rewrite(path: Path, array: np.ndarray, *, affine: np.ndarray | None = None) -> None:
    write_volume(Volume(array, np.eye(4) if affine is None else affine), path)


def test_a_sound_case_is_told_by_its_grid_and_its_voxels_in_the_order_of_the_scheme(case: Case):
    checked = check(case)
    assert checked.faults == ()
    assert checked.id == "p1"
    assert checked.grid is not None
    assert checked.grid.shape_IJK == SHAPE
    assert [*checked.voxels.items()] == [("core", 1), ("shell", 3)]


def test_a_case_without_a_reference_has_no_voxels(case: Case):
    checked = check(Case("p1", case.images))
    assert checked.faults == ()
    assert checked.voxels == {}


def test_a_damaged_file_is_told_and_the_others_are_still_looked_at(case: Case):
    whole = case.images["t1"].read_bytes()
    case.images["t1"].write_bytes(whole[: len(whole) // 2])
    checked = check(case)
    (fault,) = checked.faults
    assert fault.startswith("t1: ")
    assert "not a sound gzip file" in fault
    assert checked.grid is not None
    assert checked.voxels == {"core": 1, "shell": 3}


def test_files_on_different_grids_are_told_by_channel(case: Case):
    shifted = np.eye(4)
    shifted[0, 3] = 0.5
    rewrite(case.images["t2"], np.random.default_rng(0).random((1, *SHAPE)), affine=shifted)
    (fault,) = check(case).faults
    assert fault.startswith("'t1' and 't2' do not lie on one grid: a corner lies 0.5 mm elsewhere")


def test_a_reference_on_another_grid_is_told(case: Case):
    assert case.reference is not None
    rewrite(case.reference, np.ones((1, 6, 5, 3), dtype=np.uint8))
    (fault,) = check(case).faults
    assert fault.startswith("'t1' and 'reference' do not lie on one grid: shape (6, 5, 4) against")


def test_a_foreign_label_is_told_with_its_number_of_voxels(case: Case):
    assert case.reference is not None
    labels = np.zeros((1, *SHAPE), dtype=np.uint8)
    labels[0, 0] = 7
    rewrite(case.reference, labels)
    (fault,) = check(case).faults
    assert fault.startswith("reference: ")
    assert "holds 7 (20 voxels)" in fault


def test_a_constant_image_is_a_fault_and_an_empty_reference_is_told(case: Case):
    assert case.reference is not None
    rewrite(case.reference, np.zeros((1, *SHAPE), dtype=np.uint8))
    rewrite(case.images["t2"], np.full((1, *SHAPE), 3, dtype=np.int16))
    checked = check(case)
    assert checked.faults == ("t2: every voxel is 3",)
    assert checked.warnings == ("reference: no voxel is labelled",)


def test_channels_of_one_file_are_looked_at_one_by_one(case: Case):
    path = case.images["t1"]
    array = np.random.default_rng(0).random((2, *SHAPE), dtype=np.float32)
    array[1] = 7
    rewrite(path, array)
    four = Case("p1", {"t1": path, "t2": path}, case.reference)
    assert check(four).faults == ("t2: every voxel is 7.0",)
    (fault,) = check(Case("p1", {"a": path, "b": path, "c": path})).faults
    assert fault.startswith("a, b, c: ")
    assert "holds 2 channels" in fault


def test_what_is_seen_of_voxels_does_not_depend_on_dtype_or_order_in_memory(tmp_path: Path):
    values = np.random.default_rng(0).integers(0, 99, (1, *SHAPE)).astype(np.int16)
    rewrite(tmp_path / "a.nii", values)
    rewrite(tmp_path / "b.nii.gz", np.ascontiguousarray(values.astype(np.float32)))
    first, second = (
        check(Case("p", {"t1": tmp_path / name})).seen["t1"] for name in ("a.nii", "b.nii.gz")
    )
    assert first == second
    rewrite(tmp_path / "c.nii", values[0].reshape(SHAPE[::-1], order="F")[None])
    turned = check(Case("p", {"t1": tmp_path / "c.nii"})).seen["t1"]
    assert turned.digest != first.digest
    assert first.level == pytest.approx(values[values != 0].mean())
    assert not first.is_label_like


def test_cases_come_in_their_order(case: Case):
    cases = [Case(f"p{n}", case.images, case.reference) for n in range(9)]
    checked = check_cases(cases, SCHEME, config=PreprocessConfig())
    assert [one.id for one in checked] == [one.id for one in cases]


def test_an_image_of_nan_is_a_fault(case: Case):
    rewrite(case.images["t1"], np.full((1, *SHAPE), np.nan, dtype=np.float32))
    (fault,) = check(case).faults
    assert "t1: " in fault
    assert "120 voxels of NaN or infinity" in fault


def test_everything_that_is_wrong_with_a_case_is_told(case: Case):
    case.images["t1"].unlink()
    case.images["t2"].write_text("no scan")
    assert case.reference is not None
    rewrite(case.reference, np.full((1, *SHAPE), 0.5))
    checked = check(case)
    assert [fault.split(":")[0] for fault in checked.faults] == ["t1", "t2", "reference"]
    assert checked.grid is None
    assert checked.voxels == {}


def test_in_the_hippocampus_data_nothing_is_wrong(hippocampus: Path):
    data = DataConfig(
        folder=hippocampus,
        images={"t1": "imagesTr/{case}.nii.gz"},
        reference="labelsTr/{case}.nii.gz",
        labels=LabelScheme(values={1: "anterior", 2: "posterior"}),
    )
    checked = [*check_cases(find_cases(data)[:10], data.labels, config=PreprocessConfig())]
    assert [case.faults for case in checked] == [()] * 10
    assert all(min(case.voxels.values()) > 500 for case in checked)
