"""DICOM series of which the value at every place is known, written with pydicom alone.

The value is a linear function of the patient's position, so that a flip, shift, shear, scale or
mix-up of slices shows at some voxel. Geometry is DICOM's own here: LPS+, millimetres.
"""

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import SimpleITK
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import (
    UID,
    CTImageStorage,
    EnhancedCTImageStorage,
    EnhancedMRImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    JPEGLosslessSV1,
    MRImageStorage,
    generate_uid,
)

CANARY_NAME, CANARY_ID = "CANARY^PATIENT", "CANARY-ID"
GRADIENT_RAS = np.array((7.0, 11.0, 13.0))
MIDDLE = 2000.0
LPS = np.array((-1.0, -1.0, 1.0))

instances = count()


def value_at(points_ras: np.ndarray) -> np.ndarray:
    """Give the phantom's value at points of the world; 7, 11 and 13 more per mm along x, y, z."""
    return points_ras @ GRADIENT_RAS + MIDDLE


@dataclass(frozen=True)
class Geometry:
    """Where slices lie: first voxel, direction of rows and of columns, step to the next slice."""

    shape: tuple[int, int, int] = (7, 6, 5)
    spacing: tuple[float, float] = (2.0, 1.5)
    """Millimetres from column to column, and from row to row."""
    origin: tuple[float, float, float] = (10.0, -20.0, 15.0)
    row: tuple[float, float, float] = (1.0, 0.0, 0.0)
    column: tuple[float, float, float] = (0.0, 1.0, 0.0)
    step: tuple[float, float, float] = (0.0, 0.0, 2.5)

    def __str__(self) -> str:
        return " ".join(str(np.round(way, 2)) for way in (self.row, self.column, self.step))

    @classmethod
    def along(cls, row: Sequence[float], column: Sequence[float], sense: int = 1) -> "Geometry":
        step = np.cross(row, column) * 2.5 * sense
        return cls(row=tuple(row), column=tuple(column), step=tuple(step))

    @classmethod
    def tilted(cls, degrees: float = 18.5, **others: Any) -> "Geometry":
        """Give slices of a CT with tilted gantry: the table moves along z all the same."""
        angle = np.radians(degrees)
        return cls(column=(0.0, float(np.cos(angle)), -float(np.sin(angle))), **others)

    def place(self, k: float) -> np.ndarray:
        return np.array(self.origin) + np.array(self.step) * k

    def affine(self, first: float = 0.0, step: float = 1.0) -> np.ndarray:
        """Give the affine in RAS+ from `first`, every `step` slices, as the tags say it."""
        affine = np.eye(4)
        affine[:3, 0] = np.array(self.row) * self.spacing[0] * LPS
        affine[:3, 1] = np.array(self.column) * self.spacing[1] * LPS
        affine[:3, 2] = np.array(self.step) * step * LPS
        affine[:3, 3] = self.place(first) * LPS
        return affine

    @property
    def ascending(self) -> "Geometry":
        """Give the same slices, the first one first along row × column."""
        if np.dot(np.cross(self.row, self.column), self.step) > 0:
            return self
        last = self.place(self.shape[2] - 1)
        return replace(self, origin=tuple(last), step=tuple(-np.array(self.step)))


OBLIQUE = Geometry.along(
    *np.linalg.qr(np.array([(0.8, 0.3, 0.2), (-0.3, 0.9, 0.3), (0.1, -0.2, 0.95)]))[0].T[:2]
)


