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
