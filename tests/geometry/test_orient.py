"""Turning axes: what the letters mean, and what is refused."""

import nibabel
import numpy as np
import pytest

from medseg3d.errors import ConfigError
from medseg3d.geometry.orient import AxisMap, plan_axes, reorient_volume
from medseg3d.io.files import read_volume
from medseg3d.volume import Grid, Volume


def test_a_real_lps_volume_becomes_ras_as_in_nibabel(brats):
    path = brats / "brats_2013_pat0001_1" / "Flair_subtrMeanDivStd.nii.gz"
    turned = reorient_volume(read_volume(path))
    expected = nibabel.as_closest_canonical(nibabel.load(path))
    assert turned.orientation == "RAS"
    np.testing.assert_array_equal(turned.affine, expected.affine)
    np.testing.assert_array_equal(turned.array_CIJK[0], np.asarray(expected.dataobj))


def test_axes_are_permuted_then_reversed_and_nothing_is_copied():
    volume = Volume(np.arange(24).reshape(1, 2, 3, 4), np.eye(4))
    turned = reorient_volume(volume, "SRP")
    assert turned.array_CIJK.shape == (1, 4, 2, 3)
    assert turned.array_CIJK[0, 1, 0, 0] == volume.array_CIJK[0, 0, 2, 1]
    assert np.shares_memory(turned.array_CIJK, volume.array_CIJK)


def test_the_same_orientation_turns_nothing():
    assert plan_axes(np.diag([-1, -2, 3, 1.0]), "LPS") == AxisMap((0, 1, 2), (False,) * 3)


def test_letters_may_be_small():
    assert plan_axes(np.eye(4), "lps") == plan_axes(np.eye(4), "LPS")


def test_the_plan_says_which_old_axis_goes_where():
    axes = plan_axes(np.eye(4), "PIR")
    assert axes == AxisMap((1, 2, 0), (True, True, False))
    assert axes.inverse == AxisMap((2, 0, 1), (False, True, True))
    assert axes.apply_grid(Grid((2, 3, 4), np.eye(4))).shape_IJK == (3, 4, 2)


@pytest.mark.parametrize("orientation", ["", "RA", "RAX", "RLS", "RASR", "canonical"])
def test_what_is_no_orientation_is_refused_with_examples(orientation):
    with pytest.raises(ConfigError, match=f"'{orientation}' is none; .*'RAS', 'LPS' or 'PIR'"):
        plan_axes(np.eye(4), orientation)
