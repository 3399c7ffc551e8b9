"""A job of Slurm that is preempted is started again and goes on; on a real one."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from medseg3d.io.events import read_events

JOB = """#!/bin/bash
#SBATCH --ntasks-per-node=2
#SBATCH --mem=3600
#SBATCH --time=10
#SBATCH --requeue
#SBATCH --open-mode=append
export MASTER_ADDR=127.0.0.1 OMP_NUM_THREADS=1
srun --kill-on-bad-exit=1 {python} -m medseg3d train {config} --out {run} --resume \\
  --set train.epochs=40 --set network.dropout=0
"""


def ask(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def has_idle_node() -> bool:
    try:
        return bool(shutil.which("sbatch")) and "idle" in ask("sinfo", "--noheader", "-o", "%t")
    except subprocess.CalledProcessError:
        return False


def wait_until(holds: object, said: Path) -> None:
    end = time.monotonic() + 150
    while not holds():  # type: ignore[operator]
        assert time.monotonic() < end, said.read_text() if said.exists() else "the job never began"
        time.sleep(0.5)


@pytest.mark.slow
@pytest.mark.skipif(not has_idle_node(), reason="no Slurm with an idle node here")
def test_a_preempted_job_saves_is_started_again_and_ends(config_file: Path, tmp_path: Path) -> None:
    run, said, script = tmp_path / "run", tmp_path / "said", tmp_path / "job.sh"
    script.write_text(JOB.format(python=sys.executable, config=config_file, run=run))
    job = ask("sbatch", "--parsable", f"--output={said}", str(script)).strip()

    def state() -> str:
        return ask("scontrol", "show", "job", job)

    log = run / "metrics.jsonl"
    wait_until(lambda: log.exists() and len(read_events(log)) > 3, said)
    ask("scancel", "--signal=USR1", job)
    wait_until(lambda: "Restarts=1" in state(), said)
    wait_until(lambda: "JobState=COMPLETED" in state(), said)

    assert "stopped by SIGUSR1; the same command with --resume goes on from here" in (
        " ".join(said.read_text().split())
    )
    epochs = [e.epoch for e in read_events(log) if e.event == "epoch"]
    assert epochs == [*range(1, 41)]
    assert json.loads((run / "environment.json").read_text())[0]["processes"] == 2
