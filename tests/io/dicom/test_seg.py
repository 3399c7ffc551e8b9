"""DICOM SEG, judged by the source's own tags, and by highdicom, dcmqi and dciodvfy."""

import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
import pytest
import SimpleITK
from pydicom import Dataset, dcmread
from pydicom.uid import EnhancedCTImageStorage

from medseg3d.errors import ConfigError, GridError, LabelError, SeriesError
from medseg3d.io.dicom.read import read_series
from medseg3d.io.dicom.rtstruct import write_rtstruct
from medseg3d.io.dicom.seg import Algorithm, cielab, write_dicom_seg
from medseg3d.io.dicom.seg_read import read_dicom_seg
from medseg3d.io.dicom.series import find_stack
from medseg3d.labels import LabelScheme
from medseg3d.volume import Volume

from .phantom import (
    OBLIQUE,
    Geometry,
    Placed,
    enhanced,
    mosaic,
    slices,
    write,
)

SHAPE = (23, 19, 6)

SCHEME = LabelScheme(
    name="organs",
    values={1: "kidney", 2: "liver", 4: "tumour", 9: "spleen"},
    regions={"liver with tumour": (2, 4), "tumour": (4,), "kidney": (1,)},
    colors={"kidney": "#102030"},
    codes={
        "kidney": "kidney_left",
        "liver": "liver",
        "liver with tumour": "liver",
        "tumour": "ET",
        "spleen": "spleen",
    },
)
"""No phantom has a spleen."""

GEOMETRIES = {
    "axial": Geometry(shape=SHAPE),
    "reversed": replace(Geometry.along((1, 0, 0), (0, 1, 0), -1), shape=SHAPE),
    "sagittal": replace(Geometry.along((0, 1, 0), (0, 0, -1)), shape=SHAPE),
    "oblique": replace(OBLIQUE, shape=SHAPE),
    "tilted": replace(Geometry.tilted(), shape=SHAPE),
}


