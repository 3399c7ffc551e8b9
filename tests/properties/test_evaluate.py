"""Laws of overlap and distance, whatever the masks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy.ndimage import binary_erosion
from scipy.spatial.distance import cdist

from medseg3d.evaluate.distances import measure_surfaces
from medseg3d.evaluate.overlap import dice
from medseg3d.evaluate.surface import (
    HAUSDORFF,
    NSD,
    average_surface_distance_mm,
    average_symmetric_surface_distance_mm,
    hausdorff_mm,
    normalized_surface_dice,
    surface_scores,
)

DEFINITIONS = ("surfel", "pooled", "max_directed")
NO_TIE = 93.7
"""A percentile that no share of a small surface hits exactly: rounding decides nothing."""

quick = settings(deadline=None, max_examples=60)
spacings = st.sampled_from([0.5, 0.9, 1.0, 1.7, 4.0])
definitions = st.sampled_from(DEFINITIONS)


@st.composite
def pairs(draw, *, empty: bool = False):
    """Draw two masks of one shape in 2D or 3D, and a spacing."""
    shape = draw(array_shapes(min_dims=2, max_dims=3, min_side=1, max_side=6))
    masks = arrays(bool, shape)
    masks = masks if empty else masks.filter(np.any)
    return draw(masks), draw(masks), tuple(draw(spacings) for _ in shape)


@quick
@given(pairs(empty=True))
def test_dice_is_symmetric_and_a_share(pair):
    first, second, _ = pair
    assert dice(first, second) == dice(second, first)
    assert 0 <= dice(first, second) <= 1
    assert (dice(first, second) == 1) == np.array_equal(first, second)


@quick
@given(pairs(empty=True), definitions)
def test_distance_is_symmetric(pair, definition):
    first, second, spacing = pair
    there = hausdorff_mm(first, second, spacing, definition=definition)
    assert there == pytest.approx(hausdorff_mm(second, first, spacing, definition=definition))


@quick
@given(pairs(empty=True), definitions)
def test_identical_masks_are_zero_apart(pair, definition):
    mask, _, spacing = pair
    assert hausdorff_mm(mask, mask, spacing, percent=100.0, definition=definition) == 0


@quick
@given(pairs(), definitions, st.tuples(*[st.integers(0, 3)] * 3))
def test_distance_does_not_depend_on_the_place(pair, definition, shift):
    *masks, spacing = pair
    room = [(n, 3 - n) for n in shift[: len(spacing)]]
    here, elsewhere = (
        hausdorff_mm(*masks, spacing, definition=definition)
        for masks in (masks, [np.pad(mask, room) for mask in masks])
    )
    assert here == elsewhere


@pytest.mark.slow
@quick
@given(pairs(), definitions, st.permutations([0, 1, 2]), st.booleans())
def test_distance_does_not_depend_on_the_axes(pair, definition, axes, flip):
    first, second, spacing = pair
    axes = [axis for axis in axes if axis < first.ndim]
    turned = [np.transpose(mask, axes) for mask in (first, second)]
    turned = [np.flip(mask, axis=0) if flip else mask for mask in turned]
    here = hausdorff_mm(first, second, spacing, percent=NO_TIE, definition=definition)
    there = hausdorff_mm(
        *turned, [spacing[axis] for axis in axes], percent=NO_TIE, definition=definition
    )
    assert here == pytest.approx(there)


@pytest.mark.slow
@quick
@given(pairs(), definitions, st.sampled_from([0.25, 2.0, 8.0]))
def test_distance_scales_with_the_spacing(pair, definition, factor):
    first, second, spacing = pair
    here = hausdorff_mm(first, second, spacing, definition=definition)
    scaled = [factor * s for s in spacing]
    assert hausdorff_mm(first, second, scaled, definition=definition) == factor * here


@pytest.mark.slow
@quick
@given(pairs())
def test_border_definitions_equal_every_distance_counted_out(pair):
    first, second, spacing = pair
    points = [np.argwhere(m & ~binary_erosion(m)) * spacing for m in (first, second)]
    distances = cdist(*points)
    there, back = distances.min(axis=1), distances.min(axis=0)
    pooled = np.percentile(np.concatenate([there, back]), 95)
    greater = max(np.percentile(there, 95), np.percentile(back, 95))
    assert hausdorff_mm(first, second, spacing, definition="pooled") == pytest.approx(pooled)
    assert hausdorff_mm(first, second, spacing, definition="max_directed") == pytest.approx(greater)


@quick
@given(pairs(empty=True), st.sampled_from([*NSD]), st.sampled_from([0.0, 0.9, 1.5, 4.0]))
def test_nsd_is_symmetric_and_a_share(pair, definition, tolerance):
    first, second, spacing = pair
    there = normalized_surface_dice(
        first, second, spacing, tolerance_mm=tolerance, definition=definition
    )
    back = normalized_surface_dice(
        second, first, spacing, tolerance_mm=tolerance, definition=definition
    )
    assert there == pytest.approx(back, nan_ok=True)
    assert 0 <= there <= 1 or not (first.any() or second.any())


@quick
@given(
    pairs(),
    st.sampled_from([0.0, 50.0, 95.0, 100.0]),
    st.lists(st.sampled_from([0.0, 0.5, 1.0, 1.7, 3.0]), max_size=2),
    definitions,
    st.sampled_from([*NSD]),
)
def test_a_search_that_stops_early_gives_what_all_distances_give(
    pair, percent, tolerances, definition, nsd_definition
):
    scores = surface_scores(
        *pair,
        definition=definition,
        percent=percent,
        nsd_definition=nsd_definition,
        tolerances_mm=tolerances,
    )
    (surface, hausdorff), (nsd_surface, share) = HAUSDORFF[definition], NSD[nsd_definition]
    assert scores.hausdorff_mm == hausdorff(measure_surfaces(*pair, surface=surface), percent)
    everything = measure_surfaces(*pair, surface=nsd_surface)
    assert scores.nsd == tuple(share(everything, tolerance) for tolerance in tolerances)


@pytest.mark.slow
@quick
@given(pairs())
def test_mean_distances_lie_between_none_and_the_farthest(pair):
    for definition, surface in (("surfel", "surfel"), ("pooled", "border")):
        average = average_surface_distance_mm(*pair, definition=surface)
        farthest = hausdorff_mm(*pair, percent=100.0, definition=definition)
        both = average_symmetric_surface_distance_mm(*pair, definition=surface)
        assert 0 <= min(average) <= both * (1 + 1e-12)
        assert both <= max(average) * (1 + 1e-12) <= farthest * (1 + 1e-11)


@pytest.mark.parametrize("definition", DEFINITIONS)
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_ball_shifted_by_s_mm_is_s_apart(axis, definition):
    spacing = (2.0, 0.75, 1.0)
    offsets = (np.indices((24, 48, 40)) - np.reshape((11, 23, 19), (3, 1, 1, 1))).T * spacing
    ball = ((offsets**2).sum(axis=-1) < 9**2).T
    shifted = np.roll(ball, 4, axis=axis)
    apart = hausdorff_mm(ball, shifted, spacing, percent=100.0, definition=definition)
    assert apart == pytest.approx(4 * spacing[axis])
