"""The knobs of networks, and which of them cannot go together."""

import pytest
from pydantic import TypeAdapter, ValidationError

from medseg3d.config.network import NetworkConfig, ResUNetConfig, UNetConfig

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


@pytest.mark.parametrize("kind", ["unet", "resunet"])
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
        ({"norm": "layer"}, "'batch', 'instance', 'group' or 'none'"),
        ({"width": 3}, "width"),
    ],
)
def test_knobs_that_cannot_be_are_refused_by_name(kind: str, knobs: dict, said: str):
    with pytest.raises(ValidationError, match=said):
        CONFIGS.validate_python({"kind": kind, "channels": [4, 8, 16], **knobs})
