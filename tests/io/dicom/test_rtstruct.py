"""Structure sets, judged by filling their contours again through the source's own tags."""

import shutil
import subprocess
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK
from pydicom import Dataset, dcmread
from pydicom.uid import UID
from scipy import ndimage

from medseg3d.errors import FormatError, GridError, LabelError, SeriesError
from medseg3d.io.dicom.read import read_series
from medseg3d.io.dicom.rtstruct import write_rtstruct
from medseg3d.io.dicom.series import find_image_series, find_stack
from medseg3d.labels import LabelScheme
from medseg3d.volume import Volume

from .phantom import OBLIQUE, Geometry, Placed, enhanced, mosaic, slices, write

SCHEME = LabelScheme(
    name="two organs and a tumour",
    values={1: "kidney", 2: "liver", 4: "tumour", 9: "never there"},
    regions={"liver with tumour": (2, 4), "tumour": (4,), "kidney": (1,)},
    colors={"kidney": "#102030"},
    codes={"kidney": "kidney_left", "liver": "liver"},
)

SHAPE = (23, 19, 6)

GEOMETRIES = {
    "axial": Geometry(shape=SHAPE),
    "reversed": Geometry.along((1, 0, 0), (0, 1, 0), -1),
    "sagittal": Geometry.along((0, 1, 0), (0, 0, -1)),
    "oblique": OBLIQUE,
    "tilted": Geometry.tilted(),
}


