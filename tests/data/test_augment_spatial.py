"""Changes of place: what is turned, zoomed and bent is where other libraries say it is."""

from math import pi, sqrt

import numpy as np
import pytest
import torch
from scipy.ndimage import affine_transform, map_coordinates
from torch import Tensor

from medseg3d.config.augment import AugmentConfig
from medseg3d.data.augment.compose import Sample, augment_batch, read_sample
from medseg3d.data.augment.plan import Bend, Plan, Warp, draw_plan, rotation
from medseg3d.data.augment.spatial import move_patch
from medseg3d.data.store import StoredCase

CPU = torch.device("cpu")


def build_case(
    image_CIJK: np.ndarray, channels_IJK: np.ndarray, spacing_mm: tuple[float, float, float]
) -> StoredCase:
    return StoredCase.of_arrays("p1", image_CIJK, channels_IJK=channels_IJK, spacing_mm=spacing_mm)


def draw_case(shape: tuple[int, int, int], spacing_mm: tuple = (1.0, 1.0, 1.0)) -> StoredCase:
    """Draw an image of two channels and labels of a few values."""
    rng = np.random.default_rng(1)
    labels = rng.choice(np.uint8([0, 1, 4, 255]), size=shape)
    return build_case(rng.standard_normal((2, *shape), dtype=np.float32), labels, spacing_mm)


def build_plan(warp: Warp | None, *mirrored: int) -> Plan:
    return Plan(tuple(mirrored), warp, ())


def move(case: StoredCase, plan: Plan) -> tuple[Tensor, Tensor]:
    """Move a whole case as one patch."""
    return move_patch(
        torch.from_numpy(case.image_CIJK),
        torch.from_numpy(case.channels_IJK),
        plan,
        centre=(np.array(case.shape_IJK) - 1) / 2,
        size_IJK=case.shape_IJK,
    )


def only(**knobs: object) -> AugmentConfig:
    return AugmentConfig.model_validate({"preset": "none", **knobs})


def a_bend(size: tuple[int, int, int], *, sigma: float, alpha: float, seed: int = 0) -> Bend:
    config = only(elastic_probability=1, elastic_sigma=sigma, elastic_alpha=alpha)
    plan = draw_plan(
        np.random.default_rng(seed),
        config,
        size_IJK=size,
        spacing_mm=(1.0, 1.0, 1.0),
        num_channels=1,
    )
    assert plan.warp
    assert plan.warp.bend
    return plan.warp.bend


def shifts(bend: Bend, size: tuple[int, int, int]) -> np.ndarray:
    offsets = [np.arange(n) - (n - 1) / 2 for n in size]
    weights = [bend.weights(axis, offset) for axis, offset in enumerate(offsets)]
    return np.einsum("dpqr,ip,jq,kr->dijk", bend.heights, *weights, optimize=True)


@pytest.mark.parametrize("mirrored", [(), (0,), (1, 2), (0, 1, 2)])
def test_a_warp_that_moves_nothing_gives_the_patch_itself(mirrored: tuple[int, ...]):
    case = draw_case((7, 6, 5))
    image, labels = move(case, build_plan(Warp(np.eye(3), None), *mirrored))
    flipped, flipped_labels = move(case, build_plan(None, *mirrored))
    np.testing.assert_allclose(image, flipped, atol=2e-6)
    assert torch.equal(labels, flipped_labels)
    np.testing.assert_array_equal(flipped[0], np.flip(case.image_CIJK[0], mirrored))
    np.testing.assert_array_equal(flipped_labels, np.flip(case.channels_IJK, mirrored))


@pytest.mark.parametrize("axes", [(0, 1), (0, 2), (1, 2)])
def test_a_quarter_turn_is_a_quarter_turn(axes: tuple[int, int]):
    case = draw_case((7, 7, 7))
    image, labels = move(case, build_plan(Warp(rotation(axes, -90.0), None)))
    turned = [np.rot90(channel, axes=axes) for channel in case.image_CIJK]
    np.testing.assert_allclose(image, turned, atol=1e-5)
    np.testing.assert_array_equal(labels, np.rot90(case.channels_IJK, axes=axes))


