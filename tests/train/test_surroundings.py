"""What a run was made with is written down, and who made it is not."""

import getpass
import json
import socket
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from medseg3d import __version__
from medseg3d.config.train import TrainConfig
from medseg3d.train.ranks import join_ranks
from medseg3d.train.surroundings import (
    describe_checkout,
    describe_surroundings,
    hide_secrets,
    write_surroundings,
)


def git(folder: Path, *arguments: str) -> None:
    name = ["-c", "user.name=n", "-c", "user.email=e@x.example"]
    subprocess.run(["git", "-C", str(folder), *name, *arguments], check=True, capture_output=True)


def test_versions_are_those_that_run(tmp_path: Path) -> None:
    found = describe_surroundings(source=tmp_path / "run.yaml", processes=3)

    assert (found["medseg3d"], found["torch"], found["numpy"]) == (
        __version__, torch.__version__, np.__version__,
    )  # fmt: skip
    assert found["processes"] == 3
    assert len(found["gpus"]) == torch.cuda.device_count()
    assert found["git"]["config"] is None, "its folder is in no checkout"


def test_nobody_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["medseg3d", "train", f"{Path.home()}/run.yaml"])

    written = json.dumps(describe_surroundings(source=None))

    assert socket.gethostname() not in written
    assert f'"{getpass.getuser()}"' not in written
    assert '"~/run.yaml"' in written


def test_a_checkout_is_told_by_commit_and_change(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    (tmp_path / "run.yaml").write_text("a: 1")
    git(tmp_path, "add", "run.yaml")
    git(tmp_path, "commit", "--quiet", "-m", "first")

    clean = describe_checkout(tmp_path)
    (tmp_path / "run.yaml").write_text("a: 2")

    assert clean is not None
    assert (len(clean["commit"]), clean["changed"]) == (40, False)
    assert describe_checkout(tmp_path) == {**clean, "changed": True}


def test_secrets_are_left_out() -> None:
    given = ["train", "--api-token", "x1", "--set", "password=x2", "--secret=x3", "train.seed=4"]

    assert hide_secrets(given) == [
        "train", "--api-token", "***", "--set", "password=***", "--secret=***", "train.seed=4",
    ]  # fmt: skip
    assert hide_secrets(["--set=a.TOKEN=abcd==", "data.folder=/tokens"]) == [
        "--set=a.TOKEN=***", "data.folder=/tokens",
    ]  # fmt: skip


def test_the_user_is_not_named_by_paths_either() -> None:
    name = Path.home().name

    assert hide_secrets([f"--out=/scratch/{name}/run", f"/{name}s", f"/data/{name}"]) == [
        "--out=/scratch/***/run", f"/{name}s", "/data/***",
    ]  # fmt: skip


def test_each_start_that_differs_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, ranks = tmp_path / "environment.json", join_ranks(TrainConfig(device="cpu"))
    for argument in ("first", "first", "second"):
        monkeypatch.setattr("sys.argv", ["medseg3d", argument])
        write_surroundings(path, source=None, ranks=ranks)

    assert [start["arguments"] for start in json.loads(path.read_text())] == [["first"], ["second"]]
