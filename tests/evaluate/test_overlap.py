"""Dice, and what counts as a mask."""

import numpy as np
import pytest

from medseg3d.errors import GridError, LabelError
from medseg3d.evaluate.overlap import dice

EMPTY = np.zeros((3, 4, 2), dtype=bool)
FULL = ~EMPTY


def test_dice_is_twice_the_shared_voxels_over_the_voxels_of_both():
    reference = np.array([[1, 1, 1, 0, 0]], dtype=bool)
    predicted = np.array([[0, 0, 1, 1, 1]], dtype=bool)
    assert dice(reference, predicted) == pytest.approx(2 * 1 / 6)


def test_two_empty_masks_agree_and_one_empty_mask_shares_nothing():
    assert dice(EMPTY, EMPTY) == 1
    assert dice(EMPTY, FULL) == dice(FULL, EMPTY) == 0


def test_numbers_0_and_1_are_a_mask_of_any_dtype():
    for dtype in (np.uint8, np.int16, np.float32):
        assert dice(FULL.astype(dtype), FULL) == 1


def test_other_numbers_are_refused_with_the_remedy():
    with pytest.raises(LabelError, match=r"predicted: values from 0 to 2, .*Choose a region first"):
        dice(EMPTY, 2 * np.eye(3, dtype=np.uint8)[:, [0, 1, 2, 0], np.newaxis].repeat(2, axis=2))


def test_masks_of_different_shapes_are_refused():
    with pytest.raises(GridError, match=r"shape \(3, 4, 2\), the predicted one \(3, 4\)"):
        dice(EMPTY, EMPTY[:, :, 0])
