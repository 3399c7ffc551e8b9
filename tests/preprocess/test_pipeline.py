"""The way to the network and back, step by step; its laws are in properties/test_pipeline.py."""

from pathlib import Path

import numpy as np
import pytest

from medseg3d.config.preprocess import PreprocessConfig
from medseg3d.errors import FormatError, GridError
from medseg3d.io.files import read_label_map, read_volume
from medseg3d.preprocess.pipeline import preprocess_volume
from medseg3d.volume import Volume

LPS = np.diag([-1.0, -2.0, 3.0, 1.0])


@pytest.fixture
def head() -> Volume:
    """Give two channels in LPS that are 0 but for a box; the first fills more of it."""
    image = np.zeros((2, 8, 9, 10), dtype=np.float32)
    image[0, 2:7, 3:5, 4:9] = np.random.default_rng(0).uniform(1, 2, size=(5, 2, 5))
    image[1, 3, 3, 4] = 5
    return Volume(image, LPS)


def test_each_step_is_taken(head: Volume):
    config = PreprocessConfig(
        crop="nonzero", spacing_mm=(1, 1, 1), intensity="none", orientation="RAS"
    )
    preprocessed = preprocess_volume(head, config)
    assert preprocessed.volume.orientation == "RAS"
    assert preprocessed.volume.spacing_mm == pytest.approx((1, 1, 1))
    assert preprocessed.volume.shape_IJK == (5, 4, 15)
    assert preprocessed.box.start == (2, 3, 4)
    assert preprocessed.source.orientation == "LPS"


def test_nothing_is_done_where_nothing_is_asked_for(head: Volume):
    config = PreprocessConfig(orientation=None, intensity="none")
    same = preprocess_volume(head, config).volume
    np.testing.assert_array_equal(same.array_CIJK, head.array_CIJK)
    assert same.affine.tobytes() == head.affine.tobytes()


def test_an_image_of_zeros_is_not_cropped_away(head: Volume):
    empty = Volume(np.zeros_like(head.array_CIJK), LPS)
    preprocessed = preprocess_volume(empty, PreprocessConfig(crop="nonzero"))
    assert preprocessed.volume.shape_IJK == head.shape_IJK
    assert not preprocessed.volume.array_CIJK.any()


def test_outside_of_the_crop_the_restored_label_map_is_background(head: Volume):
    preprocessed = preprocess_volume(head, PreprocessConfig(crop="nonzero"))
    restored = preprocessed.restore(np.full(preprocessed.volume.shape_IJK, 3, dtype=np.uint8))
    expected = np.zeros((1, 8, 9, 10), dtype=np.uint8)
    expected[:, 2:7, 3:5, 4:9] = 3
    np.testing.assert_array_equal(restored.array_CIJK, expected)
    assert restored.array_CIJK.flags.c_contiguous


def test_a_label_map_of_another_grid_cannot_follow(head: Volume):
    preprocessed = preprocess_volume(head, PreprocessConfig())
    elsewhere = Volume(np.zeros((1, 8, 9, 10), dtype=np.uint8), np.eye(4))
    with pytest.raises(GridError, match=r"^'image' and 'label map' do not lie on one grid: orien"):
        preprocessed.follow(elsewhere)


def test_a_label_map_of_another_shape_cannot_be_restored(head: Volume):
    preprocessed = preprocess_volume(head, PreprocessConfig(crop="nonzero"))
    with pytest.raises(GridError, match=r"shape \(5, 2, 5\), got \(8, 9, 10\)$"):
        preprocessed.restore(np.zeros((8, 9, 10), dtype=np.uint8))


def test_maps_come_back_within_the_crop_and_are_0_outside(head: Volume):
    config = PreprocessConfig(crop="nonzero", spacing_mm=(0.9, 1.3, 2.0))
    preprocessed = preprocess_volume(head, config)
    shape = preprocessed.volume.shape_IJK
    maps = np.stack([np.full(shape, 0.1), np.full(shape, 7.0)]).astype(np.float32)
    restored = preprocessed.restore_image(maps)
    expected = np.zeros((2, 8, 9, 10), dtype=np.float32)
    expected[:, 2:7, 3:5, 4:9] = np.float32([[[[0.1]]], [[[7]]]])
    np.testing.assert_array_equal(restored.array_CIJK, expected)
    assert restored.affine.tobytes() == head.affine.tobytes()
    assert restored.array_CIJK.dtype == np.float32
    assert restored.array_CIJK.flags.c_contiguous


