"""Distances against published values, and against what three other libraries give."""

import math

import numpy as np
import pytest

from medseg3d.arrays import MaskIJK
from medseg3d.evaluate.schemes import SCHEMES
from medseg3d.evaluate.score import score_case
from medseg3d.evaluate.distances import measure_surfaces
from medseg3d.evaluate.surface import hausdorff_mm
from medseg3d.volume import Volume

SPECKLED = [
    # shape, spacing, the two steps, then: the first mask's area and HD95 by surface-distance 0.1,
    # HD95 by medpy 0.5.2, and by MONAI 1.5
    ((12, 14, 11), (1.0, 1.0, 1.0), (3, 4), 1119.539293168, 1.0, 1.414213562, 2.0),
    ((12, 14, 11), (0.7, 1.3, 5.0), (2, 5), 2722.412710006, 1.4, 1.476482306, 1.476482306),
    ((9, 16, 16), (3.0, 0.9, 0.9), (6, 3), 2577.252994302, 6.0, 6.0, 6.067124525),
    ((15, 18), (1.0, 1.0), (3, 5), 166.249783362, 2.0, 2.0, 2.236067977),
    ((15, 18), (0.6, 2.5), (2, 3), 322.893091014, 1.2, 1.2, 1.35),
]


def half_space(stop: int) -> MaskIJK:
    """Fill the first slices of a cube of 100."""
    mask = np.zeros((100, 100, 100), dtype=bool)
    mask[:stop] = True
    return mask


def single_voxel(place: tuple[int, int, int]) -> MaskIJK:
    mask = np.zeros((100, 100, 100), dtype=bool)
    mask[place] = True
    return mask


def speckled(shape: tuple[int, ...], *, step: int) -> np.ndarray:
    """Fill an ellipsoid and punch holes into it: nearly every neighbourhood of voxels occurs."""
    indices = np.indices(shape)
    noise = indices.prod(axis=0) + sum(n * i for n, i in zip((5, 7, 11), indices, strict=False))
    center = (np.array(shape).reshape(-1, *[1] * len(shape)) - 1) / 2
    inside = (((indices - center) / (center + 0.5)) ** 2).sum(axis=0) < 1
    return inside & (noise % step != 0)


@pytest.mark.parametrize("percent", [95.0, 100.0])
def test_half_spaces_of_surface_distance(percent: float) -> None:
    assert hausdorff_mm(half_space(50), half_space(51), (2.0, 1.0, 1.0), percent=percent) == 2


@pytest.mark.parametrize("percent", [95.0, 100.0])
def test_single_voxels_of_surface_distance(percent: float) -> None:
    first, second = single_voxel((5, 6, 7)), single_voxel((5, 6, 9))
    assert hausdorff_mm(first, second, (3.0, 2.0, 1.0), percent=percent) == 2


@pytest.mark.parametrize(
    ("shape", "spacing", "steps", "area", "surfel", "pooled", "max_directed"), SPECKLED
)
def test_speckled_masks_as_other_libraries_measure_them(
    shape, spacing, steps, area, surfel, pooled, max_directed
):
    reference = speckled(shape, step=steps[0])
    predicted = np.roll(speckled(shape, step=steps[1]), 2, axis=0)
    predicted[-3:] = False
    expected = {"surfel": surfel, "pooled": pooled, "max_directed": max_directed}
    assert {
        definition: hausdorff_mm(reference, predicted, spacing, definition=definition)
        for definition in expected
    } == pytest.approx(expected, abs=1e-8)
    there, _ = measure_surfaces(reference, predicted, spacing, surface="surfel")
    assert there.weights.sum() == pytest.approx(area, abs=1e-8)


def test_surface_of_one_voxel_is_an_octahedron() -> None:
    voxel = single_voxel((5, 6, 7))
    there, _ = measure_surfaces(voxel, voxel, (1.0, 1.0, 1.0), surface="surfel")
    assert len(there.weights) == 8
    assert there.weights.sum() == pytest.approx(math.sqrt(3))


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
