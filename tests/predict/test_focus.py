"""Tiles are run only where something may be."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from medseg3d.nets.bundle import Bundle
from medseg3d.predict.case import predict_case, predict_image, prepare_case
from medseg3d.predict.compose import compose_engine
from medseg3d.predict.focus import find_focus
from medseg3d.volume import Volume

Build = Callable[..., Bundle]


def volume_of(image: np.ndarray) -> Volume:
    return Volume(image.astype(np.float32), np.diag([-1.0, 1.0, 2.0, 1.0]))


def brain(shape: tuple[int, int, int] = (24, 20, 18)) -> np.ndarray:
    """Draw a head without skull: noise in a box, 0 around it."""
    image = np.zeros((1, *shape), dtype=np.float32)
    image[:, 6:15, 4:16, 5:12] = np.random.default_rng(0).normal(5, 1, size=(1, 9, 12, 7))
    return image


def focused(bundle: Bundle, focus: str, **knobs: object) -> Bundle:
    predict = bundle.recipe.predict.model_copy(update={"focus": focus, **knobs})
    return replace(bundle, recipe=bundle.recipe.model_copy(update={"predict": predict}))


def counted(bundle: Bundle, volume: Volume) -> tuple[np.ndarray, int]:
    """Segment; give the label map and the number of tiles."""
    seen = [0]
    label_map = predict_case(bundle, volume, progress=lambda _, total: seen.append(total))
    return label_map.array_CIJK[0], seen[-1]


def test_everywhere_is_no_mask() -> None:
    assert find_focus(volume_of(brain()), "all") is None


def test_what_is_not_zero_in_any_channel_is_in_focus() -> None:
    image = np.zeros((2, 2, 2, 1))
    image[0, 0, 0], image[1, 1, 1], image[:, 0, 1] = -3, 0.1, 2

    focus = find_focus(volume_of(image), "nonzero")

    assert focus is not None
    assert focus.array_CIJK[..., 0].tolist() == [[[1, 1], [0, 1]]]
    assert focus.array_CIJK.dtype == np.uint8


def test_what_is_denser_than_air_in_any_channel_is_the_body() -> None:
    image = np.array([[-1000, -501, -499, 0], [-1000, -1000, -1000, -900]]).reshape(2, 4, 1, 1)

    focus = find_focus(volume_of(image), "body")

    assert focus is not None
    assert focus.array_CIJK.ravel().tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("orientation", [None, "RAS", "PIR"])
@pytest.mark.parametrize("crop", ["none", "nonzero"])
def test_a_focus_goes_where_the_preprocessed_image_goes(
    build_bundle: Build, orientation: str | None, crop: str
) -> None:
    how = {"orientation": orientation, "crop": crop, "intensity": "none"}
    bundle = focused(build_bundle("t1", **how), "nonzero")
    image = brain()
    image[:, ::3] = 0

    prepared = prepare_case(volume_of(image), bundle.recipe)

    kept = prepared.preprocessed.volume.array_CIJK[0]
    assert 0 < np.count_nonzero(kept) < kept.size
    np.testing.assert_array_equal(prepared.focus_IJK, kept != 0)


def test_within_one_tile_focus_changes_nothing(build_bundle: Build) -> None:
    bundle, volume = build_bundle("t1", tile=24), volume_of(brain())

    everywhere, focus = (counted(focused(bundle, how), volume) for how in ("all", "nonzero"))

    assert (everywhere[1], focus[1]) == (1, 1)
    np.testing.assert_array_equal(everywhere[0], focus[0])
    assert len(np.unique(focus[0])) > 1


def test_where_tiles_coincide_focus_gives_what_everywhere_gives(build_bundle: Build) -> None:
    image = np.zeros((1, 32, 24, 16), dtype=np.float32)
    image[:, 8:24, 8:16, 8:16] = np.random.default_rng(0).normal(5, 1, size=(1, 16, 8, 8))
    bundle = build_bundle("t1", tile=8)  # an overlap of 0: tiles begin at multiples of 8

    everywhere, focus = (
        counted(focused(bundle, how), volume_of(image)) for how in ("all", "nonzero")
    )

    assert (everywhere[1], focus[1]) == (24, 2)
    inside = (slice(8, 24), slice(8, 16), slice(8, 16))
    np.testing.assert_array_equal(everywhere[0][inside], focus[0][inside])
    elsewhere = focus[0].copy()
    elsewhere[inside] = 0
    assert not elsewhere.any()
    assert everywhere[0].astype(bool).sum() > focus[0].astype(bool).sum() > 0


def test_tiles_without_focus_inside_its_box_are_left_out(build_bundle: Build) -> None:
    image = np.zeros((1, 32, 32, 8), dtype=np.float32)
    image[:, 0:4, 0:4], image[:, 28:32, 28:32] = 1, 2
    bundle = build_bundle("t1", tile=8, intensity="none")

    label_map, tiles = counted(focused(bundle, "nonzero"), volume_of(image))

    assert tiles == 2
    assert not label_map[8:24].any()
    assert not label_map[:, 8:24].any()


@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize(("focus", "air"), [("nonzero", 0), ("body", -1024)])
def test_an_image_of_nothing_runs_no_tile(
    build_bundle: Build, spatial_dims: int, focus: str, air: float
) -> None:
    bundle = focused(build_bundle("t1", spatial_dims=spatial_dims, tile=8), focus)
    nothing = volume_of(np.full((1, 12, 9, 5), air))

    label_map, tiles = counted(bundle, nothing)
    probs = predict_image(
        compose_engine([bundle]),
        nothing.array_CIJK,
        bundle.recipe,
        focus_IJK=np.zeros((12, 9, 5), dtype=bool),
        with_probs=True,
    ).probs_LIJK

    assert tiles == 0
    assert label_map.shape == (12, 9, 5)
    assert not label_map.any()
    assert probs is not None
    assert (probs[0] == 1).all()
    assert not probs[1:].any()


@pytest.mark.parametrize(("start", "seen"), [(0, (0, 8)), (9, (6, 14)), (19, (12, 20))])
def test_around_a_small_focus_the_network_sees_the_image_and_no_padding(
    build_bundle: Build, start: int, seen: tuple[int, int]
) -> None:
    bundle = build_bundle("t1", tile=8)
    image = np.arange(20, dtype=np.float32).reshape(1, 20, 1, 1) * np.ones((1, 20, 8, 8), "f4")
    focus_IJK = np.zeros((20, 8, 8), dtype=bool)
    focus_IJK[start] = True
    engine, tiles = compose_engine([bundle]), []
    watched = replace(engine, run=lambda tile: tiles.append(tile) or engine.run(tile))

    predict_image(watched, image, bundle.recipe, focus_IJK=focus_IJK)

    (tile,) = tiles
    assert tile[0, 0, :, 0, 0].tolist() == [*range(*seen)]
