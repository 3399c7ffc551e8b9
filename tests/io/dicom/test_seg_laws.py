"""Laws of DICOM SEG: whichever way slices lie, what is read is what was written, where it was."""

import subprocess
import sys
import tempfile
from itertools import permutations, product
from pathlib import Path

import highdicom
import numpy as np
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from medseg3d.io.dicom.seg import write_dicom_seg
from medseg3d.io.dicom.seg_read import read_dicom_seg
from medseg3d.io.dicom.series import find_stack
from medseg3d.labels import LabelScheme
from medseg3d.volume import Volume

from .phantom import Geometry, slices, write

pytestmark = pytest.mark.slow

VALUES = {2: "liver", 3: "spleen", 7: "pancreas"}
SCHEME = LabelScheme(values=VALUES, codes={name: name for name in VALUES.values()})
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])

ORIENTATIONS = [
    tuple(tuple(sign * np.eye(3)[axis]) for sign, axis in zip(signs, axes, strict=True))
    for axes in permutations(range(3))
    for signs in product((1, -1), repeat=3)
]
"""Rows, columns and slices along each axis and against it."""


def draw_labels(shape: tuple[int, int, int], seed: int) -> np.ndarray:
    """Draw labels without symmetry, with slices that have none."""
    rng = np.random.default_rng(seed)
    labels = rng.choice([0, 0, 0, *VALUES], size=shape).astype(np.uint8)
    labels[:, :, rng.random(shape[2]) < 0.3] = 0
    labels[0, -1, 0], labels[-1, 0, -1] = 2, 7
    return labels


def written(geometry: Geometry, folder: Path, *, seed: int, segments: str = "values") -> Volume:
    """Write a series and a segmentation of it; give the labels that it was made from."""
    write(slices(geometry), folder / "source")
    grid = find_stack(folder / "source").grid
    label_map = Volume(draw_labels(grid.shape_IJK, seed)[np.newaxis], grid.affine)
    write_dicom_seg(
        label_map,
        folder / "s.dcm",
        series=folder / "source",
        scheme=SCHEME,
        segments=segments,  # type: ignore[arg-type]
    )
    return label_map


def points_of(mask: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Give the places of a mask's voxels in a fixed order."""
    points = (np.argwhere(mask) @ affine[:3, :3].T + affine[:3, 3]).round(3) + 0.0
    return points[np.lexsort(points.T)]


def require_same_places(numbers: np.ndarray, affine: np.ndarray, label_map: Volume) -> None:
    """Compare segment numbers with labels, value by value and place by place."""
    present = np.unique(label_map.array_CIJK)[1:]
    for number, value in enumerate(present, start=1):
        expected = points_of(label_map.array_CIJK[0] == value, label_map.affine)
        assert np.allclose(points_of(numbers == number, affine), expected, atol=2e-3)


@pytest.mark.parametrize("directions", ORIENTATIONS)
def test_every_orientation_is_read_back_by_ourselves_and_by_highdicom(
    directions: tuple[tuple[float, ...], ...], tmp_path: Path
) -> None:
    row, column, along = directions
    step = tuple(2.5 * np.array(along))
    geometry = Geometry(shape=(7, 6, 5), row=row, column=column, step=step)
    label_map = written(geometry, tmp_path, seed=1)
    for grid in (label_map.grid, None):
        read = read_dicom_seg(tmp_path / "s.dcm", grid=grid).label_map(SCHEME)
        assert np.array_equal(read.array_CIJK, label_map.array_CIJK)
        assert np.allclose(read.affine, label_map.affine, atol=1e-9)
    judge = highdicom.seg.segread(tmp_path / "s.dcm").get_volume(combine_segments=True)
    require_same_places(judge.array, LPS @ judge.affine, label_map)


@pytest.mark.parametrize("directions", ORIENTATIONS[::5])
def test_orientations_are_read_back_by_dcmqi(
    directions: tuple[tuple[float, ...], ...], tmp_path: Path
) -> None:
    tool = Path(sys.executable).with_name("segimage2itkimage")
    if not tool.exists():
        pytest.skip("dcmqi is not installed")
    row, column, along = directions
    step = tuple(2.5 * np.array(along))
    geometry = Geometry(shape=(7, 6, 5), row=row, column=column, step=step)
    label_map = written(geometry, tmp_path, seed=1)
    command = [tool, "--inputDICOM", "s.dcm", "--outputDirectory", ".", "--outputType", "nrrd"]
    subprocess.run(command, capture_output=True, check=True, cwd=tmp_path)
    for number in (1, 2, 3):
        image = SimpleITK.ReadImage(str(tmp_path / f"{number}.nrrd"))
        affine = np.eye(4)
        affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
        affine[:3, 3] = image.GetOrigin()
        mask = SimpleITK.GetArrayFromImage(image).T > 0
        expected = label_map.array_CIJK[0] == [2, 3, 7][number - 1]
        assert np.allclose(
            points_of(mask, LPS @ affine), points_of(expected, label_map.affine), atol=2e-3
        )


@st.composite
def geometries(draw: st.DrawFn) -> Geometry:
    """Draw slices turned, spaced, sheared and reversed in any way."""
    turn = Rotation.from_rotvec(draw(st.tuples(*[st.floats(-3, 3)] * 3))).as_matrix()
    edges = st.floats(0.1, 9)
    step = turn[:, 2] * draw(st.floats(0.3, 9)) * draw(st.sampled_from((-1, 1)))
    if draw(st.booleans()):
        step = step + turn[:, 1] * draw(st.floats(-2, 2))
    return Geometry(
        shape=draw(st.tuples(st.integers(2, 9), st.integers(2, 9), st.integers(1, 6))),
        spacing=(draw(edges), draw(edges)),
        origin=draw(st.tuples(*[st.floats(-300, 300)] * 3)),
        row=tuple(turn[:, 0]),
        column=tuple(turn[:, 1]),
        step=tuple(step),
    )


@settings(deadline=None, max_examples=60)
@given(
    geometry=geometries(),
    seed=st.integers(0, 2**32),
    segments=st.sampled_from(["values", "regions", "labelmap"]),
)
def test_any_slices_give_back_their_labels(geometry: Geometry, seed: int, segments: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        label_map = written(geometry, Path(folder), seed=seed, segments=segments)
        read = read_dicom_seg(Path(folder, "s.dcm"), grid=label_map.grid)
        own = read_dicom_seg(Path(folder, "s.dcm"))
    assert np.array_equal(read.label_map(SCHEME).array_CIJK, label_map.array_CIJK)
    assert np.array_equal(own.label_map(SCHEME).array_CIJK, label_map.array_CIJK)
    assert np.allclose(own.layers.affine[:3], label_map.affine[:3], atol=1e-6)
