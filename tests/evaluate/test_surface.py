"""The three definitions of the Hausdorff distance; golden values stand in golden/."""

import math

import numpy as np
import pytest

from medseg3d.errors import ConfigError, GridError, LabelError
from medseg3d.evaluate.surface import hausdorff_mm

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
