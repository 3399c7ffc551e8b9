"""Benchmarks that others' figures depend on still run, and everyone in them gives one answer."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
ELSEWHERE = """
import runpy, sys
sys.modules.update(dict.fromkeys(["SimpleITK", "isal", "nibabel", "rich", "typer"]))
sys.argv = ["gpu.py", "--small"]
runpy.run_path("benchmarks/gpu.py", run_name="__main__")
"""


def run(script: str, *arguments: str) -> dict[str, Any]:
    ended = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / script), *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        check=True,
        timeout=600,
    )
    return json.loads(ended.stdout)


@pytest.mark.slow
def test_inference_is_timed_and_the_answers_agree() -> None:
    found = run("inference.py", "small", "1")
    for allocator in ("as it comes", "memory kept"):
        case = found["case"][allocator]
        assert case["medseg3d fp32"]["probability_difference"] < 1e-5
        assert case["medseg3d fp32"]["equal_labels"] == 1
        assert all(way["cpu_s"] > 0 for way in case.values())
        stitched = found["stitching, 25 channels"][allocator]
        assert stitched.keys() >= {"medseg3d", "MONAI"}
        assert all(way["right"] == 1 for way in stitched.values())
    assert "MONAI" in found["case"]["times_faster"]["as a user gets it"]["medseg3d fp32"]
    assert found["startup"]["predict"] > found["startup"]["predict --help"] > 0


@pytest.mark.slow
def test_patches_of_the_store_are_timed_and_all_ways_agree(tmp_path: Path) -> None:
    ways = run("store.py", "small", str(tmp_path))["small"]["ways"]
    assert ways.keys() >= {"medseg3d", "one array"}
    assert all(way["disk_mib"] > 0 for way in ways.values())


@pytest.mark.slow
def test_memory_is_measured_and_the_labels_are_right() -> None:
    found = run("memory.py", "small")
    assert len(found["medseg3d"]) == 4
    for way in found["medseg3d"].values():
        assert way["right"] == 1
        assert way["peak_gib"] >= way["own_gib"] > 0
    assert found["peers"]["MONAI"]["bytes_per_voxel_and_channel"] > 0


@pytest.mark.slow
def test_what_a_gpu_gets_done_is_told_stage_by_stage() -> None:
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
