"""What the README shows is what works."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import typer
import yaml

import medseg3d
from medseg3d.cli import app
from medseg3d.config.load import parse_section
from medseg3d.config.run import RunConfig
from medseg3d.io.files import read_volume, write_volume
from medseg3d.labels import LabelScheme
from medseg3d.nets.bundle import Bundle, save_bundle
from medseg3d.volume import Volume

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "examples/tour.sh", "configs/hippocampus.yaml", "configs/quickstart.yaml")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


@pytest.mark.parametrize("page", PAGES)
def test_every_command_shown_has_known_verbs_and_options(page: str) -> None:
    text = "".join(blocks("sh")) if page == "README.md" else (ROOT / page).read_text()
    text = text.replace("\\\n", " ")
    shown = re.findall(r"^(?:#\s*)?(medseg3d \w+ [^#\n>]*)", text, re.MULTILINE)
    assert shown
    verbs = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    for command in shown:
        _, verb, *arguments = shlex.split(command.replace('"$@"', ""))
        verbs[verb].make_context(verb, arguments)


def test_the_yaml_shown_is_a_run() -> None:
    (block,) = blocks("yaml")

    run = parse_section(RunConfig, yaml.safe_load(block), source="README")

    assert run.data.labels.values == {1: "anterior", 2: "posterior"}


def test_the_python_shown_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, build_bundle: Callable[..., Bundle]
) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name in ("t1", "t2"):
        image = rng.normal(100, 20, size=(1, 20, 24, 9)).astype(np.int16)
        write_volume(Volume(image, np.diag([-1.0, -1, 2, 1])), f"{name}.nii.gz")
    save_bundle(build_bundle("t1", "t2"), "model.safetensors")
    segment, _, score = blocks("python")
    place = {"print": lambda *_: None}

    exec(segment, place)

    assert read_volume("labels.nii.gz").shape_IJK == (20, 24, 9)
    reference = Volume(np.ones((1, 4, 4, 4), np.uint8), np.eye(4))
    exec(score, place | {"predicted": reference, "reference": reference})


def test_the_python_shown_for_dicom_runs(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("study").mkdir()
    Path("study/ct").symlink_to(shared_data / "dicom/ct_liver_with_seg/dicom")
    _, dicom, _ = blocks("python")
    grid = read_volume("study/ct").grid
    labels = np.zeros((1, *grid.shape_IJK), np.uint8)
    labels[0, 100:200, 100:200, 1] = 1
    scheme = LabelScheme.model_validate({"values": {1: "liver"}, "codes": {"liver": "liver"}})
    place = {
        "medseg3d": medseg3d,
        "print": lambda *_: None,
        "label_map": Volume(labels, grid.affine),
        "scheme": scheme,
    }

    exec(dicom, place)

    np.testing.assert_array_equal(place["masks"].array_CIJK, labels > 0)
