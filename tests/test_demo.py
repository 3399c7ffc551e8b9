"""The story on made-up cases, told in one process and as its script tells it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from medseg3d.demo import run_demo
from medseg3d.io.events import read_events

ROOT = Path(__file__).parents[1]
QUICK = ["train.epochs=1", "train.steps_per_epoch=2", "train.device=cpu", "predict.device=cpu"]


@pytest.mark.slow
def test_the_demo_leaves_what_it_names_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    seen: set[str] = set()

    few = (6, 2)

    demo = run_demo(tmp_path, num_cases=few, settings=QUICK, progress=lambda w, _d, _t: seen.add(w))
    again = run_demo(tmp_path, num_cases=few, settings=QUICK)

    assert seen == {"preprocessing", "training", "validating", "predicting"}
    assert [*demo.places] == ["cases", "new cases", "model", "predictions", "report"]
    assert all(path.exists() for path in demo.places.values())
    assert [case.status for case in demo.scores.cases] == ["scored"] * 2
    assert [*demo.scores.scheme.regions] == ["WT", "TC", "ET"]
    assert [e.event for e in read_events(tmp_path / "run" / "metrics.jsonl")] == [
        "epoch",
        "validation",
        "end",
    ]
    page = demo.places["report"].read_text()
    assert all(case.pair.case in page for case in demo.scores.cases)
    assert again.scores.to_dict()["summary"] == demo.scores.to_dict()["summary"]


@pytest.mark.slow
def test_the_tour_runs_from_end_to_end(tmp_path: Path) -> None:
    settings = [part for setting in QUICK for part in ("--set", setting)]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])

    ended = subprocess.run(
        [ROOT / "examples" / "tour.sh", tmp_path, *settings], check=False, capture_output=True,
        text=True, env={**os.environ, "PATH": path},
    )  # fmt: skip

    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "report.html").stat().st_size > 10_000
