"""Does pretraining help where few cases are labelled? Printed as one document of JSON.

    OMP_NUM_THREADS=1 python benchmarks/pretraining.py FOLDER > benchmarks/pretraining.json

FOLDER is the hippocampus set of shared data: T1 MR, 80 training cases, 20 to judge by. The network
of configs/hippocampus.yaml is pretrained on the images of 70 training cases, without their labels,
once by each method, and then trained on the 10 others, with the labels: from scratch and from what
each method left, with three seeds (of fresh weights and of patches) for the same number of steps.
Which cases the 10 are is drawn once, and so is each pretraining: the deviation is that of training
alone. CPU-minutes of training do not hold those of pretraining, which stand beside them. About 20
CPU-minutes in all. With `small` as a second argument it only shows that it runs.
"""

import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np

from medseg3d.config.load import load_config
from medseg3d.pretrain.run import pretrain_run
from medseg3d.train.run import train_run

CONFIG = Path(__file__).parents[1] / "configs" / "hippocampus.yaml"
NUM_LABELLED = 10
METHODS = {
    "masked": ["pretrain.batch_size=4"],
    "simclr": [
        "pretrain.batch_size=16",
        "pretrain.patch_size=[24, 32, 24]",
        "pretrain.augment={brightness_probability: 0.8, gamma_probability: 0.8, "
        "noise_probability: 0.5}",
    ],
}


def measure(source: Path, folder: Path, *, small: bool) -> dict[str, Any]:
    """Pretrain, train from each start, and sum up."""
    labelled, others, held_out = divide(source, small=small)
    for name, cases in (("labelled", labelled), ("others", others)):
        link_cases(source, folder / name, training=cases, validation=held_out)
    steps = 2 if small else 40
    starts: dict[str, Path | None] = {"scratch": None}
    found: dict[str, Any] = {"labelled": labelled, "pretraining": {}, "training": {}}
    for method, knobs in METHODS.items():
        own = [f"pretrain.method={method}", "pretrain.epochs=5"]
        own += [f"pretrain.steps_per_epoch={steps}", *knobs]
        began, events = time.process_time(), []
        config = load_config(CONFIG, [*settings(folder / "others"), *own])
        starts[method] = pretrain_run(config, folder / method, watch=events.append)
        found["pretraining"][method] = {
            "steps": 5 * steps,
            "loss": [round(event.loss, 4) for event in events],
            "cpu_min": round((time.process_time() - began) / 60, 2),
        }
        say(method, found["pretraining"][method])
    for name, start in starts.items():
        runs = [
            train(folder, name, start, seed=seed, steps=steps) for seed in range(2 if small else 3)
        ]
        dice = [run["mean_dice"] for run in runs]
        found["training"][name] = {
            "steps": 3 * steps,
            "mean_dice": round(mean(dice), 4),
            "deviation": round(stdev(dice), 4),
            "cpu_min": round(mean(run["cpu_min"] for run in runs), 2),
            "runs": runs,
        }
    return found


def train(folder: Path, name: str, start: Path | None, *, seed: int, steps: int) -> dict[str, Any]:
    """Train on the labelled cases; give the held-out cases' mean Dice over both labels."""
    own = [f"train.seed={seed}", "train.epochs=3", f"train.steps_per_epoch={steps}"]
    own += ["train.validate_every=1000", f"train.start_from={start or 'null'}"]
    config = load_config(CONFIG, [*settings(folder / "labelled"), *own])
    began = time.process_time()
    scores = train_run(config, folder / f"{name}_{seed}").scores
    run = {
        "seed": seed,
        "mean_dice": round(mean(m["dice"].mean for m in scores.summary().values()), 4),
        "cpu_min": round((time.process_time() - began) / 60, 2),
    }
    say(name, run)
    return run


def divide(source: Path, *, small: bool) -> tuple[list[str], list[str], list[str]]:
    """Give the images with labels, the other ones of training, and those to judge by."""
    content = json.loads((source / "dataset.json").read_text(encoding="utf-8"))
    training, held_out = (
        sorted(entry["image"] for entry in content[key]) for key in ("training", "validation")
    )
    if small:
        return training[:2], training[2:4], held_out[:2]
    order = np.random.default_rng(0).permutation(len(training))
    labelled, others = order[:NUM_LABELLED], order[NUM_LABELLED:]
    return [training[n] for n in labelled], [training[n] for n in others], held_out


def link_cases(
    source: Path, folder: Path, *, training: Sequence[str], validation: Sequence[str]
) -> None:
    """Make a data set of some cases of another."""
    folder.mkdir()
    for part in ("imagesTr", "labelsTr"):
        (folder / part).symlink_to(source / part)
    lists = {"training": [*training], "validation": [*validation]}
    (folder / "dataset.json").write_text(json.dumps(lists))


def settings(folder: Path) -> list[str]:
    """Give what all runs have in common."""
    return [f"data.folder={folder}", "train.device=cpu", "predict.device=cpu"]


def say(name: str, found: Any) -> None:
    """Tell who waits how far it is."""
    print(name, json.dumps(found), file=sys.stderr, flush=True)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        print(
            json.dumps(
                measure(Path(sys.argv[1]).resolve(), Path(place), small=sys.argv[2:] == ["small"]),
                indent=1,
            )
        )
