"""Plans of memory: never less than what is taken, and results that do not depend on them."""

import importlib.util
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from medseg3d.config.recipe import Recipe
from medseg3d.errors import ConfigError
from medseg3d.io.files import write_volume
from medseg3d.nets.bundle import Bundle
from medseg3d.nets.cost import measure_peak
from medseg3d.predict.budget import Budget, plan_budget
from medseg3d.predict.case import predict_case, predict_image, predict_prepared, prepare_case
from medseg3d.predict.compose import compose_engine
from medseg3d.predict.memory import CaseSize, plan_after, plan_before
from medseg3d.predict.memory import plan_memory as plan
from medseg3d.volume import Volume

Build = Callable[..., Bundle]
SIZE = CaseSize((96, 96, 96), (96, 96, 96), voxel_bytes=0)


@pytest.fixture
def budget(build_bundle: Build) -> Budget:
    """Give the budget of four tiles in a batch, with no limit."""
    bundle = build_bundle("t1")
    wish = bundle.recipe.predict.model_copy(update={"tile_batch": 4})
    recipe = bundle.recipe.model_copy(update={"predict": wish})
    return replace(plan_budget([replace(bundle, recipe=recipe)]), host=None)


def limited(budget: Budget, size: int) -> Budget:
    return replace(budget, host=size, asked=size)


def test_the_peak_of_a_pass_is_of_all_that_lives_at_once() -> None:
    def run(image: torch.Tensor) -> torch.Tensor:
        doubled = image * 2
        halved = doubled / 2
        del doubled
        return halved.relu() + 1  # with relu's result, three live at once

    assert measure_peak(run, torch.zeros(1, 1, 8, 8)) == 4 * 64 * 4
    assert measure_peak(run, torch.zeros(1, 1, 8, 8), tile=(16, 32)) == 8 * 4 * 64 * 4


def test_what_a_small_tile_takes_grows_to_what_the_tile_takes(build_bundle: Build) -> None:
    net = compose_engine([build_bundle("t1")])

    small = measure_peak(net, torch.zeros(1, 1, 8, 4, 4), tile=(32, 32, 32))

    assert small == pytest.approx(measure_peak(net, torch.zeros(1, 1, 32, 32, 32)), rel=0.02)


def test_without_a_limit_the_wish_is_granted(budget: Budget) -> None:
    assert plan(budget, SIZE).tile_batch == 4


def test_tiles_in_a_batch_are_halved_until_they_fit(budget: Budget) -> None:
    most = sum(plan(budget, SIZE).host.values())
    seen = [plan(limited(budget, most - 1), SIZE)]
    while seen[-1].tile_batch > 1:
        seen.append(plan(limited(budget, sum(seen[-1].host.values()) - 1), SIZE))

    assert [one.tile_batch for one in seen] == [2, 1]


def test_sums_move_to_the_host_where_a_gpu_is_small(budget: Budget) -> None:
    gpu = replace(budget, device=torch.device("cuda"), on_device=2**40)
    roomy = plan(gpu, SIZE)
    least = plan(replace(gpu, recipe=_with_batch(gpu.recipe, 1)), SIZE)

    small = plan(replace(gpu, on_device=sum(least.on_device.values()) - 1), SIZE)

    assert (roomy.ring_device.type, "sums" in roomy.on_device) == ("cuda", True)
    assert (small.ring_device.type, "sums" in small.on_device) == ("cpu", False)


def _with_batch(recipe: Recipe, tile_batch: int) -> Recipe:
    return recipe.model_copy(
        update={"predict": recipe.predict.model_copy(update={"tile_batch": tile_batch})}
    )


def test_fewer_cases_are_read_ahead_where_they_do_not_fit(budget: Budget) -> None:
    flowing = replace(budget, waiting=2)
    alone = sum(plan(replace(budget, recipe=_with_batch(budget.recipe, 1)), SIZE).host.values())

    assert plan(flowing, SIZE).waiting == 2
    assert plan(limited(flowing, alone), SIZE).waiting == 0


def test_each_case_ahead_counts_its_images_before_and_after(budget: Budget) -> None:
    others = plan(replace(budget, waiting=2), SIZE).host["4 cases before and after"]
    image = 4 * 96**3

    assert others >= 2 * image


