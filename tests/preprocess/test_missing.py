"""A channel that a case lacks is zeros from the file to the network."""

from pathlib import Path

import numpy as np
import pytest

from medseg3d.config.preprocess import PreprocessConfig
from medseg3d.config.recipe import build_recipe
from medseg3d.config.run import RunConfig
from medseg3d.data.cases import Case
from medseg3d.data.store import Store
from medseg3d.io.files import write_volume
from medseg3d.labels import LabelScheme
from medseg3d.preprocess.dataset import preprocess_cases
from medseg3d.volume import Volume


@pytest.mark.parametrize("intensity", ["none", "zscore", "zscore_nonzero"])
def test_a_missing_channel_stays_zero_in_its_own_place(tmp_path: Path, intensity: str):
    image = np.random.default_rng(0).normal(100, 20, (1, 6, 5, 4)).astype(np.int16)
    for name, array in (("t2", image), ("seg", (image > 110).astype(np.uint8))):
        write_volume(Volume(array, np.eye(4)), tmp_path / f"{name}.nii.gz")
    images = {"t2": tmp_path / "t2.nii.gz"}
    case = Case("p", images, tmp_path / "seg.nii.gz", channels=("t1", "t2"))
    store = Store(tmp_path / "store")
    config = PreprocessConfig.model_validate(
        {"intensity": intensity, "spacing_mm": (1.5, 1.5, 1.5), "crop": "nonzero"}
    )
    [stored] = preprocess_cases([case], store, config, LabelScheme(values={1: "one"}))
    image_CIJK = stored.image_CIJK
    assert image_CIJK.shape[0] == 2
    assert not image_CIJK[0].any()
    assert image_CIJK[1].any()


@pytest.mark.parametrize(
    ("missing", "remembered"), [("zeros", "zeros"), ("drop", "refuse"), ("refuse", "refuse")]
)
def test_a_model_remembers_whether_channels_may_be_missing(missing: str, remembered: str):
    data = {"folder": ".", "images": {"t1": "{case}.nii"}, "labels": "btcv", "missing": missing}
    run = RunConfig.model_validate({"data": data, "network": {"kind": "unet"}})
    assert build_recipe(run).missing == remembered


def test_which_channel_is_missing_makes_another_stored_case(tmp_path: Path):
    image = np.random.default_rng(0).normal(100, 20, (1, 6, 5, 4)).astype(np.int16)
    for name, array in (("t", image), ("seg", (image > 110).astype(np.uint8))):
        write_volume(Volume(array, np.eye(4)), tmp_path / f"{name}.nii.gz")
    store = Store(tmp_path / "store")
    for channel, place in (("t1", 0), ("t2", 1)):
        images = {channel: tmp_path / "t.nii.gz"}
        case = Case("p", images, tmp_path / "seg.nii.gz", channels=("t1", "t2"))
        labels = LabelScheme(values={1: "one"})
        [stored] = preprocess_cases([case], store, PreprocessConfig(), labels)
        filled = [bool(values.any()) for values in stored.image_CIJK]
        assert filled == [place == 0, place == 1]
