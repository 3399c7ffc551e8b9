"""Figures of the networks, each printed as one document of JSON.

    python benchmarks/networks.py times > benchmarks/networks.json
    python benchmarks/networks.py openvino > benchmarks/openvino.json
    python benchmarks/networks.py hippocampus FOLDER [MINUTES] > benchmarks/hippocampus.json

`times`: CPU-seconds of one 64³ tile through each preset, and through UNet++ at each depth, in
float32 on one thread; the least of five. docs/reference/networks.md is made from all three.
`openvino`: the same for resunet and mobile_resunet by OpenVINO (pip install openvino), in float32
and bfloat16, and by how much of the logits' range they differ from torch's.
`hippocampus`: each run in configs/networks/ on the data set in FOLDER, trained for the same number
of CPU-minutes (10): mean validation Dice, parameters, and CPU-seconds of `predict` per case. The
steps that fit into the budget are estimated from a run of 20; about MINUTES × 9 × 1.2 in all.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medseg3d.config.network import NetworkConfig
from medseg3d.info import describe
from medseg3d.nets.presets import NETS, build_net

CONFIGS = Path(__file__).parents[1] / "configs" / "networks"
SIZE = 64


def times() -> dict[str, Any]:
    """Time every preset, and UNet++ at every depth."""
    torch.set_num_threads(1)
    supervised = NETS["unetplusplus"].model_copy(update={"deep_supervision": True})
    seconds = {name: time_forward(NETS[name]) for name in NETS if name != "resenc_l"}
    depths = {
        depth: time_forward(supervised.model_copy(update={"depth": depth}))
        for depth in (1, 2, 3, 4)
    }
    wide = NETS["mobile_resunet"].model_copy(update={"channels": NETS["resunet"].channels})
    return {
        "torch": torch.__version__,
        "size": SIZE,
        "cpu_s": seconds,
        "mobile_resunet_as_wide_as_resunet_cpu_s": time_forward(wide),
        "unetplusplus_cpu_s": depths,
    }


def time_forward(config: NetworkConfig) -> float:
    """Give the CPU-seconds of one tile."""
    net = build_net(config, spatial_dims=3, in_channels=1, out_channels=3).eval()
    image = torch.randn(1, 1, SIZE, SIZE, SIZE)
    with torch.inference_mode():
        return least_cpu_s(lambda: net(image))


def least_cpu_s(run_once: Callable[[], object]) -> float:
    """Time something six times; the first one warms up."""
    measured = []
    for _ in range(6):
        start = time.process_time()
        run_once()
        measured.append(time.process_time() - start)
    return round(min(measured[1:]), 3)


def by_openvino() -> dict[str, Any]:
    """Time the two that are compared for speed."""
    import openvino  # noqa: PLC0415  an extra that no other figure needs

    core = openvino.Core()
    figures: dict[str, Any] = {"openvino": openvino.__version__, "size": SIZE}
    for name in ("resunet", "mobile_resunet"):
        net = build_net(NETS[name], spatial_dims=3, in_channels=1, out_channels=3).eval()
        image = torch.randn(1, 1, SIZE, SIZE, SIZE)
        with torch.no_grad():
            logits = net(image).numpy()
            model = openvino.convert_model(torch.export.export(net, (image,)))
        for precision in ("f32", "bf16"):
            options = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": precision}
            compiled = core.compile_model(model, "CPU", options)
            (found,) = compiled([image.numpy()]).values()
            figures[f"{name} {precision}"] = {
                "cpu_s": least_cpu_s(partial(compiled, [image.numpy()])),
                "differs": float(f"{np.abs(found - logits).max() / np.ptp(logits):.1e}"),
            }
    return figures


def hippocampus(folder: str, minutes: str = "10") -> list[dict[str, Any]]:
    """Train every network for the same CPU time, and score it."""
    rows = []
    for path in sorted(CONFIGS.glob("*.yaml")):
        rows.append(compare(path, folder, float(minutes)))
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    return rows


def compare(config: Path, folder: str, minutes: float) -> dict[str, Any]:
    """Train one network as long as the budget lasts, then segment the validation cases."""
    data = ["--set", f"data.folder={folder}"]
    with tempfile.TemporaryDirectory() as scratch:
        steps = plan_steps(config, Path(scratch) / "trial", data, minutes)
        epochs = max(1, steps // 20)
        out = Path(scratch) / "run"
        cpu_s = run("train", config, "--out", out, *data, *schedule(epochs, 20))
        *_, end = (json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines())
        model = out / "model.safetensors"
        cases = len((out / "validation.csv").read_text().splitlines()) - 1
        predict_s = run("predict", model, out / "validation.csv", "--out", Path(scratch) / "maps")
        return {
            "config": config.stem,
            "steps": epochs * 20,
            "train_cpu_min": round(cpu_s / 60, 2),
            "mean_dice": end["mean_dice"],
            "parameters": describe(str(model))["parameters"],
            "predict_cpu_s_per_case": round(predict_s / cases, 3),
        }


def plan_steps(config: Path, trial: Path, data: list[str], minutes: float) -> int:
    """Estimate how many steps fit into the budget, from two short runs that differ in steps."""
    short, long = (
        run("train", config, "--out", trial / str(steps), *data, *schedule(1, steps))
        for steps in (5, 25)
    )
    per_step = (long - short) / 20
    return int((minutes * 60 - (short - 5 * per_step)) / per_step)


def schedule(epochs: int, steps: int) -> list[str]:
    """Set the length of a training, with one validation at its end."""
    knobs = {"epochs": epochs, "steps_per_epoch": steps, "validate_every": 10**6}
    return [word for knob, value in knobs.items() for word in ("--set", f"train.{knob}={value}")]


def run(*arguments: object) -> float:
    """Run medseg3d; give its CPU-seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "medseg3d", *map(str, arguments)]
    subprocess.run(command, stdout=subprocess.PIPE, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    figures = {"times": times, "openvino": by_openvino, "hippocampus": hippocampus}
    name, *rest = sys.argv[1:] or ["times"]
    print(json.dumps(figures[name](*rest), indent=2))
