"""Reading a configuration: every fault at once, each with its path and a way out."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from medseg3d.config.load import load_config, override_section, parse_section
from medseg3d.config.run import RunConfig
from medseg3d.config.train import TrainConfig
from medseg3d.errors import ConfigError
from medseg3d.terms import TERMS


def a_run(**sections: Any) -> dict[str, Any]:
    """Give the least that makes a run, with sections added or replaced."""
    data = {
        "folder": "cases",
        "images": {"t1": "{case}/t1.nii.gz"},
        "labels": {"values": {1: "lesion"}},
    }
    return {"data": data, "network": {"kind": "resunet"}, **sections}


def refusal(content: Any, folder: Path, *settings: str) -> str:
    """Write a run's YAML, load it, and give the message it is refused with."""
    path = folder / "run.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    with pytest.raises(ConfigError) as refused:
        load_config(path, settings)
    return str(refused.value)


def test_labels_may_be_those_of_a_public_data_set(tmp_path: Path):
    content = a_run()
    content["data"]["labels"] = "btcv"
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(content))
    labels = load_config(path).data.labels
    assert (labels.name, labels.values[6], labels.codes["liver"]) == (
        "btcv",
        "liver",
        TERMS["liver"],
    )


class TestFaults:
    def test_all_faults_are_told_at_once_each_with_its_path(self, tmp_path: Path):
        content = a_run(
            trian={"epochs": 3},
            train={"epochs": 0, "batchsize": 2, "augment": {"scal": [1, 1]}},
            network={"kind": "resunet", "chanels": [8, 16], "norm": "batsh"},
        )
        del content["data"]["labels"]
        said = refusal(content, tmp_path)
        assert said.splitlines()[0] == f"{tmp_path / 'run.yaml'}: 7 fault(s)"
        for fault in (
            "data.labels: required, but not set",
            "network.chanels: unknown key; did you mean 'channels'?",
            "network.norm: input should be 'batch', 'instance', 'group' or 'none' (got 'batsh')",
            "train.epochs: input should be greater than 0 (got 0)",
            "train.batchsize: unknown key; did you mean 'batch_size'?",
            "train.augment.scal: unknown key; did you mean 'scale'?",
            "trian: unknown key; did you mean 'train'?",
        ):
            assert f"\n  {fault}" in said

    @pytest.mark.parametrize(
        ("network", "fault"),
        [
            ({"kind": "resnet"}, "network.kind: unknown 'resnet'; did you mean 'resunet'?"),
            ({"kind": 3}, "network.kind: unknown '3'; known here: unet, resunet"),
            ({"channels": [8, 16]}, "network.kind: required, but not set"),
            ("resunet", "network: input should be a valid dictionary"),
            ({"kind": "unet", "strides": [2]}, "network: strides has 1 entries, 5 levels"),
            ({"kind": "unet", "encoder_blocks": [2, 0]}, "network.encoder_blocks"),
        ],
    )
    def test_a_fault_inside_the_network_is_told_without_pydantics_tags(
        self, tmp_path: Path, network: Any, fault: str
    ):
        said = refusal(a_run(network=network), tmp_path)
        assert f"\n  {fault}" in said
        assert "network.unet" not in said
        assert "network.resunet" not in said

    def test_a_key_that_resembles_none_is_answered_with_all_known_ones(self, tmp_path: Path):
        said = refusal(a_run(predict={"xyzzy": 1}), tmp_path)
        assert "predict.xyzzy: unknown key; known here: tile_size, overlap, tile_batch, dev" in said

    @pytest.mark.parametrize(
        ("sections", "fault"),
        [
            ({"train": {"patch_size": [64, 64]}}, "train.patch_size has 2 numbers, a 3D network"),
            ({"predict": {"tile_size": [8]}}, "predict.tile_size has 1 numbers, a 3D network"),
            ({"spatial_dims": 2}, "train.patch_size has 3 numbers, a 2D network needs 2"),
            ({"spatial_dims": 4}, "spatial_dims: input should be 2 or 3 (got 4)"),
        ],
    )
    def test_sizes_of_another_dimension_are_refused(
        self, tmp_path: Path, sections: dict[str, Any], fault: str
    ):
        assert fault in refusal(a_run(**sections), tmp_path)

    @pytest.mark.parametrize(
        ("key", "value", "fault"),
        [
            ("images", {"t1": "t1.nii.gz"}, "data.images.t1: a pattern holds '{case}' where"),
            ("images", {"t1": "/x/{case}.nii"}, "data.images.t1: a pattern begins below the fol"),
            ("images", {}, "data.images: dictionary should have at least 1 item"),
            ("reference", "seg.nii.gz", "data.reference: a pattern holds '{case}'"),
            ("split", {"fold": 5}, "data.split: fold 5 of 5 folds; they count from 0"),
            ("split", {"seed": -1}, "data.split.seed: input should be greater than or equal to 0"),
            ("labels", {"values": {0: "a"}}, "data.labels.values.0"),
            ("labels", {"values": {1: "a", 2: "a"}}, "data.labels: two values share a name"),
            ("labels", {"values": {1: "a"}, "colour": {}}, "did you mean 'colors'?"),
            ("labels", "btvc", "data.labels: no label scheme 'btvc'; did you mean 'btcv'?"),
            ("labels", "xyz", "data.labels: no label scheme 'xyz'; known are brats2015, brats2017"),
        ],
    )
    def test_impossible_data_is_refused(self, tmp_path: Path, key: str, value: Any, fault: str):
        content = a_run()
        content["data"][key] = value
        assert fault in refusal(content, tmp_path)


