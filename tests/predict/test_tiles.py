"""Tiles cover every voxel, few of them, and count most in their centre."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medseg3d.predict.tiles import gaussian_weight, plan_starts, plan_tiles


@settings(deadline=None)
@given(
    length=st.integers(1, 300), tile=st.integers(1, 96), overlap=st.floats(0, 0.9, allow_nan=False)
)
def test_tiles_along_an_axis_cover_it_with_at_least_the_overlap(
    length: int, tile: int, overlap: float
) -> None:
    length = max(length, tile)
    starts = plan_starts(length, tile, overlap)

    assert starts[0] == 0
    assert starts[-1] == length - tile
    assert starts == sorted(set(starts))
    steps = np.diff(starts)
    assert (steps <= max(np.ceil(tile * (1 - overlap)), 1)).all()


@pytest.mark.parametrize(
    ("length", "tile", "overlap", "expected"),
    [
        (155, 128, 0.5, 2),
        (240, 128, 0.5, 3),
        (240, 96, 0.25, 3),
        (96, 96, 0.5, 1),
        (97, 96, 0.5, 2),
    ],
)
def test_no_more_tiles_are_planned_than_needed(
    length: int, tile: int, overlap: float, expected: int
) -> None:
    assert len(plan_starts(length, tile, overlap)) == expected


def test_a_brats_volume_takes_the_18_tiles_of_the_literature() -> None:
    assert plan_tiles((240, 240, 155), (128, 128, 128), overlap=0.5).num_tiles == 18


@pytest.mark.parametrize("length", [1, 2, 7, 64, 128])
def test_the_weight_is_symmetric_positive_and_largest_in_the_centre(length: int) -> None:
    weight = gaussian_weight(length)

    assert weight.dtype == np.float32
    assert (weight > 0).all()
    np.testing.assert_array_equal(weight, weight[::-1])
    assert weight.argmax() == (length - 1) // 2
