"""Interpolation axis by axis is SimpleITK's, and knows when it may take its place."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medseg3d.geometry.resample import _interpolate, _interpolated_by_itk
from medseg3d.geometry.separable import MOST_DRIFT, aligned_places
from medseg3d.volume import Grid

SEEDS = st.integers(0, 2**32 - 1)


def draw_pair(seed: int) -> tuple[Grid, Grid]:
    """Draw two grids whose axes run alike, sheared, oblique or mirrored, partly beside each other.

    No voxel of the target lies on the border of the source, nor in the middle between two voxels.
    """
    rng = np.random.default_rng(seed)
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    affine = np.eye(4)
    affine[:3, :3] = turn @ (np.eye(3) + rng.uniform(-0.2, 0.2, (3, 3))) * rng.uniform(0.3, 4, 3)
    affine[:3, 3] = rng.uniform(-200, 200, 3)
    source, shape = (tuple(rng.integers(1, 16, 3).tolist()) for _ in range(2))
    index = np.diag([*rng.choice([0.4, 0.8, 1, 1.25, 2, -0.7, -1, -3], 3), 1])
    index[:3, 3] = rng.uniform(-2, source) + 1e-3 * np.pi
    return Grid(source, affine), Grid(shape, affine @ index)


def draw_image(seed: int, grid: Grid, dtype: str = "f4") -> np.ndarray:
    return (1000 * np.random.default_rng(seed).normal(size=grid.shape_IJK)).astype(dtype)


def interpolated(
    image: np.ndarray, source: Grid, target: Grid, interpolation: str = "linear"
) -> np.ndarray:
    out = np.zeros(target.shape_IJK, dtype=image.dtype)
    _interpolate(image, source, target, interpolation, out=out)
    return out


@settings(deadline=None, max_examples=100, derandomize=True)
@given(SEEDS, st.sampled_from("CF"))
def test_linear_values_are_those_of_simpleitk(seed: int, order: str):
    source, target = draw_pair(seed)
    assert aligned_places(source, target) is not None
    image = np.asarray(draw_image(seed, source), order=order)
    expected = _interpolated_by_itk(image, source, target, "linear")
    found = interpolated(image, source, target)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6 * np.abs(image).max())
    np.testing.assert_array_equal(found == 0, expected == 0)


@settings(deadline=None, max_examples=100, derandomize=True)
@given(SEEDS, st.sampled_from(["f4", "u1", "i1", "i2", "u2", "i4"]))
def test_the_nearest_values_are_those_of_simpleitk(seed: int, dtype: str):
    source, target = draw_pair(seed)
    image = draw_image(seed, source).astype(int).astype(dtype)
    expected = _interpolated_by_itk(image, source, target, "nearest")
    np.testing.assert_array_equal(interpolated(image, source, target, "nearest"), expected)


def test_between_two_voxels_the_nearest_is_the_later_one():
    source, target = Grid((4, 1, 1), np.eye(4)), Grid((3, 1, 1), np.eye(4) + np.eye(4, k=3) / 2)
    image = np.array([1, 2, 3, 4], np.uint8).reshape(4, 1, 1)
    assert interpolated(image, source, target, "nearest").ravel().tolist() == [2, 3, 4]


@pytest.mark.parametrize("dtype", ["u8", "i8", "i1"])
def test_the_nearest_of_integers_is_exact(dtype: str):
    ends = np.iinfo(dtype)
    image = np.array([ends.min, ends.max, ends.max - 1], dtype).reshape(1, 3, 1)
    source, target = Grid((1, 3, 1), np.eye(4)), Grid((1, 6, 1), np.diag([1, 0.49, 1, 1]))
    found = interpolated(image, source, target, "nearest")
    np.testing.assert_array_equal(found.ravel(), image.ravel()[[0, 0, 1, 1, 2, 2]])


def test_a_constant_stays_that_very_number():
    source = Grid((9, 8, 7), np.eye(4))
    target = Grid((11, 10, 9), np.diag([0.71, 0.73, 0.77, 1]))
    image = np.full(source.shape_IJK, 0.1, np.float32)
    assert (interpolated(image, source, target) == np.float32(0.1)).all()


def test_nan_goes_no_further_than_to_its_neighbours():
    source = Grid((7, 7, 7), np.eye(4))
    target = Grid((13, 13, 13), np.diag([0.5, 0.5, 0.5, 1]))
    image = np.ones(source.shape_IJK, np.float32)
    image[3, 3, 3] = np.nan
    found = np.argwhere(np.isnan(interpolated(image, source, target)))
    assert found.min(axis=0).tolist() == [5, 5, 5]
    assert found.max(axis=0).tolist() == [7, 7, 7]
    assert len(found) == 27


@pytest.mark.parametrize("share", [0.5, 2])
def test_axes_run_alike_as_long_as_their_ends_do(share: float):
    source = Grid((100, 100, 100), np.diag([1.0, 2, 3, 1]))
    index = np.diag([0.9, 0.9, 0.9, 1])
    index[0, 1] = share * MOST_DRIFT / 100
    target = Grid((100, 100, 100), source.affine @ index)
    assert (aligned_places(source, target) is not None) == (share < 1)


def test_axes_in_another_order_do_not_run_alike():
    source = Grid((5, 5, 5), np.eye(4))
    assert aligned_places(source, Grid((5, 5, 5), np.eye(4)[[1, 0, 2, 3]])) is None
