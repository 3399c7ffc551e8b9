"""What files are, and the same in another format, from the command line."""

import json
import shutil
from pathlib import Path

import pytest
from pydicom.fileset import FileSet

from .conftest import Run


@pytest.mark.slow
def test_info_lists_the_series_of_a_folder(run: Run, shared_data: Path):
    ended = run("info", shared_data / "dicom", "--json")
    rows = json.loads(ended.out)["series"]
    assert ended.code == 0
    tilted = [row for row in rows if row["remarks"] == ["gantry tilted by 18.50 degrees"]]
    assert [(row["size"], row["description"]) for row in tilted] == [("512×512×6", "STEREOTAXIS")]
    assert sum(row["volume"].startswith(("time-", "volume-")) for row in rows) == 9
    table = run("info", shared_data / "dicom/mr_epi_4d_ge")
    assert table.code == 0
    assert "volume-3" in table.out


def test_info_knows_dicom_without_a_suffix_and_a_dicomdir(
    run: Run, shared_data: Path, tmp_path: Path
):
    source = next((shared_data / "dicom/mr_mosaic_siemens/dicom").iterdir())
    shutil.copy(source, tmp_path / "IM0001")
    disc = FileSet()
    disc.add(source)
    disc.write(tmp_path / "disc")
    disc._stage["t"].cleanup()
    said = []
    for what in (source, tmp_path / "IM0001", tmp_path / "disc/DICOMDIR", tmp_path / "disc"):
        ended = run("info", what, "--json")
        assert ended.code == 0, ended.err
        said.append(json.loads(ended.out)["series"])
    assert said == said[:1] * 4
    assert said[0][0]["modality"] == "MR"


def test_info_says_where_there_is_no_dicom(run: Run, tmp_path: Path):
    ended = run("info", tmp_path)
    assert ended.code == 2
    assert "holds no DICOM" in ended.err


@pytest.mark.slow
def test_convert_writes_what_it_can_and_tells_the_rest(run: Run, shared_data: Path, tmp_path: Path):
    ended = run("convert", shared_data / "dicom", "--out", tmp_path / "out")
    assert ended.code == 1
    assert "error: series 201 (CT): slices are tilted by 18.50 degrees" in ended.err
    assert "15 volumes written" in ended.err
    assert len([*(tmp_path / "out").glob("*.nii.gz")]) == 15


def test_convert_takes_its_folder_as_a_second_word_too(run: Run, shared_data: Path, tmp_path: Path):
    source = shared_data / "dicom/ct_flipped_axes"
    ended = run("convert", source, tmp_path / "out", "--json")
    assert ended.code == 0
    assert json.loads(ended.out)[0]["path"] == str(tmp_path / "out/ct-123456.nii.gz")
    for words in ([source], [source, "a", "b"], [source, "a", "--out", "b"]):
        wrong = run("convert", *words)
        assert wrong.code == 2
        assert "one input and one folder for the result" in wrong.err
