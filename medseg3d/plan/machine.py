"""What a training can have of the machine it is planned on: memory, precision, speed."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from time import perf_counter
from typing import Final, Literal

import torch

from medseg3d.config.recipe import build_recipe
from medseg3d.config.run import RunConfig
from medseg3d.errors import ConfigError
from medseg3d.nets.bundle import build_recipe_net
from medseg3d.predict.engine import native_precision
from medseg3d.predict.limits import available_bytes, parse_memory

TIMED_VOXELS: Final = 2**18
"""Voxels of the patch that a CPU is timed with; larger ones take as much longer."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What a plan is for."""

    memory: int
    """Bytes that training may take."""
    device: Literal["cpu", "cuda"] = "cpu"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"


def find_machine(memory: str | None = None) -> Machine:
    """Find the device that training would take, and the memory that is free or asked for.

    Raises:
        ConfigError: `memory` is no number of bytes, or there is none and the system does not tell.
    """
    asked = parse_memory(memory) if memory else None
    if torch.cuda.is_available():
        free, _ = torch.cuda.mem_get_info()
        bf16 = native_precision(torch.device("cuda")) == "bf16"
        return Machine(asked or free, "cuda", "bf16" if bf16 else "fp16")
    left = asked or available_bytes()
    if left is None:
        raise ConfigError("this system does not tell how much memory is free; give --memory 8GiB")
    return Machine(left)


def time_step(config: RunConfig, machine: Machine) -> float:
    """Give the seconds of a training step, timed on a patch that is smaller where there is no GPU.

    Loading and changing patches is not counted.
    """
    device = torch.device(machine.device)
    net = build_recipe_net(build_recipe(config)).to(device)
    patch = [*config.train.patch_size]
    if machine.device == "cpu":
        patch = _timed_patch(patch, getattr(net, "divisor", patch))
    half = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(machine.precision)
    image = torch.zeros(2, len(config.data.images), *patch, device=device)
    seconds = []
    for _ in range(3):
        started = perf_counter()
        with torch.autocast(device.type, dtype=half, enabled=half is not None):
            outputs = net(image)
        outputs = outputs if isinstance(outputs, list) else [outputs]
        torch.autograd.backward([output.float().square().mean() for output in outputs])
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(perf_counter() - started)
    grown = config.train.batch_size * prod(config.train.patch_size) / (2 * prod(patch))
    return min(seconds) * grown


def _timed_patch(patch: Sequence[int], divisor: Sequence[int]) -> list[int]:
    """Shorten the axes that a network divides most often, to two of its divisors at least."""
    timed = [*patch]
    while prod(timed) > TIMED_VOXELS:
        parts = [length // by for length, by in zip(timed, divisor, strict=True)]
        if max(parts) <= 2:
            break
        axis = parts.index(max(parts))
        timed[axis] -= divisor[axis]
    return timed