def test_a_case_is_run_as_it_is_planned(build_bundle: Build) -> None:
    bundle, batches = build_bundle("t1", tile=16), []
    engine = compose_engine([bundle])

    def note(tiles: torch.Tensor) -> torch.Tensor:
        batches.append(len(tiles))
        return engine.run(tiles)

    image = np.random.default_rng(0).normal(size=(1, 48, 32, 16)).astype(np.float32)
    prepared = prepare_case(Volume(image, np.eye(4)), bundle.recipe)
    planned = replace(plan_after(plan_budget([bundle]), prepared.preprocessed), tile_batch=4)

    predict_prepared(replace(engine, run=note), prepared, bundle.recipe, plan=planned)

    assert batches == [4, 2]
    nowhere = replace(planned, ring_device=torch.device("meta"))  # sums there hold no data
    with pytest.raises(RuntimeError, match="meta tensor"):
        predict_prepared(engine, prepared, bundle.recipe, plan=nowhere)


def test_what_does_not_fit_is_refused_with_what_it_takes(budget: Budget) -> None:
    with pytest.raises(
        ConfigError, match=r"takes [\d.]+.iB \(program [\d.]+.iB.*tile_batch=1, "
    ) as e:
        plan(limited(budget, 2**20), SIZE)

    assert "--memory is 1MiB; give --memory" in str(e.value)


def test_free_memory_is_refused_only_where_it_surely_does_not_suffice(
    budget: Budget, caplog: pytest.LogCaptureFixture
) -> None:
    least = plan(replace(budget, recipe=_with_batch(budget.recipe, 1)), SIZE)
    need = sum(least.host.values())

    assert plan(replace(budget, host=need - 1), SIZE).tile_batch == 1
    assert "memory may not suffice" in caplog.text
    with pytest.raises(ConfigError, match="of the host can be had"):
        plan(replace(budget, host=budget.base), SIZE)


def test_headers_tell_the_size_unless_the_case_is_cropped(
    tmp_path: Path, build_bundle: Build
) -> None:
    path = tmp_path / "a.nii.gz"
    write_volume(Volume(np.ones((1, 40, 30, 20), np.int16), np.diag([-1.0, 1, 2, 1])), path)

    for preprocess in ({}, {"spacing_mm": (1.5, 0.8, 1.0)}, {"orientation": "PIR"}):
        budget = plan_budget([build_bundle("t1", **preprocess)])
        before = plan_before(budget, path)
        after = plan_after(budget, prepare_case(path, budget.recipe).preprocessed)
        assert before is not None
        assert before.on_device == after.on_device
        assert sum(before.host.values()) >= sum(after.host.values())
    assert plan_before(plan_budget([build_bundle("t1", crop="nonzero")]), path) is None


def test_a_case_that_does_not_fit_is_not_read(tmp_path: Path, build_bundle: Build) -> None:
    path = tmp_path / "a.nii"
    write_volume(Volume(np.ones((1, 40, 30, 20), np.int16), np.eye(4)), path)
    path.write_bytes(path.read_bytes()[:400])  # reading would find it cut off

    bundle = build_bundle("t1")
    with pytest.raises(ConfigError, match="give --memory"):
        predict_case(bundle, path, budget=plan_budget([bundle], memory=2**20))


def test_results_do_not_depend_on_where_tiles_are_summed(build_bundle: Build) -> None:
    bundle = build_bundle("t1")
    image = np.random.default_rng(0).normal(size=(1, 40, 40, 40)).astype(np.float32)
    engine = compose_engine([bundle])

    there = predict_image(engine, image, bundle.recipe, ring_device=torch.device("cpu"))

    here = predict_image(engine, image, bundle.recipe)
    np.testing.assert_array_equal(there.values_IJK, here.values_IJK)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["small, 4 channels, resampled", "resunet 32..128, tile batch 4"])
def test_whole_processes_take_no_more_than_planned(name: str) -> None:
    script = Path(__file__).parents[2] / "benchmarks" / "planned.py"
    spec = importlib.util.spec_from_file_location("planned", script)
    assert spec
    assert spec.loader
    planned = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(planned)

    row = planned.measure(planned.CASES[name])

    assert row["taken"] <= row["plan"] <= 1.5 * row["taken"]
