"""Laws of augmentation: image and labels move as one, and nothing else happens to labels."""

from math import cos, radians, sin

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from medseg3d.config.augment import AugmentConfig
from medseg3d.data.augment.compose import augment_patch
from medseg3d.data.augment.intensity import BRIGHTNESS, augment_intensity
from medseg3d.data.augment.spatial import _sample, augment_spatial, draw_affine

settings.register_profile("augment", deadline=None, max_examples=20, derandomize=True)
laws = settings.get_profile("augment")

seeds = st.integers(0, 2**32 - 1)
shapes = st.lists(st.integers(2, 12), min_size=2, max_size=3).map(tuple)


def only(**knobs: object) -> AugmentConfig:
    """Configure nothing but what is given."""
    nothing = {
        "mirror_axes": (),
        "affine_probability": 0,
        "noise_probability": 0,
        "brightness_probability": 0,
        "gamma_probability": 0,
    }
    return AugmentConfig.model_validate(nothing | knobs)


def draw_patch(seed: int, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Draw an image of two channels and labels of a few values."""
    rng = np.random.default_rng(seed)
    image = rng.standard_normal((2, *shape), dtype=np.float32)
    return torch.from_numpy(image), torch.from_numpy(rng.choice([0, 1, 4, 9], size=shape))


def a_ball(shape: tuple[int, ...], offset: tuple[float, ...], radius: float) -> Tensor:
    """Draw a ball, off the patch's centre, with an edge one voxel soft."""
    axes = [np.arange(n) - (n - 1) / 2 - o for n, o in zip(shape, offset, strict=True)]
    distance = np.sqrt(sum(x**2 for x in np.meshgrid(*axes, indexing="ij")))
    return torch.from_numpy(np.clip(radius + 0.5 - distance, 0, 1).astype(np.float32))


def centre_of(image: Tensor) -> np.ndarray:
    """Give the centre of mass as an offset from the patch's centre."""
    middle = (np.array(image.shape) - 1) / 2
    weight = image.numpy().astype(np.float64)
    return (np.indices(image.shape) * weight).reshape(image.ndim, -1).sum(1) / weight.sum() - middle


@laws
@given(seeds, shapes)
def test_with_every_probability_0_nothing_happens(seed: int, shape: tuple[int, ...]):
    image, labels = draw_patch(seed, shape)
    changed = augment_patch(np.random.default_rng(seed), image, labels, only())
    assert torch.equal(changed[0], image)
    assert torch.equal(changed[1], labels)


@laws
@given(seeds, shapes)
def test_the_generator_alone_decides_and_what_is_given_stays(seed: int, shape: tuple[int, ...]):
    image, labels = draw_patch(seed, shape)
    before = image.clone(), labels.clone()
    config = AugmentConfig(
        affine_probability=1, noise_probability=1, brightness_probability=1, gamma_probability=1
    )
    first, again = (
        augment_patch(np.random.default_rng(seed), image, labels, config) for _ in range(2)
    )
    assert all(map(torch.equal, first, again))
    assert all(map(torch.equal, before, (image, labels)))
    assert first[0].shape == image.shape
    assert first[0].dtype == torch.float32
    assert first[1].dtype == torch.int64


@laws
@given(seeds, shapes)
def test_labels_keep_to_their_values(seed: int, shape: tuple[int, ...]):
    image, labels = draw_patch(seed, shape)
    config = only(affine_probability=1, rotation_degrees=180, scale=(0.3, 3))
    _, changed = augment_patch(np.random.default_rng(seed), image, labels, config)
    assert set(changed.unique().tolist()) <= set(labels.unique().tolist())


class TestMirror:
    @laws
    @given(seeds, shapes)
    def test_image_and_labels_are_mirrored_along_the_same_axes(
        self, seed: int, shape: tuple[int, ...]
    ):
        _, labels = draw_patch(seed, shape)
        config = only(mirror_axes=(0, 1, 2))
        image = labels[None].float()
        mirrored, moved = augment_spatial(np.random.default_rng(seed), image, labels, config)
        assert torch.equal(mirrored[0], moved.float())
        axes = [[a for a in range(len(shape)) if pick >> a & 1] for pick in range(2 ** len(shape))]
        assert any(torch.equal(moved, labels.flip(some)) for some in axes)

    @pytest.mark.parametrize("axis", [0, 1, 2])
    def test_an_axis_that_may_be_is_mirrored_half_the_time_and_no_other(self, axis: int):
        image, labels = draw_patch(0, (3, 4, 5))
        rng = np.random.default_rng(0)
        config = only(mirror_axes=(axis,))
        moved = [augment_spatial(rng, image, labels, config)[1] for _ in range(400)]
        flipped = sum(torch.equal(one, labels.flip(axis)) for one in moved)
        assert flipped + sum(torch.equal(one, labels) for one in moved) == 400
        assert 160 < flipped < 240


class TestAffine:
    @laws
    @given(seeds, st.sampled_from([2, 3]), st.floats(0, 180), st.floats(0.25, 4))
    def test_the_matrix_is_a_rotation_over_the_zoom(
        self, seed: int, dims: int, degrees: float, zoom: float
    ):
        config = only(rotation_degrees=degrees, scale=(zoom, zoom))
        turn = draw_affine(np.random.default_rng(seed), (8,) * dims, config) * zoom
        np.testing.assert_allclose(turn @ turn.T, np.eye(dims), atol=1e-12)
        assert np.linalg.det(turn) == pytest.approx(1)

    @laws
    @given(seeds, st.floats(0, 90))
    def test_no_angle_is_larger_than_the_largest(self, seed: int, degrees: float):
        config = only(rotation_degrees=degrees, scale=(1, 1))
        turn = draw_affine(np.random.default_rng(seed), (8, 8), config)
        assert np.degrees(np.arccos(np.clip(turn[0, 0], -1, 1))) <= degrees + 1e-5

    @pytest.mark.parametrize("mode", ["bilinear", "nearest"])
    @pytest.mark.parametrize("axes", [(0, 1), (0, 2), (1, 2)])
    def test_a_quarter_turn_is_a_quarter_turn(self, mode: str, axes: tuple[int, int]):
        image = torch.rand(2, 7, 7, 7, generator=torch.Generator().manual_seed(0))
        first, second = axes
        matrix = np.eye(3)
        matrix[[first, second], [first, second]] = 0
        matrix[first, second], matrix[second, first] = 1, -1
        turned = np.rot90(image.numpy(), axes=(first + 1, second + 1))
        np.testing.assert_allclose(_sample(image, matrix, mode).numpy(), turned, atol=1e-5)

    @laws
    @given(st.floats(-40, 40), st.floats(0.7, 1.4), st.sampled_from([(0, 1), (0, 2), (1, 2)]))
    def test_a_ball_in_an_oblong_patch_turns_about_the_centre_and_stays_round(
        self, degrees: float, zoom: float, axes: tuple[int, int]
    ):
        shape, offset, radius = (24, 20, 30), (2.0, -1.0, 3.0), 4.0
        matrix = np.eye(3)
        matrix[np.ix_(axes, axes)] = [
            [cos(radians(degrees)), -sin(radians(degrees))],
            [sin(radians(degrees)), cos(radians(degrees))],
        ]
        moved = _sample(a_ball(shape, offset, radius)[None], matrix / zoom, "bilinear")[0]
        expected = np.linalg.solve(matrix / zoom, offset)
        np.testing.assert_allclose(centre_of(moved), expected, atol=0.1)
        there = a_ball(shape, tuple(expected), radius * zoom)
        assert (moved - there).abs().sum() < 0.2 * there.sum()

    @laws
    @given(seeds, st.floats(0.7, 1.4))
    def test_image_and_labels_are_turned_together(self, seed: int, zoom: float):
        ball = a_ball((24, 22, 20), (1.5, -1.0, 0.5), 5.0)
        labels = (ball > 0.5).long()
        config = only(affine_probability=1, rotation_degrees=180, scale=(zoom, zoom))
        rng = np.random.default_rng(seed)
        turned, moved = augment_spatial(rng, ball[None], labels, config)
        np.testing.assert_allclose(centre_of(moved), centre_of(turned[0]), atol=0.2)
        assert float(moved.sum() / turned.sum()) == pytest.approx(1, abs=0.1)

    def test_a_zoom_of_two_shows_a_ball_twice_as_wide(self):
        ball = a_ball((24, 24), (0.0, 0.0), 5.0)
        config = only(affine_probability=1, rotation_degrees=0, scale=(2, 2))
        zoomed, _ = augment_spatial(np.random.default_rng(0), ball[None], ball.long(), config)
        assert float(zoomed.sum() / ball.sum()) == pytest.approx(4, rel=0.02)

    def test_what_comes_from_outside_repeats_the_border(self):
        image = torch.full((1, 6, 7, 8), 3.5)
        labels = torch.full((6, 7, 8), 2)
        config = only(affine_probability=1, rotation_degrees=45, scale=(0.3, 0.3))
        changed, moved = augment_spatial(np.random.default_rng(0), image, labels, config)
        torch.testing.assert_close(changed, image)
        assert torch.equal(moved, labels)

    def test_it_happens_as_often_as_configured(self):
        image, labels = draw_patch(0, (5, 6))
        rng, config = np.random.default_rng(0), only(affine_probability=0.3)
        changed = [augment_spatial(rng, image, labels, config)[0] for _ in range(500)]
        assert 110 < sum(not torch.equal(one, image) for one in changed) < 190


class TestGreyValues:
    @laws
    @given(seeds, shapes)
    def test_gamma_keeps_range_and_order(self, seed: int, shape: tuple[int, ...]):
        image, _ = draw_patch(seed, shape)
        bent = augment_intensity(np.random.default_rng(seed), image, only(gamma_probability=1))
        for before, after in zip(image, bent, strict=True):
            low, high = before.min(), before.max()
            torch.testing.assert_close(after.min(), low, rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(after.max(), high, rtol=1e-5, atol=1e-5)
            assert (after.flatten()[before.flatten().argsort()].diff() >= 0).all()
        assert not torch.equal(bent, image)

    def test_gamma_leaves_a_constant_channel_alone(self):
        image = torch.tensor([0.0, -2.5, 7.0])[:, None, None].expand(3, 4, 4)
        bent = augment_intensity(np.random.default_rng(0), image, only(gamma_probability=1))
        assert torch.equal(bent, image)

    def test_noise_is_centred_and_no_stronger_than_configured(self):
        image = torch.zeros(2, 40, 40)
        rng = np.random.default_rng(0)
        config = only(noise_probability=1, noise_deviation=0.5)
        noise = torch.stack([augment_intensity(rng, image, config) for _ in range(60)])
        deviations = noise.flatten(1).std(1)
        assert noise.mean().abs() < 0.005
        assert deviations.max() < 0.52
        assert deviations.max() > 0.45
        assert deviations.min() < 0.1

    @laws
    @given(seeds)
    def test_brightness_multiplies_each_channel_by_its_own_factor(self, seed: int):
        image, _ = draw_patch(seed, (6, 7, 8))
        rng = np.random.default_rng(seed)
        factor = augment_intensity(rng, image, only(brightness_probability=1)) / image
        first, second = (channel.median() for channel in factor)
        torch.testing.assert_close(factor[0], first.expand(6, 7, 8))
        torch.testing.assert_close(factor[1], second.expand(6, 7, 8))
        assert first != second
        assert all(BRIGHTNESS[0] <= f <= BRIGHTNESS[1] for f in (first, second))

    @pytest.mark.parametrize("change", ["noise", "brightness", "gamma"])
    def test_each_happens_as_often_as_configured(self, change: str):
        image, _ = draw_patch(0, (3, 3))
        rng, config = np.random.default_rng(0), only(**{f"{change}_probability": 0.25})
        changed = [augment_intensity(rng, image, config) for _ in range(800)]
        assert 150 < sum(not torch.equal(one, image) for one in changed) < 250
