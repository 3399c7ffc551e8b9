"""Knobs of prediction that no network could follow are refused, before anything is computed."""

from typing import Any

import pytest

from medseg3d.config.load import override_section, parse_section
from medseg3d.config.predict import PredictConfig
from medseg3d.config.recipe import Recipe, build_recipe
from medseg3d.config.run import RunConfig
from medseg3d.errors import ConfigError


def a_run(*, spatial_dims: int = 3, flipped: tuple[int, ...] = (), **predict: Any) -> RunConfig:
    content = {
        "data": {"folder": "cases", "images": {"t1": "{case}.nii.gz"}, "labels": "brats2023"},
        "spatial_dims": spatial_dims,
        "network": {"kind": "resunet"},
        "train": {"patch_size": [32] * spatial_dims, "augment": {"mirror_axes": flipped}},
        "predict": predict,
    }
    return parse_section(RunConfig, content, source="run.yaml")


def a_recipe(*settings: str) -> Recipe:
    return override_section(build_recipe(a_run(flipped=(0, 2))), settings)


@pytest.mark.parametrize(
    ("knobs", "said"),
    [
        ({"mirror": ["i", "j", "i"]}, "predict.mirror: an axis is named twice"),
        ({"mirror": ["x"]}, "predict.mirror.0: input should be 'i', 'j' or 'k'"),
        ({"mirror": ["k"], "spatial_dims": 2}, r"predict.mirror is \['k'\]; a 2D network has i, j"),
        ({"mirror": ["k"]}, r"predict.mirror is \['k'\], which training never .* flipped none"),
        ({"focus": "brain"}, "predict.focus: input should be 'all', 'nonzero' or 'body'"),
        (
            {"thresholds": {"ET": 0.2}},
            r"predict.thresholds is for \['ET'\]; the network's outputs are values, of which",
        ),
        ({"thresholds": {"ET": 1}}, "predict.thresholds.ET: input should be less than 1"),
        ({"thresholds": {"ET": 0}}, "predict.thresholds.ET: input should be greater than 0"),
    ],
)
def test_a_run_with_impossible_knobs_is_refused(knobs: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=f"run.yaml: 1 fault.*\n.*{said}"):
        a_run(**knobs)


def test_knobs_that_fit_are_taken() -> None:
    run = a_run(mirror=["i", "j"], spatial_dims=2, flipped=(0, 1, 2))
    assert run.predict.mirror == build_recipe(run).flipped == ("i", "j")
    recipe = a_recipe("outputs=regions", "predict.thresholds.ET=0.2", "predict.mirror=[k]")
    assert recipe.predict.thresholds == {"ET": 0.2}
    assert (a_recipe().num_outputs, recipe.num_outputs) == (4, 3)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            ("predict.mirror=[i,j]",),
            r"predict.mirror is \['j'\], which training never flipped.*it flipped \['i', 'k'\]",
        ),
        (
            ("outputs=regions", "predict.thresholds.core=0.2"),
            r"predict.thresholds is for \['core'\]; the network's outputs are \['WT', 'TC', 'ET'\]",
        ),
        (
            ("outputs=regions", "labels.codes={}", "labels.regions={WT: [1, 2, 3]}"),
            "region 'WT' has 3 values of its own",
        ),
        (("predict.thresholds.WT=0.2",), "the network's outputs are values"),
        (
            ("predict.tile_size=null",),
            "predict.tile_size is None, a 3D network needs 3 numbers",
        ),
    ],
)
def test_a_recipe_that_cannot_be_followed_is_refused(settings: tuple[str, ...], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        a_recipe(*settings)


def test_the_whole_image_is_the_default() -> None:
    assert (PredictConfig().focus, PredictConfig().mirror) == ("all", ())