def organs(shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    """Give labels without symmetry; the second slice is empty, and so is the last but for one."""
    label_map = np.random.default_rng(5).choice([0, 0, 0, 1, 2, 4], size=shape).astype(np.uint8)
    label_map[:, :, 1] = 0
    label_map[:, :, -1] = 0
    label_map[-1, 0, -1] = 4
    return label_map


def on_grid(folder: Path, label_map: np.ndarray | None = None, **which: Any) -> Volume:
    grid = find_stack(folder, **which).grid
    array = organs(grid.shape_IJK) if label_map is None else label_map
    return Volume(array[np.newaxis], grid.affine)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give a plain axial series."""
    write(slices(GEOMETRIES["axial"]), tmp_path / "source")
    return tmp_path / "source"


def sources(folder: Path) -> dict[str, Dataset]:
    """Give every image of a folder by its identifier."""
    images = [dcmread(path) for path in folder.iterdir()]
    return {image.SOPInstanceUID: image for image in images}


def number_masks(path: Path) -> dict[tuple[int, str], np.ndarray]:
    """Give each frame by its segment and the image it refers to, read with pydicom alone."""
    seg = dcmread(path)
    masks = {}
    for group, mask in zip(seg.PerFrameFunctionalGroupsSequence, seg.pixel_array, strict=True):
        number = group.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        source = group.DerivationImageSequence[0].SourceImageSequence[0]
        masks[number, source.ReferencedSOPInstanceUID] = mask
    return masks


def complaints(path: Path) -> list[str]:
    """Give what dciodvfy has to say, but for the names of phantoms and of objects."""
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy (Debian package dicom3tools) is not installed")
    command = ["dciodvfy", "-new", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = (done.stdout + done.stderr).splitlines()
    return [line for line in said if line.startswith(("Error", "Warning"))]


@pytest.mark.parametrize("name", GEOMETRIES)
def test_frames_are_the_labels_of_the_slices_they_refer_to(name: str, tmp_path: Path) -> None:
    geometry = GEOMETRIES[name]
    images = slices(geometry)
    write(images, tmp_path / "source")
    label_map = on_grid(tmp_path / "source")
    write_dicom_seg(label_map, tmp_path / "s.dcm", series=tmp_path / "source", scheme=SCHEME)

    seg = dcmread(tmp_path / "s.dcm")
    ascending = np.dot(np.cross(geometry.row, geometry.column), geometry.step) > 0
    in_order = images if ascending else images[::-1]
    expected = {
        (number, image.SOPInstanceUID): (value == label_map.array_CIJK[0, :, :, k].T)
        for number, value in enumerate((1, 2, 4), start=1)
        for k, image in enumerate(in_order)
        if (label_map.array_CIJK[0, :, :, k] == value).any()
    }
    masks = number_masks(tmp_path / "s.dcm")
    assert masks.keys() == expected.keys()
    assert all(np.array_equal(masks[frame], expected[frame]) for frame in masks)
    by_uid = {image.SOPInstanceUID: image for image in images}
    for group in seg.PerFrameFunctionalGroupsSequence:
        source = group.DerivationImageSequence[0].SourceImageSequence[0]
        place = group.PlanePositionSequence[0].ImagePositionPatient
        original = by_uid[source.ReferencedSOPInstanceUID].ImagePositionPatient
        assert np.allclose(place, original, atol=1e-9, rtol=0)
        assert source.SpatialLocationsPreserved == "YES"
    shared = seg.SharedFunctionalGroupsSequence[0]
    cosines = shared.PlaneOrientationSequence[0].ImageOrientationPatient
    assert np.allclose(cosines, [*geometry.row, *geometry.column], atol=1e-9, rtol=0)
    assert shared.PixelMeasuresSequence[0].PixelSpacing == [*geometry.spacing[::-1]]


@pytest.mark.parametrize("name", GEOMETRIES)
def test_a_file_read_back_on_the_grid_of_its_source_is_what_was_written(
    name: str, tmp_path: Path
) -> None:
    write(slices(GEOMETRIES[name]), tmp_path / "source")
    label_map = on_grid(tmp_path / "source")
    write_dicom_seg(label_map, tmp_path / "s.dcm", series=tmp_path / "source", scheme=SCHEME)
    seg = read_dicom_seg(tmp_path / "s.dcm", grid=label_map.grid)
    assert np.array_equal(seg.label_map(SCHEME).array_CIJK, label_map.array_CIJK)
    assert np.array_equal(seg.layers.affine, label_map.affine)
    own = read_dicom_seg(tmp_path / "s.dcm")
    assert np.array_equal(own.label_map(SCHEME).array_CIJK, label_map.array_CIJK)
    assert np.allclose(own.layers.affine, label_map.affine, atol=1e-9)


@pytest.mark.parametrize("name", [name for name in GEOMETRIES if name != "tilted"])
def test_highdicom_reads_the_same_voxels_at_the_same_places(name: str, tmp_path: Path) -> None:
    write(slices(GEOMETRIES[name]), tmp_path / "source")
    label_map = on_grid(tmp_path / "source")
    write_dicom_seg(label_map, tmp_path / "s.dcm", series=tmp_path / "source", scheme=SCHEME)
    volume = highdicom.seg.segread(tmp_path / "s.dcm").get_volume(combine_segments=True)
    affine_lps = np.diag([-1, -1, 1, 1]) @ label_map.affine
    for index in np.argwhere(volume.array > 0):
        place = volume.affine @ [*index, 1]
        i, j, k, _ = np.rint(np.linalg.solve(affine_lps, place)).astype(int)
        number = volume.array[tuple(index)]
        assert (1, 2, 4)[number - 1] == label_map.array_CIJK[0, i, j, k]
    assert (volume.array > 0).sum() == (label_map.array_CIJK > 0).sum()


@pytest.mark.parametrize("segments", ["values", "regions"])
@pytest.mark.parametrize("name", GEOMETRIES)
def test_dciodvfy_has_nothing_to_say(name: str, segments: str, tmp_path: Path) -> None:
    write(slices(GEOMETRIES[name]), tmp_path / "source")
    label_map = on_grid(tmp_path / "source")
    path = tmp_path / "s.dcm"
    options: dict[str, Any] = {"series": tmp_path / "source", "segments": segments}
    write_dicom_seg(label_map, path, scheme=SCHEME, algorithm=Algorithm(model="0a1b"), **options)
    assert complaints(path) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in GEOMETRIES if name != "tilted"])
def test_dcmqi_reads_the_same_voxels_at_the_same_places(name: str, tmp_path: Path) -> None:
    write(slices(GEOMETRIES[name]), tmp_path / "source")
    label_map = on_grid(tmp_path / "source")
    write_dicom_seg(label_map, tmp_path / "s.dcm", series=tmp_path / "source", scheme=SCHEME)
    masks = dcmqi_masks(tmp_path / "s.dcm", tmp_path / "itk")
    for number, value in enumerate((1, 2, 4), start=1):
        expected = points_of(label_map.array_CIJK[0] == value, label_map.affine)
        assert np.allclose(points_of(*masks[number]), expected, atol=1e-3)


def dcmqi_masks(path: Path, folder: Path) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Give each segment's mask and RAS affine, read by dcmqi and SimpleITK."""
    tool = Path(sys.executable).with_name("segimage2itkimage")
    if not tool.exists():
        pytest.skip("dcmqi is not installed")
    folder.mkdir()
    command = [tool, "--inputDICOM", path, "--outputDirectory", folder, "--outputType", "nrrd"]
    subprocess.run(command, capture_output=True, check=True)
    masks = {}
    for file in folder.glob("*.nrrd"):
        image = SimpleITK.ReadImage(str(file))
        affine = np.eye(4)
        affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
        affine[:3, 3] = image.GetOrigin()
        mask = SimpleITK.GetArrayFromImage(image).T > 0
        masks[int(file.stem)] = mask, np.diag([-1.0, -1, 1, 1]) @ affine
    return masks


def points_of(mask: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Give the places of a mask's voxels in a fixed order."""
    points = (np.argwhere(mask) @ affine[:3, :3].T + affine[:3, 3]).round(4)
    return points[np.lexsort(points.T)]


def test_the_segment_says_what_it_is_and_who_made_it(folder: Path, tmp_path: Path) -> None:
    algorithm = Algorithm(name="liver net", version="1.2", model="c0ffee")
    path = tmp_path / "s.dcm"
    write_dicom_seg(on_grid(folder), path, series=folder, scheme=SCHEME, algorithm=algorithm)
    seg = dcmread(path)
    kidney, liver, tumour = seg.SegmentSequence
    assert [s.SegmentNumber for s in seg.SegmentSequence] == [1, 2, 3]
    assert [s.SegmentLabel for s in seg.SegmentSequence] == ["kidney", "liver", "tumour"]
    (kind,) = kidney.SegmentedPropertyTypeCodeSequence
    assert (kind.CodeValue, kind.CodingSchemeDesignator, kind.CodeMeaning) == (
        "64033007",
        "SCT",
        "Kidney",
    )
    assert kind.SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning == "Left"
    assert liver.SegmentedPropertyCategoryCodeSequence[0].CodeMeaning == "Anatomical Structure"
    assert tumour.AnatomicRegionSequence[0].CodeMeaning == "Brain"
    assert tumour.SegmentedPropertyTypeCodeSequence[0].CodeValue != "10200004"
    assert kidney.RecommendedDisplayCIELabValue == cielab("#102030")
    assert kidney.SegmentAlgorithmType == "AUTOMATIC"
    (made,) = kidney.SegmentationAlgorithmIdentificationSequence
    assert (made.AlgorithmName, made.AlgorithmVersion) == ("liver net", "1.2")
    assert made.AlgorithmParameters == "model=c0ffee"
    assert made.AlgorithmFamilyCodeSequence[0].CodeMeaning == "Artificial Intelligence"
    assert len({s.TrackingUID for s in seg.SegmentSequence}) == 3
    assert seg.SeriesDescription == "liver net organs"
    read = read_dicom_seg(path)
    assert [s.term for s in read.segments] == [
        SCHEME.term_of(name).model_copy(update={"color": None})
        for name in ("kidney", "liver", "tumour")
    ]
    assert [s.tracking_uid for s in read.segments] == [s.TrackingUID for s in seg.SegmentSequence]


def test_the_file_belongs_to_the_patient_study_and_series_of_its_source(
    folder: Path, tmp_path: Path
) -> None:
    write_dicom_seg(on_grid(folder), tmp_path / "s.dcm", series=folder, scheme=SCHEME)
    seg, images = dcmread(tmp_path / "s.dcm"), sources(folder)
    image = next(iter(images.values()))
    for name in ("PatientName", "PatientID", "StudyInstanceUID", "FrameOfReferenceUID"):
        assert seg[name].value == image[name].value
    assert seg.SeriesInstanceUID != image.SeriesInstanceUID
    assert seg.Modality == "SEG"
    (series,) = seg.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == image.SeriesInstanceUID
    referred = {item.ReferencedSOPInstanceUID for item in series.ReferencedInstanceSequence}
    assert referred == images.keys()


@pytest.mark.parametrize("color", ["#102030", "#ffa500", "#ff00ff", "#00ff00", "#dd8265"])
def test_colours_are_those_of_highdicom(color: str) -> None:
    expected = highdicom.color.CIELabColor.from_rgb(*bytes.fromhex(color[1:])).value
    assert np.abs(np.subtract(cielab(color), expected)).max() <= 8


def test_black_and_white_are_the_ends_of_lightness() -> None:
    assert cielab("#000000") == [0, 32896, 32896]
    assert cielab("#ffffff") == [65535, 32896, 32896]


def test_the_same_input_gives_the_same_bytes_and_another_model_another_object(
    folder: Path, tmp_path: Path
) -> None:
    def written(name: str, **options: Any) -> bytes:
        path = tmp_path / name
        write_dicom_seg(on_grid(folder), path, series=folder, scheme=SCHEME, **options)
        return path.read_bytes()

    def uids(name: str) -> set[str]:
        seg = dcmread(tmp_path / name)
        tracked = {segment.TrackingUID for segment in seg.SegmentSequence}
        return {seg.SOPInstanceUID, seg.SeriesInstanceUID, *tracked}

    assert written("a.dcm") == written("b.dcm")
    assert written("c.dcm", algorithm=Algorithm(model="0a1b")) != written("a.dcm")
    assert not uids("a.dcm") & uids("c.dcm")
    changed = on_grid(folder)
    changed.array_CIJK[0, 0, 0, 0] = 2 - changed.array_CIJK[0, 0, 0, 0] // 2
    write_dicom_seg(changed, tmp_path / "d.dcm", series=folder, scheme=SCHEME)
    assert not uids("a.dcm") & uids("d.dcm")


def test_dates_are_those_of_the_source_or_none_that_could_be_true(tmp_path: Path) -> None:
    for name, tags in {"dated": {"AcquisitionDate": "20010203"}, "undated": {}}.items():
        write(slices(GEOMETRIES["axial"], StudyDate="", **tags), tmp_path / name)
        path = tmp_path / f"{name}.dcm"
        write_dicom_seg(on_grid(tmp_path / name), path, series=tmp_path / name, scheme=SCHEME)
    assert dcmread(tmp_path / "dated.dcm").ContentDate == "20010203"
    assert dcmread(tmp_path / "undated.dcm").ContentDate == "19000101"


def test_regions_overlap_and_come_back_whole(folder: Path, tmp_path: Path) -> None:
    label_map = on_grid(folder)
    path = tmp_path / "s.dcm"
    write_dicom_seg(label_map, path, series=folder, scheme=SCHEME, segments="regions")
    seg = read_dicom_seg(path, grid=label_map.grid)
    labels = label_map.array_CIJK[0]
    assert [s.name for s in seg.segments] == ["liver with tumour", "tumour", "kidney"]
    for mask, values in zip(seg.masks.array_CIJK, ((2, 4), (4,), (1,)), strict=True):
        assert np.array_equal(mask, np.isin(labels, values))
    with pytest.raises(LabelError) as caught:
        seg.label_map()
    assert f"{(labels == 4).sum()} voxels belong to more than one" in str(caught.value)
    assert "['liver with tumour', 'tumour']" in str(caught.value)
    assert "masks" in str(caught.value)


@pytest.mark.parametrize("largest", [200, 40_000])
def test_a_label_map_keeps_its_values_as_segment_numbers(
    largest: int, folder: Path, tmp_path: Path
) -> None:
    scheme = LabelScheme(
        values={3: "liver", largest: "spleen"}, codes={"liver": "liver", "spleen": "spleen"}
    )
    labels = np.choose(organs() % 3, [0, 3, largest]).astype(np.uint16)
    path, volume = tmp_path / "s.dcm", on_grid(folder, labels)
    write_dicom_seg(volume, path, series=folder, scheme=scheme, segments="labelmap")
    read = read_dicom_seg(path, grid=volume.grid)
    assert np.array_equal(read.label_map().array_CIJK[0], labels)
    assert [segment.number for segment in read.segments] == [3, largest]
    frames = dcmread(path).PerFrameFunctionalGroupsSequence
    places = [frame.FrameContentSequence[0].DimensionIndexValues for frame in frames]
    assert places == [*range(1, len(frames) + 1)]
    judge = highdicom.seg.segread(path)
    assert judge.segment_numbers == [3, largest]
    uids = [frame.image_uid for frame in find_stack(folder).frames]
    pixels = judge.get_pixels_by_source_instance(
        uids,
        combine_segments=True,
        ignore_spatial_locations=True,
        assert_missing_frames_are_empty=True,
    )
    assert np.array_equal(pixels, labels.T)


def test_a_label_map_is_much_smaller_than_masks(tmp_path: Path) -> None:
    geometry = Geometry(shape=(64, 64, 4))
    write(slices(geometry), tmp_path / "source")
    label_map = on_grid(tmp_path / "source", np.repeat(organs((8, 8, 4)), 8, 0).repeat(8, 1))
    options: dict[str, Any] = {"series": tmp_path / "source", "scheme": SCHEME}
    write_dicom_seg(label_map, tmp_path / "b.dcm", **options)
    write_dicom_seg(label_map, tmp_path / "l.dcm", segments="labelmap", **options)
    binary, flat = (len(dcmread(tmp_path / name).PixelData) for name in ("b.dcm", "l.dcm"))
    assert flat < binary
    assert dcmread(tmp_path / "l.dcm").SOPClassUID == "1.2.840.10008.5.1.4.1.1.66.7"


def test_frames_of_an_enhanced_file_are_referred_to_by_number(tmp_path: Path) -> None:
    geometry = replace(OBLIQUE, shape=SHAPE)
    order = [(k, time) for k in (3, 0, 5, 1, 4, 2) for time in (1, 2)]
    frames = [
        Placed(geometry, k, content={"TemporalPositionIndex": time, "StackID": "1"})
        for k, time in order
    ]
    write([enhanced(frames, class_uid=EnhancedCTImageStorage)], tmp_path / "source")
    label_map = on_grid(tmp_path / "source", volume="time-2")
    options: dict[str, Any] = {"series": tmp_path / "source", "scheme": SCHEME}
    write_dicom_seg(label_map, tmp_path / "s.dcm", volume="time-2", **options)
    seg = dcmread(tmp_path / "s.dcm")
    for group, mask in zip(seg.PerFrameFunctionalGroupsSequence, seg_pixels(seg), strict=True):
        number = group.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        source = group.DerivationImageSequence[0].SourceImageSequence[0]
        k, time = order[source.ReferencedFrameNumber - 1]
        assert time == 2
        assert np.array_equal(mask, (1, 2, 4)[number - 1] == label_map.array_CIJK[0, :, :, k].T)
    assert len(seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence) == 1
    assert complaints(tmp_path / "s.dcm") == []
    with pytest.raises(SeriesError, match="time-1"):
        write_dicom_seg(label_map, tmp_path / "s.dcm", **options)


def seg_pixels(seg: Dataset) -> np.ndarray:
    """Unpack binary frames of any size."""
    size = seg.Rows * seg.Columns * seg.NumberOfFrames
    bits = np.unpackbits(np.frombuffer(seg.PixelData, np.uint8), bitorder="little")[:size]
    return bits.reshape(seg.NumberOfFrames, seg.Rows, seg.Columns)


def test_slices_of_a_mosaic_refer_to_its_file_as_a_whole(tmp_path: Path) -> None:
    write([mosaic(Geometry(shape=SHAPE))], tmp_path / "source")
    label_map = on_grid(tmp_path / "source")
    path = tmp_path / "s.dcm"
    write_dicom_seg(label_map, path, series=tmp_path / "source", scheme=SCHEME)
    seg = read_dicom_seg(path, grid=label_map.grid)
    assert np.array_equal(seg.label_map(SCHEME).array_CIJK, label_map.array_CIJK)
    for group in dcmread(path).PerFrameFunctionalGroupsSequence:
        source = group.DerivationImageSequence[0].SourceImageSequence[0]
        assert source.SpatialLocationsPreserved == "NO"
        assert "ReferencedFrameNumber" not in source
    assert complaints(path) == []


def test_a_series_in_a_zip_archive_is_as_good_as_a_folder(folder: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "source.zip", "w") as archive:
        for path in folder.iterdir():
            archive.write(path, path.name)
    label_map = on_grid(folder)
    write_dicom_seg(label_map, tmp_path / "a.dcm", series=folder, scheme=SCHEME)
    write_dicom_seg(label_map, tmp_path / "b.dcm", series=tmp_path / "source.zip", scheme=SCHEME)
    assert (tmp_path / "a.dcm").read_bytes() == (tmp_path / "b.dcm").read_bytes()


def test_a_label_without_a_code_is_named_with_the_remedy(folder: Path, tmp_path: Path) -> None:
    scheme = LabelScheme(values={1: "kidney", 2: "lump", 4: "tumour"}, codes={"kidney": "liver"})
    with pytest.raises(ConfigError, match=r"'lump' .* no code.*--set labels.codes.lump="):
        write_dicom_seg(on_grid(folder), tmp_path / "s.dcm", series=folder, scheme=scheme)
    assert not (tmp_path / "s.dcm").exists()


def test_another_grid_is_refused_unless_resampling_is_asked_for(
    folder: Path, tmp_path: Path
) -> None:
    label_map = on_grid(folder)
    moved = label_map.affine.copy()
    moved[2, 3] += 0.4 * 2.5
    shifted = Volume(label_map.array_CIJK, moved)
    path = tmp_path / "s.dcm"
    with pytest.raises(GridError, match=r"corner lies 1 mm elsewhere[\s\S]*resample=True"):
        write_dicom_seg(shifted, path, series=folder, scheme=SCHEME)
    write_dicom_seg(shifted, path, series=folder, scheme=SCHEME, resample=True)
    seg = read_dicom_seg(path, grid=label_map.grid)
    assert np.array_equal(seg.label_map(SCHEME).array_CIJK, label_map.array_CIJK)


def test_labels_of_a_straightened_volume_come_back_onto_tilted_slices(tmp_path: Path) -> None:
    write(slices(GEOMETRIES["tilted"]), tmp_path / "source")
    straight = read_series(tmp_path / "source", tilt="correct")
    world = np.indices(straight.shape_IJK).reshape(3, -1).T @ straight.affine[:3, :3].T
    beyond = (world + straight.affine[:3, 3])[:, 1].reshape(straight.shape_IJK)
    grid = find_stack(tmp_path / "source").grid
    middle = float((grid.affine @ [11, 9, 2, 1])[1])
    label_map = Volume((beyond > middle)[np.newaxis].astype(np.uint8), straight.affine)
    path = tmp_path / "s.dcm"
    with pytest.raises(GridError, match="resample=True"):
        write_dicom_seg(label_map, path, series=tmp_path / "source", scheme=SCHEME)
    write_dicom_seg(label_map, path, series=tmp_path / "source", scheme=SCHEME, resample=True)
    mask = read_dicom_seg(path, grid=grid).mask(1)
    places = np.indices(grid.shape_IJK).reshape(3, -1).T @ grid.affine[:3, :3].T
    expected = (places + grid.affine[:3, 3])[:, 1].reshape(grid.shape_IJK)
    inside = np.abs(expected - middle) > straight.spacing_mm[1]
    assert np.array_equal(mask[inside], (expected > middle)[inside])


def test_uneven_slices_are_written_slice_by_slice_and_read_with_their_places(
    tmp_path: Path,
) -> None:
    images = slices(Geometry(shape=SHAPE), at=[0, 1, 2, 3.4, 4.4, 5.4])
    write(images, tmp_path / "source")
    even = read_series(tmp_path / "source", gaps="resample")
    label_map = Volume(organs(even.shape_IJK)[np.newaxis], even.affine)
    path = tmp_path / "s.dcm"
    with pytest.raises(GridError, match=r"not evenly spaced[\s\S]*resample=True"):
        write_dicom_seg(label_map, path, series=tmp_path / "source", scheme=SCHEME)
    write_dicom_seg(label_map, path, series=tmp_path / "source", scheme=SCHEME, resample=True)
    masks = number_masks_of(path)
    spacing = even.spacing_mm[2]
    for (number, uid), mask in masks.items():
        (n,) = (n for n, image in enumerate(images) if image.SOPInstanceUID == uid)
        k = round([0, 1, 2, 3.4, 4.4, 5.4][n] * 2.5 / spacing)
        if k < even.shape_IJK[2]:
            assert np.array_equal(mask, (1, 2, 4)[number - 1] == label_map.array_CIJK[0, :, :, k].T)
    shared = dcmread(path).SharedFunctionalGroupsSequence[0]
    assert "SpacingBetweenSlices" not in shared.PixelMeasuresSequence[0]
    with pytest.raises(GridError, match=r"not evenly spaced, at .*grid="):
        read_dicom_seg(path)


def number_masks_of(path: Path) -> dict[tuple[int, str], np.ndarray]:
    """As `number_masks`, for frames of any size."""
    seg = dcmread(path)
    seen = {}
    for group, mask in zip(seg.PerFrameFunctionalGroupsSequence, seg_pixels(seg), strict=True):
        number = group.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        source = group.DerivationImageSequence[0].SourceImageSequence[0]
        seen[number, source.ReferencedSOPInstanceUID] = mask
    return seen


def test_nothing_but_background_is_refused(folder: Path, tmp_path: Path) -> None:
    empty = on_grid(folder, np.zeros(SHAPE, dtype=np.uint8))
    with pytest.raises(LabelError, match="nothing to write"):
        write_dicom_seg(empty, tmp_path / "s.dcm", series=folder, scheme=SCHEME)


def test_values_foreign_to_the_scheme_are_refused(folder: Path, tmp_path: Path) -> None:
    foreign = on_grid(folder, np.full(SHAPE, 7, dtype=np.uint8))
    with pytest.raises(LabelError, match=r"7 \(2622 voxels\)"):
        write_dicom_seg(foreign, tmp_path / "s.dcm", series=folder, scheme=SCHEME)


@pytest.mark.parametrize("write_it", [write_dicom_seg, write_rtstruct])
@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"scheme": "btcv"}, "a scheme is a LabelScheme, got 'btcv'"),
        ({"segments": "bogus"}, "segments 'bogus' is none of values, regions"),
    ],
)
def test_wrong_wishes_are_refused(
    write_it: Any, wrong: Any, said: str, folder: Path, tmp_path: Path, unchecked: None
) -> None:
    wishes = {"series": folder, "scheme": SCHEME, **wrong}
    with pytest.raises(ConfigError, match=said):
        write_it(on_grid(folder), tmp_path / "s.dcm", **wishes)


