"""Reading DICOM SEG: foreign files, files without most slices, and damaged ones."""

from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pytest
import SimpleITK
from pydicom import Dataset, dcmread
from pydicom.sr.codedict import codes
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, JPEG2000Lossless, RLELossless

from medseg3d.errors import ConfigError, FormatError, GridError, LabelError, MedSegError
from medseg3d.geometry.orient import AxisMap
from medseg3d.io.dicom.seg import write_dicom_seg
from medseg3d.io.dicom.seg_read import read_dicom_seg
from medseg3d.io.dicom.series import find_stack
from medseg3d.labels import LabelScheme
from medseg3d.volume import Grid, Volume

from .phantom import CANARY_ID, CANARY_NAME, Geometry, slices, write

SHAPE = (16, 12, 8)
SCHEME = LabelScheme(
    values={1: "kidney", 2: "liver"}, codes={"kidney": "kidney_left", "liver": "liver"}
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(slices(Geometry(shape=SHAPE)), tmp_path / "source")
    return tmp_path / "source"


@pytest.fixture
def path(folder: Path, tmp_path: Path) -> Path:
    """Give a segmentation of two organs in every slice."""
    grid = find_stack(folder).grid
    write_dicom_seg(
        Volume(organs()[np.newaxis], grid.affine),
        tmp_path / "s.dcm",
        series=folder,
        scheme=SCHEME,
    )
    return tmp_path / "s.dcm"


def organs() -> np.ndarray:
    return np.random.default_rng(3).integers(0, 3, SHAPE).astype(np.uint8)


def save(seg: Dataset, path: Path, **changes: Any) -> Path:
    """Write a changed copy of a segmentation; None deletes an attribute."""
    for name, value in changes.items():
        if value is None:
            del seg[name]
        else:
            setattr(seg, name, value)
    seg.save_as(path.with_name("changed.dcm"))
    return path.with_name("changed.dcm")


def described(*labels: str) -> list[highdicom.seg.SegmentDescription]:
    algorithm = highdicom.AlgorithmIdentificationSequence(
        "net", codes.cid7162.ArtificialIntelligence, "1"
    )
    return [
        highdicom.seg.SegmentDescription(
            number, label, codes.SCT.Organ, codes.SCT.Liver, "AUTOMATIC", algorithm
        )
        for number, label in enumerate(labels, start=1)
    ]


def by_highdicom(folder: Path, path: Path, pixels: np.ndarray, kind: str, **options: Any) -> Path:
    """Write a segmentation of a phantom with highdicom; pixels are slices, rows, columns."""
    images = sorted(
        (dcmread(file) for file in folder.iterdir()),
        key=lambda image: image.ImagePositionPatient[2],
    )
    count = pixels.shape[3] if pixels.ndim == 4 else max(int(pixels.max()), 1)
    seg = highdicom.seg.Segmentation(
        images,
        pixels,
        kind,
        described(*(f"organ {n}" for n in range(1, count + 1))),
        series_instance_uid="2.25.7",
        series_number=7,
        sop_instance_uid="2.25.8",
        instance_number=1,
        manufacturer="tests",
        manufacturer_model_name="tests",
        software_versions="1",
        device_serial_number="1",
        **options,
    )
    seg.save_as(path)
    return path


def test_a_liver_by_dcmqi_is_the_mask_that_came_with_it(shared_data: Path) -> None:
    folder = shared_data / "dicom" / "ct_liver_with_seg"
    seg = read_dicom_seg(folder / "seg" / "liver.dcm")
    image = SimpleITK.ReadImage(str(folder / "seg" / "liver_seg.nrrd"))
    expected = SimpleITK.GetArrayFromImage(image).T > 0
    assert np.array_equal(seg.mask(1), expected)
    assert np.array_equal(seg.layers.affine[:3, 3], np.array(image.GetOrigin()) * (-1, -1, 1))
    (liver,) = seg.segments
    assert (liver.number, liver.name, liver.tracking_uid) == (1, "Liver", "")
    assert liver.term is not None
    assert str(liver.term.type) == "SRT:T-62000 |Liver|"
    on_images = read_dicom_seg(folder / "seg" / "liver.dcm", grid=find_stack(folder / "dicom").grid)
    assert on_images.mask(1).sum() == 107_098


def test_slices_without_a_frame_are_empty_and_in_their_place(folder: Path, tmp_path: Path) -> None:
    pixels = np.zeros(SHAPE[::-1], dtype=np.uint8)
    pixels[1, 2, 3] = pixels[5, 4, 6] = 1
    path = by_highdicom(folder, tmp_path / "s.dcm", pixels, "BINARY")
    grid = find_stack(folder).grid
    own, whole = read_dicom_seg(path), read_dicom_seg(path, grid=grid)
    assert own.layers.shape_IJK == (16, 12, 5)
    assert np.array_equal(own.mask(1), pixels.T[:, :, 1:6])
    assert np.allclose(own.layers.affine @ [0, 0, -1, 1], grid.affine @ [0, 0, 0, 1])
    assert np.array_equal(whole.mask(1), pixels.T)


def test_without_a_distance_between_slices_the_smallest_one_is_taken(path: Path) -> None:
    seg = dcmread(path)
    measures = seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    del measures.SpacingBetweenSlices
    assert read_dicom_seg(save(seg, path)).layers.shape_IJK == SHAPE
    for wrong in ("1.7", "0.00001"):
        measures.SpacingBetweenSlices = wrong
        assert read_dicom_seg(save(seg, path)).layers.shape_IJK == SHAPE


def test_a_single_slice_is_as_thick_as_it_says(folder: Path, tmp_path: Path) -> None:
    pixels = np.zeros(SHAPE[::-1], dtype=np.uint8)
    pixels[2, 2, 3] = 1
    seg = read_dicom_seg(by_highdicom(folder, tmp_path / "s.dcm", pixels, "BINARY"))
    assert seg.layers.shape_IJK == (16, 12, 1)
    assert seg.layers.spacing_mm == (2.0, 1.5, 2.5)


@pytest.mark.parametrize("axes", [(0, 1, 2), (1, 0, 2), (2, 0, 1), (1, 2, 0)])
@pytest.mark.parametrize("flipped", [(False, False, True), (True, True, False)])
def test_a_grid_may_be_turned_against_the_frames(
    axes: tuple[int, int, int], flipped: tuple[bool, bool, bool], path: Path, folder: Path
) -> None:
    turn = AxisMap(axes, flipped)
    grid = turn.apply_grid(find_stack(folder).grid)
    seg = read_dicom_seg(path, grid=grid)
    assert np.array_equal(seg.label_map().array_CIJK, turn.apply_array(organs()[np.newaxis]))
    assert seg.layers.shape_IJK == grid.shape_IJK


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda grid: Grid((16, 12, 7), grid.affine), "slice 8 of 7"),
        (lambda grid: Grid((15, 12, 8), grid.affine), "16×12 pixels against 15×12"),
        (lambda grid: Grid(SHAPE, grid.affine @ shift(0.1)), "0.2 mm beside"),
        (lambda grid: Grid(SHAPE, grid.affine @ np.diag([1.02, 1, 1, 1])), "0.64 mm beside"),
    ],
)
def test_a_grid_that_frames_do_not_fit_is_refused(
    change: Any, said: str, path: Path, folder: Path
) -> None:
    with pytest.raises(GridError) as caught:
        read_dicom_seg(path, grid=change(find_stack(folder).grid))
    assert said in str(caught.value)
    assert "Give the grid of the images" in str(caught.value)


