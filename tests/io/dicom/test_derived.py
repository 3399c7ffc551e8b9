"""What objects made from a series take from it."""

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.uid import UID

from medseg3d.errors import SeriesError
from medseg3d.io.dicom.derived import (
    aligned_labels,
    content_moment,
    derived_uid,
    describe_source,
    plane_of,
)
from medseg3d.io.dicom.read import read_series
from medseg3d.io.dicom.series import find_stack
from medseg3d.volume import Volume

from .phantom import OBLIQUE, Geometry, slices, write


def test_identifiers_are_valid_and_depend_on_each_part() -> None:
    assert UID(derived_uid("a", "b")).is_valid
    assert derived_uid("a", "b") == derived_uid("a", "b")
    assert len({derived_uid(*parts) for parts in [("a", "b"), ("ab",), ("b", "a"), ("a",)]}) == 4


@pytest.mark.parametrize(
    ("tags", "moment"),
    [
        ({"ContentDate": "20200304", "ContentTime": "111213.25"}, ("20200304", "111213.25")),
        ({"ContentDate": "2020.03.04", "SeriesDate": "20200305"}, ("20200305", "000000")),
        ({"StudyDate": "20200306", "StudyTime": "1112"}, ("20200306", "000000")),
        ({"StudyDate": "", "AcquisitionTime": "111213"}, ("", "")),
    ],
)
def test_times_are_those_of_the_source_where_they_are_valid(
    tags: dict[str, str], moment: tuple[str, str]
) -> None:
    header = Dataset()
    with warnings.catch_warnings(action="ignore"):
        for keyword, value in tags.items():
            setattr(header, keyword, value)
        assert content_moment(header) == moment


def test_what_the_source_does_not_tell_stands_there_empty_where_it_must() -> None:
    source, derived = Dataset(), Dataset()
    source.StudyInstanceUID = source.SeriesInstanceUID = source.FrameOfReferenceUID = "1.2"
    source.StudyID = "7"
    describe_source(derived, source)
    assert derived.StudyID == "7"
    assert derived["PatientName"].is_empty
    assert derived["AccessionNumber"].is_empty
    assert "StudyDescription" not in derived


def test_labels_lie_as_the_slices_do_whatever_way_those_run(tmp_path: Path) -> None:
    write(slices(replace(OBLIQUE, shape=(3, 4, 5))), tmp_path)
    stack = find_stack(tmp_path)
    labels_IJK = np.arange(60, dtype=np.uint8).reshape(3, 4, 5)
    labels = aligned_labels(Volume(labels_IJK[np.newaxis], stack.grid.affine), stack)
    assert labels[4, 3, 2] == labels_IJK[2, 3, 4]
    again = aligned_labels(
        Volume(labels_IJK[np.newaxis, ::-1], stack.grid.affine @ TURNED), stack, resample=True
    )
    np.testing.assert_array_equal(again, labels)


TURNED = np.array([(-1.0, 0, 0, 2), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1)])
"""The other way along I, for three voxels."""


def test_pixels_outside_a_label_map_are_background(tmp_path: Path) -> None:
    write(slices(Geometry(shape=(3, 4, 5))), tmp_path)
    stack = find_stack(tmp_path)
    small = Volume(np.ones((1, 2, 4, 5), dtype=np.uint8), stack.grid.affine)
    labels = aligned_labels(small, stack, resample=True)
    assert labels[:, :, :2].all()
    assert not labels[:, :, 2].any()


@pytest.mark.parametrize("at", [[0, 1, 2, 3, 4.6], [0, 1, 2, 3.3, 4.95], [0, 1, 2, 4, 5.95]])
def test_an_even_grid_that_ends_before_the_last_slice_labels_that_too(
    at: list[float], tmp_path: Path
) -> None:
    write(slices(Geometry(shape=(3, 4, 5)), at=at), tmp_path)
    even = read_series(tmp_path, gaps="resample")
    full = Volume(np.ones((1, *even.shape_IJK), dtype=np.uint8), even.affine)
    assert aligned_labels(full, find_stack(tmp_path), resample=True).all()


def test_a_frame_without_a_place_is_named(tmp_path: Path) -> None:
    (source,) = slices(Geometry(shape=(3, 4, 1)))
    del source.ImagePositionPatient
    write([source], tmp_path)
    with pytest.raises(SeriesError, match=r"dcm' does not say where in the patient it lies"):
        plane_of(find_stack(tmp_path).frames[0])
