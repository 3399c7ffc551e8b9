"""Measuring one lesion."""

import math

import numpy as np
import pytest

from medseg3d.evaluate.blobs import Blob
from medseg3d.evaluate.lesions import Ruler, diagonal, mean

RULER = Ruler((2.0, 1.0), 6.0, "surfel", {"nsd_1.0": 1.0}, 50.0)
BAR = Blob((3, 4), np.ones((1, 5), dtype=bool))


def test_a_lesion_and_all_that_was_predicted_for_it():
    # 2 + 1 of 5 voxels: Dice = 2 · 3 / (5 + 3)
    ends = [Blob((3, 4), np.ones((1, 2), dtype=bool)), Blob((3, 8), np.ones((1, 1), dtype=bool))]
    lesion = RULER.measure(BAR, ends, status="tp")
    assert (lesion.status, lesion.dice) == ("tp", 0.75)
    assert (lesion.reference_mm3, lesion.predicted_mm3) == (30, 18)
    assert lesion.center_IJK == (3, 6)
    # every voxel of the bar lies within 1 mm of one that was found
    assert lesion.nsd == {"nsd_1.0": pytest.approx(1, abs=1e-8)}


@pytest.mark.parametrize(("reference", "predicted"), [(BAR, []), (None, [BAR])])
def test_one_alone_has_the_penalties(reference, predicted):
    lesion = RULER.measure(reference, predicted, status="fn")
    assert (lesion.dice, lesion.hd95, lesion.nsd) == (0, 50, {"nsd_1.0": 0})
    assert {lesion.reference_mm3, lesion.predicted_mm3} == {0, 30}
    assert lesion.center_IJK == (3, 6)


def test_diagonal_of_a_brats_volume():
    shape, spacing_mm = (240, 240, 155), (1.0, 1.0, 2.0)
    assert diagonal("diagonal_voxels", shape, spacing_mm) == pytest.approx(373.128664)
    assert diagonal("diagonal", shape, spacing_mm) == pytest.approx(math.hypot(240, 240, 310))
    assert diagonal(337.0, shape, spacing_mm) == 337


def test_mean_of_nothing():
    assert mean([1.0, 2.0]) == 1.5
    assert math.isnan(mean([]))
    assert mean([], of_nothing=1.0) == 1
