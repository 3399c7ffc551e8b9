"""How weights move: the optimiser, and the learning rate as a function of the step alone."""

from collections.abc import Callable
from functools import partial
from math import cos, pi

from torch import nn, optim

from medseg3d.config.train import TrainConfig

SGD_MOMENTUM = 0.99
POLY_POWER = 0.9


def build_optimizer(net: nn.Module, config: TrainConfig) -> optim.Optimizer:
    """Build AdamW, or SGD with Nesterov momentum 0.99, of all weights that are not frozen."""
    learnt = [parameter for parameter in net.parameters() if parameter.requires_grad]
    build: Callable[..., optim.Optimizer] = optim.AdamW
    if config.optimizer == "sgd":
        build = partial(optim.SGD, momentum=SGD_MOMENTUM, nesterov=True)
    return build(
        learnt,
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        fused=config.precision != "fp16",  # several times quicker, but Fabric cannot clip then
    )


def learning_rate_at(step: int, config: TrainConfig) -> float:
    """Give the learning rate of a step, counted from 0: up in a line, then down to 0, or level."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    steps = config.epochs * config.steps_per_epoch
    passed = (step - config.warmup_steps) / max(steps - config.warmup_steps, 1)
    schedule = config.schedule
    if schedule == "auto":
        schedule = "cosine" if config.optimizer == "adamw" else "poly"
    if schedule == "cosine":
        return config.learning_rate * (1 + cos(pi * passed)) / 2
    if schedule == "poly":
        return float(config.learning_rate * (1 - passed) ** POLY_POWER)
    return config.learning_rate
