"""Resampling: against scipy, at the border, and label maps value by value."""

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from medseg3d.errors import ConfigError, GridError
from medseg3d.geometry.resample import resample_label_map, resample_volume, spaced_grid
from medseg3d.io.files import read_label_map, read_volume
from medseg3d.volume import Grid, Volume

SHEARED = np.array([[-1, 0, 0.3, 5], [0.1, 1.2, 0.5, 0], [0, 0.2, 2, -8], [0, 0, 0, 1]])


def noise(*shape: int, affine: np.ndarray = SHEARED) -> Volume:
    return Volume(np.random.default_rng(1).normal(size=shape).astype(np.float32), affine)


def index_in(source: Grid, target: Grid) -> np.ndarray:
    """Give the source index of every target voxel: 3, I, J, K."""
    index = np.concatenate([np.indices(target.shape_IJK), np.ones((1, *target.shape_IJK))])
    return np.tensordot(np.linalg.solve(source.affine, target.affine)[:3], index, axes=1)


@pytest.mark.parametrize(
    ("interpolation", "order"), [("nearest", 0), ("linear", 1), ("bspline", 3)]
)
def test_interpolation_is_scipys_also_on_a_sheared_grid(interpolation, order):
    volume = noise(2, 9, 8, 7)
    turned = np.array([[0.7, 0, 0.1, 1], [0, 0.6, 0, 1.5], [0.1, 0, 0.8, 1], [0, 0, 0, 1]])
    target = Grid((6, 7, 5), SHEARED @ turned)
    resampled = resample_volume(volume, grid=target, interpolation=interpolation)
    index = index_in(volume.grid, target)
    for channel, image in zip(resampled.array_CIJK, volume.array_CIJK, strict=True):
        expected = map_coordinates(image, index, order=order, mode="mirror")
        np.testing.assert_allclose(channel, expected, atol=1e-5)
    np.testing.assert_array_equal(resampled.affine, target.affine)


def test_a_spacing_is_met_exactly_over_the_same_field_of_view(hippocampus):
    volume = read_volume(next((hippocampus / "imagesTr").glob("*.nii.gz")))
    resampled = resample_volume(volume, spacing_mm=(0.7, 1.3, 2.0))
    np.testing.assert_allclose(resampled.spacing_mm, (0.7, 1.3, 2.0), rtol=1e-12)
    size = np.array(volume.shape_IJK) / (0.7, 1.3, 2.0)
    assert resampled.shape_IJK == tuple(np.round(size).astype(int))
    assert resampled.orientation == volume.orientation
    assert resampled.array_CIJK.dtype == np.float32
    assert (resampled.array_CIJK > 0).mean() > 0.99 * (volume.array_CIJK > 0).mean()


def test_the_edge_holds_for_half_a_voxel_and_then_comes_zero():
    volume = Volume(np.full((1, 4, 4, 4), 5.0), np.eye(4))
    place = np.eye(4)
    place[0, 0], place[0, 3] = 0.2, -0.85
    resampled = resample_volume(volume, grid=Grid((28, 1, 1), place))
    x = place[0, 3] + 0.2 * np.arange(28)
    np.testing.assert_array_equal(
        resampled.array_CIJK[0, :, 0, 0], np.where((x >= -0.5) & (x < 3.5), 5, 0)
    )


def test_one_voxel_of_another_spacing_stays_one_voxel():
    volume = noise(1, 1, 8, 1, affine=np.eye(4))
    resampled = resample_volume(volume, spacing_mm=(3.0, 2.0, 5.0))
    assert resampled.shape_IJK == (1, 4, 1)
    expected = volume.array_CIJK.reshape(4, 2).mean(axis=1)
    np.testing.assert_allclose(resampled.array_CIJK.ravel(), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("dtype", "interpolation", "given"),
    [
        ("u1", "nearest", "u1"), ("i2", "nearest", "i2"), ("u8", "nearest", "u8"),
        ("u1", "linear", "f4"), ("i2", "bspline", "f4"), ("f8", "linear", "f4"),
        ("f4", "nearest", "f4"), ("f2", "linear", "f4"), ("?", "nearest", "f4"),
    ],
)  # fmt: skip
def test_only_nearest_keeps_integers(dtype, interpolation, given):
    volume = Volume(np.ones((1, 5, 5, 5), dtype), np.eye(4))
    resampled = resample_volume(volume, spacing_mm=(2.0, 2.0, 2.0), interpolation=interpolation)
    assert resampled.array_CIJK.dtype == np.dtype(given)
    np.testing.assert_allclose(resampled.array_CIJK, 1, atol=1e-6)


