"""Folders of DICOM become NIfTI files that lie where the DICOM lay, and tell nobody's name."""

import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest

from medseg3d.errors import ConfigError, FormatError
from medseg3d.io.convert import convert_series
from medseg3d.io.dicom.read import read_series
from medseg3d.io.files import read_volume

from .phantom import CANARY_ID, CANARY_NAME, Geometry, slices, uid, write

PLAIN = Geometry()


def everything_in(folder: Path) -> bytes:
    return b"".join(
        path.name.encode() + (path.read_bytes() if path.suffix == ".json" else header(path))
        for path in sorted(folder.iterdir())
    )


def header(path: Path) -> bytes:
    return nibabel.load(path).header.binaryblock


def test_each_volume_becomes_a_file_with_an_account(tmp_path: Path):
    write(slices(PLAIN, SeriesNumber=7), tmp_path / "in")
    (done,) = convert_series(tmp_path / "in", tmp_path / "out")
    assert done.path == tmp_path / "out/ct-007.nii.gz"
    assert (done.failed, done.reason, done.name) == (False, None, "series 7 (CT)")
    read, written = read_series(tmp_path / "in"), read_volume(done.path)
    np.testing.assert_array_equal(read.array_CIJK, written.array_CIJK)
    np.testing.assert_allclose(read.affine, written.affine, atol=1e-5)
    account = json.loads((tmp_path / "out/ct-007.json").read_text())
    assert account["modality"] == "CT"
    assert account["slices"] == [PLAIN.shape[2]]
    assert account["affine"] == read.affine.tolist()
    assert account["done"] == {}


def test_nothing_tells_whose_scan_it_is_unless_asked(tmp_path: Path):
    write(slices(PLAIN, SeriesDescription=f"of {CANARY_NAME}"), tmp_path / "in")
    [*_] = convert_series(tmp_path / "in", tmp_path / "out")
    told = everything_in(tmp_path / "out")
    assert CANARY_NAME.encode() not in told
    assert CANARY_ID.encode() not in told
    (asked,) = convert_series(
        tmp_path / "in", tmp_path / "asked", names="{patient}_{description}_{number}"
    )
    assert asked.path
    assert asked.path.name == f"{CANARY_ID}_of-CANARY-PATIENT_001.nii.gz"


def test_volumes_of_a_series_are_files_or_channels(shared_data: Path, tmp_path: Path):
    source = shared_data / "dicom/mr_epi_4d_ge/dicom"
    names = [one.path.name for one in convert_series(source, tmp_path / "each") if one.path]
    assert names == [f"mr-005_volume-{n}.nii.gz" for n in (1, 2, 3)]
    (whole,) = convert_series(source, tmp_path / "whole", channels=True)
    reference = nibabel.load(shared_data / "dicom/mr_epi_4d_ge/reference.nii.gz")
    assert whole.path
    assert nibabel.load(whole.path).shape == reference.shape


def test_tilt_is_refused_or_corrected_and_told(shared_data: Path, tmp_path: Path):
    source = shared_data / "dicom/ct_gantry_tilt_phantom/dicom"
    (refused,) = convert_series(source, tmp_path / "refused")
    assert refused.failed
    assert "tilted by 18.50 degrees" in str(refused.reason)
    assert [*(tmp_path / "refused").iterdir()] == []
    (corrected,) = convert_series(source, tmp_path / "corrected", tilt="correct")
    assert corrected.path
    assert nibabel.load(corrected.path).shape == (512, 521, 6)
    account = json.loads((tmp_path / "corrected/ct-201.json").read_text())
    assert account["done"] == {"gantry tilt": "18.500 degrees: correct"}


def test_a_gap_is_refused_or_resampled_and_told(tmp_path: Path):
    files = slices(PLAIN)
    del files[2]
    write(files, tmp_path / "in")
    (refused,) = convert_series(tmp_path / "in", tmp_path / "out")
    assert "not evenly spaced" in str(refused.reason)
    (done,) = convert_series(tmp_path / "in", tmp_path / "out", gaps="resample")
    assert done.path
    assert nibabel.load(done.path).shape == PLAIN.shape
    assert json.loads((tmp_path / "out/ct-001.json").read_text())["done"] == {
        "uneven slices": "2.500 to 5.000 mm: resample"
    }


