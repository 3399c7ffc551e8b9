"""A data set so small and easy that a network learns it in seconds."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from medseg3d.io.files import write_volume
from medseg3d.volume import Volume

AFFINE = np.diag([-1.0, -1.0, 1.0, 1.0])


def write_ball(folder: Path, case: str, rng: np.random.Generator) -> None:
    """Write an image in which a bright ball with a brighter core lies in noise."""
    shape = (20, 24, 18)
    centre = rng.uniform(8, 12, size=3)
    distance = np.linalg.norm(np.moveaxis(np.indices(shape), 0, -1) - centre, axis=-1)
    label_map = (distance < 6).astype(np.uint8) + (distance < 3)
    image = label_map * 50.0 + rng.normal(100, 10, size=shape)
    write_volume(Volume(image[None].astype(np.int16), AFFINE), folder / "images" / f"{case}.nii.gz")
    write_volume(Volume(label_map[None], AFFINE), folder / "labels" / f"{case}.nii.gz")


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    """Give the configuration of a training that takes seconds, on six cases."""
    rng = np.random.default_rng(0)
    for name in ("images", "labels"):
        (tmp_path / "data" / name).mkdir(parents=True)
    for number in range(6):
        write_ball(tmp_path / "data", f"ball_{number}", rng)
    content = {
        "data": {
            "folder": str(tmp_path / "data"),
            "images": {"t1": "images/{case}.nii.gz"},
            "reference": "labels/{case}.nii.gz",
            "labels": {
                "name": "balls",
                "values": {1: "shell", 2: "core"},
                "regions": {"ball": [1, 2], "core": [2]},
            },
            "split": {"num_folds": 3},
        },
        "network": {
            "kind": "resunet",
            "channels": [4, 8],
            "encoder_blocks": 1,
            "norm": "instance",
            "dropout": 0.1,
        },
        "train": {
            "patch_size": [16, 16, 16],
            "epochs": 6,
            "steps_per_epoch": 8,
            "batch_size": 2,
            "learning_rate": 0.01,
            "validate_every": 2,
            "device": "cpu",
        },
        "predict": {"device": "cpu"},
    }
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path