def test_onto_its_own_grid_the_array_is_the_same_object():
    volume = noise(1, 4, 5, 6)
    for resampled in (
        resample_volume(volume, grid=volume.grid),
        resample_volume(volume, spacing_mm=volume.spacing_mm),
    ):
        assert resampled.array_CIJK is volume.array_CIJK
    label_map = np.ones((4, 5, 6), np.uint8)
    assert resample_label_map(label_map, volume.grid, volume.grid) is label_map


def test_what_cannot_be_resampled_is_refused(unchecked):
    volume = noise(1, 4, 5, 6)
    for wrong in ((1, 0, 1), (1, -1, 1), (1, np.nan, 1), (np.inf, 1, 1)):
        with pytest.raises(ConfigError, match="a spacing is three positive numbers of mm, got"):
            resample_volume(volume, spacing_mm=wrong)
    with pytest.raises(ConfigError, match="choose a larger one"):
        resample_volume(volume, spacing_mm=(1e-6, 1e-6, 1))
    with pytest.raises(ConfigError, match="either spacing_mm or grid, got both or neither"):
        resample_volume(volume)
    with pytest.raises(ConfigError, match="either spacing_mm or grid, got both or neither"):
        resample_volume(volume, spacing_mm=(1, 1, 1), grid=volume.grid)
    with pytest.raises(ConfigError, match="'cubic' is none of linear, nearest, bspline"):
        resample_volume(volume, spacing_mm=(2, 2, 2), interpolation="cubic")
    with pytest.raises(GridError, match=r"of shape \(4, 5, 5\) does not fit its grid: 4×5×6"):
        resample_label_map(np.ones((4, 5, 5), np.uint8), volume.grid, volume.grid)


def test_label_maps_are_the_argmax_of_every_values_linear_mask(brats):
    path = brats / "brats_2013_pat0001_1" / "OTMultiClass.nii.gz"
    label_map = read_label_map(path)
    target = spaced_grid(label_map.grid, (1.7, 1.3, 2.1))
    resampled = resample_label_map(label_map.array_CIJK[0], label_map.grid, target)
    masks = np.stack([label_map.array_CIJK[0] == value for value in range(5)]).astype(np.float32)
    shares = resample_volume(Volume(masks, label_map.affine), grid=target).array_CIJK
    first, second = np.sort(shares, axis=0)[[-1, -2]]
    clear = first - second > 1e-5
    assert clear.mean() > 0.999
    np.testing.assert_array_equal(resampled[clear], shares.argmax(axis=0)[clear])
    assert resampled.dtype == label_map.array_CIJK.dtype


def test_of_equals_the_lowest_value_wins():
    label_map = np.repeat(np.array([0, 3, 3, 2, 2, 0, 7, 7], np.uint16), 2).reshape(8, 2, 1)
    halfway = np.eye(4)
    halfway[0, 3] = 0.5
    moved = resample_label_map(label_map, Grid((8, 2, 1), np.eye(4)), Grid((7, 2, 1), halfway))
    np.testing.assert_array_equal(moved[:, 0, 0], [0, 3, 2, 2, 0, 0, 7])
    assert moved.dtype == np.uint16


def test_labels_at_the_border_and_beyond_the_target():
    label_map = np.zeros((6, 6, 6), np.uint8)
    label_map[0], label_map[5, 5, 5] = 2, 9
    source = Grid((6, 6, 6), np.eye(4))
    finer = resample_label_map(label_map, source, spaced_grid(source, (0.5, 0.5, 0.5)))
    np.testing.assert_array_equal(finer[:2], 2)
    np.testing.assert_array_equal(finer[2:10], 0)
    np.testing.assert_array_equal(finer[-1, -1, -1], 9)
    far = np.eye(4)
    far[:3, 3] = 3, 0, -100
    assert not resample_label_map(label_map, source, Grid((6, 6, 6), far)).any()
    far[:3, 3] = -2, 0, 0
    wider = resample_label_map(label_map, source, Grid((10, 6, 6), far))
    np.testing.assert_array_equal(wider[2:8], label_map)
    assert not wider[:2].any()
    assert not wider[8:].any()
    back = np.diag([-1.0, 1, 1, 1])
    back[0, 3] = 2.5
    mirrored = resample_label_map(label_map, source, Grid((5, 1, 1), back))
    np.testing.assert_array_equal(mirrored.ravel(), [0, 0, 0, 2, 0])


def test_no_b_spline_goes_through_an_axis_of_two_voxels():
    volume = Volume(np.ones((1, 9, 2, 9), np.float32), np.eye(4))
    with pytest.raises(ConfigError, match=r"axis of two voxels, got 9×2×9.*choose .*'linear'"):
        resample_volume(volume, spacing_mm=(0.5, 1.0, 1.0), interpolation="bspline")
