"""UNet++ at each of its depths."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from medseg3d.config.network import NestedConfig, ResUNetPlusPlusConfig, UNetPlusPlusConfig
from medseg3d.nets.presets import build_net
from medseg3d.nets.unet import UNet

CHANNELS = (4, 6, 8, 10, 12)


@pytest.fixture(params=[UNetPlusPlusConfig, ResUNetPlusPlusConfig])
def config(request: pytest.FixtureRequest) -> NestedConfig:
    return request.param(channels=CHANNELS, deep_supervision=True)


def build(config: NestedConfig, *, depth: int | None, dims: int = 2) -> UNet:
    torch.manual_seed(0)
    config = config.model_copy(update={"depth": depth})
    return build_net(config, spatial_dims=dims, in_channels=1, out_channels=2)


def reached(net: UNet, image: Tensor) -> set[Any]:
    """Compute, and give the encoder levels and the places of nodes and heads that were."""
    parts: dict[nn.Module, Any] = {level: (n, 0) for n, level in enumerate(net.encoder)}
    parts |= dict(zip(net.decoder, net.places, strict=True))
    heads = zip(net.heads, net.head_places, strict=True)
    parts |= {head: ("head", *place) for head, place in heads}
    called = set()
    hooks = [p.register_forward_hook(lambda part, *_: called.add(parts[part])) for p in parts]
    net(image)
    for hook in hooks:
        hook.remove()
    return called


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_a_depth_gives_what_its_head_gives_in_the_whole_network(config: NestedConfig, depth: int):
    image = torch.randn(2, 1, 32, 16, dtype=torch.float64)
    whole, shallow = (build(config, depth=d).double() for d in (None, depth))
    for norm in [m for net in (whole, shallow) for m in net.modules()]:
        if isinstance(norm, nn.BatchNorm2d):
            norm.track_running_stats = False  # so that training mode and eval mode agree
            norm.running_mean = norm.running_var = None
    expected = whole.train()(image)[4 - depth]
    torch.testing.assert_close(shallow.eval()(image), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_a_depth_computes_only_what_its_head_needs(config: NestedConfig, depth: int):
    net = build(config, depth=depth).eval()
    nodes = {(i, j) for i in range(depth + 1) for j in range(depth + 1 - i)}
    assert reached(net, torch.randn(1, 1, 16, 32)) == nodes | {("head", 0, depth)}


def test_training_computes_every_node_and_head_at_any_depth(config: NestedConfig):
    net = build(config, depth=1).train()
    nodes = {(i, j) for i in range(5) for j in range(5 - i)}
    heads = {("head", 0, j) for j in range(1, 5)}
    assert reached(net, torch.randn(2, 1, 16, 32)) == nodes | heads


def test_a_shallow_depth_needs_no_deep_level(config: NestedConfig):
    instance = config.model_copy(update={"norm": "instance"})
    assert build(instance, depth=1).eval()(torch.randn(1, 1, 16, 16)).isfinite().all()


def test_operations_fall_with_depth():
    counted = []
    for depth in (1, 2, 3, 4):
        config = UNetPlusPlusConfig(deep_supervision=True)
        with torch.device("meta"):
            net, image = build(config, depth=depth, dims=3).eval(), torch.empty(1, 1, 32, 32, 32)
        with FlopCounterMode(display=False) as counter:
            net(image)
        counted.append(counter.get_total_flops())
    shares = [flops / counted[-1] for flops in counted]
    assert shares == sorted(shares)
    assert shares[0] < 0.2
    assert shares[1] < 0.45
