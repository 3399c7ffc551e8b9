"""What lies between two surfaces, by every definition; golden values stand in golden/."""

import math

import numpy as np
import pytest

from medseg3d.errors import ConfigError, GridError, LabelError
from medseg3d.evaluate import rings
from medseg3d.evaluate.distances import measure_surfaces
from medseg3d.evaluate.surface import (
    average_surface_distance_mm,
    average_symmetric_surface_distance_mm,
    hausdorff_mm,
    normalized_surface_dice,
    surface_overlap,
    surface_scores,
)

ISOTROPIC = (1.0, 1.0, 1.0)
DEFINITIONS = ["surfel", "pooled", "max_directed"]


def box(stop_I: int) -> np.ndarray:
    """Fill a box that begins at voxel 2 in every direction."""
    mask = np.zeros((20, 9, 9), dtype=bool)
    mask[2:stop_I, 2:7, 2:7] = True
    return mask


@pytest.mark.parametrize("definition", DEFINITIONS)
class TestEveryDefinition:
    """What the three have in common."""

    def test_two_empty_masks_are_0_apart_and_one_is_infinitely_far(self, definition):
        empty = np.zeros((20, 9, 9), dtype=bool)
        assert hausdorff_mm(empty, empty, ISOTROPIC, definition=definition) == 0
        assert hausdorff_mm(box(8), empty, ISOTROPIC, definition=definition) == math.inf
        assert hausdorff_mm(empty, box(8), ISOTROPIC, definition=definition) == math.inf

    def test_the_farthest_point_counts_in_mm_along_its_axis(self, definition):
        far = hausdorff_mm(box(6), box(16), (2.5, 9.0, 9.0), percent=100.0, definition=definition)
        assert far == 25

    def test_a_full_array_has_its_surface_at_the_edge(self, definition):
        full = np.ones((5, 5, 5), dtype=bool)
        core = np.zeros_like(full)
        core[1:4, 1:4, 1:4] = True
        far = hausdorff_mm(full, core, ISOTROPIC, percent=100.0, definition=definition)
        assert far == pytest.approx(math.sqrt(3))

    def test_memory_order_does_not_matter(self, definition):
        pair = box(8), box(11)
        turned = [np.asfortranarray(mask) for mask in pair]
        assert hausdorff_mm(*pair, ISOTROPIC, definition=definition) == hausdorff_mm(
            *turned, ISOTROPIC, definition=definition
        )

    def test_the_arguments_are_left_as_they_were(self, definition):
        pair = box(8), box(11)
        hausdorff_mm(*pair, ISOTROPIC, definition=definition)
        assert np.array_equal(pair[0], box(8))
        assert np.array_equal(pair[1], box(11))


def test_pooling_both_directions_hides_a_few_voxels_far_off():
    predicted = box(8)
    predicted[16:18, 4:6, 4:6] = True
    distances = {d: hausdorff_mm(box(8), predicted, ISOTROPIC, definition=d) for d in DEFINITIONS}
    assert distances == {"surfel": 9, "pooled": 0, "max_directed": 9}


def test_whole_millimetres_are_met_exactly_with_an_odd_spacing():
    first, second = np.zeros((2, 9, 3, 3), dtype=bool)
    first[1], second[6] = True, True
    assert hausdorff_mm(first, second, (0.2, 1.0, 1.0)) == 1.0


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_masks_of_numbers_count_as_booleans(dtype):
    pair = box(8), box(11)
    scores = surface_scores(*pair, ISOTROPIC, tolerances_mm=[1.0])
    assert (
        surface_scores(*(mask.astype(dtype) for mask in pair), ISOTROPIC, tolerances_mm=[1.0])
        == scores
    )


def test_masks_may_lie_in_memory_as_they_like():
    reference, predicted = box(8), box(11)
    reference[3, 4, 5] = predicted[2:4, 3, 6] = False
    expected = surface_scores(reference, predicted, (1.0, 2.0, 0.7), tolerances_mm=[1.0])
    wide = np.zeros((40, 9, 9), dtype=bool)
    wide[::2] = predicted
    views = [
        (np.asfortranarray(reference), predicted),
        (reference, np.asfortranarray(predicted)),
        (reference[::-1].copy()[::-1], wide[::2]),
        (reference.transpose(1, 0, 2).copy().transpose(1, 0, 2), predicted),
    ]
    for pair in views:
        found = surface_scores(*pair, (1.0, 2.0, 0.7), tolerances_mm=[1.0])
        assert found.hausdorff_mm == expected.hausdorff_mm
        assert found.nsd == pytest.approx(expected.nsd)


