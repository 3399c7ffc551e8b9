"""What every object made from a series has: its labels, patient and study, and its name.

The labels lie frame by frame as the source's slices do, so that what is written is exact whatever
way the slices run. Identifiers come from the source and the content: the same input gives the
same bytes, and a second run replaces the first in an archive.
"""

import hashlib
import logging
import re
import uuid
from dataclasses import dataclass
from io import BytesIO
from typing import Final, Literal, TypeAlias

import numpy as np
from jaxtyping import Bool, Integer
from pydicom import DataElement, Dataset, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID
from scipy import ndimage

from medseg3d import __version__
from medseg3d.arrays import Affine, LabelMapIJK
from medseg3d.errors import ConfigError, FormatError, GridError, LabelError, SeriesError
from medseg3d.io.dicom.frames import Frame, Plane
from medseg3d.io.dicom.stacks import Stack
from medseg3d.io.files import require_known
from medseg3d.labels import LabelScheme, as_label_map, count_values, require_values
from medseg3d.terms import Code, Term
from medseg3d.volume import Volume, require_one_grid

LabelMapKJI: TypeAlias = Integer[np.ndarray, "K J I"]
"""Slices of rows of pixels, in the order of the stack's frames."""

SegmentKind: TypeAlias = Literal["values", "regions"]
"""Which parts of a label map become segments."""

PATIENT_AND_STUDY: Final = (
    "PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex",
    "PatientIdentityRemoved", "DeidentificationMethod", "StudyInstanceUID", "StudyDate",
    "StudyTime", "StudyID", "StudyDescription", "AccessionNumber", "ReferringPhysicianName",
    "FrameOfReferenceUID", "PositionReferenceIndicator",
)  # fmt: skip
"""What a derived object has in common with its source. Not the age: dates tell it, and many a
file says it in a wrong form."""

MAY_BE_EMPTY: Final = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime",
    "StudyID", "AccessionNumber", "ReferringPhysicianName", "PositionReferenceIndicator",
)  # fmt: skip
"""Of these, what must stand there even if there is nothing to say (type 2)."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Segment:
    """One part of a label map that is written: a value, or a region of several."""

    name: str
    values: tuple[int, ...]

    def mask(self, labels: LabelMapKJI) -> Bool[np.ndarray, "K J I"]:
        """Give the voxels of the segment as booleans."""
        found: Bool[np.ndarray, "K J I"] = labels == self.values[0]
        for value in self.values[1:]:
            found |= labels == value
        return found


def aligned_labels(label_map: Volume, stack: Stack, *, resample: bool = False) -> LabelMapKJI:
    """Give a label map as the stack's frames lie: slices in their order, rows, columns.

    The label map must lie on the stack's own grid, unless `resample` allows to take the nearest
    voxel for each pixel of each slice (0 outside): a result on a grid without the source's tilt
    or gaps.

    Raises:
        LabelError: no integers, or several channels.
        GridError: another grid, and `resample` is off; prints both.
        SeriesError: slices doubled or without a place.
    """
    if label_map.num_channels != 1:
        raise LabelError(
            f"a label map has one channel, got {label_map.num_channels}; decide on one value per "
            "voxel first"
        )
    labels_IJK = as_label_map(label_map.array_CIJK[0])
    if resample:
        if faults := [*stack.faults()]:
            raise SeriesError("; ".join(faults))
        # an even grid may end a little before the last of uneven slices
        beyond = np.pad(labels_IJK, ((0, 0), (0, 0), (1, 1)), mode="edge")
        mm_to_index = np.linalg.inv(label_map.affine)
        mm_to_index[2, 3] += 1
        return np.stack([_nearest(beyond, mm_to_index, frame) for frame in stack.frames])
    try:
        require_one_grid([stack.grid, label_map.grid], ["the series", "the label map"])
    except (GridError, SeriesError) as error:
        raise GridError(
            f"the label map cannot be written slice by slice: {error}\n"
            "If it was made from this series with its tilt or gaps corrected, allow resample=True "
            "to bring it onto the slices by nearest neighbour."
        ) from error
    return np.ascontiguousarray(labels_IJK.transpose())


def plane_of(frame: Frame) -> Plane:
    """Give the place of a frame.

    Raises:
        SeriesError: its header tells none.
    """
    if frame.plane is None:
        raise SeriesError(f"'{frame.name}' does not say where in the patient it lies")
    return frame.plane


def find_segments(
    labels: LabelMapKJI, scheme: LabelScheme, kind: SegmentKind = "values"
) -> list[Segment]:
    """List the values or regions of which the label map has a voxel, in the scheme's order.

    Empty ones are left out: viewers hang on them.

    Raises:
        LabelError: the label map holds values foreign to the scheme, or none of the segments.
        ConfigError: no such kind.
    """
    if not isinstance(scheme, LabelScheme):
        raise ConfigError(
            f"a scheme is a LabelScheme, got {scheme!r}; ready-made ones are in medseg3d.SCHEMES"
        )
    require_known("segments", kind, SegmentKind)
    require_values(labels, scheme, source="the label map")
    values = {name: (value,) for value, name in sorted(scheme.values.items())}
    asked = values if kind == "values" else scheme.regions
    there = count_values(labels).keys()
    segments = [Segment(name, parts) for name, parts in asked.items() if there & {*parts}]
    if not segments:
        raise LabelError(
            f"the label map holds none of {[*asked]}: there is nothing to write, and DICOM has no "
            "empty segmentation. Keep the NIfTI file instead."
        )
    return segments


def describe_source(derived: Dataset, header: Dataset) -> None:
    """Put a derived object into the patient, study and frame of reference of its source.

    A source that names no frame of reference, as some that were made anonymous, gets one of its
    own, always the same for one series, and a WARNING.

    Raises:
        FormatError: the source has no study or series.
    """
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID"):
        if not header.get(keyword):
            raise FormatError(
                f"has no {keyword}, which whatever is made from it must name. Export it again."
            )
    for keyword in PATIENT_AND_STUDY:
        wrong_date = keyword.endswith("Date") and not _is_date(header.get(keyword))
        if keyword in header and not wrong_date:
            derived.add(DataElement(header[keyword].tag, header[keyword].VR, header[keyword].value))
        elif keyword in MAY_BE_EMPTY:
            setattr(derived, keyword, None)
    if not header.get("FrameOfReferenceUID"):
        log.warning("the series names no frame of reference; one is named after the series")
        derived.FrameOfReferenceUID = derived_uid("frame of reference", header.SeriesInstanceUID)
    derived.SpecificCharacterSet = "ISO_IR 192"
    derived.Manufacturer = derived.ManufacturerModelName = "medseg3d"
    derived.SoftwareVersions = __version__


def _is_date(said: object) -> bool:
    return bool(re.fullmatch(r"(\d{8})?", str(said or "")))


def content_moment(header: Dataset) -> tuple[str, str]:
    """Give the date and time of a source's pixels, which a derived object takes for its own.

    Not those of the run: the same input gives the same bytes. Both are empty where the source
    tells no date.
    """
    for moment in ("Content", "Acquisition", "Series", "Study"):
        date, time = (str(header.get(f"{moment}{part}") or "") for part in ("Date", "Time"))
        if re.fullmatch(r"\d{8}", date):
            return date, time if re.fullmatch(r"\d{6}(\.\d{1,6})?", time) else "000000"
    return "", ""


def derived_uid(*parts: str) -> str:
    """Name something made from `parts`: the same parts give the same identifier, on any machine.

    It stands below 2.25, the arc of UUIDs that need no registration (PS3.5 B.2).
    """
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, chr(0).join(parts)).int}"


def digest(labels: LabelMapKJI) -> str:
    """Give what tells the content of one label map from another's."""
    return hashlib.sha256(labels.tobytes()).hexdigest()


