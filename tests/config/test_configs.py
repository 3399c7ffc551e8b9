"""The configurations that are shipped, and the knobs they can turn."""

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel, ValidationError

from medseg3d.config.evaluate import EvaluateRun
from medseg3d.config.load import load_config
from medseg3d.config.recipe import Recipe, build_recipe
from medseg3d.config.run import RunConfig
from medseg3d.nets.bundle import build_recipe_net
from medseg3d.nets.presets import NETS
from medseg3d.predict.tiles import require_divisible

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))


def sections_below(section: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """Give a section and every section that it holds, however deep."""
    yield section
    annotations = [field.annotation for field in section.model_fields.values()]
    while annotations:
        annotation = annotations.pop()
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield from sections_below(annotation)
        annotations += get_args(annotation)


def test_every_shipped_config_is_seen():
    assert [path.name for path in CONFIGS if path.parent == ROOT / "configs"] == [
        "brats2021.yaml",
        "brats2021_2d.yaml",
        "brats2023.yaml",
        "brats2023_2d.yaml",
        "ct_organs.yaml",
        "ct_organs_2d.yaml",
        "hippocampus.yaml",
        "quickstart.yaml",
    ]
    assert len(CONFIGS) == 17


def test_every_kind_of_network_has_a_config():
    kinds = {load_config(path).network.kind for path in CONFIGS}
    assert kinds == {*NETS, "monai"} - {"resenc_l"}  # M and L are one network


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
class TestEveryShippedConfig:
    def test_it_loads_and_makes_a_recipe(self, path: Path):
        config = load_config(path)
        recipe = build_recipe(config)
        assert recipe.predict.tile_size == (config.predict.tile_size or config.train.patch_size)
        assert Recipe.model_validate(recipe.model_dump(mode="json")) == recipe

    def test_its_patch_fits_its_network(self, path: Path):
        config = load_config(path)
        net = build_recipe_net(build_recipe(config))
        require_divisible(config.train.patch_size, net.divisor, name="train.patch_size")

    def test_it_is_short_and_its_header_says_how_long_and_the_command(self, path: Path):
        lines = path.read_text().splitlines()
        header = [line for line in lines[:6] if line.startswith("#")]
        assert len(lines) <= 60
        place = path.relative_to(ROOT).as_posix()
        assert any(f"medseg3d train {place} --out " in line for line in header)
        assert any("minutes" in line or "hours" in line for line in header)


@pytest.mark.slow
def test_the_quickstart_is_the_one_that_the_demo_runs():
    packaged = import_module("medseg3d.demo").QUICKSTART
    assert (ROOT / "configs/quickstart.yaml").read_bytes() == packaged.read_bytes()


@pytest.mark.parametrize(
    "section", dict.fromkeys([*sections_below(RunConfig), *sections_below(EvaluateRun)])
)
class TestEverySection:
    def test_every_knob_has_its_sentence(self, section: type[BaseModel]):
        for name, field in section.model_fields.items():
            sentence = field.description or ""
            assert sentence.strip().endswith("."), f"{section.__name__}.{name}: {sentence!r}"

    def test_it_is_frozen_and_refuses_unknown_keys(self, section: type[BaseModel]):
        assert section.model_config["frozen"]
        assert section.model_config["extra"] == "forbid"


def test_a_loaded_config_cannot_be_changed():
    config = load_config(CONFIGS[0])
    with pytest.raises(ValidationError, match="frozen"):
        config.train.epochs = 3  # type: ignore[misc]