@pytest.mark.parametrize("shape", [(300, 3, 3), (3, 300, 3), (3, 3, 300), (300, 3), (3, 300)])
@pytest.mark.parametrize("spacing", [(0.5, 2.0, 1.0), (0.01, 5.0, 5.0), (5.0, 0.01, 0.3)])
def test_what_is_too_far_for_rings_is_found_all_the_same(shape, spacing):
    first, second = np.zeros((2, *shape), dtype=bool)
    first[(0,) * len(shape)] = second[(-1,) * len(shape)] = True
    spacing = spacing[: len(shape)]
    apart = math.sqrt(sum(((n - 1) * s) ** 2 for n, s in zip(shape, spacing, strict=True)))
    assert hausdorff_mm(first, second, spacing) == apart
    assert hausdorff_mm(first, second, spacing, definition="pooled") == apart


def test_a_search_ends_where_nobody_asked_further():
    near, far = box(6), box(6)
    far[16, 2, 2] = True
    (_, back) = measure_surfaces(near, far, ISOTROPIC, surface="border", percent=50.0, reach_mm=1.0)
    assert np.isinf(back.distances_mm.max())
    assert back.measure_all().max() == 11


def test_a_share_holds_what_is_exactly_at_the_tolerance():
    first, second = np.zeros((2, 12, 12, 3), dtype=bool)
    first[1, 1, 1] = second[4, 7, 1] = True
    spacing = (0.1, 0.7, 1.0)
    exact = math.sqrt((3 * 0.1) ** 2 + (6 * 0.7) ** 2)
    for definition in ("pooled_count", "mean_fraction"):
        for tolerance, share in ((exact, 1.0), (math.nextafter(exact, 0), 0.0)):
            nsd = normalized_surface_dice(
                first, second, spacing, tolerance_mm=tolerance, definition=definition
            )
            assert nsd == pytest.approx(share, abs=1e-8)


def test_three_definitions_of_nsd_are_three_numbers():
    predicted = box(8)
    predicted[12:16, 3:6, 3:6] = True
    nsd = {
        definition: normalized_surface_dice(
            box(8), predicted, ISOTROPIC, tolerance_mm=1.0, definition=definition
        )
        for definition in ("surfel", "pooled_count", "mean_fraction")
    }
    shared, added = 6 * 5 * 5 - 4 * 3 * 3, 4 * 3 * 3 - 2
    assert nsd["pooled_count"] == pytest.approx(2 * shared / (2 * shared + added))
    assert nsd["mean_fraction"] == pytest.approx((1 + shared / (shared + added)) / 2)
    assert nsd["surfel"] not in (nsd["pooled_count"], nsd["mean_fraction"])


@pytest.mark.parametrize("shape", [(20, 9, 9), (20, 9)])
class TestEmptyMasks:
    """What the docstrings say, in 2D and 3D."""

    def masks(self, shape):
        empty = np.zeros(shape, dtype=bool)
        filled = empty.copy()
        filled[3:6] = True
        return empty, filled, ISOTROPIC[: len(shape)]

    @pytest.mark.parametrize(
        ("definition", "both"),
        [("surfel", math.nan), ("pooled_count", math.nan), ("mean_fraction", 1)],
    )
    def test_nsd(self, shape, definition, both):
        empty, filled, spacing = self.masks(shape)
        options = {"tolerance_mm": 1.0, "definition": definition}
        assert normalized_surface_dice(empty, empty, spacing, **options) == pytest.approx(
            both, nan_ok=True
        )
        assert normalized_surface_dice(empty, filled, spacing, **options) == 0
        assert normalized_surface_dice(filled, empty, spacing, **options) == 0

    def test_overlap(self, shape):
        empty, filled, spacing = self.masks(shape)
        overlap = surface_overlap(filled, empty, spacing, tolerance_mm=1.0)
        assert overlap.reference == 0
        assert math.isnan(overlap.predicted)

    @pytest.mark.parametrize("definition", ["surfel", "border"])
    def test_average_distance(self, shape, definition):
        empty, filled, spacing = self.masks(shape)
        average = average_surface_distance_mm(filled, empty, spacing, definition=definition)
        assert average.reference_to_predicted == math.inf
        assert math.isnan(average.predicted_to_reference)
        for pair in ((filled, empty), (empty, filled)):
            both = average_symmetric_surface_distance_mm(*pair, spacing, definition=definition)
            assert both == math.inf
        nothing = average_surface_distance_mm(empty, empty, spacing, definition=definition)
        assert all(math.isnan(distance) for distance in nothing)
        assert math.isnan(average_symmetric_surface_distance_mm(empty, empty, spacing))


