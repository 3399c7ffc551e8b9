"""How weights move: the optimiser, and the learning rate as a function of the step alone."""

from math import cos, pi

from torch import nn, optim

from medseg3d.config.train import TrainConfig

SGD_MOMENTUM = 0.99
POLY_POWER = 0.9


def build_optimizer(net: nn.Module, config: TrainConfig) -> optim.Optimizer:
    """Build AdamW, or SGD with Nesterov momentum 0.99."""
    if config.optimizer == "adamw":
        return optim.AdamW(
            net.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
    return optim.SGD(
        net.parameters(),
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        momentum=SGD_MOMENTUM,
        nesterov=True,
    )


def learning_rate_at(step: int, config: TrainConfig) -> float:
    """Give the learning rate of a step, counted from 0.

    A linear warm-up, then down to 0: along a cosine for AdamW, as (1 - t)^0.9 for SGD.
    """
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    steps = config.epochs * config.steps_per_epoch
    passed = (step - config.warmup_steps) / max(steps - config.warmup_steps, 1)
    if config.optimizer == "adamw":
        return config.learning_rate * (1 + cos(pi * passed)) / 2
    return float(config.learning_rate * (1 - passed) ** POLY_POWER)