def test_a_folder_that_is_not_there_is_said_and_nothing_left_behind(
    folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="cannot write"):
        write_dicom_seg(on_grid(folder), tmp_path / "no" / "s.dcm", series=folder, scheme=SCHEME)


def test_a_date_that_is_none_is_left_out(tmp_path: Path) -> None:
    with pydicom.config.disable_value_validation():
        write(slices(GEOMETRIES["axial"], StudyDate="2004.01.19"), tmp_path / "source")
    label_map = on_grid(tmp_path / "source")
    write_dicom_seg(label_map, tmp_path / "s.dcm", series=tmp_path / "source", scheme=SCHEME)
    assert pydicom.dcmread(tmp_path / "s.dcm").StudyDate == ""


@pytest.mark.parametrize(
    "tags",
    [
        {"StudyTime": "noon"},
        {"PatientSex": "UNKNOWN TO ALL WHO ASKED"},
        {"PatientName": "Müller^Jürgen", "SpecificCharacterSet": "ISO_IR 100"},
        {"AccessionNumber": "x" * 40},
    ],
)
def test_odd_headers_are_taken_over_as_they_are_without_a_warning(
    tags: dict[str, str], tmp_path: Path
) -> None:
    with pydicom.config.disable_value_validation():
        write(slices(GEOMETRIES["axial"], **tags), tmp_path / "source")
    path = tmp_path / "s.dcm"
    write_dicom_seg(on_grid(tmp_path / "source"), path, series=tmp_path / "source", scheme=SCHEME)
    with pydicom.config.disable_value_validation():
        seg = dcmread(path)
        said = {name: str(seg[name].value) for name in tags if name != "SpecificCharacterSet"}
    assert said == {name: tags[name] for name in said}


