"""Several processes train as one: the same patches, the same weights, and none waits for a dead."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from medseg3d.config.load import load_config
from medseg3d.errors import ConfigError
from medseg3d.io.events import read_events
from medseg3d.nets.bundle import load_bundle
from medseg3d.train.checkpoint import load_checkpoint
from medseg3d.train.launcher import Launch, find_launch, is_first, slurm_job
from medseg3d.train.ranks import join_ranks
from medseg3d.train.run import train_run

TWO = "train.devices=2"
COMPARABLE = [
    "network.dropout=0",
    "train.optimizer=sgd",
    "train.epochs=2",
    "train.accumulate=2",
    "train.ema_decay=0.9",
]


def start(config_file: Path, out: Path, *settings: str, resume: bool = False) -> subprocess.Popen:
    command = [sys.executable, "-m", "medseg3d", "train", str(config_file), "--out", str(out)]
    sets = [part for setting in settings for part in ("--set", setting)]
    return subprocess.Popen(
        [*command, *sets, *(["--resume"] if resume else [])], stderr=subprocess.PIPE, text=True
    )


def end(process: subprocess.Popen) -> tuple[int, str]:
    """Wait for the end; give exit code and stderr."""
    _, said = process.communicate(timeout=120)
    return process.returncode, said


def wait_for_epoch(run: Path, process: subprocess.Popen) -> None:
    log = run / "metrics.jsonl"
    stop = time.monotonic() + 90
    while not (log.exists() and read_events(log)):
        assert process.poll() is None, end(process)[1]
        assert time.monotonic() < stop, "the training took too long"
        time.sleep(0.05)


def process_of_rank(rank: int, run: Path) -> int:
    """Find the process of a rank that trains into a folder."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            variables = (folder / "environ").read_bytes().split(b"\0")
            arguments = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if f"RANK={rank}".encode() in variables and str(run).encode() in arguments:
            return int(folder.name)
    raise AssertionError(f"no process has rank {rank}")


def assert_alike(first: Path, second: Path) -> None:
    nets = [load_bundle(run / "model.safetensors").net.state_dict() for run in (first, second)]
    for name, tensor in nets[0].items():
        torch.testing.assert_close(tensor, nets[1][name], rtol=0, atol=1e-5)


@pytest.mark.slow
def test_two_processes_are_one_with_the_whole_batch_also_after_a_stop(
    config_file: Path, tmp_path: Path
) -> None:
    train_run(load_config(config_file, COMPARABLE), tmp_path / "one")

    process = start(config_file, tmp_path / "two", *COMPARABLE, TWO)
    wait_for_epoch(tmp_path / "two", process)
    process.send_signal(signal.SIGTERM)
    code, said = end(process)
    assert code == 143
    assert "stopped by SIGTERM; the same command with --resume goes on from here" in said
    code, said = end(start(config_file, tmp_path / "two", *COMPARABLE, TWO, resume=True))

    assert code == 0, said
    assert_alike(tmp_path / "one", tmp_path / "two")
    one, two = (read_events(tmp_path / run / "metrics.jsonl") for run in ("one", "two"))
    assert [e.event for e in one] == [e.event for e in two]
    for single, double in zip(one, two, strict=True):
        assert single.loss == pytest.approx(double.loss, abs=1e-5)
        assert single.gradient_norms == pytest.approx(double.gradient_norms, abs=1e-4)
        assert single.mean_dice == pytest.approx(double.mean_dice, abs=1e-3)


@pytest.mark.slow
def test_a_killed_process_ends_the_others(config_file: Path, tmp_path: Path) -> None:
    process = start(config_file, tmp_path / "run", TWO, "train.epochs=1000")
    wait_for_epoch(tmp_path / "run", process)

    os.kill(process_of_rank(1, tmp_path / "run"), signal.SIGKILL)

    code, said = end(process)
    assert code == 137
    assert "another process of this training ended" in said


@pytest.mark.slow
def test_a_broken_case_ends_all_and_is_named_once(config_file: Path, tmp_path: Path) -> None:
    (tmp_path / "data" / "labels" / "ball_3.nii.gz").write_bytes(b"junk")

    code, said = end(start(config_file, tmp_path / "run", TWO))

    assert code == 2
    assert said.count("error:") == 1
    assert "case 'ball_3'" in said


@pytest.mark.slow
def test_batch_norm_over_processes_is_refused_where_torch_cannot(
    config_file: Path, tmp_path: Path
) -> None:
    code, said = end(start(config_file, tmp_path / "run", TWO, "network.norm=batch"))

    assert code == 2
    assert said.count("error:") == 1
    assert "batch norm over 2 processes needs GPUs" in " ".join(said.split())


@pytest.mark.slow
def test_torchrun_starts_the_same_command(config_file: Path, tmp_path: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = ["-m", "medseg3d", "train", str(config_file), "--out", str(tmp_path / "run")]

    subprocess.run([*torchrun, *command, "--set", "train.epochs=1"], check=True, timeout=120)

    assert load_checkpoint(tmp_path / "run" / "checkpoint.safetensors").facts["step"] == 8


def test_several_devices_from_python_need_a_launcher(config_file: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"train.devices=2 needs as many.*torchrun --nproc-per-n"):
        train_run(load_config(config_file, [TWO]), tmp_path / "run")


def test_a_batch_is_divided_evenly(config_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")

    with pytest.raises(ConfigError, match=r"batch_size 3 is that of all 2 processes.*multiple"):
        join_ranks(load_config(config_file, ["train.batch_size=3"]).train)


def test_launchers_are_known_by_what_they_say(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_launch() == Launch("none")
    assert is_first()
    for name, value in {"NUM_TASKS": "6", "NUM_NODES": "3"}.items():
        monkeypatch.setenv(f"SLURM_STEP_{name}", value)
    monkeypatch.setenv("SLURM_PROCID", "4")
    assert find_launch() == Launch("srun", 2, 3)
    assert not is_first()
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setenv("WORLD_SIZE", "8")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "0")
    assert find_launch() == Launch("torchrun", 4, 2)
    assert is_first()


def test_a_job_of_an_array_is_named_with_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    assert slurm_job() is None
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    assert slurm_job() == "77"
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "70")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    assert slurm_job() == "70_3"