def shift(voxels: float) -> np.ndarray:
    affine = np.eye(4)
    affine[0, 3] = voxels
    return affine


def test_segments_become_the_values_of_a_scheme_by_their_names(path: Path) -> None:
    other = LabelScheme(values={7: "liver", 300: "kidney"})
    label_map = read_dicom_seg(path).label_map(other)
    expected = np.choose(organs(), [0, 300, 7])
    assert label_map.array_CIJK.dtype == np.uint16
    assert np.array_equal(label_map.array_CIJK[0], expected)
    with pytest.raises(LabelError, match=r"segments \['kidney'\] are no values .*\['liver'\]"):
        read_dicom_seg(path).label_map(LabelScheme(values={7: "liver"}))


def test_overlapping_segments_are_kept_apart(folder: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    pixels = (rng.random((*SHAPE[::-1], 4)) < 0.4).astype(np.uint8)
    path = by_highdicom(folder, tmp_path / "s.dcm", pixels, "BINARY")
    seg = read_dicom_seg(path, grid=find_stack(folder).grid)
    assert np.array_equal(seg.masks.array_CIJK, pixels.transpose(3, 2, 1, 0) > 0)
    assert seg.layers.num_channels == 4
    several = int((pixels.sum(axis=3) > 1).sum())
    with pytest.raises(LabelError, match=f"{several} voxels belong to more than one"):
        seg.label_map()


@pytest.mark.parametrize(
    ("kind", "syntax"),
    [
        ("LABELMAP", None),
        ("LABELMAP", RLELossless),
        ("LABELMAP", JPEG2000Lossless),
        ("BINARY", JPEG2000Lossless),
    ],
)
def test_files_by_highdicom_are_read(kind: str, syntax: UID | None, tmp_path: Path) -> None:
    geometry = Geometry(shape=(32, 48, 4))
    write(slices(geometry), tmp_path / "source")
    labels = np.tile(organs()[:, :, :4], (2, 4, 1))
    pixels = np.ascontiguousarray(labels.T)
    options = {"transfer_syntax_uid": syntax} if syntax else {}
    path = by_highdicom(tmp_path / "source", tmp_path / "s.dcm", pixels, kind, **options)
    seg = read_dicom_seg(path, grid=find_stack(tmp_path / "source").grid)
    assert np.array_equal(seg.label_map().array_CIJK[0], labels)


def test_a_label_map_with_numbers_it_does_not_describe_is_refused(
    folder: Path, tmp_path: Path
) -> None:
    path = by_highdicom(folder, tmp_path / "s.dcm", organs().T, "LABELMAP")
    seg = dcmread(path)
    seg.SegmentSequence = [s for s in seg.SegmentSequence if s.SegmentNumber != 2]
    with pytest.raises(FormatError, match=r"holds segments \[2\] and does not describe them"):
        read_dicom_seg(save(seg, path))


def test_fractions_are_read_from_a_threshold_on(folder: Path, tmp_path: Path) -> None:
    share = np.random.default_rng(0).random((*SHAPE[::-1], 2)).astype(np.float32)
    path = by_highdicom(folder, tmp_path / "s.dcm", share, "FRACTIONAL", max_fractional_value=200)
    with pytest.raises(FormatError, match=r"holds fractions \(probability\).*threshold=0.5"):
        read_dicom_seg(path)
    masks = read_dicom_seg(path, threshold=0.25).masks.array_CIJK
    assert np.array_equal(masks, np.rint(share * 200).transpose(3, 2, 1, 0) >= 50)


@pytest.mark.parametrize("threshold", [0.0, -1.0, 1.5, float("nan")])
def test_a_threshold_is_a_share(threshold: float, path: Path) -> None:
    with pytest.raises(ConfigError, match="a share above 0 and at most 1, got"):
        read_dicom_seg(path, threshold=threshold)


def test_an_image_is_no_segmentation(folder: Path) -> None:
    image = next(folder.iterdir())
    with pytest.raises(FormatError, match=f"'{image.name}' is no DICOM SEG but CT Image Storage"):
        read_dicom_seg(image)


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"'no\.dcm' cannot be read"):
        read_dicom_seg(tmp_path / "no.dcm")