@pytest.mark.slow
def test_equal_names_are_numbered_and_a_failure_stops_no_other(shared_data: Path, tmp_path: Path):
    done = [*convert_series(shared_data / "dicom", tmp_path / "out")]
    assert [one.name for one in done if one.failed] == ["series 201 (CT)"]
    assert [one.name for one in done if not one.path and not one.failed] == ["series 1 (SEG)"]
    assert (tmp_path / "out/ct-201_2.nii.gz").exists()
    assert not (tmp_path / "out/ct-201.nii.gz").exists()
    assert len([*(tmp_path / "out").glob("*.nii.gz")]) == len([one for one in done if one.path])


def test_results_are_not_replaced_unless_allowed(tmp_path: Path):
    write(slices(PLAIN), tmp_path / "in")
    [*_] = convert_series(tmp_path / "in", tmp_path / "out")
    with pytest.raises(ConfigError, match=r"already holds ct-001\.json, ct-001\.nii\.gz"):
        [*convert_series(tmp_path / "in", tmp_path / "out")]
    [*_] = convert_series(tmp_path / "in", tmp_path / "out", overwrite=True)


def test_what_lay_there_does_not_outlive_a_failure(tmp_path: Path):
    paths = write(slices(PLAIN), tmp_path / "in")
    [*_] = convert_series(tmp_path / "in", tmp_path / "out")
    paths[2].unlink()
    (done,) = convert_series(tmp_path / "in", tmp_path / "out", overwrite=True)
    assert done.failed
    assert [*(tmp_path / "out").iterdir()] == []


def test_an_archive_gives_what_its_folder_gives(tmp_path: Path):
    write(slices(PLAIN), tmp_path / "in")
    archive = shutil.make_archive(str(tmp_path / "in"), "zip", tmp_path / "in")
    [*_] = convert_series(tmp_path / "in", tmp_path / "folder")
    [*_] = convert_series(archive, tmp_path / "archive")
    assert everything_in(tmp_path / "folder") == everything_in(tmp_path / "archive")


def test_wrong_wishes_are_refused(tmp_path: Path, unchecked: None):
    write(slices(PLAIN), tmp_path / "in")
    with pytest.raises(ConfigError, match="has the field name; known are modality, number"):
        [*convert_series(tmp_path / "in", tmp_path / "out", names="{name}")]
    with pytest.raises(ConfigError, match="tilt 'corect' is none of refuse, correct, keep"):
        [*convert_series(tmp_path / "in", tmp_path / "out", tilt="corect")]  # type: ignore[arg-type]
    with pytest.raises(FormatError, match="no such file or folder"):
        [*convert_series(tmp_path / "none", tmp_path / "out")]


def test_names_keep_to_letters_that_every_disk_takes(tmp_path: Path):
    write(slices(PLAIN, SeriesDescription="../T1 *ax/2"), tmp_path / "in")
    (done,) = convert_series(tmp_path / "in", tmp_path / "out", names="{description}")
    assert done.path == tmp_path / "out/T1-ax-2.nii.gz"


def test_names_that_some_disk_takes_for_one_are_numbered(tmp_path: Path):
    for n, description in enumerate(("a", "a", "a_2", "A")):
        write(slices(PLAIN, add=100 * n, series=n, SeriesDescription=description), tmp_path / "in")
    done = [*convert_series(tmp_path / "in", tmp_path / "out", names="{description}")]
    names = [one.path.name.lower() for one in done if one.path]
    assert len({*names}) == len(names) == len([*(tmp_path / "out").glob("*.nii.gz")]) == 4
    voxels = {int(read_volume(one.path).array_CIJK[0, 0, 0, 0]) for one in done if one.path}
    assert len(voxels) == 4


def test_no_account_tells_what_files_are_called(tmp_path: Path):
    for n, path in enumerate(write(slices(PLAIN, at=[0, 1, 3, 4]), tmp_path / "DOE_JOHN")):
        path.rename(path.with_name(f"DOE_JOHN_{n}.dcm"))
    (done,) = convert_series(tmp_path / "DOE_JOHN", tmp_path / "out", gaps="resample")
    assert done.path
    assert b"DOE" not in everything_in(tmp_path / "out")


def test_an_account_tells_studies_apart_by_a_number(tmp_path: Path):
    for n in range(3):
        study = uid("study", n // 2)
        write(slices(PLAIN, series=n, SeriesNumber=n, StudyInstanceUID=study), tmp_path / "in")
    [*_] = convert_series(tmp_path / "in", tmp_path / "out")
    accounts = [json.loads(path.read_text()) for path in (tmp_path / "out").glob("*.json")]
    studies = {account["series_number"]: account["study"] for account in accounts}
    assert studies[0] == studies[1] != studies[2]
    assert {*studies.values()} == {1, 2}