@pytest.mark.parametrize(
    ("definition", "percent", "said"),
    [
        ("surfle", 95.0, "no Hausdorff .* 'surfle'; there are surfel, pooled, max_directed"),
        ("surfel", 101.0, "no 101.0th percentile"),
        ("surfel", -1.0, "no -1.0th percentile"),
        ("surfel", math.nan, "no nanth percentile"),
    ],
)
def test_unknown_definitions_and_percentiles_are_refused(definition, percent, said):
    with pytest.raises(ConfigError, match=said):
        hausdorff_mm(box(8), box(9), ISOTROPIC, definition=definition, percent=percent)


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (1.0, 1.0, 0.0), (1.0, 1.0, math.nan)])
def test_a_spacing_that_does_not_fit_is_refused(spacing):
    with pytest.raises(GridError, match=r"shape \(20, 9, 9\) with spacing .* one positive spacing"):
        hausdorff_mm(box(8), box(9), spacing)


def test_masks_of_one_or_four_axes_are_refused():
    for shape in [(5,), (2, 2, 2, 2)]:
        mask = np.ones(shape, dtype=bool)
        with pytest.raises(GridError, match="needs two or three axes"):
            hausdorff_mm(mask, mask, (1.0,) * mask.ndim)


def test_different_shapes_and_label_maps_are_refused():
    with pytest.raises(GridError, match="lies on one grid"):
        hausdorff_mm(box(8), box(8)[1:], ISOTROPIC)
    with pytest.raises(LabelError, match="a mask holds False and True"):
        hausdorff_mm(box(8) * 3, box(8) * 3, ISOTROPIC)


def test_unknown_surfaces_definitions_of_nsd_and_tolerances_are_refused():
    pair = box(8), box(9)
    with pytest.raises(
        ConfigError, match=r"no NSD .* 'pooled'; there are surfel, pooled_count, mea"
    ):
        normalized_surface_dice(*pair, ISOTROPIC, tolerance_mm=1.0, definition="pooled")
    with pytest.raises(ConfigError, match=r"no surface .* 'pooled'; there are surfel, border"):
        average_surface_distance_mm(*pair, ISOTROPIC, definition="pooled")
    for tolerance in (-0.5, math.nan):
        with pytest.raises(ConfigError, match=f"a tolerance of {tolerance} mm; it is 0 mm or more"):
            surface_overlap(*pair, ISOTROPIC, tolerance_mm=tolerance)
        with pytest.raises(ConfigError, match="a tolerance of"):
            surface_scores(*pair, ISOTROPIC, tolerances_mm=[1.0, tolerance])


@pytest.mark.parametrize("order", ["C", "F"])
def test_a_goal_out_of_sight_along_one_axis_is_no_reason_to_take_another(order):
    # 300 steps of 0.1 mm away, beyond the 254 that the field along the first axis can tell
    reference, predicted = (np.zeros((400, 45), dtype=bool, order=order) for _ in range(2))
    reference[0, 0] = predicted[300, 0] = predicted[0, 40] = True
    distance = hausdorff_mm(
        reference, predicted, (0.1, 1.0), percent=0.0, definition="max_directed"
    )
    assert distance == pytest.approx(30)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("definition", DEFINITIONS)
def test_many_far_places_have_the_distances_of_few(order, definition, monkeypatch):
    grid = np.indices((60, 70, 50))
    reference = np.asarray((grid[0] < 20) & (grid.sum(axis=0) % 3 > 0), order=order)
    predicted = np.asarray((grid[0] > 50) & (grid[2] > 30), order=order)
    spacing = (1.0, 0.7, 2.3)
    by_tree, by_transform = (
        monkeypatch.setattr(rings, "LOOK_UP", voxels)
        or hausdorff_mm(reference, predicted, spacing, definition=definition)
        for voxels in (0, 10**9)
    )
    assert by_tree == by_transform > 50
