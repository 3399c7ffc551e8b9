"""Cutting and padding: boxes, places and what is refused."""

import numpy as np
import pytest

from medseg3d.errors import GridError
from medseg3d.geometry.crop import Box, crop_volume, nonzero_box, pad_volume
from medseg3d.io.files import read_volume
from medseg3d.volume import Grid, Volume

AFFINE = np.array([[2, 0, 0, 10], [0, 0, -3, 20], [0, 4, 0, 30], [0, 0, 0, 1.0]])


def ramp(*shape: int) -> Volume:
    return Volume(np.arange(np.prod(shape), dtype=np.int16).reshape(shape), AFFINE)


def test_a_crop_is_a_view_with_its_first_voxel_where_it_was():
    volume = ramp(2, 4, 5, 6)
    cropped = crop_volume(volume, Box((1, 2, 3), (3, 5, 6)))
    np.testing.assert_array_equal(cropped.array_CIJK, volume.array_CIJK[:, 1:3, 2:5, 3:6])
    np.testing.assert_array_equal(cropped.affine[:, 3], AFFINE @ (1, 2, 3, 1))
    assert np.shares_memory(cropped.array_CIJK, volume.array_CIJK)


def test_padding_adds_one_value_in_the_same_dtype():
    padded = pad_volume(ramp(1, 2, 2, 2), before=(1, 0, 0), after=(0, 2, 0), value=-7.0)
    assert padded.array_CIJK.shape == (1, 3, 4, 2)
    assert padded.array_CIJK.dtype == np.int16
    assert (padded.array_CIJK == -7).sum() == 24 - 8
    np.testing.assert_array_equal(padded.affine[:, 3], AFFINE @ (-1, 0, 0, 1))


def test_the_box_of_what_is_not_zero_holds_it_in_every_channel():
    array = np.zeros((2, 5, 6, 7))
    array[0, 1, 2, 3] = -1
    array[1, 3, 2, 5] = np.nan
    box = nonzero_box(array)
    assert box == Box((1, 2, 3), (4, 3, 6))
    assert box.shape_IJK == (3, 1, 3)
    assert np.count_nonzero(array[:, *box.slices]) == 2


def test_the_box_of_an_image_of_zeros_is_the_whole_image():
    assert nonzero_box(np.zeros((1, 5, 6, 7))) == Box.whole(Grid((5, 6, 7), np.eye(4)))


def test_the_box_of_a_real_tumour_loses_no_voxel(brats):
    volume = read_volume(brats / "brats_2013_pat0001_1" / "OTMultiClass.nii.gz")
    cropped = crop_volume(volume, nonzero_box(volume.array_CIJK))
    assert cropped.array_CIJK.size < volume.array_CIJK.size / 10
    assert np.count_nonzero(cropped.array_CIJK) == np.count_nonzero(volume.array_CIJK)
    for axis in (1, 2, 3):
        for end in (0, -1):
            assert cropped.array_CIJK.take(end, axis).any()


@pytest.mark.parametrize(
    ("start", "stop"), [((-1, 0, 0), (2, 2, 2)), ((1, 1, 1), (2, 1, 2)), ((3, 0, 0), (2, 2, 2))]
)
def test_a_box_without_voxels_or_before_the_first_is_refused(start, stop):
    with pytest.raises(GridError, match="begins at voxel 0 or later and holds at least one voxel"):
        Box(start, stop)


def test_a_box_beyond_the_grid_is_refused():
    with pytest.raises(GridError, match=r"\(0, 0, 0\) to \(4, 5, 7\) reaches beyond a grid of \(4"):
        crop_volume(ramp(1, 4, 5, 6), Box((0, 0, 0), (4, 5, 7)))


def test_negative_padding_is_refused():
    with pytest.raises(GridError, match=r"padding adds voxels, got .* crop to take them away"):
        pad_volume(ramp(1, 2, 2, 2), before=(0, 0, 0), after=(0, -1, 0))
