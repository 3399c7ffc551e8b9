"""Outlines of masks, judged by a plain count of crossings at each pixel's centre."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import ndimage

from medseg3d.io.dicom.contours import outline_mask

RING = np.pad(np.zeros((1, 1), dtype=bool), 1, constant_values=True)


def crossings(polygon: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Count for each pixel the edges that a ray from its centre along i meets, exactly."""
    i, j = np.indices(shape) * 4  # in quarters of a pixel, for whole numbers
    count = np.zeros(shape, dtype=int)
    corners = np.rint(polygon * 4).astype(int)
    for (i0, j0), (i1, j1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        low, high = sorted([(j0, i0), (j1, i1)])
        side = (i - low[1]) * (high[0] - low[0]) - (j - low[0]) * (high[1] - low[1])
        count += (low[0] <= j) & (j < high[0]) & (side < 0)
    return count


def filled(polygons: list[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    inside = [crossings(polygon, shape) % 2 == 1 for polygon in polygons]
    assert np.sum(inside, axis=0).max(initial=0) <= 1, "polygons overlap"
    return np.any(inside, axis=0) if inside else np.zeros(shape, dtype=bool)


def meets_centre(polygon: np.ndarray) -> bool:
    """Tell whether an edge goes through the centre of a pixel."""
    corners = np.rint(polygon * 2).astype(int)
    steps = np.roll(corners, -1, axis=0) - corners
    points = [
        start + step // np.gcd(*step) * n
        for start, step in zip(corners, steps, strict=True)
        for n in range(np.gcd(*step))
    ]
    return bool((np.array(points) % 2 == 0).all(axis=1).any())


masks = arrays.arrays(np.bool_, arrays.array_shapes(min_dims=2, max_dims=2, max_side=9))


@settings(deadline=None, max_examples=300)
@given(masks, st.integers(0, 2))
def test_filling_the_outlines_gives_back_any_mask(mask: np.ndarray, closing: int) -> None:
    mask = ndimage.binary_closing(np.pad(mask, 3), iterations=closing + 1)[3:-3, 3:-3] | mask
    polygons = outline_mask(mask)
    assert len(polygons) == ndimage.label(mask)[1]
    np.testing.assert_array_equal(filled(polygons, mask.shape), mask)


@settings(deadline=None, max_examples=300)
@given(masks)
def test_no_edge_meets_a_pixels_centre_where_rounding_would_decide(mask: np.ndarray) -> None:
    assert not any(meets_centre(polygon) for polygon in outline_mask(mask))


def test_a_large_noisy_mask_with_hundreds_of_holes_is_given_back() -> None:
    rng = np.random.default_rng(0)
    blobs = ndimage.gaussian_filter(rng.random((200, 180)), 6) > 0.49
    mask = blobs ^ (rng.random(blobs.shape) < 0.02)
    np.testing.assert_array_equal(filled(outline_mask(mask), mask.shape), mask)


@pytest.mark.parametrize(
    ("mask", "points", "area"),
    [
        pytest.param(np.ones((1, 1), bool), 4, 0.5, id="one pixel is a diamond"),
        pytest.param(np.ones((3, 3), bool), 8, 8.5, id="a square loses its corners"),
        pytest.param(np.ones((40, 1), bool), 6, 39.5, id="straight runs have no points between"),
        pytest.param(RING, 8 + 4 + 3, 8.5 - 0.5, id="a hole hangs on a channel of no width"),
    ],
)
def test_outlines_are_short_and_cut_the_corners_of_pixels(
    mask: np.ndarray, points: int, area: float
) -> None:
    (polygon,) = outline_mask(mask)
    i, j = polygon.T
    assert len(polygon) == points
    assert abs(i @ np.roll(j, -1) - j @ np.roll(i, -1)) / 2 == area


def test_pixels_that_touch_by_a_corner_are_two_parts() -> None:
    assert len(outline_mask(np.eye(2, dtype=bool))) == 2


def test_an_empty_mask_has_no_outline() -> None:
    assert outline_mask(np.zeros((3, 4), dtype=bool)) == []