@dataclass(frozen=True)
class Stored:
    """How values become bytes."""

    allocated: int = 16
    stored: int = 16
    high_bit: int | None = None
    signed: bool = True
    garbage: bool = False
    photometric: str = "MONOCHROME2"
    dtype: str = ""
    """f4 or f8 for float pixels."""

    def put(self, dataset: Dataset, values: np.ndarray) -> None:
        """Store planes of numbers, rows first."""
        dataset.SamplesPerPixel = 1
        dataset.PhotometricInterpretation = self.photometric
        dataset.BitsAllocated = self.allocated
        if self.dtype:
            name = {"f4": "FloatPixelData", "f8": "DoubleFloatPixelData"}[self.dtype]
            setattr(dataset, name, values.astype(self.dtype).tobytes())
            return
        high = self.stored - 1 if self.high_bit is None else self.high_bit
        dataset.BitsStored, dataset.HighBit = self.stored, high
        dataset.PixelRepresentation = int(self.signed)
        low, top = (-(2 ** (self.stored - 1)) if self.signed else 0), 2**self.stored
        numbers = np.rint(values).astype("i8")
        assert low <= numbers.min(), "the phantom's values do not fit its bits"
        assert numbers.max() < low + top, "the phantom's values do not fit its bits"
        shift = high + 1 - self.stored
        bits = (numbers & (top - 1)) << shift
        if self.garbage:
            unused = (2**self.allocated - 1) & ~((top - 1) << shift)
            bits |= np.random.default_rng(0).integers(0, 2**31, bits.shape) & unused
        data = bits.astype(f"<u{self.allocated // 8}").tobytes()
        dataset.add_new("PixelData", "OB" if self.allocated == 8 else "OW", even(data))


def even(data: bytes) -> bytes:
    return data + b"\0" * (len(data) % 2)


def uid(*parts: object) -> UID:
    return generate_uid(entropy_srcs=["medseg3d's phantom", *map(str, parts)])


def blank(class_uid: str, *, series: object = 1, **tags: Any) -> Dataset:
    """Give a file's attributes without geometry and pixels."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID = class_uid
    dataset.SOPInstanceUID = uid("instance", next(instances))
    dataset.StudyDate, dataset.StudyTime = "20200102", "101112"
    dataset.AccessionNumber = ""
    dataset.Modality = "CT" if class_uid in (CTImageStorage, EnhancedCTImageStorage) else "MR"
    dataset.SeriesDescription = "ramp"
    dataset.PatientName, dataset.PatientID = CANARY_NAME, CANARY_ID
    dataset.PatientBirthDate, dataset.PatientSex = "19010203", "O"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.StudyID, dataset.SeriesNumber = "1", 1
    dataset.StudyInstanceUID = uid("study")
    dataset.SeriesInstanceUID = uid("series", series)
    dataset.FrameOfReferenceUID = uid("frame of reference")
    for name, value in tags.items():
        setattr(dataset, name, value)
    return dataset


def decimals(numbers: Iterable[float]) -> list[str]:
    # at most 16 characters
    return [f"{number:.10g}" if abs(number) > 1e-20 else "0" for number in map(float, numbers)]


def plane_values(geometry: Geometry, k: float) -> np.ndarray:
    """Give the phantom's values on a slice, rows first."""
    columns, rows, _ = geometry.shape
    i, j = np.meshgrid(np.arange(columns), np.arange(rows))
    indices = np.stack([i, j, np.full_like(i, 0), np.full_like(i, 1)], axis=-1)
    return value_at((indices @ geometry.affine(k).T)[..., :3])


def slices(
    geometry: Geometry = Geometry(),
    *,
    at: Sequence[float] | None = None,
    add: float = 0.0,
    slope: float | Sequence[float] | None = None,
    intercept: float | Sequence[float] = 0.0,
    stored: Stored = Stored(),
    class_uid: str = CTImageStorage,
    **tags: Any,
) -> list[Dataset]:
    """Give a series of classic files, one per slice; `at` counts in steps, `add` marks volumes."""
    places = range(geometry.shape[2]) if at is None else at
    slopes = np.broadcast_to(1.0 if slope is None else slope, len(places))
    intercepts = np.broadcast_to(intercept, len(places))
    files = []
    for n, k in enumerate(places):
        dataset = blank(class_uid, InstanceNumber=n + 1, **tags)
        dataset.ImagePositionPatient = decimals(geometry.place(k))
        dataset.ImageOrientationPatient = decimals([*geometry.row, *geometry.column])
        dataset.PixelSpacing = decimals(geometry.spacing[::-1])
        dataset.SliceThickness = "2"  # of the slice, not from slice to slice
        dataset.Columns, dataset.Rows = geometry.shape[:2]
        if slope is not None:
            dataset.RescaleSlope, dataset.RescaleIntercept = decimals([slopes[n], intercepts[n]])
        stored.put(dataset, (plane_values(geometry, k) + add - intercepts[n]) / slopes[n])
        files.append(dataset)
    return files


