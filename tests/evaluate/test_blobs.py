"""Components, dilation, touching and merging of small masks."""

import numpy as np
import pytest
import scipy
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from medseg3d.evaluate.blobs import (
    Blob,
    components,
    first_voxel,
    grow,
    merge,
    shared_voxels,
    touch,
    unite,
)

shapes = st_numpy.array_shapes(min_dims=2, max_dims=3, min_side=1, max_side=8)
masks = shapes.flatmap(lambda shape: st_numpy.arrays(bool, shape, fill=st.just(False)))


def draw(*rows: str) -> np.ndarray:
    """Turn rows of `#` and anything else into a 2D mask."""
    return np.array([[sign == "#" for sign in row] for row in rows])


def dot(*at: int) -> Blob:
    return Blob(at, np.ones((1,) * len(at), dtype=bool))


def number(blobs: list[Blob], shape: tuple[int, ...]) -> np.ndarray:
    """Number the voxels of the first blob 1, of the second 2, and so on; none is in two."""
    numbers = np.zeros(shape, dtype=int)
    for n, blob in enumerate(blobs, 1):
        shown = blob.within((0,) * len(shape), shape)
        assert not numbers[shown].any()
        numbers[shown] = n
    return numbers


def dilate(mask: np.ndarray, times: int) -> np.ndarray:
    edges = scipy.ndimage.generate_binary_structure(mask.ndim, 2)
    return scipy.ndimage.binary_dilation(mask, edges, iterations=times)


def label(mask: np.ndarray) -> np.ndarray:
    return scipy.ndimage.label(np.ascontiguousarray(mask), np.ones((3,) * mask.ndim))[0]


def test_a_component_holds_together_at_corners_and_its_box_may_hold_others():
    mask = draw(
        "#..###",
        ".#.#.#",
        "...###",
        "#.....",
    )
    mask[1, 4] = False
    stroke, ring, speck = components(mask)
    assert (stroke.start, stroke.stop, stroke.voxels) == ((0, 0), (2, 2), 2)
    assert (ring.start, ring.stop, ring.voxels) == ((0, 3), (3, 6), 8)
    assert (speck.start, speck.voxels) == ((3, 0), 1)


def test_what_lies_in_the_box_of_another_component_is_not_part_of_it():
    mask = draw("#####", "#...#", "#.#.#", "#...#", "#####")
    ring, speck = components(mask)
    assert (ring.voxels, speck.voxels) == (16, 1)
    assert not ring.mask[2, 2]


@given(mask=masks, order=st.sampled_from("CF"))
@settings(deadline=None, max_examples=60)
def test_components_are_numbered_by_their_first_voxels_whatever_the_memory_order(mask, order):
    found = components(np.array(mask, order=order))
    np.testing.assert_array_equal(number(found, mask.shape), label(mask))


@given(mask=masks, order=st.sampled_from("CF"))
@settings(deadline=None, max_examples=60)
def test_components_that_hold_together_by_faces_alone_are_scipys(mask, order):
    found = components(np.array(mask, order=order), by_faces=True)
    np.testing.assert_array_equal(number(found, mask.shape), scipy.ndimage.label(mask)[0])


@given(mask=masks, times=st.integers(1, 3))
@settings(deadline=None, max_examples=60)
def test_growing_is_dilation_with_nothing_cut_off(mask, times):
    np.testing.assert_array_equal(grow(mask, times), dilate(np.pad(mask, times), times))


def test_growing_reaches_voxels_across_edges_but_not_across_corners():
    once = grow(np.ones((1, 1, 1), dtype=bool), 1)
    assert once.sum() == 19
    assert once[0, 0, 1]
    assert not once[0, 0, 0]


@pytest.mark.parametrize(
    ("away", "is_merged"),
    # each grows by one along every axis and by two in all, and corners join: 3 along, 7 in all
    [((3, 0, 0), True), ((4, 0, 0), False), ((3, 3, 1), True), ((3, 3, 2), False)],
)
def test_blobs_merge_where_their_dilations_meet(away, is_merged):
    merged = merge([dot(0, 0, 0), dot(*away)], 1)
    assert len(merged) == (1 if is_merged else 2)


def test_a_chain_of_blobs_merges_into_one():
    chain = components(draw("#..#..#...#"))
    assert [blob.voxels for blob in merge(chain, 1)] == [3, 1]


@given(mask=masks, times=st.integers(1, 3))
@settings(deadline=None, max_examples=60)
def test_merged_blobs_are_what_dilated_components_hold_in_the_volume(mask, times):
    merged = merge(components(mask), times)
    merged.sort(key=lambda blob: first_voxel(blob, dilations=times))
    expected = np.where(mask, label(dilate(mask, times)), 0)
    np.testing.assert_array_equal(number(merged, mask.shape), expected)


@given(mask=masks, times=st.integers(0, 3))
@settings(deadline=None, max_examples=60)
def test_blobs_touch_where_one_dilated_meets_the_other(mask, times):
    blobs = components(mask)[:4]
    shown = [blob.within((0,) * mask.ndim, mask.shape) for blob in blobs]
    for one, there in zip(blobs, shown, strict=True):
        reach = dilate(there, times) if times else there
        expected = [bool((reach & here).any()) for here in shown]
        assert [touch(one, other, times) for other in blobs] == expected


def test_the_volumes_border_decides_which_dilated_blob_comes_first():
    # three dilations of A begin in row -3, those of B in row -2; in the volume both begin in row 0,
    # A's in column 5 - 3 and B's in column 0
    a, b = dot(0, 5), dot(1, 1)
    assert first_voxel(a, dilations=3) == (0, 2)
    assert first_voxel(b, dilations=3) == (0, 0)
    assert first_voxel(a, dilations=3, corner=(-9, -9)) == (-3, 2)
    assert first_voxel(b, dilations=3, corner=(-9, -9)) == (-2, -2)
    # of this one the second row reaches further back in row 0 than the first
    assert first_voxel(Blob((0, 5), draw("..##", "##..")), dilations=1) == (0, 4)


def test_blobs_unite_in_the_box_around_them():
    both = unite([dot(1, 4), dot(2, 2)])
    assert both.start == (1, 2)
    np.testing.assert_array_equal(both.mask, draw("..#", "#.."))


def test_shared_voxels_are_counted_in_the_volume():
    bar = Blob((0, 2), draw("####"))
    assert shared_voxels(bar, Blob((0, 4), draw("####"))) == 2
    assert shared_voxels(bar, Blob((1, 4), draw("####"))) == 0
