"""`medseg3d check` as a user types it, and the data sets it lets through to predict."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medseg3d.config.recipe import Recipe
from medseg3d.io.files import read_label_map, write_volume
from medseg3d.nets.bundle import Bundle, build_recipe_net, save_bundle
from medseg3d.predict.case import predict_case
from medseg3d.volume import Volume

AFFINE = np.diag([-1.0, -1.0, 2.0, 1.0])
CONFIG = Path(__file__).parents[2] / "configs" / "hippocampus.yaml"
Run = Callable[..., Any]
Build = Callable[..., Bundle]


def write(path: Path, array: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_volume(Volume(array, AFFINE), path)
    return path


@pytest.mark.slow
def test_a_data_set_is_checked_by_its_config_or_by_its_folder_alone(
    run: Run, hippocampus: Path, brats: Path
) -> None:
    by_config = run("check", CONFIG, "--set", f"data.folder={hippocampus}")
    by_folder = run("check", hippocampus)
    tumours = run("check", brats, "--json")

    for ended in (by_config, by_folder):
        assert ended.code == 0, ended.err
        assert "100 cases (80 training, 20 validation), 0 faults, 0 warnings" in ended.err
    assert tumours.code == 0, tumours.err
    told = json.loads(tumours.out)
    assert told["faults"] == told["warnings"] == []
    assert told["cases"][0]["shape"] == [240, 240, 155]
    assert told["cases"][0]["voxels"]["ED"] == 53050


def test_every_fault_is_told_at_once(run: Run, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name, value in (("a", 1), ("b", 7), ("c", 0), ("d", 1)):
        write(tmp_path / f"images/{name}.nii.gz", rng.normal(9, 2, (1, 4, 4, 4)))
        label_map = np.zeros((1, 4, 4, 4), np.uint8)
        label_map[0, 1] = value
        write(tmp_path / f"labels/{name}.nii.gz", label_map)
    (tmp_path / "images" / "a.nii.gz").write_bytes(b"")
    (tmp_path / "labels" / "d.nii.gz").unlink()
    config = tmp_path / "config.yaml"
    config.write_text(
        f"data: {{folder: '{tmp_path}', images: {{t1: 'images/{{case}}.nii.gz'}}, "
        "reference: 'labels/{case}.nii.gz', labels: {values: {1: one}}, split: {num_folds: 2}}\n"
        "network: {kind: unet}\n"
    )

    ended = run("check", config)
    told = json.loads(run("check", config, "--json").out)

    assert ended.code == 1
    assert "case 'd': no reference" in ended.err
    assert "case 'a': t1" in ended.err
    assert "7 (16 voxels)" in ended.err
    assert "warning: case 'c': reference: no voxel is labelled" in ended.err
    assert "3 cases (1 training, 2 validation), 3 faults, 1 warnings" in ended.err
    assert len(told["faults"]) == 3
    assert [case["id"] for case in told["cases"]] == ["a", "b", "c"]


def test_a_folder_of_nothing_known_is_wrong_use(run: Run, tmp_path: Path) -> None:
    ended = run("check", tmp_path)

    assert ended.code == 2
    assert "laid out in no way that is known; it holds nothing" in ended.err


@pytest.fixture
def build_model(tmp_path: Path, build_bundle: Build) -> Callable[..., tuple[Bundle, Path]]:
    """Give a function that writes a model of two channels whose recipe has some knobs changed."""

    def build(**changed: object) -> tuple[Bundle, Path]:
        recipe = build_bundle("t1", "t2", intensity="zscore").recipe
        recipe = Recipe.model_validate(recipe.model_dump() | changed)
        bundle = Bundle(build_recipe_net(recipe).eval(), recipe, "0.0.test")
        save_bundle(bundle, tmp_path / "model.safetensors")
        return bundle, tmp_path / "model.safetensors"

    return build


def test_a_model_of_one_file_for_all_channels_takes_one_file_per_case(
    run: Run, build_model: Callable[..., tuple[Bundle, Path]], tmp_path: Path
) -> None:
    both = np.random.default_rng(0).normal(100, 20, (2, 12, 11, 9)).astype(np.int16)
    file = write(tmp_path / "in" / "p.nii.gz", both)
    apart = [write(tmp_path / f"{n}.nii.gz", both[n : n + 1]) for n in (0, 1)]
    pattern = "imagesTr/{case}.nii.gz"
    bundle, model = build_model(images={"t1": pattern, "t2": pattern})
    expected = predict_case(bundle, apart).array_CIJK

    for name, source in (("file", file), ("folder", file.parent)):
        ended = run("predict", model, source, "--out", tmp_path / name)
        assert ended.code == 0, ended.err
        written = read_label_map(tmp_path / name / "p.nii.gz")
        np.testing.assert_array_equal(written.array_CIJK, expected)
    assert expected.any()
    np.testing.assert_array_equal(predict_case(bundle, file).array_CIJK, expected)
    one = run("predict", model, apart[0], "--out", tmp_path / "one")
    assert one.code == 1
    assert "holds 1 channels on its fourth axis, expected 2" in one.err


def test_a_channel_may_be_missing_only_if_training_put_zeros_for_it(
    run: Run, build_model: Callable[..., tuple[Bundle, Path]], tmp_path: Path
) -> None:
    image = np.random.default_rng(0).normal(100, 20, (1, 12, 11, 9)).astype(np.int16)
    second = write(tmp_path / "in/p/p-t2.nii.gz", image)
    zeros = write(tmp_path / "zeros.nii.gz", np.zeros((1, 12, 11, 9), np.int16))
    images = {name: f"{{case}}/{{case}}-{name}.nii.gz" for name in ("t1", "t2")}

    bundle, model = build_model(images=images, missing="zeros")
    ended = run("predict", model, tmp_path / "in", "--out", tmp_path / "out")
    assert ended.code == 0, ended.err
    written = read_label_map(tmp_path / "out/p.nii.gz").array_CIJK
    np.testing.assert_array_equal(written, predict_case(bundle, [zeros, second]).array_CIJK)
    np.testing.assert_array_equal(written, predict_case(bundle, [None, second]).array_CIJK)

    bundle, model = build_model(images=images)
    refused = run("predict", model, tmp_path / "in", "--out", tmp_path / "no")
    assert refused.code == 2
    assert "case 'p': no t1" in refused.err
    with pytest.raises(ValueError, match=r"needs t1, t2\. .*data\.missing=zeros trains others"):
        predict_case(bundle, [None, second])
