"""The learning rate is a function of the step; the optimiser is the one that was asked for."""

import pytest
import torch

from medseg3d.config.train import TrainConfig
from medseg3d.train.optim import build_optimizer, learning_rate_at

SHORT = {"epochs": 10, "steps_per_epoch": 10, "learning_rate": 0.2}


def test_adamw_falls_along_a_half_cosine() -> None:
    config = TrainConfig(**SHORT)

    rates = [learning_rate_at(step, config) for step in (0, 25, 50, 100)]

    assert rates == pytest.approx([0.2, 0.1 * (1 + 0.5**0.5), 0.1, 0])


def test_sgd_falls_as_a_polynomial() -> None:
    config = TrainConfig(**SHORT, optimizer="sgd")

    assert [learning_rate_at(s, config) for s in (0, 50)] == pytest.approx([0.2, 0.2 * 0.5**0.9])


def test_the_warm_up_rises_to_the_highest_rate() -> None:
    config = TrainConfig(**SHORT, warmup_steps=4)

    rates = [learning_rate_at(step, config) for step in range(6)]

    assert rates[:5] == pytest.approx([0.05, 0.1, 0.15, 0.2, 0.2])
    assert rates[5] < 0.2


@pytest.mark.parametrize(("name", "kind"), [("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD)])
def test_the_optimizer_is_the_one_asked_for(name: str, kind: type) -> None:
    config = TrainConfig(optimizer=name, weight_decay=0.3)

    optimizer = build_optimizer(torch.nn.Linear(2, 2), config)

    assert type(optimizer) is kind
    assert optimizer.defaults["weight_decay"] == 0.3
    assert name == "adamw" or (optimizer.defaults["nesterov"] and optimizer.defaults["momentum"])


@pytest.mark.parametrize(
    ("optimizer", "schedule", "half_way"),
    [
        ("adamw", "auto", 0.1),
        ("adamw", "poly", 0.2 * 0.5**0.9),
        ("adamw", "constant", 0.2),
        ("sgd", "auto", 0.2 * 0.5**0.9),
        ("sgd", "cosine", 0.1),
        ("sgd", "constant", 0.2),
    ],
)
def test_the_schedule_is_the_optimizers_own_or_the_one_asked_for(
    optimizer: str, schedule: str, half_way: float
) -> None:
    config = TrainConfig(**SHORT, optimizer=optimizer, schedule=schedule)

    assert learning_rate_at(0, config) == 0.2
    assert learning_rate_at(50, config) == pytest.approx(half_way)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_frozen_weights_stay_bit_by_bit_also_under_decay(name: str, precision: str) -> None:
    config = TrainConfig(optimizer=name, weight_decay=0.3, precision=precision)
    net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 1))
    net[0].requires_grad_(False)
    before = [parameter.clone() for parameter in net.parameters()]

    optimizer = build_optimizer(net, config)
    net(torch.ones(1, 2)).sum().backward()
    optimizer.step()

    same = [torch.equal(*pair) for pair in zip(before, net.parameters(), strict=True)]
    assert same == [True, True, False, False]