class TestFiles:
    def test_a_missing_file_is_named(self, tmp_path: Path):
        with pytest.raises(ConfigError, match=r"none\.yaml' cannot be read: .*No such file"):
            load_config(tmp_path / "none.yaml")

    def test_a_file_that_is_not_text_is_refused(self, tmp_path: Path):
        path = tmp_path / "run.yaml"
        path.write_bytes(b"\xff\xfe\x00")
        with pytest.raises(ConfigError, match=r"run\.yaml' cannot be read: 'utf-8' codec"):
            load_config(path)

    def test_broken_yaml_is_told_with_its_line(self, tmp_path: Path):
        said = refusal("data:\n  folder: [x\n", tmp_path)
        assert "is not YAML" in said
        assert "line 2" in said

    @pytest.mark.parametrize(
        ("text", "kind"), [("- data\n", "list"), ("", "NoneType"), ("data", "str")]
    )
    def test_yaml_without_sections_is_refused(self, tmp_path: Path, text: str, kind: str):
        assert f"holds {kind}, expected keys with values" in refusal(text, tmp_path)

    def test_what_is_loaded_survives_json_and_yaml(self, tmp_path: Path):
        content = a_run(
            preprocess={"spacing_mm": [1, 1.5, 2]},
            network={"kind": "unet", "channels": [4, 8], "strides": [[2, 2, 1]]},
        )
        path = tmp_path / "run.yaml"
        path.write_text(yaml.safe_dump(content))
        config = load_config(path)
        path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
        assert load_config(path) == config
        assert config.preprocess.spacing_mm == (1.0, 1.5, 2.0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(a_run(train={"epochs": 7, "seed": 3})))
    return path


