"""Real series: voxels as in the reference, places as the tags say, whatever files are called."""

import json
import random
import shutil
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from nibabel.orientations import (
    apply_orientation,
    inv_ornt_aff,
    io_orientation,
)
from pydicom import dcmread

from medseg3d.io.dicom.read import read_series
from medseg3d.io.dicom.series import find_series
from medseg3d.volume import Volume

from .judge import refused

SINGLE = [
    "ct_plain_phantom",
    "ct_flipped_axes",
    "ct_liver_with_seg",
    "mr_sagittal_oblique_hitachi",
    "mr_jpegls_compressed",
    "mr_non_isotropic_pixels_rescale",
]
SEVERAL = {"mr_epi_4d_ge": 3, "mr_mosaic_siemens": 2, "mr_enhanced_multiframe_xa10": 4}
TILTED = "ct_gantry_tilt_phantom"

pytestmark = pytest.mark.slow


@pytest.fixture(params=[None, 1, 2], ids=["as they come", "shuffled", "shuffled again"])
def shuffled(request, shared_data, tmp_path):
    """Give a function that copies a series under other names, in another order."""

    def copy(name: str) -> Path:
        source = shared_data / "dicom" / name / "dicom"
        if request.param is None:
            return source
        paths = sorted(path for path in source.rglob("*") if path.is_file())
        random.Random(request.param).shuffle(paths)
        for number, path in enumerate(paths):
            suffix = ("", ".dcm", ".bin")[number % 3]
            target = tmp_path / f"part {number % 2}" / f"{number:03}{suffix}"
            target.parent.mkdir(exist_ok=True)
            shutil.copy(path, target)
        return tmp_path

    return copy


@pytest.fixture
def truth(shared_data):
    """Give a function that loads what the tags of a series say of its geometry."""

    def load(name: str) -> dict[str, Any]:
        path = shared_data / "dicom" / name / "geometry.json"
        return json.loads(path.read_text(encoding="utf-8"))

    return load


@pytest.fixture
def reference(shared_data):
    """Give a function that loads what another reader made of a series, closest to RAS+."""

    def load(name: str) -> tuple[np.ndarray, np.ndarray]:
        image = nibabel.load(shared_data / "dicom" / name / "reference.nii.gz")
        return closest_to_ras(np.asarray(image.dataobj), image.affine)

    return load


