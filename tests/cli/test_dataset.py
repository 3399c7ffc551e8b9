"""The verb `fingerprint`, from a folder to a run that trains."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medseg3d.config.load import load_config
from medseg3d.data.phantom import write_phantoms

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder of three made-up brain tumours in BraTS' layout."""
    folder = tmp_path_factory.mktemp("phantoms")
    write_phantoms(folder, num_cases=3, seed=0)
    return folder


@pytest.mark.slow
def test_a_folder_becomes_a_run_with_reasons(run: Run, phantoms: Path, tmp_path: Path):
    out = tmp_path / "run.yaml"

    ended = run("fingerprint", phantoms, "-o", out, "--memory", "1500MiB", "--hours", "0.01")

    assert ended.code == 0, ended.err
    assert f"go on with: medseg3d train {out}" in ended.err
    config = load_config(out)
    assert config.data.labels.name == "brats2023"
    assert config.outputs == "regions"
    assert config.preprocess.crop == "nonzero"
    assert "as after skull stripping" in out.read_text()
    again = run("fingerprint", out, "--memory", "1500MiB", "--hours", "0.01", "--dims", "2")
    assert "spatial_dims: 2" in again.out
    assert "brats2023" in again.out


@pytest.mark.slow
def test_machines_get_the_fingerprint_in_json(run: Run, phantoms: Path):
    ended = run("fingerprint", phantoms, "--json", "--memory", "1500MiB", "--hours", "0.01")
    content = json.loads(ended.out)
    assert [case["id"] for case in content["fingerprint"]["cases"]] == [
        f.name for f in sorted(phantoms.iterdir()) if f.is_dir()
    ]
    assert content["fingerprint"]["regions"]["ET"]["cases"] == 3
    assert "train.patch_size" in content["reasons"]


def test_a_config_that_is_there_is_not_written_over(run: Run, phantoms: Path, tmp_path: Path):
    (tmp_path / "run.yaml").write_text("mine")
    ended = run("fingerprint", phantoms, "-o", tmp_path / "run.yaml")
    assert ended.code == 2
    assert "is there already; give another --out, or --overwrite" in ended.err
    assert (tmp_path / "run.yaml").read_text() == "mine"


@pytest.mark.slow
def test_the_place_to_write_to_is_seen_to_before_measuring(
    run: Run, phantoms: Path, tmp_path: Path
):
    (tmp_path / "file").touch()
    ended = run("fingerprint", tmp_path / "no data", "-o", tmp_path / "file" / "run.yaml")
    assert ended.code == 2
    assert "File exists" in ended.err or "Not a directory" in ended.err
    ended = run("fingerprint", tmp_path / "no data", "-o", tmp_path, "--overwrite")
    assert ended.code == 2
    assert "is there already; give another --out" in ended.err
    out = tmp_path / "new" / "run.yaml"
    ended = run("fingerprint", phantoms, "-o", out, "--memory", "1500MiB", "--hours", "0.001")
    assert ended.code == 0, ended.err
    assert out.is_file()
