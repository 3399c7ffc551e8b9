"""Fixtures that tests of several rooms use."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import jaxtyping
import numpy as np
import pytest
import yaml

from medseg3d.config.network import ResUNetConfig
from medseg3d.config.predict import PredictConfig
from medseg3d.config.preprocess import PreprocessConfig
from medseg3d.config.recipe import Recipe
from medseg3d.io.files import write_volume
from medseg3d.labels import LabelScheme
from medseg3d.volume import Volume

if TYPE_CHECKING:
    from medseg3d.nets.bundle import Bundle

BALL_AFFINE = np.diag([-1.0, -1.0, 1.0, 1.0])
SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Give the folder of real, licensed volumes beside the checkout, or skip."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the shared data folder (../shared/data) is not beside this checkout")
    return SHARED_DATA


@pytest.fixture(scope="session")
def hippocampus(shared_data: Path) -> Path:
    """Give the folder of 100 labelled hippocampus MR crops."""
    return shared_data / "hippocampus_msd04"


@pytest.fixture(scope="session")
def brats(shared_data: Path) -> Path:
    """Give the folder of three BRATS 2015 cases (240×240×155, LPS, two channels)."""
    return shared_data / "brats2015_nc"


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Let wrong types through to the code, as they get through where nothing is type-checked."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Let Ctrl-C through to the test and its processes, also where shells hold it back (jobs)."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def build_bundle() -> "Callable[..., Bundle]":
    """Give a function that builds a small untrained bundle of any channels and labels."""
    import torch

    from medseg3d.nets.bundle import Bundle, build_recipe_net

    def build(
        *channels: str, spatial_dims: int = 3, tile: int = 32, **preprocess: object
    ) -> "Bundle":
        recipe = Recipe(
            images={channel: "{case}/" + channel + "*.nii.gz" for channel in channels},
            labels=LabelScheme(values={1: "one", 4: "four"}),
            preprocess=PreprocessConfig.model_validate(preprocess),
            spatial_dims=spatial_dims,
            network=ResUNetConfig(channels=(4, 8), norm="instance", encoder_blocks=1),
            predict=PredictConfig(tile_size=(tile,) * spatial_dims, overlap=0.0, device="cpu"),
        )
        torch.manual_seed(0)
        return Bundle(build_recipe_net(recipe).eval(), recipe, "0.0.test")

    return build


def write_ball(folder: Path, case: str, rng: np.random.Generator) -> None:
    """Write an image in which a bright ball with a brighter core lies in noise."""
    shape = (20, 24, 18)
    centre = rng.uniform(8, 12, size=3)
    distance = np.linalg.norm(np.moveaxis(np.indices(shape), 0, -1) - centre, axis=-1)
    label_map = (distance < 6).astype(np.uint8) + (distance < 3)
    image = label_map * 50.0 + rng.normal(100, 10, size=shape)
    for kind, array in {"images": image.astype(np.int16), "labels": label_map}.items():
        write_volume(Volume(array[None], BALL_AFFINE), folder / kind / f"{case}.nii.gz")


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