def closest_to_ras(array: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Turn voxel axes so that they run along R, A, S."""
    orientation = io_orientation(affine)
    turned = apply_orientation(array, orientation)
    return turned, affine @ inv_ornt_aff(orientation, array.shape[:3])


def assert_same_places(first: np.ndarray, second: np.ndarray, shape: tuple[int, ...]) -> None:
    """Check that no corner of a box of voxels moves by more than 0.001 mm."""
    corners = np.array([(*corner, 1) for corner in np.ndindex(2, 2, 2)], dtype=float)
    corners[:, :3] *= np.array(shape[:3]) - 1
    moved_mm = np.linalg.norm((corners @ (first - second).T)[:, :3], axis=1)
    assert moved_mm.max() < 1e-3, f"corners lie {moved_mm.round(4)} mm elsewhere"


def assert_same(volume: Volume, array: np.ndarray, affine: np.ndarray, channel: int = 0) -> None:
    turned, own = closest_to_ras(volume.array_CIJK[channel], volume.affine)
    assert turned.shape == array.shape
    assert_same_places(own, affine, array.shape)
    if turned.dtype.kind == "f":
        np.testing.assert_allclose(turned, array, rtol=1e-6)
    else:
        np.testing.assert_array_equal(turned, array)


@pytest.mark.parametrize("name", SINGLE)
class TestOneVolume:
    def test_it_is_the_reference(self, name, shuffled, reference):
        assert_same(read_series(shuffled(name)), *reference(name))

    def test_its_axes_and_places_are_those_of_the_tags(self, name, shuffled, truth):
        volume, said = read_series(shuffled(name)), truth(name)
        assert volume.shape_IJK == tuple(said["shape"])
        affine = np.array(said["affine_ras_from_first_and_last_slice"])
        assert_same_places(volume.affine, affine, volume.shape_IJK)
        total = volume.array_CIJK.sum(dtype="f8")
        np.testing.assert_allclose(total, said["value_sum"], rtol=1e-6)

    def test_slice_k_is_the_kth_file_along_the_normal(self, name, shuffled, truth, shared_data):
        volume = read_series(shuffled(name))
        for k, file in enumerate(truth(name)["files_in_slice_order"]):
            dataset = dcmread(shared_data / "dicom" / name / "dicom" / file)
            slope = float(dataset.get("RescaleSlope", 1))
            values = dataset.pixel_array * slope + float(dataset.get("RescaleIntercept", 0))
            np.testing.assert_allclose(volume.array_CIJK[0, :, :, k], values.T, rtol=1e-6)


@pytest.mark.parametrize("name", SEVERAL)
class TestSeveralVolumes:
    def test_each_is_a_volume_of_the_reference(self, name, shuffled, reference):
        folder = shuffled(name)
        array, affine = reference(name)
        (series,) = find_series(folder)
        names = [stack.name for stack in series.stacks]
        assert names == sorted(names)
        assert len(names) == SEVERAL[name]
        for time, said in enumerate(names):
            volume = read_series(folder, volume=said)
            assert volume.num_channels == 1
            assert_same(volume, array[..., time], affine)

    def test_all_are_channels_in_the_order_of_time(self, name, shuffled, reference):
        array, affine = reference(name)
        channels = read_series(shuffled(name), fourth_axis="channels")
        assert channels.num_channels == SEVERAL[name]
        for time in range(SEVERAL[name]):
            assert_same(channels, array[..., time], affine, channel=time)

    def test_none_is_chosen_unasked(self, name, shuffled):
        with refused(f"{SEVERAL[name]} volumes"):
            read_series(shuffled(name))


class TestTilt:
    def test_it_is_refused_with_its_angle(self, shuffled):
        with refused("18.5", "tilt"):
            read_series(shuffled(TILTED))

    def test_kept_it_is_what_the_tags_say(self, shuffled, truth, shared_data):
        volume, said = read_series(shuffled(TILTED), tilt="keep"), truth(TILTED)
        assert volume.shape_IJK == tuple(said["shape"])
        affine = np.array(said["affine_ras_from_first_and_last_slice"])
        assert_same_places(volume.affine, affine, volume.shape_IJK)
        for k, file in enumerate(said["files_in_slice_order"]):
            dataset = dcmread(shared_data / "dicom" / TILTED / "dicom" / file)
            assert np.array_equal(volume.array_CIJK[0, :, :, k], dataset.pixel_array.T - 1024.0)

    def test_corrected_every_voxel_is_the_nearest_of_the_source_or_between_its_neighbours(
        self, shuffled
    ):
        folder = shuffled(TILTED)
        source, straight = (read_series(folder, tilt=tilt) for tilt in ("keep", "correct"))
        axes = straight.affine[:3, :3] / straight.spacing_mm
        np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-6)
        rng = np.random.default_rng(0)
        at = rng.integers((1, 20, 0), np.array(straight.shape_IJK) - (1, 20, 0), (2000, 3))
        points = at @ straight.affine[:3, :3].T + straight.affine[:3, 3]
        back = (points - source.affine[:3, 3]) @ np.linalg.inv(source.affine[:3, :3]).T
        low = np.floor(back + 1e-4).astype(int)
        inside = ((low >= 0) & (low + 1 < source.shape_IJK)).all(axis=1)
        assert inside.sum() > 1000
        around = np.stack(
            [source.array_CIJK[0][tuple((low[inside] + d).T)] for d in np.ndindex(2, 2, 2)]
        )
        values = straight.array_CIJK[0][tuple(at[inside].T)]
        assert (values >= around.min(axis=0) - 0.5).all()
        assert (values <= around.max(axis=0) + 0.5).all()

    def test_corrected_it_looks_like_the_reference(self, shuffled, reference):
        straight = read_series(shuffled(TILTED), tilt="correct")
        turned, affine = closest_to_ras(straight.array_CIJK[0], straight.affine)
        array, _ = reference(TILTED)
        assert turned.shape[2] == array.shape[2]
        assert abs(turned.shape[1] - array.shape[1]) <= 2
        np.testing.assert_allclose(
            np.linalg.norm(affine[:3, :3], axis=0), (0.482422, 0.482422, 2.3708), atol=1e-3
        )
