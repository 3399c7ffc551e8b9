"""The phantom itself, judged by other readers where these are right."""

import highdicom
import numpy as np
import pytest
import SimpleITK

from medseg3d.volume import Volume

from .judge import assert_ramp
from .phantom import OBLIQUE, Geometry, Placed, Stored, enhanced, slices, write

AXES = [
    Geometry(),
    OBLIQUE,
    Geometry.along((0, 1, 0), (0, 0, -1)),
    Geometry.along((-1, 0, 0), (0, 0, 1), -1),
]
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@pytest.mark.parametrize("geometry", AXES)
@pytest.mark.parametrize("stored", [Stored(), Stored(16, 12, signed=False, garbage=True)])
def test_simpleitk_reads_a_plain_series_right(geometry, stored, tmp_path):
    write(slices(geometry, stored=stored, slope=2, intercept=-10), tmp_path)
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path)))
    image = reader.Execute()
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    array = SimpleITK.GetArrayFromImage(image).T
    assert_ramp(Volume(array[np.newaxis], LPS_TO_RAS @ affine), geometry, within=1)


@pytest.mark.slow
@pytest.mark.parametrize("geometry", AXES)
@pytest.mark.parametrize("shared", [(), ("PlaneOrientationSequence", "PixelMeasuresSequence")])
def test_highdicom_reads_an_enhanced_file_right(geometry, shared, tmp_path):
    frames = [Placed(geometry, k, slope=2, intercept=-10) for k in (3, 0, 4, 2, 1)]
    (path,) = write([enhanced(frames, shared=shared)], tmp_path)
    read = highdicom.imread(path).get_volume()
    affine = (LPS_TO_RAS @ read.affine)[:, [2, 1, 0, 3]]
    volume = Volume(read.array.T[np.newaxis], affine)
    if np.dot(np.cross(*affine[:3, :2].T), affine[:3, 2]) < 0:
        affine[:3, 3] += affine[:3, 2] * (geometry.shape[2] - 1)
        affine[:3, 2] *= -1
        volume = Volume(volume.array_CIJK[..., ::-1], affine)
    assert_ramp(volume, geometry, within=1)
