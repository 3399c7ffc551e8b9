"""A nested network cut to a depth is the same network, only smaller."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from medseg3d.config.network import NestedConfig, ResUNetPlusPlusConfig, UNetPlusPlusConfig
from medseg3d.deploy.prune import prune_bundle
from medseg3d.errors import ConfigError
from medseg3d.nets.bundle import Bundle, build_recipe_net, load_bundle, reuse_weights, save_bundle

BuildBundle = Callable[..., Bundle]
KNOBS = {
    "channels": (4, 6, 8, 10),
    "encoder_blocks": (1, 2, 1, 1),
    "decoder_blocks": (1, 2, 1),
    "strides": (2, (1, 2), 2),
    "kernel_sizes": (3, 3, (1, 3), 3),
    "dropout": 0.3,
}


def build_nested(build_bundle: BuildBundle, config: NestedConfig) -> Bundle:
    """Build a 2D bundle whose running statistics are not fresh."""
    plain = build_bundle("t1", spatial_dims=2, tile=16)
    recipe = plain.recipe.model_copy(update={"network": config})
    torch.manual_seed(0)
    net = build_recipe_net(recipe).train()
    net(torch.randn(2, 1, 16, 16))
    return Bundle(net.eval(), recipe, "0.0.test")


@pytest.fixture(params=[UNetPlusPlusConfig, ResUNetPlusPlusConfig])
def bundle(request: pytest.FixtureRequest, build_bundle: BuildBundle) -> Bundle:
    return build_nested(build_bundle, request.param(**KNOBS, deep_supervision=True))


def at_depth(bundle: Bundle, depth: int) -> Bundle:
    network = bundle.recipe.network.model_copy(update={"depth": depth})
    return reuse_weights(bundle, bundle.recipe.model_copy(update={"network": network}))


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_what_is_left_predicts_the_same_and_is_smaller(bundle: Bundle, depth: int, tmp_path: Path):
    save_bundle(prune_bundle(bundle, depth=depth), tmp_path / "small.safetensors")
    pruned = load_bundle(tmp_path / "small.safetensors")
    image = torch.randn(1, 1, 16, 32)
    with torch.inference_mode():
        assert torch.equal(pruned.net(image), at_depth(bundle, depth).net(image))
    sizes = [sum(p.numel() for p in b.net.parameters()) for b in (pruned, bundle)]
    assert sizes[0] < sizes[1] or depth == 3
    assert len(pruned.net.encoder) == depth + 1


def test_what_is_left_can_be_cut_again(bundle: Bundle):
    image = torch.randn(1, 1, 16, 16)
    twice = prune_bundle(prune_bundle(bundle, depth=2), depth=1)
    with torch.inference_mode():
        assert torch.equal(twice.net(image), prune_bundle(bundle, depth=1).net(image))


def test_the_whole_bundle_stays_as_it_is(bundle: Bundle):
    before = {name: tensor.clone() for name, tensor in bundle.net.state_dict().items()}
    prune_bundle(bundle, depth=1)
    after = bundle.net.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_a_depth_without_a_head_is_refused(bundle: Bundle, build_bundle: BuildBundle):
    with pytest.raises(ConfigError, match=r"depth is 4; 4 levels have depths 1\.\.3"):
        prune_bundle(bundle, depth=4)
    with pytest.raises(ConfigError, match=r"network\.depth.*greater than 0"):
        prune_bundle(bundle, depth=0)
    single = build_nested(build_bundle, UNetPlusPlusConfig(**KNOBS))
    with pytest.raises(ConfigError, match="depth 2 has no head without deep_supervision"):
        prune_bundle(single, depth=2)


def test_a_network_that_is_not_nested_is_refused(build_bundle: BuildBundle):
    with pytest.raises(ConfigError, match="'resunet' cannot be cut to a depth; nested networks"):
        prune_bundle(build_bundle("t1"), depth=1)
