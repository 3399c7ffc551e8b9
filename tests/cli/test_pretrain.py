"""The verb `pretrain`, as a user types it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from medseg3d.io.files import write_volume
from medseg3d.train.encoder import load_encoder
from medseg3d.volume import Volume


def test_a_folder_of_images_becomes_an_encoder(run: Callable[..., Any], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "scans").mkdir()
    for name in "abc":
        image = rng.normal(size=(1, 10, 9, 8)).astype(np.float32)
        write_volume(Volume(image, np.eye(4)), tmp_path / "scans" / f"{name}.nii.gz")
    content = {
        "data": {
            "folder": str(tmp_path / "scans"),
            "images": {"t1": "{case}.nii.gz"},
            "labels": {"values": {1: "unused"}},
        },
        "network": {"kind": "unet", "channels": [2, 4]},
        "train": {"patch_size": [8, 8, 8], "device": "cpu"},
        "pretrain": {"epochs": 1, "steps_per_epoch": 1, "batch_size": 2},
    }
    config, out = tmp_path / "run.yaml", tmp_path / "out"
    config.write_text(yaml.safe_dump(content))

    ended = run("pretrain", config, "--out", out, "--set", "pretrain.method=simclr", "--json")

    assert ended.code == 0, ended.err
    assert "epoch 1 loss" in ended.err
    path = Path(json.loads(ended.out)["encoder"])
    assert path == out / "encoder.safetensors"
    assert load_encoder(path).recipe.pretrain.method == "simclr"
    again = run("pretrain", config, "--out", out, "--set", "pretrain.method=simclr")
    assert again.code == 2
    assert "holds a run already" in again.err
    resumed = run("pretrain", config, "--out", out, "--resume", "--set", "pretrain.method=simclr")
    assert resumed.code == 0
    assert "encoder.safetensors" in resumed.out


def test_its_help_shows_an_example(run: Callable[..., Any]) -> None:
    assert "medseg3d pretrain configs" in run("pretrain", "--help").out
