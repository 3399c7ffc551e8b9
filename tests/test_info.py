"""What networks cost, against sums by hand."""

import pytest

from medseg3d.config.network import MonaiConfig, ResUNetConfig, UNetConfig, UNetPlusPlusConfig
from medseg3d.info import describe
from medseg3d.nets.cost import measure_cost
from medseg3d.nets.presets import NETS

SMALL = UNetConfig(channels=(4, 6), encoder_blocks=1, decoder_blocks=1, norm="none")


def test_operations_are_those_of_every_convolution():
    cost = measure_cost(SMALL, spatial_dims=2, tile=(16, 16))
    macs_fine = (1 * 4 + (4 + 4) * 4) * 9 + 4 * 2  # encoder, decoder, head
    macs_coarse = 4 * 6 * 9 + 6 * 4 * 4  # encoder, and four fine voxels for each coarse one
    assert cost.tflops * 1e12 == pytest.approx(2 * (macs_fine * 256 + macs_coarse * 64))


def test_memory_is_what_autograd_saves_each_storage_once():
    cost = measure_cost(SMALL, spatial_dims=2, tile=(16, 16))
    # fine: ReLU of the encoder, concatenation, ReLU of the decoder; coarse: pooled, ReLU; 8 bytes
    # for the place of each maximum
    expected = 4 * ((4 + 8 + 4) * 256 + (4 + 6) * 64) + 8 * 4 * 64
    assert cost.activations_gib * 2**30 == pytest.approx(expected)


def test_checkpointing_shows_in_memory_but_not_in_operations():
    thrifty = NETS["unet"].model_copy(update={"activation_checkpointing": True})
    usual, less = (measure_cost(config, spatial_dims=3) for config in (NETS["unet"], thrifty))
    assert less.activations_gib < 0.4 * usual.activations_gib
    assert less.tflops == usual.tflops


def test_a_tile_is_enlarged_to_one_that_the_network_can_halve():
    config = ResUNetConfig(channels=(4, 6, 8), strides=(2, (1, 2)))
    assert measure_cost(config, spatial_dims=2, tile=(9, 9)).tile == (10, 12)


@pytest.mark.slow
def test_depth_shows_in_operations():
    config = UNetPlusPlusConfig(deep_supervision=True)
    tflops = [
        measure_cost(config.model_copy(update={"depth": depth}), spatial_dims=3).tflops
        for depth in (1, 2, 3, 4)
    ]
    assert tflops == sorted(tflops)


def test_networks_of_monai_are_measured_too():
    assert measure_cost(MonaiConfig(name="SegResNet"), spatial_dims=3).tflops > 0.05
    assert describe("monai/SegResNet")["parameters_3d"] > 1e5


@pytest.mark.slow
@pytest.mark.parametrize("name", NETS)
def test_every_preset_is_described(name: str):
    facts = describe(name)
    assert facts["channels"]
    for dims in (2, 3):
        for fact in ("parameters", "tflops", "activations_gib"):
            assert facts[f"{fact}_{dims}d"] > 0
