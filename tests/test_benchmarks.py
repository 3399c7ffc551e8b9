"""The benchmark that is run elsewhere runs, and says what it should."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ELSEWHERE = """
import runpy, sys
sys.modules.update(dict.fromkeys(["SimpleITK", "isal", "nibabel", "rich", "typer"]))
sys.argv = ["gpu.py", "--small"]
runpy.run_path("benchmarks/gpu.py", run_name="__main__")
"""


@pytest.mark.slow
def test_what_a_gpu_gets_done_is_told_stage_by_stage():
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE], cwd=ROOT, capture_output=True, text=True, check=True
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    stages = [line["stage"] for line in lines]
    assert [*dict.fromkeys(stages)] == ["machine", "ceilings", "tile", "volume", "busy"]
    tiles = {line["way"]: line for line in lines if line["stage"] == "tile"}
    assert [*tiles] == ["fp32", "autocast", "eager", "graph", "fused", "inductor"]
    assert all(tiles[way]["tiles_per_s"] > 0 for way in ("fp32", "autocast", "eager", "inductor"))
    volumes = {line["way"]: line for line in lines if line["stage"] == "volume"}
    assert volumes["medseg3d fp32, batches of 1"]["equal_labels"] == 1
    assert volumes["medseg3d eager, batches of 2"]["equal_labels"] > 0.95
    assert volumes["MONAI fp32, batches of 2"]["equal_labels"] > 0.9
