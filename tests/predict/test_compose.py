"""Several opinions, averaged: flips, models, slices, and how much they disagree."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from medseg3d.errors import ConfigError
from medseg3d.labels import LabelScheme
from medseg3d.nets.bundle import Bundle, build_recipe_net
from medseg3d.predict.case import predict_image
from medseg3d.predict.compose import averaged, compose_engine, require_alike, slicewise
from medseg3d.predict.engine import Engine, build_engine, bundle_engine
from medseg3d.predict.sliding import predict_logits, stream_slabs

Build = Callable[..., Bundle]
CPU = torch.device("cpu")
NESTED = LabelScheme(values={1: "core", 2: "rim"}, regions={"all": (1, 2), "core": (1,)})
EVERY_FLIP = [[], [0], [1], [2], [0, 1], [0, 2], [1, 2], [0, 1, 2]]


class Said(nn.Module):
    """Say the same logits everywhere."""

    def __init__(self, *logits: float) -> None:
        super().__init__()
        self.logits = torch.tensor([float(logit) for logit in logits])

    def forward(self, image: Tensor) -> Tensor:
        shape = (1, -1) + (1,) * (image.ndim - 2)
        return self.logits.reshape(shape).expand(len(image), -1, *image.shape[2:])


class Blurred(nn.Module):
    """A network that does not care for direction: the mean of the neighbours."""

    def forward(self, image: Tensor) -> Tensor:
        mean = nn.functional.avg_pool3d(image, 3, stride=1, padding=1)
        return torch.cat([mean, -mean], dim=1)


class Slope(nn.Module):
    """A network whose answer is the place in the tile."""

    def forward(self, image: Tensor) -> Tensor:
        steps = [torch.arange(n, dtype=torch.float32) for n in image.shape[2:]]
        place = steps[0][:, None, None] + 10 * steps[1][:, None] + 100 * steps[2]
        return torch.stack([place, -place]).expand(len(image), -1, *place.shape)


def says(*logits: float) -> Engine:
    return build_engine(Said(*logits).eval())


def with_predict(bundle: Bundle, **knobs: object) -> Bundle:
    predict = bundle.recipe.predict.model_copy(update=knobs)
    return replace(bundle, recipe=bundle.recipe.model_copy(update={"predict": predict}))


def retrained(bundle: Bundle, seed: int = 1, **changes: object) -> Bundle:
    recipe = bundle.recipe.model_copy(update=changes)
    torch.manual_seed(seed)
    return Bundle(build_recipe_net(recipe).eval(), recipe, "0.0.test")


def test_a_single_model_is_run_as_it_is(build_bundle: Build) -> None:
    bundle = build_bundle("t1", tile=8)
    image = torch.randn(1, 12, 10, 9)

    composed, plain = (
        predict_logits(engine, image, tile_size=(8, 8, 8))
        for engine in (compose_engine([bundle]), bundle_engine(bundle))
    )

    assert torch.equal(composed, plain)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_several_models_are_the_mean_of_their_logits(build_bundle: Build, precision: str) -> None:
    first = with_predict(build_bundle("t1", tile=8), precision=precision)
    bundles = [first, retrained(first, 1), retrained(first, 2)]
    image = torch.randn(1, 12, 10, 9)

    together = predict_logits(compose_engine(bundles), image, tile_size=(8, 8, 8))

    each = [predict_logits(bundle_engine(b), image, tile_size=(8, 8, 8)) for b in bundles]
    assert together.dtype == torch.float32
    torch.testing.assert_close(together, torch.stack(each).mean(0), rtol=1e-4, atol=1e-5)
    assert (each[0] - each[1]).abs().max() > 0.1


def test_the_first_models_knobs_hold_for_all(build_bundle: Build) -> None:
    first = with_predict(build_bundle("t1", tile=8), precision="bf16")
    exact = with_predict(retrained(first), precision="fp32")
    tiles = torch.randn(1, 1, 8, 8, 8)

    together = compose_engine([first, exact])(tiles)

    coarse = bundle_engine(with_predict(exact, precision="bf16"))(tiles)
    expected = (bundle_engine(first)(tiles) + coarse.float()) / 2
    torch.testing.assert_close(together, expected, rtol=1e-6, atol=1e-6)


def test_a_network_that_knows_no_direction_is_its_own_average_over_all_flips() -> None:
    engine, tiles = build_engine(Blurred().eval()), torch.randn(2, 1, 7, 6, 5)

    mirrored = averaged([engine], flips=EVERY_FLIP)(tiles)

    torch.testing.assert_close(mirrored, engine(tiles), rtol=1e-5, atol=1e-6)


def test_flips_are_undone_along_their_own_axes() -> None:
    engine, tiles = build_engine(Slope().eval()), torch.zeros(1, 1, 3, 4, 5)

    for flip in EVERY_FLIP:
        flipped = averaged([engine], flips=[flip])(tiles)
        assert torch.equal(flipped, engine(tiles).flip([axis + 2 for axis in flip]))
    everywhere = averaged([engine], flips=EVERY_FLIP)(tiles)
    torch.testing.assert_close(everywhere[:, 0], torch.full((1, 3, 4, 5), 1 + 15.0 + 200))


def test_the_input_and_the_networks_own_answers_are_not_written_to() -> None:
    kept = torch.randn(1, 2, 4, 4, 4)
    engine, tiles = Engine(lambda _: kept, CPU), torch.randn(1, 1, 4, 4, 4)
    before, given = kept.clone(), tiles.clone()

    averaged([engine, engine], disagreement="values")(tiles)
    averaged([engine, engine])(tiles)

    assert torch.equal(kept, before)
    assert torch.equal(tiles, given)


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_the_recipe_says_along_which_axes_to_flip(build_bundle: Build, spatial_dims: int) -> None:
    bundle = build_bundle("t1", tile=8, spatial_dims=spatial_dims)
    image = torch.randn(1, 8, 8, 8 if spatial_dims == 3 else 1)
    tile = tuple(image.shape[1:])

    mirrored = predict_logits(
        compose_engine([with_predict(bundle, mirror=("i", "j"))]), image, tile_size=tile
    )

    plain = compose_engine([bundle])
    flips = [(), (1,), (2,), (1, 2)]
    each = [predict_logits(plain, image.flip(f), tile_size=tile).flip(f) for f in flips]
    torch.testing.assert_close(mirrored, torch.stack(each).mean(0), rtol=1e-4, atol=1e-5)
    assert (mirrored - each[0]).abs().max() > 1e-3


def test_two_sure_opposite_opinions_disagree_by_one_bit() -> None:
    engine = averaged([says(60, -60), says(-60, 60)], disagreement="values")

    out = engine(torch.zeros(1, 1, 3, 3, 3))

    assert engine.num_maps == 1
    assert out.shape == (1, 3, 3, 3, 3)
    torch.testing.assert_close(out[:, 2], torch.ones(1, 3, 3, 3))
    torch.testing.assert_close(out[:, :2], torch.zeros(1, 2, 3, 3, 3))


def test_disagreement_is_summed_over_regions() -> None:
    opinions = [says(60, -60, 5), says(-60, 60, 5)]

    out = averaged(opinions, disagreement="regions")(torch.zeros(1, 1, 2, 2))

    torch.testing.assert_close(out[:, 3], torch.full((1, 2, 2), 2.0))


@pytest.mark.parametrize("outputs", ["values", "regions"])
@pytest.mark.parametrize("logits", [(0, 0), (3, -4), (1e30, -1e30), (float("-inf"), 3)])
def test_opinions_that_agree_disagree_by_nothing(outputs: str, logits: tuple[float, float]) -> None:
    out = averaged([says(*logits)] * 3, disagreement=outputs)(torch.zeros(1, 1, 2, 2, 2))

    torch.testing.assert_close(out[:, 2], torch.zeros(1, 2, 2, 2), rtol=0, atol=1e-6)


@pytest.mark.parametrize("outputs", ["values", "regions"])
def test_rounding_makes_no_disagreement_negative(outputs: str) -> None:
    opinions = [build_engine(Blurred().eval())] * 3

    out = averaged(opinions, disagreement=outputs)(torch.randn(1, 1, 20, 20, 20))

    assert 0 <= out[:, 2].min() <= out[:, 2].max() < 1e-5


@settings(deadline=None, max_examples=60)
@given(
    opinions=st.lists(
        st.lists(st.floats(-1e4, 1e4, width=32), min_size=3, max_size=3), min_size=1, max_size=5
    ),
    outputs=st.sampled_from(["values", "regions"]),
)
def test_disagreement_is_the_mutual_information_of_answer_and_opinion(
    opinions: list[list[float]], outputs: str
) -> None:
    engine = averaged([says(*opinion) for opinion in opinions], disagreement=outputs)

    logits, bits = engine(torch.zeros(1, 1, 1, 1)).ravel().split([3, 1])

    told = np.array(opinions, dtype=np.float64)
    np.testing.assert_allclose(logits, told.mean(0), rtol=1e-5, atol=1e-2)
    np.testing.assert_allclose(bits, mutual_information(told, outputs), rtol=1e-4, atol=2e-6)
    assert bits >= 0
    if outputs == "values":
        assert bits <= np.log2(min(3, len(opinions))) + 1e-5


def mutual_information(told: np.ndarray, outputs: str) -> float:
    """Give the mean divergence in bits of each opinion from the mean of all."""
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        if outputs == "values":
            shifted = np.exp(told - told.max(1, keepdims=True))
            probs = shifted / shifted.sum(1, keepdims=True)
        else:
            probs = np.concatenate([1 / (1 + np.exp(-told)), 1 / (1 + np.exp(told))], axis=1)
        return float(np.nansum(probs * np.log2(probs / probs.mean(0)), axis=1).mean())


def test_uncertainty_of_one_opinion_is_refused_with_what_to_do(build_bundle: Build) -> None:
    with pytest.raises(ConfigError) as error:
        compose_engine([build_bundle("t1", tile=8)], uncertainty=True)
    assert str(error.value) == (
        "uncertainty is where several opinions disagree, and here is one: give more models, "
        "or --set predict.mirror=[i]"
    )


@pytest.mark.parametrize("outputs", ["values", "regions"])
@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_uncertainty_follows_the_logits_and_changes_none(
    build_bundle: Build, spatial_dims: int, outputs: str
) -> None:
    first = retrained(
        build_bundle("t1", tile=8, spatial_dims=spatial_dims), 0, labels=NESTED, outputs=outputs
    )
    bundles = [first, retrained(first)]
    image = np.random.default_rng(0).normal(size=(1, 12, 10, 5)).astype(np.float32)

    told, plain = (
        predict_image(compose_engine(bundles, uncertainty=sure), image, first.recipe)
        for sure in (True, False)
    )

    np.testing.assert_array_equal(told.values_IJK, plain.values_IJK)
    assert plain.uncertainty_IJK is None
    assert told.uncertainty_IJK is not None
    assert told.uncertainty_IJK.min() >= 0
    assert 0.01 < told.uncertainty_IJK.max() <= (1 if outputs == "values" else 2)


def test_a_tile_fits_all_networks() -> None:
    engines = [
        Engine(lambda x: x, CPU, divisor=(4, 6, 1)),
        Engine(lambda x: x, CPU),
        Engine(lambda x: x, CPU, divisor=(6, 2, 1)),
    ]

    assert averaged(engines).divisor == (12, 6, 1)
    assert averaged(engines[1:2]).divisor is None
    assert slicewise(engines[0]).divisor == (4, 6, 1, 1)
    assert slicewise(engines[1]).divisor is None


@pytest.mark.parametrize("tile_batch", [1, 3, 7])
def test_slices_in_batches_are_the_slices_one_by_one(build_bundle: Build, tile_batch: int) -> None:
    bundle = with_predict(build_bundle("t1", tile=8, spatial_dims=2), precision="fp32")
    image = torch.randn(1, 12, 10, 5)

    volume = predict_logits(
        compose_engine([bundle]), image, tile_size=(8, 8, 1), tile_batch=tile_batch
    )

    each = [predict_logits(bundle.net, image[..., k], tile_size=(8, 8)) for k in range(5)]
    torch.testing.assert_close(volume, torch.stack(each, dim=-1), rtol=1e-4, atol=1e-5)


def test_maps_of_slices_are_told_apart_from_logits(build_bundle: Build) -> None:
    bundle = build_bundle("t1", tile=8, spatial_dims=2)
    engine = compose_engine([bundle, retrained(bundle)], uncertainty=True)

    (slab, *_) = stream_slabs(engine, torch.randn(1, 8, 8, 2), tile_size=(8, 8, 1))

    assert (len(slab.sums), len(slab.map_sums)) == (3, 1)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"images": {"t2": "t2.nii.gz"}}, r"channels: \['t1'\] and \['t2'\]"),
        ({"outputs": "values"}, "outputs: regions and values"),
        (
            {"labels": LabelScheme(values={1: "core", 3: "rim"})},
            r"label values: \{1: 'core', 2: 'rim'\} and \{1: 'core', 3: 'rim'\}; regions: ",
        ),
        (
            {"labels": NESTED.model_copy(update={"regions": {"core": (1,), "all": (1, 2)}})},
            r"regions: \[\('all', \(1, 2\)\), \('core', \(1,\)\)\] and "
            r"\[\('core', \(1,\)\), \('all', \(1, 2\)\)\]",
        ),
    ],
)
def test_models_that_differ_are_refused_with_what_differs(
    build_bundle: Build, changes: dict[str, object], said: str
) -> None:
    first = retrained(build_bundle("t1", tile=8), labels=NESTED, outputs="regions")
    other = replace(first, recipe=first.recipe.model_copy(update=changes))

    require_alike([first, first])
    start = "^models 1 and 3 cannot be averaged, they differ in "
    with pytest.raises(ConfigError, match=f"{start}{said}"):
        compose_engine([first, first, other])


def test_only_the_knobs_that_differ_are_told(build_bundle: Build) -> None:
    others = [
        (build_bundle("t1", tile=8, intensity="none"), "preprocess.intensity: zscore and none"),
        (build_bundle("t1", tile=48), r"tile size: (8, 8, 8) and (48, 48, 48)"),
        (
            build_bundle("t1", tile=8, spatial_dims=2),
            "dimensions: 3 and 2; tile size: (8, 8, 8) and (8, 8)",
        ),
    ]
    for other, said in others:
        with pytest.raises(ConfigError) as error:
            require_alike([build_bundle("t1", tile=8), other])
        assert str(error.value).endswith(f"cannot be averaged, they differ in {said}")


def test_networks_of_values_need_no_regions_that_can_be_painted(build_bundle: Build) -> None:
    scheme = LabelScheme(
        values={1: "front", 2: "back"}, regions={"all": (1, 2), "front": (1,), "back": (2,)}
    )
    bundle = retrained(build_bundle("t1", tile=8), labels=scheme)

    require_alike([bundle, retrained(bundle, seed=2)])


def test_flips_that_one_model_never_saw_are_refused(build_bundle: Build) -> None:
    first = with_predict(retrained(build_bundle("t1", tile=8), labels=NESTED), mirror=("i",))
    unknown, seen, unseen = (retrained(first, flipped=axes) for axes in (None, ("i", "k"), ()))

    require_alike([first, unknown, seen])
    said = r"^model 3 cannot be run as model 1 says: predict.mirror is \['i'\], which training"
    with pytest.raises(ConfigError, match=said):
        compose_engine([first, seen, unseen])


def test_names_of_regions_do_not_matter_to_a_network_of_values(build_bundle: Build) -> None:
    first = retrained(build_bundle("t1", tile=8), labels=NESTED)
    unnamed = NESTED.model_copy(update={"regions": {"core": (1,)}, "name": "other"})

    require_alike([first, retrained(first, labels=unnamed)])
