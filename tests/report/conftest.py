"""Scores by hand; and on disk: three phantoms, one predicted well, one badly, one not at all."""

import csv
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medseg3d.data.phantom import write_phantoms
from medseg3d.evaluate.folder import score_cases
from medseg3d.evaluate.pairs import Pair
from medseg3d.evaluate.protocols import COUNTS, Protocol
from medseg3d.evaluate.results import CaseResult, CaseScore, LesionScore, RegionScore, Scores
from medseg3d.evaluate.schemes import Scheme
from medseg3d.evaluate.tables import write_scores
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


@pytest.fixture
def build_scores() -> Callable[..., Scores]:
    """Give a function that makes scores of regions `WT` and `core` by hand.

    A case is what differs from the usual in each region: measures, volumes, `lesions` as status,
    mm³ and Dice; or None for no score. Cases are called 0, 1, … unless named.
    """

    def build(
        *cases: Mapping[str, Mapping[str, Any]] | None,
        protocol: Protocol | None = None,
        reasons: Mapping[int, str] | None = None,
        names: str = "0123456789",
    ) -> Scores:
        colors = {"WT": "#e69f00", "core": "#56b4e9"}
        rules = Protocol(sensitivity=False) if protocol is None else protocol
        scheme = Scheme(name="two", values={1: "WT", 2: "core"}, colors=colors, protocol=rules)
        results = []
        for number, (name, case) in enumerate(zip(names, cases, strict=False)):
            reason = (reasons or {}).get(number)
            regions = (
                {r: _region(rules, **case.get(r, {})) for r in colors} if case is not None else {}
            )
            score = CaseScore("two", regions) if case is not None else None
            results.append(CaseResult(Pair(name, None, None), score, reason))
        return Scores(scheme, tuple(results))

    return build


def _region(
    protocol: Protocol,
    *,
    reference_mm3: float = 1000.0,
    predicted_mm3: float = 1000.0,
    lesions: tuple[tuple[str, float, float], ...] | None = None,
    **measures: float,
) -> RegionScore:
    usual = {name: 3.0 if name.endswith(("hd95", "assd")) else 0.5 for name in protocol.measures}
    statuses = [status for status, _, _ in lesions or ()]
    usual |= {name: statuses.count(name[-2:]) for name in COUNTS if name in usual}
    found = [
        LesionScore(
            status,
            (0.0, 0.0, 0.0),
            0.0 if status == "fp" else mm3,
            0.0 if status == "fn" else mm3,
            {"dice": dice, "hd95": 3.0},
        )
        for status, mm3, dice in lesions or ()
    ]
    return RegionScore(
        usual | measures,
        reference_mm3,
        predicted_mm3,
        tp_voxels=1,
        fp_voxels=0,
        fn_voxels=0,
        lesions=tuple(found) if protocol.lesions else None,
    )
