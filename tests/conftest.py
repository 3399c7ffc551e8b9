"""Fixtures that every test may use."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import jaxtyping
import pytest

from medseg3d.config.network import ResUNetConfig
from medseg3d.config.predict import PredictConfig
from medseg3d.config.preprocess import PreprocessConfig
from medseg3d.config.recipe import Recipe
from medseg3d.labels import LabelScheme

if TYPE_CHECKING:
    from medseg3d.nets.bundle import Bundle

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