def test_long_names_and_backslashes_fit_into_the_file(folder: Path, tmp_path: Path) -> None:
    names = {1: "left\\right", 2: "a" * 80, 4: "tumour"}
    scheme = LabelScheme(name="a\\b", values=names, codes=dict.fromkeys(names.values(), "liver"))
    write_dicom_seg(on_grid(folder), tmp_path / "s.dcm", series=folder, scheme=scheme)
    assert dcmread(tmp_path / "s.dcm").ContentDescription == "a/b"
    assert dcmread(tmp_path / "s.dcm").SeriesDescription == "medseg3d a/b"
    labels = [s.name for s in read_dicom_seg(tmp_path / "s.dcm").segments]
    assert labels == ["left/right", "a" * 64, "tumour"]
    assert complaints(tmp_path / "s.dcm") == []


REAL = {
    "ct_flipped_axes": "",
    "ct_gantry_tilt_phantom": "",
    "ct_liver_with_seg": "",
    "ct_plain_phantom": "",
    "mr_enhanced_multiframe_xa10": "time-3",
    "mr_epi_4d_ge": "volume-2",
    "mr_jpegls_compressed": "",
    "mr_mosaic_siemens": "time-1",
    "mr_non_isotropic_pixels_rescale": "",
    "mr_sagittal_oblique_hitachi": "",
}
"""Real series -> one of their volumes."""


