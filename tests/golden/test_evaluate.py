"""Scores against what the challenges publish."""

import numpy as np
import pytest

from medseg3d.evaluate.schemes import SCHEMES
from medseg3d.evaluate.score import score_case
from medseg3d.volume import Volume


@pytest.mark.parametrize(
    ("scheme", "penalty"),
    [("brats2015", 373.128664), ("brats2021", 373.128664), ("brats2023", 374)],
)
def test_brats_penalty_for_a_missed_tumour(scheme: str, penalty: float) -> None:
    reference = np.zeros((1, 240, 240, 155), dtype=np.uint8)
    predicted = reference.copy()
    reference[0, 100:110, 100:110, 70:80] = max(SCHEMES[scheme].values)
    spacing = np.diag([1.0, 1.0, 1.5, 1.0])
    scores = score_case(Volume(predicted, spacing), Volume(reference, spacing), scheme=scheme)
    for score in scores.regions.values():
        assert score.hd95 == pytest.approx(penalty, abs=1e-6)
        assert score.dice == 0
