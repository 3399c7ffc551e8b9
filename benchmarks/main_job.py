"""Figures of the main job, each printed as one line of JSON.

    python benchmarks/main_job.py startup
    python benchmarks/main_job.py hippocampus FOLDER [--set KEY=VALUE ...]
    python benchmarks/main_job.py demo

`startup`: CPU-seconds of `medseg3d --help`, the least of five. `hippocampus`: CPU-minutes of
training on the data set in FOLDER by configs/hippocampus.yaml, the validation Dice its log ends
with, and the Dice that `predict` and `evaluate` then give on the same cases. `demo`: wall-clock
minutes and mean Dice of `medseg3d demo`.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CONFIG = Path(__file__).parents[1] / "configs" / "hippocampus.yaml"


def run(*arguments: object) -> tuple[str, float, float]:
    """Run medseg3d; give its output, its CPU-seconds and its wall-clock seconds."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    command = [sys.executable, "-m", "medseg3d", *map(str, arguments)]
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return ended.stdout, cpu_s, time.monotonic() - start


def startup() -> dict[str, object]:
    """Measure how soon the command line answers."""
    return {"help_cpu_s": round(min(run("--help")[1] for _ in range(5)), 3)}


def hippocampus(folder: str, *settings: str) -> dict[str, object]:
    """Train, then segment and score the validation cases as a user would."""
    with tempfile.TemporaryDirectory() as scratch:
        out, predicted = Path(scratch) / "run", Path(scratch) / "predicted"
        _, cpu_s, wall_s = run(
            "train", CONFIG, "--out", out, "--set", f"data.folder={folder}", *settings
        )
        *_, end = (json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines())
        table = out / "validation.csv"
        run("predict", out / "model.safetensors", table, "--out", predicted)
        scored, *_ = run(
            "evaluate", predicted, table, "--scheme", "hippocampus", "--out", predicted, "--json"
        )
        summary = json.loads(scored)["summary"]
    return {
        "train_cpu_min": round(cpu_s / 60, 2),
        "train_wall_min": round(wall_s / 60, 2),
        "dice_in_log": end["dice"],
        "dice_evaluated": {region: s["dice"]["mean"] for region, s in summary.items()},
        "hd95_mm": {region: s["hd95"]["mean"] for region, s in summary.items()},
    }


def demo() -> dict[str, object]:
    """Run the demo from nothing."""
    with tempfile.TemporaryDirectory() as scratch:
        printed, cpu_s, wall_s = run("demo", "--out", scratch, "--json")
        summary = json.loads(printed)["summary"]
    dice = {region: measures["dice"]["mean"] for region, measures in summary.items()}
    return {
        "wall_min": round(wall_s / 60, 2),
        "cpu_min": round(cpu_s / 60, 2),
        "dice": dice,
        "mean_dice": sum(dice.values()) / len(dice),
    }


if __name__ == "__main__":
    figures = {"startup": startup, "hippocampus": hippocampus, "demo": demo}
    name, *rest = sys.argv[1:] or ["startup"]
    print(json.dumps({"figure": name, **figures[name](*rest)}))
