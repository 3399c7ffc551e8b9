"""An evaluation on disk: three phantoms, one predicted well, one badly, one not at all."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from medseg3d.data.phantom import write_phantoms
from medseg3d.evaluate.score import score_cases, write_scores
from medseg3d.io.files import read_volume, write_volume
from medseg3d.volume import Volume

EVENTS = (
    {"event": "epoch", "epoch": 1, "step": 10, "loss": 1.2, "learning_rate": 1e-3},
    {"event": "epoch", "epoch": 2, "step": 20, "loss": 0.7, "learning_rate": 5e-4},
    {"event": "validation", "epoch": 2, "step": 20, "dice": {"WT": 0.8}, "mean_dice": 0.8},
)


@pytest.fixture(scope="session")
def evaluation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder, named like a patient, with scores/, images.csv, cases/, predicted/, run/."""
    root = tmp_path_factory.mktemp("report") / "DOE_JOHN_1970"
    cases = write_phantoms(
        root / "cases", num_cases=3, shape_IJK=(40, 48, 36), spacing_mm=(4.0, 4.0, 4.0)
    )
    (root / "predicted").mkdir()
    for case, shift in zip(cases, (1, 3), strict=False):
        reference = read_volume(root / "cases" / case / f"{case}-seg.nii.gz")
        moved = Volume(np.roll(reference.array_CIJK, shift, axis=1), reference.affine)
        write_volume(moved, root / "predicted" / f"{case}.nii.gz")
    scores = score_cases(root / "predicted", root / "cases", scheme="brats2023")
    write_scores(scores, root / "scores")
    with (root / "images.csv").open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["case", "t1n", "t2f"])
        for case in cases:
            paths = [f"cases/{case}/{case}-{channel}.nii.gz" for channel in ("t1n", "t2f")]
            table.writerow([case, *paths])
    (root / "run").mkdir()
    lines = "".join(json.dumps(event) + "\n" for event in EVENTS)
    (root / "run" / "metrics.jsonl").write_text(lines + '{"event": "epoch", "ep')
    return root