def plain_text(text: str, most: int) -> str:
    """Give text as DICOM takes it: no backslash, which parts values, and not too long."""
    return re.sub(r"[\\\x00-\x1f]", "/", text)[:most]


def code_item(code: Code) -> Dataset:
    """Give a code as an item of a code sequence."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator = code.value, code.scheme
    item.CodeMeaning = code.meaning
    return item


def add_term(item: Dataset, term: Term, *, sequence: str) -> None:
    """Say by codes what something is; `sequence` is where this kind of object tells the type."""
    kind = code_item(term.type)
    if term.modifier:
        kind.SegmentedPropertyTypeModifierCodeSequence = [code_item(term.modifier)]
    item.SegmentedPropertyCategoryCodeSequence = [code_item(term.category)]
    setattr(item, sequence, [kind])
    if term.region:
        item.AnatomicRegionSequence = [code_item(term.region)]


def encode(dataset: Dataset, transfer_syntax: str) -> bytes:
    """Give the bytes of a DICOM file."""
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(transfer_syntax)
    stream = BytesIO()
    dcmwrite(stream, dataset, enforce_file_format=True)
    return stream.getvalue()


def _nearest(
    labels_IJK: LabelMapIJK, mm_to_index: Affine, frame: Frame
) -> Integer[np.ndarray, "rows columns"]:
    plane, plane_to_mm = plane_of(frame), np.eye(4)
    plane_to_mm[:3] = np.transpose(
        [plane.along_i_mm, plane.along_j_mm, plane.normal, plane.corner_mm]
    )
    plane_IJ1 = ndimage.affine_transform(
        labels_IJK,
        mm_to_index @ plane_to_mm,
        output_shape=(*frame.shape_IJ, 1),
        order=0,
        mode="grid-constant",
    )
    return plane_IJ1[:, :, 0].transpose()