def test_scipy_finds_the_same_values_for_a_turn_and_zoom():
    case = draw_case((20, 18, 16))
    matrix = rotation((0, 1), 20.0) @ rotation((1, 2), -35.0) / 1.2
    image, labels = move(case, build_plan(Warp(matrix, None)))
    centre = (np.array(case.shape_IJK) - 1) / 2
    start = centre - matrix @ centre
    for ours, channel in zip(image, case.image_CIJK, strict=True):
        theirs = affine_transform(channel, matrix, start, order=1, mode="nearest")
        np.testing.assert_allclose(ours, theirs, atol=1e-4)
    values = np.unique(case.channels_IJK)
    masks = [(case.channels_IJK == value).astype(np.float32) for value in values]
    maps = [affine_transform(mask, matrix, start, order=1, mode="nearest") for mask in masks]
    theirs = values[np.argmax(maps, axis=0)]
    assert (labels.numpy() == theirs).mean() > 0.999  # else two labels weigh the same


def test_scipy_finds_the_same_values_for_a_bent_patch():
    case = draw_case((24, 20, 22))
    bend = a_bend(case.shape_IJK, sigma=5, alpha=60)
    matrix = rotation((0, 2), 12.0)
    image, labels = move(case, build_plan(Warp(matrix, bend), 1))
    offsets = np.indices(case.shape_IJK) - np.reshape((23 / 2, 19 / 2, 21 / 2), (3, 1, 1, 1))
    places = np.einsum("da,aijk->dijk", matrix, offsets) + shifts(bend, case.shape_IJK)
    places += np.reshape((23 / 2, 19 / 2, 21 / 2), (3, 1, 1, 1))
    assert np.abs(shifts(bend, case.shape_IJK)).max() > 2
    for ours, channel in zip(image.flip(2), case.image_CIJK, strict=True):
        theirs = map_coordinates(channel, places, order=1, mode="nearest")
        np.testing.assert_allclose(ours, theirs, atol=2e-4)
    values = np.unique(case.channels_IJK)
    masks = [(case.channels_IJK == value).astype(np.float32) for value in values]
    maps = [map_coordinates(mask, places, order=1, mode="nearest") for mask in masks]
    theirs = values[np.argmax(maps, axis=0)]
    assert (labels.flip(1).numpy() == theirs).mean() > 0.999


def test_a_ball_in_thick_slices_stays_a_ball():
    spacing = np.array((1.0, 1.0, 3.0))
    shape = (48, 48, 16)
    axes = [(np.arange(n) - (n - 1) / 2) * s for n, s in zip(shape, spacing, strict=True)]
    place_mm = np.stack(np.meshgrid(*axes, indexing="ij"))
    wanted = np.array((6.0, 4.0, 3.0))

    def a_ball(centre_mm: np.ndarray) -> np.ndarray:
        distance = np.sqrt(((place_mm - centre_mm.reshape(3, 1, 1, 1)) ** 2).sum(0))
        return np.clip((14 - distance) / 3, 0, 1).astype(np.float32)

    case = build_case(a_ball(wanted)[None], np.zeros(shape, np.uint8), tuple(spacing.tolist()))
    for seed in range(5):
        config = only(rotation_probability=1, rotation_degrees=40)
        rng = np.random.default_rng(seed)
        sample = read_sample(rng, case, (0, 0, 0), size=shape, config=config)
        assert sample.plan.warp
        turn = sample.plan.warp.matrix * spacing[:, None] / spacing
        np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-12)
        image, _ = augment_batch([sample], CPU)
        expected = a_ball(turn.T @ wanted)
        assert np.abs(image[0, 0].numpy() - expected).sum() < 0.08 * expected.sum()


def test_things_are_as_much_larger_as_the_zoom_says():
    axes = np.stack(np.meshgrid(*[np.arange(41) - 20.0] * 3, indexing="ij"))
    ball = (np.sqrt((axes**2).sum(0)) < 7).astype(np.uint8)
    case = build_case(ball[None].astype(np.float32), ball, (1.0, 1.0, 1.0))
    config = only(scale_probability=1, scale=(1.5, 1.5))
    sample = read_sample(
        np.random.default_rng(0), case, (0, 0, 0), size=(41, 41, 41), config=config
    )
    image, labels = augment_batch([sample], CPU)
    assert float(labels.sum()) / ball.sum() == pytest.approx(1.5**3, rel=0.05)
    assert float(image.sum()) / ball.sum() == pytest.approx(1.5**3, rel=0.05)


