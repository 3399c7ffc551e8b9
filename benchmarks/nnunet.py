"""Hippocampus by nnU-Net and by medseg3d with as many steps, as one document of JSON.

    OMP_NUM_THREADS=1 python benchmarks/nnunet.py FOLDER [STEPS [BATCH]] > benchmarks/nnunet.json

FOLDER is the hippocampus set of shared data: 80 training cases, 20 to judge by. Each plans for
itself (`nnUNetv2_plan_and_preprocess`, `medseg3d fingerprint`), takes STEPS (640) steps of BATCH
(2) patches in fp32 and predicts the 20, whose mean Dice is given. CPU-minutes are those of all of
it. nnU-Net is made for 250,000 steps of larger batches: this tells what a laptop gets in minutes,
not which is better in the end.

nnU-Net is installed apart: `pip install --target PEERS nnunetv2`, PEERS in PYTHONPATH.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from shutil import copy
from typing import Any

EPOCHS = 16
DATASET = "Dataset004_Hippocampus"


def compare(folder: str, steps: str = "640", batch: str = "2") -> dict[str, Any]:
    """Train both, one after the other, each in a process of its own."""
    with tempfile.TemporaryDirectory() as scratch:
        found = {
            name: run_apart([sys.executable, __file__, name, folder, scratch, steps, batch])
            for name in ("nnunet", "medseg3d")
        }
    return {"steps": int(steps), "batch": int(batch), "nnunetv2": version("nnunetv2"), **found}


def run_apart(command: list[str]) -> dict[str, Any]:
    """Run a command; give the last line it printed, and its CPU-minutes."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {**json.loads(ended.stdout.splitlines()[-1]), "cpu_min": round(cpu_s / 60, 2)}


def by_nnunet(folder: Path, scratch: Path, steps: int, batch: int) -> dict[str, Any]:
    """Plan, preprocess, train and validate as nnU-Net does, but for STEPS and BATCH."""
    for name in ("raw", "preprocessed", "results"):
        os.environ[f"nnUNet_{name}"] = str(scratch / name)
    os.environ |= {"nnUNet_n_proc_DA": "1", "nnUNet_compile": "f"}  # planning takes no 0
    write_raw(folder, scratch / "raw" / DATASET)
    from nnunetv2.experiment_planning import plan_and_preprocess_api as api  # noqa: PLC0415
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer  # noqa: PLC0415
    from torch import device  # noqa: PLC0415

    api.extract_fingerprints([4], num_processes=1)
    api.plan_experiments([4])
    api.preprocess([4], configurations=["3d_fullres"], num_processes=[1])
    os.environ |= {"nnUNet_n_proc_DA": "0"}
    planned = scratch / "preprocessed" / DATASET
    splits = json.dumps([listed(folder)])
    (planned / "splits_final.json").write_text(splits)
    plans = json.loads((planned / "nnUNetPlans.json").read_text()) | {"continue_training": False}
    chosen = plans["configurations"]["3d_fullres"]
    own_batch, chosen["batch_size"] = chosen["batch_size"], batch
    about = json.loads((planned / "dataset.json").read_text())
    trainer = nnUNetTrainer(plans, "3d_fullres", 0, about, device=device("cpu"))
    trainer.num_epochs, trainer.num_iterations_per_epoch = EPOCHS, steps // EPOCHS
    trainer.num_val_iterations_per_epoch = 1
    trainer.initialize()
    trainer.run_training()
    trainer.perform_actual_validation()
    summary = json.loads((Path(trainer.output_folder) / "validation/summary.json").read_text())
    dice = {value: measures["Dice"] for value, measures in summary["mean"].items()}
    return {"dice": dice, "patch": chosen["patch_size"], "own_batch": own_batch}


def write_raw(folder: Path, raw: Path) -> None:
    """Lay the data set out as nnU-Net wants it."""
    for name in ("imagesTr", "labelsTr"):
        (raw / name).mkdir(parents=True)
    cases = [case for side in listed(folder).values() for case in side]
    for case in cases:
        copy(folder / "imagesTr" / f"{case}.nii.gz", raw / "imagesTr" / f"{case}_0000.nii.gz")
        copy(folder / "labelsTr" / f"{case}.nii.gz", raw / "labelsTr" / f"{case}.nii.gz")
    about = {
        "channel_names": {"0": "MRI"},
        "labels": {"background": 0, "anterior": 1, "posterior": 2},
        "numTraining": len(cases),
        "file_ending": ".nii.gz",
    }
    (raw / "dataset.json").write_text(json.dumps(about))


def listed(folder: Path) -> dict[str, list[str]]:
    """Give the cases of both sides."""
    about = json.loads((folder / "dataset.json").read_text())
    sides = {"train": about["training"], "val": about["validation"]}
    return {
        side: [Path(entry["image"]).name.partition(".")[0] for entry in entries]
        for side, entries in sides.items()
    }


def by_medseg3d(folder: Path, scratch: Path, steps: int, batch: int) -> dict[str, Any]:
    """Plan and train as a user does, but for STEPS and BATCH."""
    config, out = scratch / "run.yaml", scratch / "run"
    medseg3d = [sys.executable, "-m", "medseg3d"]
    subprocess.run([*medseg3d, "fingerprint", folder, "-o", config], check=True, stdout=sys.stderr)
    knobs = {
        "epochs": EPOCHS,
        "steps_per_epoch": steps // EPOCHS,
        "batch_size": batch,
        "validate_every": EPOCHS,
    }
    settings = [
        word for knob, value in knobs.items() for word in ("--set", f"train.{knob}={value}")
    ]
    begun = time.monotonic()
    ended = subprocess.run(
        [*medseg3d, "train", config, "--out", out, "--json", *settings],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    print(f"trained in {time.monotonic() - begun:.0f} s", file=sys.stderr)
    summary = json.loads(ended.stdout)["summary"]
    return {"dice": {region: measures["dice"]["mean"] for region, measures in summary.items()}}


if __name__ == "__main__":
    ways = {"nnunet": by_nnunet, "medseg3d": by_medseg3d}
    name, *rest = sys.argv[1:]
    if name in ways:
        data, place, *numbers = rest
        found = ways[name](Path(data), Path(place), *map(int, numbers))
    else:
        found = compare(name, *rest)
    print(json.dumps(found))