def test_maps_come_back_by_linear_interpolation():
    ramp = np.linspace(0, 1, 20, dtype=np.float32).reshape(1, 20, 1, 1)
    config = PreprocessConfig(
        spacing_mm=(2.0, 1.0, 1.0), intensity="none", orientation=None, interpolation="bspline"
    )
    preprocessed = preprocess_volume(Volume(ramp, np.eye(4)), config)
    steps = np.array([0, 1] * 5, dtype=np.float32).reshape(1, 10, 1, 1)
    restored = preprocessed.restore_image(steps).array_CIJK.ravel()
    np.testing.assert_array_equal(restored, [0, *[0.25, 0.75, 0.75, 0.25] * 4, 0.25, 0.75, 1])


def test_maps_of_another_shape_cannot_be_restored(head: Volume):
    preprocessed = preprocess_volume(head, PreprocessConfig(crop="nonzero"))
    with pytest.raises(GridError, match=r"^restore_image .* shape \(5, 2, 5\), got \(8, 9, 10\)$"):
        preprocessed.restore_image(np.zeros((2, 8, 9, 10), dtype=np.float32))


def test_nan_is_refused_before_and_after_resampling(head: Volume):
    head.array_CIJK[0, 2, 3, 4] = np.nan
    for spacing_mm in (None, (1.0, 1.0, 1.0)):
        with pytest.raises(FormatError, match="voxels of NaN or infinity"):
            preprocess_volume(head, PreprocessConfig(spacing_mm=spacing_mm))


def test_a_real_reference_keeps_its_regions_on_a_finer_grid_and_back(hippocampus: Path):
    image = read_volume(hippocampus / "imagesTr/hippocampus_011.nii.gz")
    reference = read_label_map(hippocampus / "labelsTr/hippocampus_011.nii.gz")
    config = PreprocessConfig(orientation="PIR", spacing_mm=(0.8, 0.7, 0.9))
    preprocessed = preprocess_volume(image, config)
    restored = preprocessed.restore(preprocessed.follow(reference))
    assert restored.affine.tobytes() == image.affine.tobytes()
    for value in (1, 2):
        pair = restored.array_CIJK == value, reference.array_CIJK == value
        assert 2 * (pair[0] & pair[1]).sum() / (pair[0].sum() + pair[1].sum()) > 0.97


@pytest.mark.parametrize("interpolation", ["linear", "bspline"])
def test_air_stays_exactly_0_when_voxels_change(interpolation: str):
    image = np.zeros((1, 20, 20, 20), dtype=np.float32)
    image[0, 6:14, 5:15, 6:14] = np.random.default_rng(0).normal(50, 5, (8, 10, 8))
    config = PreprocessConfig(
        intensity="zscore_nonzero", spacing_mm=(1.5, 1.5, 0.8), interpolation=interpolation
    )
    volume = preprocess_volume(Volume(image, np.eye(4)), config).volume
    inside = volume.array_CIJK != 0
    assert 0.05 < inside.mean() < 0.11, "air counts as tissue"
    assert abs(volume.array_CIJK[inside].mean()) < 0.2


@pytest.mark.parametrize(
    ("length", "old", "new"), [(101, 0.5, 2.0), (13, 1.0, 3.0), (5, 1.0, 2.0), (10, 1.0, 4.0)]
)
def test_no_border_is_lost_on_the_way_back_from_a_coarser_grid(length: int, old: float, new: float):
    image = np.random.default_rng(0).normal(size=(1, length, 6, 6)).astype(np.float32)
    config = PreprocessConfig(spacing_mm=(new, new, new))
    preprocessed = preprocess_volume(Volume(image, np.diag([old, old, old, 1])), config)
    restored = preprocessed.restore(np.full(preprocessed.volume.shape_IJK, 3, dtype=np.uint8))
    assert (restored.array_CIJK == 3).all()


def test_nonzero_where_nothing_is_0_is_told(caplog: pytest.LogCaptureFixture):
    volume = Volume(np.random.default_rng(0).normal(5, 1, (1, 4, 4, 4)), np.eye(4))
    preprocess_volume(volume, PreprocessConfig(crop="nonzero"))
    assert "no voxel is 0" in caplog.text
