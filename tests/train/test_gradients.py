"""Gradients by stage: the norms are right, clipping is torch's, and who starves is named."""

import logging
from collections.abc import Callable

import pytest
import torch
from torch import nn

from medseg3d.config.network import UNetConfig
from medseg3d.nets.presets import build_net
from medseg3d.train.gradients import GradientWatch, stage_of


class Scaled(nn.Module):
    """A level whose output, and with it whose gradient, is all but lost."""

    def __init__(self, inside: nn.Module, factor: float) -> None:
        super().__init__()
        self.inside = inside
        self.factor = factor

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.factor * self.inside(features)


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(0)
    config = UNetConfig(channels=(4, 6, 8, 10), norm="none", deep_supervision=True)
    return build_net(config, spatial_dims=2, in_channels=1, out_channels=2)


@pytest.fixture
def learn(net: nn.Module) -> Callable[[], None]:
    """Give a function that leaves the gradient of a random image in the network."""

    def once() -> None:
        net.zero_grad()
        sum(output.pow(2).mean() for output in net(torch.randn(2, 1, 16, 16))).backward()

    return once


def test_stages_are_levels_nodes_and_heads(net: nn.Module) -> None:
    watch = GradientWatch(net)

    levels, nodes = [f"encoder.{n}" for n in range(4)], [f"decoder.{n}" for n in range(3)]
    assert [*watch.stages] == [*levels, *nodes, *(f"heads.{n}" for n in range(3))]
    parameters = [parameter for stage in watch.stages.values() for parameter in stage]
    assert [*map(id, parameters)] == [*map(id, net.parameters())]


@pytest.mark.parametrize(
    ("name", "stage"),
    [
        ("encoder.2.0.conv.weight", "encoder.2"),
        ("net.down_layers.1.conv.bias", "down_layers.1"),
        ("net.convInit.conv.weight", "convInit"),
        ("weight", "weight"),
    ],
)
def test_a_parameters_stage_is_in_its_name(name: str, stage: str) -> None:
    assert stage_of(name) == stage


def test_norms_are_the_mean_over_steps(net: nn.Module, learn: Callable[[], None]) -> None:
    watch, seen = GradientWatch(net), []
    for _ in range(3):
        learn()
        watch.clip(None)
        stage = torch.cat([p.grad.flatten() for p in net.encoder[1].parameters()])
        seen.append(float(stage.norm()))

    assert watch.end_epoch()["encoder.1"] == pytest.approx(sum(seen) / 3, rel=1e-5)
    assert set(watch.end_epoch().values()) == {0.0}, "an epoch begins with nothing"


@pytest.mark.parametrize("max_norm", [1e-3, 1e6])
def test_clipping_is_that_of_torch(
    net: nn.Module, learn: Callable[[], None], max_norm: float
) -> None:
    watch = GradientWatch(net)
    learn()
    before = [p.grad.clone() for p in net.parameters()]

    watch.clip(max_norm)

    found = [p.grad.clone() for p in net.parameters()]
    for parameter, gradient in zip(net.parameters(), before, strict=True):
        parameter.grad = gradient.clone()
    nn.utils.clip_grad_norm_(net.parameters(), max_norm)
    for gradient, parameter in zip(found, net.parameters(), strict=True):
        torch.testing.assert_close(gradient, parameter.grad, rtol=1e-6, atol=0)
    assert (max_norm == 1e6) == torch.equal(found[0], before[0])


def test_a_stage_that_is_cut_off_is_named_once(
    net: nn.Module, learn: Callable[[], None], caplog: pytest.LogCaptureFixture
) -> None:
    net.encoder[3] = Scaled(net.encoder[3], 1e-6)
    watch = GradientWatch(net)
    for _ in range(2):
        learn()
        watch.clip(12.0)
        watch.end_epoch()

    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    said = record.getMessage()
    assert "stage 'encoder.3' hardly learns" in said
    assert "below 1e-03" in said
    assert "network.deep_supervision=true" in said


def test_the_size_of_weights_does_not_starve_a_stage(
    net: nn.Module, caplog: pytest.LogCaptureFixture
) -> None:
    watch = GradientWatch(net)
    for number, stage in enumerate(watch.stages.values()):
        for parameter in stage:
            parameter.data *= 10.0 ** (-number)
            parameter.grad = 0.01 * parameter.data
    watch.clip(None)
    watch.end_epoch()

    assert not caplog.records


def test_a_sound_network_is_not_warned_of(
    net: nn.Module, learn: Callable[[], None], caplog: pytest.LogCaptureFixture
) -> None:
    watch = GradientWatch(net)
    for _ in range(5):
        learn()
        watch.clip(12.0)
    watch.end_epoch()
    watch.end_epoch()

    assert not caplog.records


def test_frozen_stages_are_not_watched_and_idle_ones_are_at_0(
    net: nn.Module, learn: Callable[[], None]
) -> None:
    net.encoder[0].requires_grad_(False)
    watch = GradientWatch(net)
    learn()
    for parameter in net.heads[2].parameters():
        parameter.grad = None
    watch.clip(1.0)

    norms = watch.end_epoch()

    assert "encoder.0" not in norms
    assert norms["heads.2"] == 0
    assert norms["heads.1"] > 0


def test_a_step_that_overflowed_does_not_count(net: nn.Module, learn: Callable[[], None]) -> None:
    watch = GradientWatch(net)
    learn()
    watch.clip(None)
    next(net.parameters()).grad.fill_(float("inf"))
    watch.clip(None)
    norms = watch.end_epoch()

    learn_norm = torch.cat([p.grad.flatten() for p in net.heads[0].parameters()]).norm()
    assert norms["heads.0"] == pytest.approx(float(learn_norm), rel=1e-5)
