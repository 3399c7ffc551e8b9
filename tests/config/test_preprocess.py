"""Knobs of preprocessing: what is refused, and in which words."""

from typing import Any

import pytest

from medseg3d.config.load import override_section
from medseg3d.config.preprocess import FixedScale, PreprocessConfig
from medseg3d.config.run import RunConfig
from medseg3d.errors import ConfigError

TWO_CHANNELS = {
    "data": {
        "folder": "f",
        "images": {"ct": "{case}_ct.nii", "pet": "{case}_pet.nii"},
        "labels": {"values": {1: "one"}},
    },
    "network": {"kind": "unet"},
}


@pytest.mark.parametrize(
    "wrong", ["zscores", "{mean: 1}", "{mean: 1, deviation: 0}", "[zscore, ct]", "[]", "3",
              "{mean: 0, deviation: 1, clip: [3, 3]}", "{mean: .nan, deviation: 1}"],
)  # fmt: skip
def test_a_wrong_scale_is_one_fault_that_says_what_is_right(wrong: str):
    with pytest.raises(ConfigError) as refused:
        override_section(PreprocessConfig(), [f"intensity={wrong}"])
    assert str(refused.value).startswith("--set: 1 fault(s)\n  intensity: expected none, zscore, ")
    assert "or a list of these, one per channel" in str(refused.value)


@pytest.mark.parametrize(
    "given", ["zscore_nonzero", {"mean": 1.0, "deviation": 2.0, "clip": [0.0, 3.0]},
              ["none", {"mean": 1.0, "deviation": 2.0}]],
)  # fmt: skip
def test_scales_survive_json_as_in_bundles(given: Any):
    config = PreprocessConfig.model_validate({"intensity": given})
    assert PreprocessConfig.model_validate_json(config.model_dump_json()) == config


def test_one_scale_is_for_all_channels_or_there_is_one_for_each():
    assert PreprocessConfig().scales(2) == ("zscore", "zscore")
    own = PreprocessConfig.model_validate({"intensity": [{"mean": 0, "deviation": 1}, "none"]})
    assert own.scales(2) == (FixedScale(mean=0, deviation=1), "none")


def test_a_run_has_no_more_scales_than_channels():
    with pytest.raises(ValueError, match=r"intensity has 1 entries, for 2 channels; give one for"):
        RunConfig.model_validate(TWO_CHANNELS | {"preprocess": {"intensity": ["zscore"]}})