def test_a_deflated_file_is_read(path: Path) -> None:
    seg = dcmread(path)
    seg.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    changed = save(seg, path)
    assert np.array_equal(read_dicom_seg(changed).label_map().array_CIJK[0], organs())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"PixelData": b"\0" * 100}, "promises 384 bytes of pixels and holds 100"),
        ({"PixelData": b"\0" * 400}, "promises 384 bytes of pixels and holds 400"),
        ({"NumberOfFrames": 3}, "says it has 3 frames and describes 16"),
        ({"SegmentSequence": []}, r"numbers its segments \[\]"),
        ({"SegmentSequence": None}, r"numbers its segments \[\]"),
        ({"SegmentationType": "MANUAL"}, "its segmentation type is 'MANUAL'"),
        ({"PerFrameFunctionalGroupsSequence": None}, "nothing says|damaged|frames"),
        ({"SharedFunctionalGroupsSequence": []}, "does not say where in the patient it lies"),
        ({"Rows": 60_000, "Columns": 60_000}, r"promises frames of 60000×60000|no plane"),
    ],
)
def test_a_damaged_file_is_refused(changes: dict[str, Any], said: str, path: Path) -> None:
    changed = save(dcmread(path), path, **changes)
    with pytest.raises(FormatError, match=said):
        read_dicom_seg(changed)