@pytest.mark.slow
@pytest.mark.parametrize("segments", ["values", "labelmap"])
@pytest.mark.parametrize("name", REAL)
def test_labels_of_real_series_come_back(
    name: str, segments: Any, shared_data: Path, tmp_path: Path
) -> None:
    series = shared_data / "dicom" / name / "dicom"
    grid = find_stack(series, REAL[name]).grid
    label_map = Volume(organs(grid.shape_IJK)[np.newaxis], grid.affine)
    path = tmp_path / "s.dcm"
    options: dict[str, Any] = {"series": series, "volume": REAL[name], "segments": segments}
    write_dicom_seg(label_map, path, scheme=SCHEME, **options)
    seg = read_dicom_seg(path, grid=grid)
    assert np.array_equal(seg.label_map(SCHEME).array_CIJK, label_map.array_CIJK)
    if segments == "values":
        assert [line for line in complaints(path) if line.startswith("Error")] == []


def test_a_series_without_a_frame_of_reference_gets_one(tmp_path: Path) -> None:
    write(slices(GEOMETRIES["axial"], FrameOfReferenceUID=""), tmp_path / "source")
    label_map, path = on_grid(tmp_path / "source"), tmp_path / "s.dcm"
    write_dicom_seg(label_map, path, series=tmp_path / "source", scheme=SCHEME)
    assert dcmread(path).FrameOfReferenceUID.is_valid
    assert complaints(path) == []
