"""What the shortcuts of prediction cost in Dice, printed as one line of JSON.

    OMP_NUM_THREADS=1 python benchmarks/gate.py MODEL CASES.csv [KNOB=VALUE ...]

MODEL is a trained network, CASES.csv a table with the columns `case`, one per channel, and
`reference`, such as a run's validation.csv. The full computation is `focus=all`, `overlap=0.5`, no
mirroring and `precision=fp32`; each way below changes that, all in the precision that `auto` takes
here. `KNOB=VALUE` such as `tile_size=[32,32,32]` changes the full computation too. Per way: tiles
and CPU-seconds of all cases; the mean Dice of each region, and by how much the mean, and the case
that changes most, differ from the full computation. A way passes where no region's mean differs by
more than 0.002. Mirroring is no shortcut: it is there to show what it changes.

`gate.jsonl` holds the demo's model on its new cases, in tiles as large as its training patches;
configs/hippocampus.yaml's on its validation cases; and a small network (8, 16, 32 channels) on the
three gliomas of BRATS 2015, voxels outside the brain set to 0. That one was trained on two of them
for 160 steps (crop none) and 200 (crop nonzero), at 64³: what is asked is whether two ways agree,
and a network that has learnt little is the harder test. It was stopped before its learning rate
had sunk, so its Dice says nothing about the method.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any, Final

import numpy as np

from medseg3d.config.load import override_section
from medseg3d.config.recipe import Recipe
from medseg3d.data.cases import Case, read_cases
from medseg3d.evaluate.overlap import dice
from medseg3d.io.files import read_volume
from medseg3d.labels import as_label_map, region_masks
from medseg3d.nets.bundle import Bundle, load_bundle
from medseg3d.predict.case import predict_case

ALLOWED: Final = 0.002
FULL: Final = ("focus=all", "overlap=0.5", "mirror=[]", "precision=fp32")
BOTH: Final = ("precision=auto", "focus=nonzero", "overlap=0.25")
WAYS: Final = {
    "full": (),
    "native precision": ("precision=auto",),
    "focus": ("precision=auto", "focus=nonzero"),
    "overlap 0.375": ("precision=auto", "overlap=0.375"),
    "overlap 0.25": ("precision=auto", "overlap=0.25"),
    "overlap 0": ("precision=auto", "overlap=0"),
    "focus, overlap 0.25": BOTH,
    "the same, mirrored along i": (*BOTH, "mirror=[i]"),
    "the same, mirrored along all": (*BOTH, "mirror=[i,j,k]"),
}


def gate(model: str, table: str, *knobs: str) -> dict[str, Any]:
    """Predict all cases in all ways, and hold their Dice against the full computation's."""
    bundle = load_bundle(Path(model))
    cases = read_cases(Path(table))
    measured = {
        name: measure(bundle, cases, [*FULL, *knobs, *changes]) for name, changes in WAYS.items()
    }
    return {
        "labels": bundle.recipe.labels.name,
        "crop": bundle.recipe.preprocess.crop,
        "knobs": knobs,
        "cases": len(cases),
        "ways": {name: compare(figures, measured["full"]) for name, figures in measured.items()},
    }


def measure(bundle: Bundle, cases: list[Case], knobs: list[str]) -> dict[str, Any]:
    """Give tiles, CPU-seconds, and the Dice of each case and region."""
    recipe = override_section(bundle.recipe, [f"predict.{knob}" for knob in knobs])
    chosen = Bundle(bundle.net, recipe, bundle.version)
    tiles, seconds, dices = 0, 0.0, []
    for case in cases:
        totals = [0]
        start = time.process_time()
        predicted = predict_case(
            chosen,
            [case.images[channel] for channel in recipe.images],
            progress=lambda _, total, totals=totals: totals.append(total),
        )
        seconds += time.process_time() - start
        tiles += totals[-1]
        dices.append(score(predicted.array_CIJK[0], case, recipe))
    return {"tiles": tiles, "cpu_s": seconds, "dice": np.array(dices)}


def score(predicted: np.ndarray, case: Case, recipe: Recipe) -> list[float]:
    """Give the Dice of each region."""
    reference = as_label_map(read_volume(case.reference).array_CIJK[0])
    pairs = zip(
        region_masks(reference, recipe.labels), region_masks(predicted, recipe.labels), strict=True
    )
    return [dice(truth, found) for (_, truth), (_, found) in pairs]


def compare(figures: dict[str, Any], full: dict[str, Any]) -> dict[str, Any]:
    """Hold the Dice of one way against the full computation's."""
    differences = figures["dice"] - full["dice"]
    means = differences.mean(axis=0)
    return {
        "tiles": figures["tiles"],
        "cpu_s": round(figures["cpu_s"], 1),
        "dice": rounded(figures["dice"].mean(axis=0)),
        "mean_difference": rounded(means),
        "largest_of_a_case": round(float(np.abs(differences).max()), 5),
        "passes": bool((np.abs(means) <= ALLOWED).all()),
    }


def rounded(numbers: np.ndarray) -> list[float]:
    """Give numbers that are short enough to read."""
    return [round(float(number), 5) for number in numbers]


if __name__ == "__main__":
    print(json.dumps(gate(*sys.argv[1:])))