class TestSettings:
    def test_a_setting_wins_over_the_file_and_leaves_its_neighbours(self, path: Path):
        settings = ["train.epochs=20", "train.augment.scale=[0.5, 2]", "predict.device=cpu"]
        config = load_config(path, settings)
        assert (config.train.epochs, config.train.seed) == (20, 3)
        assert config.train.augment.scale == (0.5, 2.0)
        assert config.predict.device == "cpu"

    def test_the_last_of_two_settings_wins(self, path: Path):
        assert load_config(path, ["train.epochs=1", "train.epochs=2"]).train.epochs == 2

    def test_a_value_is_yaml_and_may_hold_an_equals_sign(self, path: Path):
        settings = ["data.folder=a=b", "train.clip_norm=null", "train.learning_rate=1e-2"]
        config = load_config(path, settings)
        assert config.data.folder == Path("a=b")
        assert config.train.clip_norm is None
        assert config.train.learning_rate == 0.01

    def test_another_network_takes_its_own_defaults(self, path: Path):
        network = load_config(path, ["network.kind=unet"]).network
        assert (network.kind, network.skip_fusion) == ("unet", "concat")

    @pytest.mark.parametrize("setting", ["train.epochs", "=3", ""])
    def test_a_setting_without_key_or_value_is_refused(self, path: Path, setting: str):
        with pytest.raises(ConfigError, match=r"^--set '.*': expected section\.key=value$"):
            load_config(path, [setting])

    def test_a_value_that_is_not_yaml_is_text(self, path: Path):
        pattern = "{case}/{case}_t1.nii.gz"
        assert load_config(path, [f"data.images.t1={pattern}"]).data.images["t1"] == pattern
        with pytest.raises(ConfigError, match=r"train\.patch_size: input should be .*got '\[1'"):
            load_config(path, ["train.patch_size=[1"])

    def test_unknown_keys_of_settings_are_told_with_those_of_the_file(self, path: Path):
        with pytest.raises(ConfigError) as refused:
            load_config(path, ["train.epoch=1", "preprocess.croop=none"])
        assert "train.epoch: unknown key; did you mean 'epochs'?" in str(refused.value)
        assert "preprocess.croop: unknown key; did you mean 'crop'?" in str(refused.value)

    def test_a_section_is_overridden_as_a_copy(self):
        before = TrainConfig(seed=5)
        after = override_section(before, ["epochs=3", "augment.rotation_degrees=0"])
        assert (before.epochs, after.epochs, after.seed) == (100, 3, 5)
        assert after.augment.rotation_degrees == 0
        assert after.model_copy(update={"epochs": 100, "augment": before.augment}) == before

    def test_a_section_tells_where_a_faulty_setting_came_from(self):
        with pytest.raises(ConfigError, match=r"^--set: 1 fault\(s\)\n  epoch: unknown key; did"):
            override_section(TrainConfig(), ["epoch=3"])


def test_plain_data_is_checked_under_the_name_of_its_source():
    with pytest.raises(ConfigError, match=r"^a bundle: 2 fault\(s\)\n  data: required, but"):
        parse_section(RunConfig, {}, source="a bundle")


class TestValues:
    @pytest.mark.parametrize("orientation", ["RA", "RAR", "RAX", "R A", "RASL", "ras", " PI"])
    def test_an_orientation_names_each_axis_once(self, path: Path, orientation: str):
        with pytest.raises(ConfigError, match=r"preprocess\.orientation: an orientation is one"):
            load_config(path, [f"preprocess.orientation='{orientation}'"])

    def test_an_axis_is_mirrored_once(self, path: Path):
        with pytest.raises(ConfigError, match=r"mirror_axes: an axis is named twice"):
            load_config(path, ["train.augment.mirror_axes=[0, 1, 0]"])

    def test_a_range_rises(self, path: Path):
        with pytest.raises(ConfigError, match=r"scale: a range is given as smallest, largest"):
            load_config(path, ["train.augment.scale=[1.2, 0.8]"])


def test_a_key_given_twice_is_refused(tmp_path: Path):
    (tmp_path / "run.yaml").write_text("train: {epochs: 3}\ntrain: {epochs: 4}\n")
    with pytest.raises(ConfigError, match="is not YAML: train stands there twice"):
        load_config(tmp_path / "run.yaml")


def test_a_preset_that_would_change_nothing_is_refused(tmp_path: Path):
    given = parse_section(RunConfig, a_run(), source="test").model_dump(mode="json")
    said = refusal(given, tmp_path, "train.augment.preset=nnunet")
    assert "every knob of train.augment is given already" in said
    assert "begin anew with train.augment=nnunet" in said
    run = load_config(tmp_path / "run.yaml", ["train.augment=nnunet"])
    assert run.train.augment.rotation_degrees == 30
    same = load_config(tmp_path / "run.yaml", ["train.augment.preset=light"])
    assert same == parse_section(RunConfig, given, source="test")


def test_a_preset_leaves_what_a_file_says(tmp_path: Path):
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(a_run(train={"augment": {"mirror_axes": [0, 2]}})))
    augment = load_config(path, ["train.augment.preset=nnunet"]).train.augment
    assert augment.mirror_axes == (0, 2)
    assert augment.rotation_degrees == 30
