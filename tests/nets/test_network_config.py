"""The knobs of networks, and which of them cannot go together."""

import pytest
from pydantic import TypeAdapter, ValidationError

from medseg3d.config.network import (
    NetworkConfig,
    ResUNetConfig,
    ResUNetLinearConfig,
    UNetConfig,
)
from medseg3d.nets.presets import NETS

CONFIGS: TypeAdapter[NetworkConfig] = TypeAdapter(NetworkConfig)


def test_kind_chooses_the_network_and_other_knobs_keep_their_defaults():
    assert CONFIGS.validate_python({"kind": "unet"}) == UNetConfig()
    assert CONFIGS.validate_python({"kind": "resunet", "channels": [8, 16]}) == ResUNetConfig(
        channels=(8, 16)
    )


def test_config_survives_json():
    config = ResUNetConfig(
        channels=(8, 16, 32), encoder_blocks=(1, 2, 3), strides=(2, (1, 2, 2)), attention="se"
    )
    assert CONFIGS.validate_json(CONFIGS.dump_json(config)) == config


@pytest.mark.parametrize("kind", sorted(set(NETS) - {"resenc_l"}))
@pytest.mark.parametrize(
    ("knobs", "said"),
    [
        ({"encoder_blocks": [1, 2]}, "encoder_blocks has 2 entries, 3 levels of channels need 3"),
        ({"decoder_blocks": [1]}, "decoder_blocks has 1 entries, 3 levels of channels need 2"),
        ({"strides": [2, 2, 2]}, "strides has 3 entries, 3 levels of channels need 2"),
        ({"kernel_sizes": [3, 3]}, "kernel_sizes has 2 entries, 3 levels of channels need 3"),
        ({"kernel_sizes": [3, [1, 3, 2], 3]}, r"kernel_sizes must be odd, got \(3, \(1, 3, 2\), 3"),
        (
            {"upsampling": "linear", "skip_fusion": "add"},
            "'add' cannot go with upsampling 'linear'",
        ),
        ({"channels": [4, 8], "deep_supervision": True}, "needs at least three levels"),
        ({"channels": [4]}, "at least 2 items"),
        (
            {"upsampling": "linear_aligned", "skip_fusion": "add"},
            "'add' cannot go with upsampling 'linear_aligned'",
        ),
        ({"norm": "layer"}, "'batch', 'instance', 'group' or 'none'"),
        ({"width": 3}, "width"),
    ],
)
def test_knobs_that_cannot_be_are_refused_by_name(kind: str, knobs: dict, said: str):
    sound = {"channels": [4, 8, 16], "encoder_blocks": 1, "downsampling": "stride"}
    with pytest.raises(ValidationError, match=said):
        CONFIGS.validate_python({"kind": kind, **sound, **knobs})


@pytest.mark.parametrize(
    ("knobs", "said"),
    [
        (
            {"kind": "resunet", "shortcut_pool": True},
            "shortcut_pool cannot go with downsampling 'pool'",
        ),
        (
            {"kind": "unetplusplus", "depth": 2},
            "depth 2 has no head without deep_supervision, only 4",
        ),
        ({"kind": "resunetplusplus", "depth": 5}, r"depth is 5; 5 levels have depths 1\.\.4"),
        ({"kind": "unet", "depth": 2}, "depth"),
        ({"kind": "unet", "projection": "always"}, "projection"),
        ({"kind": "monai"}, "name"),
        ({"kind": "segformer"}, "'resenc_m', 'resenc_l', 'mobile_resunet', 'monai'"),
    ],
)
def test_knobs_of_one_family_are_refused_by_name(knobs: dict, said: str):
    with pytest.raises(ValidationError, match=said):
        CONFIGS.validate_python(knobs)


def test_a_new_default_keeps_the_sentence_of_the_knob():
    sentence = UNetConfig.model_fields["norm"].description
    assert sentence
    assert ResUNetLinearConfig.model_fields["norm"].description == sentence
    assert ResUNetLinearConfig().norm == "none"
