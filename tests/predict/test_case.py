"""From files to label maps on the files' own grid."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from medseg3d.errors import ConfigError, FormatError, GridError
from medseg3d.io.files import read_volume, write_volume
from medseg3d.labels import LabelScheme
from medseg3d.nets.bundle import Bundle, build_recipe_net, save_bundle
from medseg3d.predict.case import predict_case, predict_image
from medseg3d.predict.cases import predict_inputs
from medseg3d.predict.compose import compose_engine
from medseg3d.predict.sliding import predict_logits
from medseg3d.volume import Volume

from .conftest import LPS, write_image

Build = Callable[..., Bundle]


@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize(
    "preprocess",
    [
        {},
        {"orientation": "PIR"},
        {"spacing_mm": (1.0, 1.0, 1.5)},
        {"crop": "nonzero"},
        {"orientation": None, "crop": "nonzero", "spacing_mm": (2.0, 2.0, 2.0)},
    ],
)
def test_a_label_map_lies_on_exactly_the_grid_of_its_image(
    tmp_path: Path, build_bundle: Build, preprocess: dict[str, object], spatial_dims: int
) -> None:
    path = write_image(tmp_path / "a.nii.gz")

    label_map = predict_case(build_bundle("t1", spatial_dims=spatial_dims, **preprocess), [path])

    assert label_map.array_CIJK.shape == (1, 20, 24, 9)
    assert label_map.affine.tobytes() == read_volume(path).affine.tobytes()
    assert set(np.unique(label_map.array_CIJK)) <= {0, 1, 4}
    assert len(np.unique(label_map.array_CIJK)) > 1, "an untrained net is not constant"


def test_turning_the_file_turns_the_result(tmp_path: Path, build_bundle: Build) -> None:
    volume = read_volume(write_image(tmp_path / "a.nii.gz"))
    turned = Volume(volume.array_CIJK[:, ::-1], volume.affine @ _flip_of_first_axis(20))
    bundle = build_bundle("t1")

    straight, again = predict_case(bundle, volume), predict_case(bundle, turned)

    np.testing.assert_array_equal(straight.array_CIJK[:, ::-1], again.array_CIJK)


def _flip_of_first_axis(length: int) -> np.ndarray:
    flip = np.eye(4)
    flip[0, 0], flip[0, 3] = -1, length - 1
    return flip


def test_a_2d_network_sees_one_slice_at_a_time(build_bundle: Build) -> None:
    bundle = build_bundle("t1", spatial_dims=2)
    image = np.random.default_rng(0).normal(size=(1, 20, 24, 5)).astype(np.float32)
    other = image.copy()
    other[..., 3] += 5

    engine = compose_engine([bundle])
    first, second = (predict_image(engine, x, bundle.recipe).values_IJK for x in (image, other))

    changed = (first != second).any(axis=(0, 1))
    assert changed.tolist() == [False, False, False, True, False]


def test_a_single_2d_image_is_segmented(tmp_path: Path, build_bundle: Build) -> None:
    path = write_image(tmp_path / "a.nii.gz", (40, 50, 1))

    assert predict_case(build_bundle("t1", spatial_dims=2), [path]).shape_IJK == (40, 50, 1)


def test_channels_on_different_grids_are_refused(tmp_path: Path, build_bundle: Build) -> None:
    paths = [write_image(tmp_path / "a.nii.gz"), write_image(tmp_path / "b.nii.gz", (20, 24, 8))]

    with pytest.raises(GridError, match=r"20×24×9.*\n.*20×24×8"):
        predict_case(build_bundle("t1", "t2"), paths)


def test_a_wrong_number_of_files_is_refused(tmp_path: Path, build_bundle: Build) -> None:
    path = write_image(tmp_path / "a.nii.gz")

    with pytest.raises(ConfigError, match=r"2 channels \(t1, t2\), got 1"):
        predict_case(build_bundle("t1", "t2"), [path])
    with pytest.raises(ConfigError, match=r"2 channels \(t1, t2\), got 1"):
        predict_case(build_bundle("t1", "t2"), read_volume(path))


def test_nan_is_refused_unless_asked_to_be_zero(tmp_path: Path, build_bundle: Build) -> None:
    image = np.ones((1, 20, 24, 9), dtype=np.float32)
    image[0, 3:9] = 2
    image[0, 0, 0, 0] = np.nan
    write_volume(Volume(image, LPS), tmp_path / "a.nii.gz")
    model = tmp_path / "m.safetensors"
    save_bundle(build_bundle("t1"), model)

    with pytest.raises(FormatError, match="1 voxels of NaN"):
        predict_case(build_bundle("t1"), [tmp_path / "a.nii.gz"])
    done = predict_inputs(
        model, [tmp_path / "a.nii.gz"], tmp_path / "out", settings=["preprocess.nonfinite=zero"]
    )
    assert [case.reason for case in done] == [None]


def test_one_file_is_one_channel(tmp_path: Path, build_bundle: Build) -> None:
    path = write_image(tmp_path / "a.nii.gz")

    assert predict_case(build_bundle("t1"), str(path)).shape_IJK == (20, 24, 9)


NESTED = LabelScheme(values={1: "core", 4: "rim"}, regions={"all": (1, 4), "core": (1,)})


def changed(bundle: Bundle, **predict: object) -> Bundle:
    knobs = bundle.recipe.predict.model_copy(update=predict)
    return replace(bundle, recipe=bundle.recipe.model_copy(update={"predict": knobs}))


def of_regions(bundle: Bundle, **predict: object) -> Bundle:
    recipe = changed(bundle, **predict).recipe.model_copy(
        update={"outputs": "regions", "labels": NESTED}
    )
    torch.manual_seed(0)
    return Bundle(build_recipe_net(recipe).eval(), recipe, "0.0.test")


def an_image(*shape_IJK: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(1, *shape_IJK)).astype(np.float32)


@pytest.mark.parametrize("shape_IJK", [(3, 5, 1), (1, 1, 1), (20, 3, 9), (8, 8, 8)])
@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("outputs", ["values", "regions"])
def test_what_is_decided_follows_from_the_logits_of_the_whole(
    build_bundle: Build, shape_IJK: tuple[int, ...], spatial_dims: int, precision: str, outputs: str
) -> None:
    bundle = build_bundle("t1", spatial_dims=spatial_dims, tile=8)
    bundle = changed(bundle, precision=precision, tile_batch=3, overlap=0.5)
    if outputs == "regions":
        bundle = of_regions(bundle, thresholds={"core": 0.6})
    engine, image = compose_engine([bundle]), an_image(*shape_IJK)

    predicted = predict_image(engine, image, bundle.recipe, with_probs=True)

    tile_size = (8, 8, 8 if spatial_dims == 3 else 1)
    logits = predict_logits(engine, torch.from_numpy(image), tile_size=tile_size)
    if outputs == "values":
        probs = logits.softmax(0).numpy()
        expected = np.array([0, 1, 4])[logits.argmax(0).numpy()]
    else:
        probs = logits.sigmoid().numpy()
        expected = np.where(probs[1] > 0.6, 1, np.where(probs[0] > 0.5, 4, 0))
    np.testing.assert_allclose(predicted.probs_LIJK, probs, rtol=1e-3, atol=1e-3)
    assert (predicted.values_IJK == expected).mean() > (0.97 if precision == "bf16" else 0.999)
    assert predicted.values_IJK.dtype == np.uint8


def test_a_lower_threshold_finds_more_of_its_region_alone(build_bundle: Build) -> None:
    bundle, image = of_regions(build_bundle("t1", tile=8)), an_image(16, 16, 8)

    def voxels(**thresholds: float) -> dict[str, int]:
        recipe = changed(bundle, thresholds=thresholds).recipe
        predicted = predict_image(compose_engine([bundle]), image, recipe, with_probs=True)
        probs = dict(zip(NESTED.regions, predicted.probs_LIJK, strict=True))
        for region, value in (("core", 1), ("all", 4)):
            least = thresholds.get(region, 0.5)
            inside = predicted.values_IJK == value
            assert (probs[region][inside] > least - 1e-6).all()
        return {value: int((predicted.values_IJK == value).sum()) for value in (1, 4)}

    usual, low, high = voxels(), voxels(core=0.2), voxels(core=0.8)

    assert low[1] > usual[1] > high[1]
    assert low[4] <= usual[4] <= high[4]
    assert voxels(all=0.8)[1] == usual[1]
    rims = [voxels(core=0.99, all=least)[4] for least in (0.2, 0.5, 0.8)]
    assert rims[0] > rims[1] > rims[2]


@pytest.mark.slow
@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_several_models_segment_a_case_together(
    tmp_path: Path, build_bundle: Build, spatial_dims: int
) -> None:
    first = changed(
        build_bundle("t1", spatial_dims=spatial_dims, tile=8), mirror=("i",), precision="fp32"
    )
    torch.manual_seed(1)
    second = Bundle(build_recipe_net(first.recipe).eval(), first.recipe, "0.0.test")
    path = write_image(tmp_path / "a.nii.gz")

    both, again, one, other = (
        predict_case(bundles, path).array_CIJK
        for bundles in ([first, second], [second, first], [first], second)
    )

    assert (both == again).mean() > 0.999
    assert (both != one).any()
    assert (both != other).any()
    agreed = one == other
    assert (both == one)[agreed].mean() > 0.9


def test_an_image_that_may_not_be_written_to_is_read(build_bundle: Build) -> None:
    bundle, image = build_bundle("t1", tile=8), an_image(9, 8, 8)
    locked = image.copy()
    locked.setflags(write=False)

    one, two = (
        predict_image(compose_engine([bundle]), array, bundle.recipe).values_IJK
        for array in (image, locked)
    )

    np.testing.assert_array_equal(one, two)
