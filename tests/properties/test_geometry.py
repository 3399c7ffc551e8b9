"""Laws of geometry: whatever happens to the array, every voxel keeps its place in the world.

The volumes of most tests hold in each voxel its own place, so that an array that moved against its
affine shows at once.
"""

from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medseg3d.geometry.crop import Box, crop_volume, nonzero_box, pad_volume
from medseg3d.geometry.orient import plan_axes, reorient_volume
from medseg3d.geometry.resample import resample_label_map, resample_volume, spaced_grid
from medseg3d.volume import Grid, Volume

ORIENTATIONS = [
    "".join(letters) for axes in permutations(("LR", "PA", "IS")) for letters in product(*axes)
]

sizes = st.integers(1, 7)
widths = st.tuples(*[st.integers(0, 3)] * 3)


@st.composite
def grids(draw: st.DrawFn) -> Grid:
    """Draw a grid of any orientation and spacing, oblique and somewhat sheared."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    affine = np.eye(4)
    affine[:3, :3] = turn @ (np.eye(3) + rng.uniform(-0.2, 0.2, (3, 3))) * rng.uniform(0.3, 4, 3)
    affine[:3, 3] = rng.uniform(-200, 200, 3)
    return Grid((draw(sizes), draw(sizes), draw(sizes)), affine)


def places(grid: Grid) -> np.ndarray:
    """Give the world position of every voxel: 3, I, J, K."""
    index = np.concatenate([np.indices(grid.shape_IJK), np.ones((1, *grid.shape_IJK))])
    return np.tensordot(grid.affine[:3], index, axes=1)


def located(grid: Grid) -> Volume:
    """Build a volume whose three channels hold x, y and z of each voxel."""
    return Volume(places(grid), grid.affine)


def assert_located(volume: Volume) -> None:
    np.testing.assert_allclose(volume.array_CIJK, places(volume.grid), atol=1e-9)


def test_there_are_48_orientations():
    assert len(set(ORIENTATIONS)) == 48


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@settings(deadline=None, max_examples=10)
@given(grid=grids())
def test_turning_keeps_every_place_and_undoes_itself(orientation, grid):
    volume = located(grid)
    turned = reorient_volume(volume, orientation)
    assert turned.orientation == orientation
    assert_located(turned)
    back = plan_axes(grid.affine, orientation).inverse.apply(turned)
    np.testing.assert_array_equal(back.array_CIJK, volume.array_CIJK)
    np.testing.assert_allclose(back.affine, volume.affine, atol=1e-9)


@settings(deadline=None, max_examples=100)
@given(grid=grids(), before=widths, after=widths)
def test_cropping_undoes_padding(grid, before, after):
    volume = located(grid)
    padded = pad_volume(volume, before=before, after=after, value=np.nan)
    stop = tuple(b + n for b, n in zip(before, grid.shape_IJK, strict=True))
    cropped = crop_volume(padded, Box(before, stop))
    np.testing.assert_array_equal(cropped.array_CIJK, volume.array_CIJK)
    np.testing.assert_allclose(cropped.affine, volume.affine, atol=1e-9)
    inside = np.isfinite(padded.array_CIJK)
    assert inside.sum() == volume.array_CIJK.size
    np.testing.assert_allclose(padded.array_CIJK[inside], places(padded.grid)[inside], atol=1e-9)


@settings(deadline=None, max_examples=100)
@given(grid=grids(), data=st.data())
def test_a_crop_keeps_every_place_and_goes_back_into_it(grid, data):
    start = tuple(data.draw(st.integers(0, size - 1)) for size in grid.shape_IJK)
    stop = tuple(
        data.draw(st.integers(a + 1, size)) for a, size in zip(start, grid.shape_IJK, strict=True)
    )
    volume = located(grid)
    cropped = crop_volume(volume, Box(start, stop))
    assert_located(cropped)
    after = tuple(size - end for size, end in zip(grid.shape_IJK, stop, strict=True))
    back = pad_volume(cropped, before=start, after=after)
    assert back.shape_IJK == grid.shape_IJK
    np.testing.assert_allclose(back.affine, grid.affine, atol=1e-9)
    box = nonzero_box(
        np.pad(np.ones((1, *cropped.shape_IJK)), [(0, 0), *zip(start, after, strict=True)])
    )
    assert box == Box(start, stop)


@settings(deadline=None, max_examples=100)
@given(source=grids(), seed=st.integers(0, 2**32))
def test_a_linear_function_of_the_place_survives_resampling(source, seed):
    rng = np.random.default_rng(seed)
    old_index = np.eye(4)
    old_index[:3, :3] += rng.uniform(-0.4, 0.4, (3, 3))
    old_index[:3, 3] = rng.uniform(-2, 3, 3)
    target = Grid((5, 4, 6), source.affine @ old_index)
    resampled = resample_volume(located(source), grid=target)
    index = np.tensordot(np.linalg.inv(source.affine)[:3, :3], places(target), axes=1)
    index += np.linalg.inv(source.affine)[:3, 3].reshape(3, 1, 1, 1)
    size = np.reshape(source.shape_IJK, (3, 1, 1, 1))
    inside = ((index > 1e-6) & (index < size - 1 - 1e-6)).all(axis=0)
    beyond = ((index < -0.5 - 1e-6) | (index > size - 0.5 + 1e-6)).any(axis=0)
    expected = places(target)
    np.testing.assert_allclose(resampled.array_CIJK[:, inside], expected[:, inside], atol=1e-3)
    assert not resampled.array_CIJK[:, beyond].any()


@settings(deadline=None, max_examples=100)
@given(grid=grids(), spacing=st.tuples(*[st.floats(0.2, 9)] * 3))
def test_another_spacing_is_exact_and_keeps_centre_and_directions(grid, spacing):
    spaced = spaced_grid(grid, spacing)
    np.testing.assert_allclose(spaced.spacing_mm, spacing, rtol=1e-9)
    centres = [g.affine @ [*((n - 1) / 2 for n in g.shape_IJK), 1] for g in (grid, spaced)]
    np.testing.assert_allclose(*centres, atol=1e-9)
    ratio = spaced.affine[:3, :3] / spaced.spacing_mm, grid.affine[:3, :3] / grid.spacing_mm
    np.testing.assert_allclose(*ratio, atol=1e-9)
    field = np.multiply(spaced.shape_IJK, spacing) - np.multiply(grid.shape_IJK, grid.spacing_mm)
    assert (field >= -1e-5 * np.array(spacing)).all(), "voxels of the old grid lie outside"
    assert (field < np.array(spacing)).all(), "a plane more than needed"


@settings(deadline=None, max_examples=50)
@given(grid=grids(), spacing=st.tuples(*[st.floats(0.3, 5)] * 3), seed=st.integers(0, 2**32))
def test_a_label_map_gains_no_value_and_a_constant_stays(grid, spacing, seed):
    target = spaced_grid(grid, spacing)
    label_map = np.random.default_rng(seed).choice([0, 2, 5], grid.shape_IJK).astype(np.uint8)
    resampled = resample_label_map(label_map, grid, target)
    assert resampled.shape == target.shape_IJK
    assert resampled.dtype == np.uint8
    assert set(np.unique(resampled)) <= set(np.unique(label_map)) | {0}
    constant = np.full_like(label_map, 3)
    np.testing.assert_array_equal(resample_label_map(constant, grid, target), 3)


@settings(deadline=None, max_examples=50)
@given(grid=grids(), seed=st.integers(0, 2**32))
def test_a_label_map_on_finer_voxels_comes_back_unchanged(grid, seed):
    label_map = np.random.default_rng(seed).integers(0, 4, grid.shape_IJK).astype(np.uint16)
    finer = spaced_grid(grid, tuple(s / 3 for s in grid.spacing_mm))
    there = resample_label_map(label_map, grid, finer)
    np.testing.assert_array_equal(there[1::3, 1::3, 1::3], label_map)
    np.testing.assert_array_equal(resample_label_map(there, finer, grid), label_map)