def test_each_axis_may_have_a_zoom_of_its_own():
    config = only(scale_probability=1, scale=(0.5, 2), scale_per_axis=True)
    plan = draw_plan(
        np.random.default_rng(0),
        config,
        size_IJK=(8, 8, 8),
        spacing_mm=(1.0, 2.0, 3.0),
        num_channels=1,
    )
    assert plan.warp
    assert len({round(x, 6) for x in np.diag(plan.warp.matrix)}) == 3
    assert np.count_nonzero(plan.warp.matrix) == 3


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("thick_axis", [None, 1])
def test_a_patch_is_what_one_would_cut_out_of_the_whole_case_moved(
    seed: int, thick_axis: int | None
):
    case = draw_case((60, 56, 50), (1.0, 1.3, 1.1))
    size, start = (14, 16, 12), (25, 20, 18)
    config = only(
        rotation_probability=1, rotation_degrees=30, rotation_degrees_2d=90, scale_probability=1,
        elastic_probability=1, elastic_sigma=6, elastic_alpha=80, mirror_axes=(0, 2),
        thick_axis=thick_axis,
    )  # fmt: skip
    sample = read_sample(np.random.default_rng(seed), case, start, size=size, config=config)
    assert sample.channels_IJK.numel() < 0.7 * case.channels_IJK.size
    whole = move_patch(
        torch.from_numpy(case.image_CIJK),
        torch.from_numpy(case.channels_IJK),
        sample.plan,
        centre=np.array(start) + (np.array(size) - 1) / 2,
        size_IJK=size,
    )
    image, labels = augment_batch([sample], CPU)
    np.testing.assert_allclose(image[0], whole[0], atol=2e-4)
    assert (labels[0] == whole[1]).float().mean() > 0.999


def test_a_patch_that_stays_is_read_alone():
    case = draw_case((20, 20, 20))
    sample = read_sample(np.random.default_rng(0), case, (3, 4, 5), size=(6, 7, 8), config=only())
    image, labels = augment_batch([sample], CPU)
    assert sample.plan.warp is None
    np.testing.assert_array_equal(image[0], case.image_CIJK[:, 3:9, 4:11, 5:13])
    np.testing.assert_array_equal(labels[0], case.channels_IJK[3:9, 4:11, 5:13])
    assert labels.dtype == torch.int64


def test_outside_of_the_case_its_outermost_voxels_are_repeated():
    case = build_case(
        np.full((1, 6, 7, 5), 3.5, np.float32), np.full((6, 7, 5), 2, np.uint8), (1.0, 1.0, 1.0)
    )
    config = only(rotation_probability=1, scale_probability=1, scale=(0.3, 0.3))
    sample = read_sample(
        np.random.default_rng(0), case, (-2, -1, -3), size=(10, 9, 11), config=config
    )
    image, labels = augment_batch([sample], CPU)
    torch.testing.assert_close(image, torch.full((1, 1, 10, 9, 11), 3.5))
    assert torch.equal(labels, torch.full((1, 10, 9, 11), 2))


def test_labels_are_never_mixed():
    case = draw_case((20, 20, 20))
    config = only(rotation_probability=1, elastic_probability=1, elastic_sigma=3)
    for seed in range(5):
        rng = np.random.default_rng(seed)
        sample = read_sample(rng, case, (4, 4, 4), size=(12, 12, 12), config=config)
        _, labels = augment_batch([sample], CPU)
        assert set(labels.unique().tolist()) <= {0, 1, 4, 255}