def organs(shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    """Give labels with holes, several parts, single pixels, and parts cut by the border."""
    rng = np.random.default_rng(7)
    label_map = np.zeros(shape, dtype=np.uint8)
    label_map[ndimage.gaussian_filter(rng.random(shape), 1.5) > 0.5] = 2
    label_map[rng.random(shape) < 0.06] = 4
    label_map[1:6, 1:6, 1], label_map[3, 3, 1] = 1, 0
    label_map[-1, -1, -1] = 1
    return label_map


def as_volume(label_map: np.ndarray, folder: Path, **options: Any) -> Volume:
    return Volume(label_map[np.newaxis], find_stack(folder, **options).grid.affine)


def refilled(structures: Dataset, sources: list[Dataset]) -> dict[str, dict[Any, np.ndarray]]:
    """Fill each region's contours, plane by plane: region -> (image, frame) -> mask (rows first).

    Places come from the source's tags alone; a pixel is inside where its centre is.
    """
    by_uid = {source.SOPInstanceUID: source for source in sources}
    names = {roi.ROINumber: roi.ROIName for roi in structures.StructureSetROISequence}
    masks: dict[str, dict[Any, np.ndarray]] = defaultdict(dict)
    for drawing in structures.ROIContourSequence:
        planes = masks[names[drawing.ReferencedROINumber]]
        for contour in drawing.ContourSequence:
            assert contour.ContourGeometricType == "CLOSED_PLANAR"
            (image,) = contour.ContourImageSequence
            source, frame = (
                by_uid[image.ReferencedSOPInstanceUID],
                image.get("ReferencedFrameNumber"),
            )
            points = np.array(contour.ContourData, dtype=float).reshape(-1, 3)
            assert len(points) == contour.NumberOfContourPoints
            key, shape = (image.ReferencedSOPInstanceUID, frame), (source.Rows, source.Columns)
            mask = planes.setdefault(key, np.zeros(shape, dtype=bool))
            mask ^= even_odd(pixels(points, place_of(source, frame)), shape)
    return masks


def place_of(source: Dataset, frame: int | None) -> tuple[np.ndarray, ...]:
    """Give corner, step along a row and step along a column, from the tags."""
    if frame is not None:
        groups = source.PerFrameFunctionalGroupsSequence[frame - 1]
        corner = groups.PlanePositionSequence[0].ImagePositionPatient
        cosines = groups.PlaneOrientationSequence[0].ImageOrientationPatient
        spacing = groups.PixelMeasuresSequence[0].PixelSpacing
    else:
        corner, spacing = source.ImagePositionPatient, source.PixelSpacing
        cosines = source.ImageOrientationPatient
    row, column = np.array(cosines, dtype=float).reshape(2, 3)
    return np.array(corner, dtype=float), row * float(spacing[1]), column * float(spacing[0])


def pixels(points_mm: np.ndarray, place: tuple[np.ndarray, ...]) -> np.ndarray:
    corner, along_i, along_j = place
    normal = np.cross(along_i, along_j)
    axes = np.column_stack([along_i, along_j, normal / np.linalg.norm(normal)])
    i, j, off_mm = np.linalg.solve(axes, (points_mm - corner).T)
    assert np.abs(off_mm).max() < 1e-4, "the contour does not lie in the plane of its image"
    return np.column_stack([i, j])


def even_odd(polygon: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    j, i = np.indices(shape)
    inside = np.zeros(shape, dtype=bool)
    for (i0, j0), (i1, j1) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        if j0 != j1:
            met = (np.minimum(j0, j1) <= j) & (j < np.maximum(j0, j1))
            inside ^= met & (i < i0 + (j - j0) * (i1 - i0) / (j1 - j0))
    return inside


def in_order(sources: list[Dataset]) -> list[tuple[str, int | None]]:
    """Give image and frame of each slice, in ascending position along row × column."""
    keys = [
        (source, None if "PerFrameFunctionalGroupsSequence" not in source else frame)
        for source in sources
        for frame in range(1, int(source.get("NumberOfFrames") or 1) + 1)
    ]
    _, row, column = place_of(*keys[0])
    keys.sort(key=lambda key: place_of(*key)[0] @ np.cross(row, column))
    return [(source.SOPInstanceUID, frame) for source, frame in keys]


def assert_drawn(path: Path, sources: list[Dataset], masks: dict[str, np.ndarray]) -> None:
    """Check that a file holds these masks (I J K), each slice on its own image, and no others."""
    drawn = refilled(dcmread(path), sources)
    assert [*drawn] == [name for name, mask in masks.items() if mask.any()]
    for name, planes in drawn.items():
        for k, key in enumerate(in_order(sources)):
            found = planes.pop(key, np.zeros(masks[name].shape[1::-1], dtype=bool))
            np.testing.assert_array_equal(found, masks[name][:, :, k].T, err_msg=f"{name} {k}")
        assert not planes


def masks_of(label_map: np.ndarray) -> dict[str, np.ndarray]:
    return {name: label_map == value for value, name in sorted(SCHEME.values.items())}


def dciodvfy_errors(path: Path) -> list[str]:
    if not (judge := shutil.which("dciodvfy")):
        pytest.skip("dciodvfy (Debian package dicom3tools) is not installed")
    said = subprocess.run([judge, path], check=False, capture_output=True, text=True)
    lines = (said.stderr + said.stdout).splitlines()
    assert "RTStructureSet" in lines
    return [line for line in lines if line.startswith("Error")]


@pytest.fixture(params=GEOMETRIES)
def geometry(request: pytest.FixtureRequest) -> Geometry:
    return replace(GEOMETRIES[request.param], shape=SHAPE)


def test_filling_the_contours_gives_back_every_voxel(geometry: Geometry, tmp_path: Path) -> None:
    sources = slices(geometry)
    write(sources, tmp_path / "ct")
    label_map, path = organs(), tmp_path / "rt.dcm"
    write_rtstruct(
        as_volume(label_map, tmp_path / "ct"), path, series=tmp_path / "ct", scheme=SCHEME
    )
    assert_drawn(path, sources, masks_of(label_map))
    assert dciodvfy_errors(path) == []


def test_what_is_drawn_over_a_series_is_what_its_reader_gives(tmp_path: Path) -> None:
    sources = slices(replace(OBLIQUE, shape=SHAPE))
    write(sources, tmp_path / "ct")
    volume = read_series(tmp_path / "ct")
    bright = volume.array_CIJK > np.median(volume.array_CIJK)
    write_rtstruct(
        Volume(bright, volume.affine), tmp_path / "rt.dcm", series=tmp_path / "ct",
        scheme=LabelScheme(values={1: "bright"}),
    )  # fmt: skip
    drawn = refilled(dcmread(tmp_path / "rt.dcm"), sources)["bright"]
    for source in sources:
        stored = np.frombuffer(source.PixelData, "<i2").reshape(source.Rows, source.Columns)
        expected = stored > np.median(volume.array_CIJK)
        found = drawn.get((source.SOPInstanceUID, None), np.zeros_like(expected))
        np.testing.assert_array_equal(found, expected)


def test_regions_may_overlap_and_empty_ones_are_left_out(tmp_path: Path) -> None:
    sources = slices(Geometry(shape=SHAPE))
    write(sources, tmp_path / "ct")
    label_map, path = organs(), tmp_path / "rt.dcm"
    label_map[label_map == 1] = 0
    write_rtstruct(
        as_volume(label_map, tmp_path / "ct"), path,
        series=tmp_path / "ct", scheme=SCHEME, segments="regions",
    )  # fmt: skip
    masks = {"liver with tumour": label_map > 0, "tumour": label_map == 4}
    assert_drawn(path, sources, masks)


def test_frames_of_an_enhanced_file_are_referred_to_one_by_one(tmp_path: Path) -> None:
    geometry = replace(OBLIQUE, shape=SHAPE)
    frames = [
        Placed(geometry, k, content={"TemporalPositionIndex": time})
        for k in (3, 0, 5, 1, 4, 2)
        for time in (1, 2)
    ]
    source = enhanced(frames)
    write([source], tmp_path / "mr")
    label_map, path = organs(), tmp_path / "rt.dcm"
    second = find_image_series(tmp_path / "mr").stacks[1].name
    write_rtstruct(
        as_volume(label_map, tmp_path / "mr", volume=second), path,
        series=tmp_path / "mr", scheme=SCHEME, volume=second,
    )  # fmt: skip
    drawn = refilled(dcmread(path), [source])["liver"]
    for n, frame in enumerate(frames, start=1):
        expected = label_map[:, :, frame.k].T == 2 if n % 2 == 0 else np.zeros(SHAPE[1::-1])
        found = drawn.get((source.SOPInstanceUID, n), np.zeros(SHAPE[1::-1]))
        np.testing.assert_array_equal(found, expected)
    (image,) = images_of(dcmread(path))
    assert image.ReferencedFrameNumber == [2, 4, 6, 8, 10, 12]
    assert dciodvfy_errors(path) == []


def test_slices_of_a_mosaic_refer_to_its_file_and_lie_where_the_slices_do(tmp_path: Path) -> None:
    geometry = replace(OBLIQUE, shape=SHAPE)
    source = mosaic(geometry)
    write([source], tmp_path / "mr")
    label_map = np.zeros(SHAPE, dtype=np.uint8)
    label_map[4, 5, 2] = 1
    path = tmp_path / "rt.dcm"
    write_rtstruct(
        as_volume(label_map, tmp_path / "mr"), path, series=tmp_path / "mr", scheme=SCHEME
    )
    (drawing,) = dcmread(path).ROIContourSequence
    (contour,) = drawing.ContourSequence
    (image,) = contour.ContourImageSequence
    assert image.ReferencedSOPInstanceUID == source.SOPInstanceUID
    assert "ReferencedFrameNumber" not in image
    centre_lps = np.reshape(contour.ContourData, (-1, 3)).astype(float).mean(axis=0)
    expected = geometry.affine() @ (4, 5, 2, 1)
    np.testing.assert_allclose(centre_lps * (-1, -1, 1), expected[:3], atol=1e-4)
    assert dciodvfy_errors(path) == []


def test_uneven_slices_take_the_nearest_voxels_of_an_even_label_map(tmp_path: Path) -> None:
    places = [0, 1, 2, 4, 5, 7]
    sources = slices(Geometry(shape=SHAPE), at=places)
    write(sources, tmp_path / "ct")
    even = read_series(tmp_path / "ct", gaps="resample")
    label_map = organs(even.shape_IJK)
    label_map[-1, -1] = 1  # a border that is kept
    volume = Volume(label_map[np.newaxis], even.affine)
    with pytest.raises(GridError, match=r"not evenly spaced.*\n.*resample=True"):
        write_rtstruct(volume, tmp_path / "rt.dcm", series=tmp_path / "ct", scheme=SCHEME)
    write_rtstruct(
        volume, tmp_path / "rt.dcm", series=tmp_path / "ct", scheme=SCHEME, resample=True
    )
    assert_drawn(tmp_path / "rt.dcm", sources, masks_of(label_map[:, :, places]))


def test_a_label_map_on_a_straightened_grid_comes_back_to_the_tilted_slices(
    tmp_path: Path,
) -> None:
    geometry = Geometry.tilted(shape=SHAPE)
    sources = slices(geometry)
    write(sources, tmp_path / "ct")
    straight = read_series(tmp_path / "ct", tilt="correct")
    i, j, k = np.indices(straight.shape_IJK)
    points = np.stack([i, j, k, np.ones_like(i)], axis=-1) @ straight.affine.T
    ball = np.linalg.norm(points[..., :3] - (geometry.affine() @ (11, 9, 2.5, 1))[:3], axis=-1) < 9
    write_rtstruct(
        Volume(ball[np.newaxis], straight.affine), tmp_path / "rt.dcm",
        series=tmp_path / "ct", scheme=SCHEME, resample=True,
    )  # fmt: skip
    i, j, k = np.indices(SHAPE)
    points = np.stack([i, j, k, np.ones_like(i)], axis=-1) @ geometry.affine().T
    away = np.linalg.norm(points[..., :3] - (geometry.affine() @ (11, 9, 2.5, 1))[:3], axis=-1)
    drawn = refilled(dcmread(tmp_path / "rt.dcm"), sources)["kidney"]
    for n, key in enumerate(in_order(sources)):
        found = drawn.get(key, np.zeros(SHAPE[1::-1], dtype=bool)).T
        assert found[away[:, :, n] < 9 - 2].all()
        assert not found[away[:, :, n] > 9 + 2].any()


def test_regions_of_interest_have_names_colours_and_codes(tmp_path: Path) -> None:
    structures = write_organs(tmp_path)
    names = [roi.ROIName for roi in structures.StructureSetROISequence]
    assert names == ["kidney", "liver", "tumour"]
    assert structures.ROIContourSequence[0].ROIDisplayColor == [0x10, 0x20, 0x30]
    kidney, liver, tumour = structures.RTROIObservationsSequence
    (code,) = kidney.RTROIIdentificationCodeSequence
    assert (code.CodeValue, code.CodingSchemeDesignator) == ("64033007", "SCT")
    assert code.SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning == "Left"
    assert kidney.SegmentedPropertyCategoryCodeSequence[0].CodeValue == "91723000"
    assert [roi.RTROIInterpretedType for roi in (kidney, liver, tumour)] == ["ORGAN", "ORGAN", ""]
    assert "RTROIIdentificationCodeSequence" not in tumour
    assert structures.StructureSetLabel == "two organs and a"
    assert structures.ApprovalStatus == "UNAPPROVED"


def test_tumours_are_coded_with_their_place_and_targets_as_such(tmp_path: Path) -> None:
    scheme = LabelScheme(values={1: "GTV", 2: "ET"}, codes={"GTV": "GTV", "ET": "ET"})
    label_map = organs()
    label_map[label_map == 4] = 0
    structures = write_organs(tmp_path, label_map, scheme=scheme)
    target, tumour = structures.RTROIObservationsSequence
    assert target.RTROIInterpretedType == "GTV"
    assert tumour.RTROIInterpretedType == ""
    assert tumour.AnatomicRegionSequence[0].CodeMeaning == "Brain"
    assert dciodvfy_errors(tmp_path / "rt.dcm") == []


def test_a_structure_set_belongs_to_the_patient_study_and_space_of_its_source(
    tmp_path: Path,
) -> None:
    source = {"PatientName": "Dvořák^Jiří", "SpecificCharacterSet": "ISO_IR 101"}
    structures = write_organs(tmp_path, tags=source)
    assert structures.PatientName == "Dvořák^Jiří"
    (read, *others) = [dcmread(path) for path in (tmp_path / "ct").iterdir()]
    for keyword in ("PatientID", "PatientBirthDate", "StudyInstanceUID", "FrameOfReferenceUID"):
        assert structures[keyword].value == read[keyword].value
    (space,) = structures.ReferencedFrameOfReferenceSequence
    assert space.FrameOfReferenceUID == read.FrameOfReferenceUID
    (study,) = space.RTReferencedStudySequence
    assert study.ReferencedSOPInstanceUID == read.StudyInstanceUID
    (series,) = study.RTReferencedSeriesSequence
    assert series.SeriesInstanceUID == read.SeriesInstanceUID != structures.SeriesInstanceUID
    images = {image.ReferencedSOPInstanceUID for image in images_of(structures)}
    assert images == {one.SOPInstanceUID for one in (read, *others)}
    assert (structures.StructureSetDate, structures.StructureSetTime) == ("20200102", "101112")


def test_the_same_input_gives_the_same_bytes_and_another_label_map_other_identifiers(
    tmp_path: Path,
) -> None:
    first, second = write_organs(tmp_path), (tmp_path / "rt.dcm").read_bytes()
    write_rtstruct(
        as_volume(organs(), tmp_path / "ct"), tmp_path / "again.dcm",
        series=tmp_path / "ct", scheme=SCHEME,
    )  # fmt: skip
    assert (tmp_path / "again.dcm").read_bytes() == second
    other = organs()
    other[0, 0, 0] ^= 2
    write_rtstruct(
        as_volume(other, tmp_path / "ct"), tmp_path / "other.dcm",
        series=tmp_path / "ct", scheme=SCHEME,
    )  # fmt: skip
    changed = dcmread(tmp_path / "other.dcm")
    assert changed.SOPInstanceUID != first.SOPInstanceUID
    assert changed.SeriesInstanceUID != first.SeriesInstanceUID


def test_numbers_have_at_most_16_characters_however_far_away(tmp_path: Path) -> None:
    sources = slices(replace(OBLIQUE, shape=SHAPE))
    for source in sources:
        x, y, z = source.ImagePositionPatient
        source.ImagePositionPatient = [x - 99999, y + 1e-7, z + 12345]
    write(sources, tmp_path / "ct")
    label_map, path = organs(), tmp_path / "rt.dcm"
    write_rtstruct(
        as_volume(label_map, tmp_path / "ct"), path, series=tmp_path / "ct", scheme=SCHEME
    )
    for drawing in dcmread(path).ROIContourSequence:
        for contour in drawing.ContourSequence:
            numbers = [number.original_string for number in contour.ContourData]
            assert max(len(number) for number in numbers) <= 16
            assert max(len(number.partition(".")[2]) for number in numbers) <= 6
    assert_drawn(path, sources, masks_of(label_map))
    assert dciodvfy_errors(path) == []


@pytest.mark.slow
def test_the_real_liver_is_drawn_as_its_mask(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "dicom" / "ct_liver_with_seg"
    mask = SimpleITK.ReadImage(str(folder / "seg" / "liver_seg.nrrd"))
    sources = [dcmread(path) for path in (folder / "dicom").iterdir()]
    sources.sort(key=lambda source: source.ImagePositionPatient[2])
    label_map = SimpleITK.GetArrayFromImage(mask).T.astype(np.uint8)
    first_mm = mask.GetOrigin()[2], mask.GetOrigin()[2] + mask.GetSpacing()[2]
    if mask.GetDirection()[8] < 0:
        label_map = label_map[:, :, ::-1]
    assert label_map.any(), first_mm
    write_rtstruct(
        as_volume(label_map, folder / "dicom"), tmp_path / "rt.dcm",
        series=folder / "dicom", scheme=LabelScheme(values={1: "liver"}),
    )  # fmt: skip
    assert_drawn(tmp_path / "rt.dcm", sources, {"liver": label_map > 0})
    assert dciodvfy_errors(tmp_path / "rt.dcm") == []


def test_refused_label_maps_say_why(tmp_path: Path) -> None:
    write(slices(Geometry(shape=SHAPE)), tmp_path / "ct")
    affine = as_volume(organs(), tmp_path / "ct").affine

    def refuse(array: np.ndarray, affine: np.ndarray = affine) -> None:
        write_rtstruct(
            Volume(array, affine), tmp_path / "rt.dcm", series=tmp_path / "ct", scheme=SCHEME
        )

    with pytest.raises(LabelError, match=r"one channel, got 2"):
        refuse(np.zeros((2, *SHAPE), dtype=np.uint8))
    with pytest.raises(LabelError, match=r"holds 3 \("):
        refuse(np.full((1, *SHAPE), 3, dtype=np.uint8))
    with pytest.raises(LabelError, match=r"none of \['kidney', 'liver', 'tumour', 'never there'\]"):
        refuse(np.zeros((1, *SHAPE), dtype=np.uint8))
    with pytest.raises(GridError, match=r"(?s)orientation LPS against RPS.*resample=True"):
        refuse(organs()[np.newaxis], affine @ np.diag([-1.0, 1, 1, 1]))
    assert not (tmp_path / "rt.dcm").exists()


def test_a_source_without_a_study_is_refused(tmp_path: Path) -> None:
    sources = slices(Geometry(shape=SHAPE))
    for source in sources:
        del source.StudyInstanceUID
    write(sources, tmp_path / "ct")
    with pytest.raises(FormatError, match=r"has no StudyInstanceUID.*Export it again") as caught:
        write_rtstruct(
            as_volume(organs(), tmp_path / "ct"), tmp_path / "rt.dcm",
            series=tmp_path / "ct", scheme=SCHEME,
        )  # fmt: skip
    assert "CANARY" not in str(caught.value)


def test_a_source_without_frame_of_reference_gets_one_of_its_own(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    structures = write_organs(tmp_path, tags={"FrameOfReferenceUID": ""})
    assert "names no frame of reference" in caplog.text
    assert UID(structures.FrameOfReferenceUID).is_valid
    (space,) = structures.ReferencedFrameOfReferenceSequence
    spaces = {roi.ReferencedFrameOfReferenceUID for roi in structures.StructureSetROISequence}
    assert spaces == {structures.FrameOfReferenceUID} == {space.FrameOfReferenceUID}
    assert dciodvfy_errors(tmp_path / "rt.dcm") == []


def test_a_name_that_dicom_would_part_or_that_is_too_long_is_written_plainly(
    tmp_path: Path,
) -> None:
    scheme = LabelScheme(values={1: "left\\right", 2: "x" * 70, 4: "øre"})
    structures = write_organs(tmp_path, scheme=scheme)
    names = [roi.ROIName for roi in structures.StructureSetROISequence]
    assert names == ["left/right", "x" * 64, "øre"]
    assert dciodvfy_errors(tmp_path / "rt.dcm") == []


@pytest.mark.parametrize("fault", ["doubled", "nowhere"])
def test_slices_without_a_place_of_their_own_are_refused_even_for_resampling(
    fault: str, tmp_path: Path
) -> None:
    sources = slices(Geometry(shape=SHAPE), at=[0, 1, 2, 2, 3, 4])
    if fault == "nowhere":
        del sources[0].ImagePositionPatient
    for source in sources:
        del source.InstanceNumber
    write(sources, tmp_path / "ct")
    volume = Volume(organs()[np.newaxis], Geometry(shape=SHAPE).affine())
    with pytest.raises(SeriesError):
        write_rtstruct(
            volume, tmp_path / "rt.dcm", series=tmp_path / "ct", scheme=SCHEME, resample=True
        )


def images_of(structures: Dataset) -> list[Dataset]:
    """Give what is said of the images drawn on as a whole."""
    (space,) = structures.ReferencedFrameOfReferenceSequence
    return space.RTReferencedStudySequence[0].RTReferencedSeriesSequence[0].ContourImageSequence


def write_organs(
    folder: Path,
    label_map: np.ndarray | None = None,
    *,
    scheme: LabelScheme = SCHEME,
    tags: dict[str, Any] | None = None,
) -> Dataset:
    """Write a series and its organs to `rt.dcm`, and read that back."""
    write(slices(Geometry(shape=SHAPE), **(tags or {})), folder / "ct")
    label_map = organs() if label_map is None else label_map
    write_rtstruct(
        as_volume(label_map, folder / "ct"), folder / "rt.dcm", series=folder / "ct", scheme=scheme
    )
    return dcmread(folder / "rt.dcm")
