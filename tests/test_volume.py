"""Grids and volumes: what is derived from the affine, and what is no grid."""

import numpy as np
import pytest

from medseg3d.errors import GridError
from medseg3d.volume import Grid, Volume, grid_difference, require_one_grid, world_axes

SHIFT = np.array([[1, 0, 0, 9], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
LPS = np.array([[-2, 0, 0, 10], [0, -3, 0, 20], [0, 0, 4, -30], [0, 0, 0, 1.0]])


def test_spacing_orientation_and_voxel_size_come_from_the_affine():
    volume = Volume(np.zeros((2, 5, 6, 7)), LPS)
    assert volume.shape_IJK == (5, 6, 7)
    assert volume.num_channels == 2
    assert volume.spacing_mm == (2, 3, 4)
    assert volume.orientation == "LPS"
    assert volume.grid.voxel_mm3 == pytest.approx(24)
    assert str(volume.grid) == (
        "5×6×7 voxels of 2 × 3 × 4 mm, LPS, first voxel at (10.000, 20.000, -30.000) mm"
    )


@pytest.mark.parametrize("angle", [0, 20, 44, -44])
def test_an_oblique_axis_is_named_after_the_closest_direction(angle):
    cosine, sine = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    affine = np.array([[0, 0, 5, 0], [cosine, -sine, 0, 0], [-sine, -cosine, 0, 0], [0, 0, 0, 1.0]])
    assert Grid((2, 2, 2), affine).orientation == "AIR"
    assert world_axes(affine) == (1, 2, 0)


def test_each_world_axis_is_used_once_even_where_two_voxel_axes_lean_the_same_way():
    affine = np.eye(4)
    affine[:3, :3] = [[1, 0.9, 0], [0, 0.5, 0], [0, 0, 1]]
    assert world_axes(affine) == (0, 1, 2)


def test_an_affine_cannot_be_changed_behind_a_volumes_back():
    affine = np.eye(4)
    volume = Volume(np.zeros((1, 2, 2, 2)), affine)
    affine[0, 0] = 5
    assert volume.spacing_mm == (1, 1, 1)
    with pytest.raises(ValueError, match="read-only"):
        volume.affine[0, 0] = 5


@pytest.mark.parametrize(
    ("shape", "affine", "said"),
    [
        ((2, 2), np.eye(4), r"three axes of at least one voxel, got shape \(2, 2\)"),
        ((2, 0, 2), np.eye(4), r"three axes of at least one voxel, got shape \(2, 0, 2\)"),
        ((2, 2, 2), np.eye(3), r"an affine is a 4×4 matrix, got shape \(3, 3\)"),
        ((2, 2, 2), np.diag([1, np.nan, 1, 1]), "an affine is finite"),
        ((2, 2, 2), np.diag([1, np.inf, 1, 1]), "an affine is finite"),
        ((2, 2, 2), np.diag([1, 1e200, 1, 1]), r"an affine is finite \(below 1e\+09 mm\)"),
        ((2, 2, 2), np.diag([1.0, 1, 1, 2]), r"last row \(0, 0, 0, 1\)"),
        ((2, 2, 2), np.diag([1.0, 0, 1, 1]), "the affine is singular"),
        ((2, 2, 2), np.diag([1.0, 1e-200, 1, 1]), "the affine is singular"),
        ((2, 2, 2), np.eye(4)[[0, 0, 2, 3]], "two voxel axes coincide or have no length"),
    ],
)
def test_what_is_no_grid_is_refused(unchecked, shape, affine, said):
    with pytest.raises(GridError, match=said):
        Grid(shape, affine)


def test_a_volume_needs_a_channel_axis(unchecked):
    with pytest.raises(GridError, match=r"got shape \(5, 6, 7\); add a channel axis with array\[n"):
        Volume(np.zeros((5, 6, 7)), np.eye(4))


def test_grids_that_differ_by_header_rounding_are_one():
    moved = LPS.copy()
    moved[:3] *= 1 + 1e-6
    assert grid_difference(Grid((50, 60, 70), LPS), Grid((50, 60, 70), moved)) is None
    moved[0, 3] += 0.03
    assert "a corner lies" in grid_difference(Grid((5, 6, 7), LPS), Grid((5, 6, 7), moved))


def test_a_small_difference_per_voxel_that_adds_up_is_a_difference():
    stretched = LPS @ np.diag([1.0005, 1, 1, 1])
    assert grid_difference(Grid((5, 1, 1), LPS), Grid((5, 1, 1), stretched)) is None
    assert grid_difference(Grid((500, 1, 1), LPS), Grid((500, 1, 1), stretched))


def test_a_single_slice_of_another_thickness_is_another_grid():
    thicker = LPS @ np.diag([1, 1, 1.5, 1])
    assert "spacing" in grid_difference(Grid((5, 6, 1), LPS), Grid((5, 6, 1), thicker))


@pytest.mark.parametrize(
    ("shape", "affine", "said"),
    [
        ((5, 6, 8), LPS, r"shape \(5, 6, 7\) against \(5, 6, 8\)"),
        ((5, 6, 7), np.diag([2, 3, 4, 1.0]), "orientation LPS against RAS"),
        ((5, 6, 7), LPS @ np.diag([1, 1, 2, 1]), r"spacing \(2.0, 3.0, 4.0\) mm against"),
        ((5, 6, 7), SHIFT @ LPS, "a corner lies 9 mm elsewhere"),
    ],
)
def test_grids_are_told_apart_by_the_first_difference_and_both_are_printed(shape, affine, said):
    grids = [Grid((5, 6, 7), LPS), Grid((5, 6, 7), LPS), Grid(shape, affine)]
    require_one_grid(grids[:2], ["t1", "t2"])
    with pytest.raises(
        GridError, match=f"'t1' and 'flair' do not lie on one grid: {said}"
    ) as error:
        require_one_grid(grids, ["t1", "t2", "flair"])
    assert f"t1: {grids[0]}" in str(error.value)
    assert f"flair: {grids[2]}" in str(error.value)
    assert "resample one onto the other" in str(error.value)