def test_segments_with_one_number_are_refused(path: Path) -> None:
    seg = dcmread(path)
    seg.SegmentSequence[1].SegmentNumber = 1
    with pytest.raises(FormatError, match=r"numbers its segments \[1, 1\]"):
        read_dicom_seg(save(seg, path))


def test_frames_of_an_unknown_segment_are_refused(path: Path) -> None:
    seg = dcmread(path)
    seg.SegmentSequence = seg.SegmentSequence[:1]
    with pytest.raises(FormatError, match=r"frames of segments \[2\] and does not describe them"):
        read_dicom_seg(save(seg, path))


def test_a_file_without_codes_still_has_its_segments(path: Path) -> None:
    seg = dcmread(path)
    del seg.SegmentSequence[0].SegmentedPropertyTypeCodeSequence
    read = read_dicom_seg(save(seg, path))
    assert read.segments[0].term is None
    assert read.segments[1].term is not None
    assert np.array_equal(read.label_map().array_CIJK[0], organs())


def test_what_does_not_fit_into_memory_is_refused_before_it_is_taken(
    path: Path, folder: Path
) -> None:
    endless = Grid((16, 12, 2**27), find_stack(folder).grid.affine)
    with pytest.raises(FormatError, match="takes more than 17179869184 bytes"):
        read_dicom_seg(path, grid=endless)
    seg = dcmread(path)
    seg.PerFrameFunctionalGroupsSequence[7].PlanePositionSequence[0].ImagePositionPatient[2] = 9e5
    seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SpacingBetweenSlices = "1e-4"
    with pytest.raises(MedSegError):
        read_dicom_seg(save(seg, path))


def test_a_slice_beside_the_others_is_refused(path: Path) -> None:
    seg = dcmread(path)
    place = seg.PerFrameFunctionalGroupsSequence[3].PlanePositionSequence[0]
    place.ImagePositionPatient = [11, *place.ImagePositionPatient[1:]]
    with pytest.raises(GridError, match=r"no plane of the grid: .* slice 4 of 8, 1 mm beside"):
        read_dicom_seg(save(seg, path))


@pytest.mark.slow
def test_mutated_files_are_read_right_or_refused(path: Path) -> None:
    content = path.read_bytes()
    start = content.index(b"DICM")
    rng = np.random.default_rng(0)
    said: list[str] = []
    read = 0
    for _ in range(400):
        data = bytearray(content)
        for at in rng.integers(start, len(data), rng.integers(1, 4)):
            data[at] = rng.integers(256)
        path.write_bytes(data[: rng.integers(start, len(data))] if rng.random() < 0.2 else data)
        try:
            read += read_dicom_seg(path).masks.array_CIJK.dtype == np.bool_
        except MedSegError as error:
            said.append(str(error))
    assert min(read, len(said)) > 20
    assert not [line for line in said if CANARY_NAME in line or CANARY_ID in line]
