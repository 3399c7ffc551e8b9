"""Networks by name."""

import pytest
import torch

from medseg3d.errors import ConfigError
from medseg3d.nets.presets import BLOCKS, NETS, build_net


def test_every_preset_is_a_kind_that_has_blocks_and_no_knob_turned():
    assert set(NETS) == set(BLOCKS)
    for name, config in NETS.items():
        assert config == type(config)(kind=name)


def test_a_name_is_as_good_as_its_config():
    by_name = build_net("resunet", spatial_dims=2, in_channels=1, out_channels=2)
    by_config = build_net(NETS["resunet"], spatial_dims=2, in_channels=1, out_channels=2)
    assert str(by_name) == str(by_config)


def test_fresh_weights_have_the_deviation_of_he_and_biases_are_0():
    torch.manual_seed(0)
    config = NETS["unet"].model_copy(update={"channels": (8, 50)})
    net = build_net(config, spatial_dims=3, in_channels=1, out_channels=2)
    conv = net.encoder[1][-1][0]
    assert conv.weight.shape == (50, 50, 3, 3, 3)
    assert conv.weight.std().item() == pytest.approx((2 / (50 * 27)) ** 0.5, rel=0.02)
    assert not net.heads[0].bias.any()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"net": "resunett"}, "no network is called 'resunett'; there are unet, resunet_shortcut,"),
        ({"net": "resunett"}, "mobile_resunet, monai/<Name>; did you mean 'resunet'?"),
        (
            {"net": NETS["resenc_m"].model_copy(update={"channels": (4, 8)})},
            "encoder_blocks has 6 entries, 2 levels of channels need 2",
        ),
        ({"spatial_dims": 4}, r"spatial_dims is 4; networks have [2, 3]"),
        ({"in_channels": 0}, "in_channels is 0; a network needs at least one"),
        ({"out_channels": -1}, "out_channels is -1"),
        (
            {"net": NETS["unet"].model_copy(update={"strides": (2, 2, (1, 2), 2)})},
            "a 3D network have 3 numbers each, or one for all axes; got (1, 2)",
        ),
        (
            {"net": NETS["unet"].model_copy(update={"kernel_sizes": (3, (3, 3), 3, 3, 3)})},
            "got (3, 3)",
        ),
    ],
)
def test_what_cannot_be_built_is_refused_by_name(arguments: dict, said: str):
    sound = {"net": "unet", "spatial_dims": 3, "in_channels": 1, "out_channels": 2}
    with pytest.raises(ConfigError) as refusal:
        build_net(**{**sound, **arguments})
    assert said in str(refusal.value)
