"""A step of training on a CPU: ours beside plain fp32 and plain autocast, as one document of JSON.

    python benchmarks/training_step.py [full [ROUNDS]] > benchmarks/training_step.json

A step is forward, loss (Dice and cross-entropy), backward, clipping and AdamW, on two patches of
64³ voxels with 4 channels; the learning rate is 0, so that all steps are taken from the same
weights. `fp32` and `autocast` (bf16) run the network with the layers that torch has. turns.py tells
how all take turns, one thread; medians of ROUNDS (5). `gradient_error` is the distance from the
gradient of plain fp32 as a share of its length; tests/train/test_precision.py compares float64.

`memory`: the most memory that the first network's step adds to the process, in GiB, and its
CPU-seconds, with activation checkpointing too; of processes that allocate as it comes.

`small` in place of `full` gives no figures, but shows that all this runs. It takes ten minutes.
"""

import json
import resource
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from turns import OURS, Trial, describe_machine, fresh_process, take_turns

from medseg3d.config.loss import LossConfig
from medseg3d.labels import LabelScheme
from medseg3d.nets.ops import OPS
from medseg3d.nets.presets import NETS, build_net
from medseg3d.train.losses import build_loss
from medseg3d.train.precision import quicken

NARROW = {"channels": (16, 32, 64, 128)}
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "resunet, instance norm": ("resunet", NARROW | {"norm": "instance"}),
    "resenc_m": ("resenc_m", NARROW | {"encoder_blocks": (1, 3, 4, 6)}),
    "mobile_resunet": ("mobile_resunet", NARROW),
}
EDGE = {"full": 64, "small": 32}
LOSS = build_loss(LossConfig(), LabelScheme(values={1: "a", 2: "b", 3: "c"}), outputs="values")
WAYS = ("fp32", "autocast", f"{OURS} fp32", f"{OURS} bf16")


def main(scale: str = "full", rounds: str = "5") -> None:
    """Measure every network."""
    found: dict[str, Any] = {
        "date": datetime.now(UTC).date().isoformat(),
        **describe_machine(),
        "rounds": int(rounds),
    }
    for name in NETWORKS:
        found[name] = take_turns(prepare, int(rounds), name, EDGE[scale])
    found["memory"] = {
        f"{way}{', checkpointing' * saving}": measure_memory(way, saving, EDGE[scale])
        for way in WAYS[::3]
        for saving in (False, True)
    }
    print(json.dumps(found, indent=1))


def prepare(name: str, edge: int) -> Trial:
    """Build all ways, and find the gradient in plain fp32."""
    torch.set_num_threads(1)
    images, labels = draw(edge)
    truth = step(build(name, "fp32"), images, labels)
    ways = {way: build_step(name, way, images, labels) for way in WAYS}
    return Trial(
        ways, lambda found: {"gradient_error": float((found - truth).norm() / truth.norm())}
    )


def draw(edge: int) -> tuple[Tensor, Tensor]:
    """Draw two patches and their labels."""
    torch.manual_seed(0)
    return torch.randn(2, 4, *[edge] * 3), torch.randint(0, 4, (2, *[edge] * 3))


def build(name: str, way: str, **knobs: Any) -> nn.Module:
    """Build a network as a way has it; all have the same weights."""
    torch.manual_seed(0)
    kind, known = NETWORKS[name]
    plain = replace(OPS[3], conv=nn.Conv3d, depthwise_conv=nn.Conv3d, mean_pool=nn.AvgPool3d)
    with nullcontext() if way.startswith(OURS) else patch.dict(OPS, {3: plain}):
        net = build_net(
            NETS[kind].model_copy(update=known | knobs),
            spatial_dims=3,
            in_channels=4,
            out_channels=4,
        )
    return quicken(net.train(), "bf16" if way == f"{OURS} bf16" else "fp32")


def build_step(
    name: str, way: str, images: Tensor, labels: Tensor, **knobs: Any
) -> Callable[[], Tensor]:
    """Give what takes a step and gives its gradient."""
    net = build(name, way, **knobs)
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.0)
    half = not way.endswith("fp32")
    return partial(step, net, images, labels, optimizer=optimizer, half=half)


def step(
    net: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    optimizer: torch.optim.Optimizer | None = None,
    half: bool = False,
) -> Tensor:
    """Take a step; give its gradient before clipping."""
    net.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        outputs = net(images)
    LOSS(outputs, labels).backward()
    gradient = torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None])
    if optimizer:
        nn.utils.clip_grad_norm_(net.parameters(), 12.0)
        optimizer.step()
    return gradient.double()


def measure_memory(way: str, saving: bool, edge: int) -> dict[str, float]:
    """Take steps in a process of their own."""
    with fresh_process("as it comes") as pool:
        return pool.submit(step_alone, way, saving, edge).result()


def step_alone(way: str, saving: bool, edge: int) -> dict[str, float]:
    """Give what the second step takes, and the most memory that both add."""
    torch.set_num_threads(1)
    name, images_labels = next(iter(NETWORKS)), draw(edge)
    act = build_step(name, way, *images_labels, activation_checkpointing=saving)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    act()
    start = time.process_time()
    act()
    cpu_s = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"cpu_s": round(cpu_s, 3), "gib": round((peak - before) / 2**20, 3)}


if __name__ == "__main__":
    main(*sys.argv[1:])
