"""Networks of overlapping regions, and references with voxels to ignore, train end to end."""

from pathlib import Path

import numpy as np
import pytest

from medseg3d.config.load import load_config
from medseg3d.data.cases import find_cases
from medseg3d.data.splits import split_cases
from medseg3d.errors import LabelError
from medseg3d.evaluate.score import score_case
from medseg3d.io.events import read_events
from medseg3d.io.files import read_volume, write_volume
from medseg3d.nets.bundle import load_bundle
from medseg3d.train.run import train_run
from medseg3d.train.trainer import Trainer
from medseg3d.volume import Volume


@pytest.mark.parametrize(
    "loss",
    ["{}", pytest.param("{region_term: tversky, voxel_term: focal}", marks=pytest.mark.slow)],
)
def test_regions_are_learnt_and_validated_as_evaluate_does(
    config_file: Path, tmp_path: Path, loss: str
) -> None:
    config = load_config(config_file, ["outputs=regions", "train.epochs=14", f"train.loss={loss}"])
    run = tmp_path / "run"

    trained = train_run(config, run)

    end = read_events(run / "metrics.jsonl")[-1]
    bundle = load_bundle(trained.model)
    assert bundle.recipe.outputs == "regions"
    assert bundle.net.heads[0].out_channels == 2
    assert end.mean_dice > 0.8
    split = split_cases(find_cases(config.data), config.data.split, folder=config.data.folder)
    Trainer(config, split, run).validate()
    assert read_events(run / "metrics.jsonl")[-1].dice == pytest.approx(end.dice, abs=1e-9)


@pytest.mark.slow
def test_ignored_voxels_are_neither_learnt_from_nor_scored_nor_predicted(
    config_file: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "data" / "labels"
    for path in folder.iterdir():
        reference = read_volume(path)
        array = reference.array_CIJK.copy()
        array[:, :, :12][array[:, :, :12] > 0] = 9  # there the ball is not annotated
        write_volume(Volume(array, reference.affine), path)
    with pytest.raises(LabelError, match="holds 9"):
        train_run(load_config(config_file, []), tmp_path / "refused")
    config = load_config(config_file, ["data.labels.ignore=9", "train.epochs=14"])
    run = tmp_path / "run"

    scores = train_run(config, run).scores

    means = {region: measures["dice"].mean for region, measures in scores.summary().items()}
    assert means["ball"] > 0.8
    bundle = load_bundle(run / "model.safetensors")
    assert bundle.recipe.labels.ignore == 9
    result = scores.cases[0]
    predicted = read_volume(result.pair.predicted)
    reference = read_volume(result.pair.reference)
    assert not (predicted.array_CIJK == 9).any()
    ignored = reference.array_CIJK == 9
    assert predicted.array_CIJK[ignored].any(), "the ball is not known to end there"
    known = [Volume(np.where(ignored, 0, v.array_CIJK), v.affine) for v in (predicted, reference)]
    by_hand = score_case(*known, scheme=config.data.labels.model_copy(update={"ignore": None}))
    assert result.score.regions["ball"].measures["dice"] == by_hand.regions["ball"].measures["dice"]
    split = split_cases(find_cases(config.data), config.data.split, folder=config.data.folder)
    Trainer(config, split, run).validate()
    assert read_events(run / "metrics.jsonl")[-1].dice == pytest.approx(means, abs=1e-9)