@dataclass(frozen=True)
class Placed:
    """A frame of an enhanced file."""

    geometry: Geometry
    k: float
    add: float = 0.0
    slope: float = 1.0
    intercept: float = 0.0
    content: Mapping[str, Any] = field(default_factory=dict)
    """Attributes of its Frame Content Sequence, e.g. StackID, TemporalPositionIndex."""
    groups: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Further functional groups."""


def item(**attributes: Any) -> Dataset:
    dataset = Dataset()
    for name, value in attributes.items():
        setattr(dataset, name, value)
    return dataset


def enhanced(
    frames: Sequence[Placed],
    *,
    shared: Sequence[str] = (),
    class_uid: str = EnhancedMRImageStorage,
    stored: Stored = Stored(),
    **tags: Any,
) -> Dataset:
    """Give an enhanced multi-frame file; groups named in `shared` are said once, of frame 1."""
    dataset = blank(class_uid, InstanceNumber=1, NumberOfFrames=len(frames), **tags)
    dataset.Columns, dataset.Rows = frames[0].geometry.shape[:2]
    said: list[dict[str, Items]] = [_functional_groups(frame) for frame in frames]
    dataset.SharedFunctionalGroupsSequence = [item(**{name: said[0][name] for name in shared})]
    dataset.PerFrameFunctionalGroupsSequence = [
        item(**{name: group for name, group in groups.items() if name not in shared})
        for groups in said
    ]
    planes = [
        (plane_values(frame.geometry, frame.k) + frame.add - frame.intercept) / frame.slope
        for frame in frames
    ]
    stored.put(dataset, np.stack(planes))
    return dataset


def _functional_groups(frame: Placed) -> dict[str, Any]:
    geometry, scale = frame.geometry, decimals([frame.slope, frame.intercept])
    orientation = decimals([*geometry.row, *geometry.column])
    measures = item(PixelSpacing=decimals(geometry.spacing[::-1]), SliceThickness="2")
    position = item(ImagePositionPatient=decimals(geometry.place(frame.k)))
    values = item(RescaleSlope=scale[0], RescaleIntercept=scale[1], RescaleType="US")
    return {
        "FrameContentSequence": [item(**frame.content)],
        "PlanePositionSequence": [position],
        "PlaneOrientationSequence": [item(ImageOrientationPatient=orientation)],
        "PixelMeasuresSequence": [measures],
        "PixelValueTransformationSequence": [values],
        **{name: [item(**attributes)] for name, attributes in frame.groups.items()},
    }


def mosaic(geometry: Geometry, *, add: float = 0.0, **tags: Any) -> Dataset:
    """Give a mosaic of Siemens: all slices tiled into one image, with a private header (CSA)."""
    dataset = blank(MRImageStorage, InstanceNumber=1, **tags)
    columns, rows, number = geometry.shape
    side = int(np.ceil(np.sqrt(number)))
    tiles = np.zeros((side * rows, side * columns))
    for k in range(number):
        i, j = k % side * columns, k // side * rows
        tiles[j : j + rows, i : i + columns] = plane_values(geometry, k) + add
    edge_i = np.array(geometry.row) * geometry.spacing[0] * (side - 1) * columns / 2
    edge_j = np.array(geometry.column) * geometry.spacing[1] * (side - 1) * rows / 2
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]
    dataset.Manufacturer = "SIEMENS"
    dataset.ImagePositionPatient = decimals(geometry.place(0) - edge_i - edge_j)
    dataset.ImageOrientationPatient = decimals([*geometry.row, *geometry.column])
    dataset.PixelSpacing = decimals(geometry.spacing[::-1])
    dataset.SliceThickness = "2"
    dataset.SpacingBetweenSlices = decimals([np.linalg.norm(geometry.step)])[0]
    dataset.Columns, dataset.Rows = side * columns, side * rows
    dataset.private_block(0x0019, "SIEMENS MR HEADER", create=True).add_new(0x0A, "US", number)
    normal = np.array(geometry.step) / np.linalg.norm(geometry.step)
    csa = csa_header(
        {"NumberOfImagesInMosaic": ("US", [str(number)]),
         "SliceNormalVector": ("FD", [f"{x:.8f}" for x in normal])}
    )  # fmt: skip
    private = dataset.private_block(0x0029, "SIEMENS CSA HEADER", create=True)
    private.add_new(0x08, "CS", "IMAGE NUM 4")
    private.add_new(0x10, "OB", csa)
    Stored().put(dataset, tiles)
    return dataset


def csa_header(tags: Mapping[str, tuple[str, list[str]]]) -> bytes:
    """Give Siemens' private header in its second form (SV10), with these tags only."""
    parts = [b"SV10\4\3\2\1", struct.pack("<II", len(tags), 77)]
    for name, (vr, values) in tags.items():
        head = (name.encode(), len(values), vr.encode(), 0, 6, 77)
        parts.append(struct.pack("<64si4siii", *head))
        for text in [value.encode() for value in values] + [b""] * (6 - len(values)):
            parts.append(struct.pack("<4i", len(text), len(text), 77, len(text)))
            parts.append(text.ljust(-(-len(text) // 4) * 4, b"\0"))
    return even(b"".join(parts))


def write(
    datasets: Iterable[Dataset],
    folder: Path,
    *,
    syntax: UID = ExplicitVRLittleEndian,
    suffix: str = ".dcm",
    preamble: bool = True,
) -> list[Path]:
    """Write a file each, under names whose order has nothing to do with that of the slices."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for dataset in datasets:
        path = folder / f"{uid('name', dataset.SOPInstanceUID)[-12:]}{len(paths)}{suffix}"
        save(dataset, path, syntax=syntax, preamble=preamble)
        paths.append(path)
    return paths


def save(
    dataset: Dataset, path: Path, *, syntax: UID = ExplicitVRLittleEndian, preamble: bool = True
) -> None:
    """Write one file in a transfer syntax, or without preamble and file meta information."""
    if syntax == JPEGLosslessSV1:
        _compress_with_itk(dataset)
    elif syntax.is_compressed and syntax.is_encapsulated:
        dataset.compress(syntax, generate_instance_uid=False)
    if syntax == ExplicitVRBigEndian and dataset.BitsAllocated == 16:
        dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()
    if preamble:
        dataset.file_meta.TransferSyntaxUID = syntax
        dataset.save_as(path, enforce_file_format=True)
    else:
        del dataset.file_meta
        dataset.preamble = None
        dataset.save_as(path, implicit_vr=syntax.is_implicit_VR, little_endian=True)


def _compress_with_itk(dataset: Dataset) -> None:
    """Store as JPEG lossless, which no plugin of pydicom writes, and SimpleITK does."""
    kind = "i2" if dataset.PixelRepresentation else "u2"
    pixels = np.frombuffer(dataset.PixelData, kind).reshape(1, dataset.Rows, dataset.Columns)
    writer = SimpleITK.ImageFileWriter()
    writer.SetImageIO("GDCMImageIO")
    writer.UseCompressionOn()
    writer.SetCompressor("JPEG")
    with TemporaryDirectory() as folder:
        path = Path(folder, "jpeg.dcm")
        writer.SetFileName(str(path))
        writer.Execute(SimpleITK.GetImageFromArray(pixels))
        dataset["PixelData"] = dcmread(path)["PixelData"]