def test_image_and_labels_are_moved_together():
    axes = np.stack(np.meshgrid(*[np.arange(40) - 20.0] * 3, indexing="ij"))
    ball = (np.sqrt(((axes - 3) ** 2).sum(0)) < 9).astype(np.uint8)
    case = build_case(ball[None].astype(np.float32), ball, (1.0, 1.0, 2.0))
    config = only(
        rotation_probability=1, rotation_degrees=45, scale_probability=1, mirror_axes=(0, 1, 2),
        elastic_probability=1, elastic_alpha=100,
    )  # fmt: skip
    for seed in range(6):
        rng = np.random.default_rng(seed)
        sample = read_sample(rng, case, (4, 4, 4), size=(32, 32, 32), config=config)
        image, labels = augment_batch([sample], CPU)
        sure = (image[0, 0] < 0.2) | (image[0, 0] > 0.8)
        agree = (image[0, 0] > 0.5) == (labels[0] == 1)
        assert agree[sure].float().mean() > 0.99
        assert labels.sum() > 200


class TestBending:
    def test_shifts_deviate_as_simards_do_in_the_plane(self):
        size = (64, 64, 48)
        fields = np.stack(
            [shifts(a_bend(size, sigma=6, alpha=90, seed=n), size) for n in range(12)]
        )
        expected = 90 / sqrt(3) / (2 * sqrt(pi) * 6)
        assert fields.std() == pytest.approx(expected, rel=0.06)
        assert abs(fields.mean()) < 0.1 * expected
        for axis in range(3):
            assert fields[:, axis].std() == pytest.approx(expected, rel=0.12)

    def test_shifts_are_as_alike_as_sigma_says(self):
        size, sigma = (60, 60, 60), 5
        fields = np.stack(
            [shifts(a_bend(size, sigma=sigma, alpha=9, seed=n), size) for n in range(10)]
        )
        for apart in (3, 5, 10):
            alike = np.mean(fields[:, :, apart:] * fields[:, :, :-apart]) / np.mean(fields**2)
            assert alike == pytest.approx(np.exp(-(apart**2) / (4 * sigma**2)), abs=0.05)

    def test_it_is_as_wide_in_millimetres_along_thick_voxels(self):
        config = only(elastic_probability=1)
        plan = draw_plan(
            np.random.default_rng(0), config, size_IJK=(40, 40, 40), spacing_mm=(1.0, 1.0, 4.0),
            num_channels=1,
        )  # fmt: skip
        assert plan.warp
        assert plan.warp.bend
        assert plan.warp.bend.radius_IJK == (10, 10, 2.5)
        deviations = plan.warp.bend.heights.std((1, 2, 3))
        assert deviations[2] == pytest.approx(deviations[0] / 4, rel=0.15)

    def test_nothing_moves_along_the_thick_axis_and_slices_move_alike(self):
        config = only(elastic_probability=1, rotation_probability=1, thick_axis=2)
        plan = draw_plan(
            np.random.default_rng(0), config, size_IJK=(20, 20, 20), spacing_mm=(1.0, 1.0, 4.0),
            num_channels=1,
        )  # fmt: skip
        assert plan.warp
        assert plan.warp.bend
        field = shifts(plan.warp.bend, (20, 20, 20))
        assert not field[2].any()
        assert (field == field[..., :1]).all()
        np.testing.assert_array_equal(plan.warp.matrix[2], (0, 0, 1))
        np.testing.assert_array_equal(plan.warp.matrix[:, 2], (0, 0, 1))


def test_a_batch_holds_patches_of_boxes_of_any_size():
    case = draw_case((30, 30, 30))
    config = only(rotation_probability=0.5, rotation_degrees=45)
    samples: list[Sample] = [
        read_sample(np.random.default_rng(n), case, (8, 8, 8), size=(12, 12, 12), config=config)
        for n in range(6)
    ]
    assert len({tuple(sample.channels_IJK.shape) for sample in samples}) > 2
    image, labels = augment_batch(samples, CPU)
    for number, sample in enumerate(samples):
        alone, its_labels = augment_batch([sample], CPU)
        assert torch.equal(image[number], alone[0])
        assert torch.equal(labels[number], its_labels[0])


def test_slices_are_turned_within_their_plane():
    case = draw_case((30, 28, 9))
    config = only(rotation_probability=1, rotation_degrees_2d=180)
    sample = read_sample(np.random.default_rng(0), case, (8, 8, 4), size=(12, 11), config=config)
    assert sample.image_CIJK.shape[-1] == 1
    image, labels = augment_batch([sample], CPU)
    assert image.shape == (1, 2, 12, 11)
    assert labels.shape == (1, 12, 11)
