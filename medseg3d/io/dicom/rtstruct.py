"""Label maps as DICOM RT Structure Set: one region of interest per label, drawn slice by slice.

Polygons lie in the planes of the source's own slices, so they are exact for oblique, reversed,
tilted and unevenly spaced series. Filled by pixel centres they give back the mask; their area is
a little smaller, for they cut the corners of pixels.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
from jaxtyping import Bool, Float64
from pydicom import Dataset
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag
from pydicom.uid import ImplicitVRLittleEndian, RTStructureSetStorage

from medseg3d.io.atomic import write_atomically
from medseg3d.io.dicom.contours import outline_mask
from medseg3d.io.dicom.derived import (
    SegmentKind,
    add_term,
    aligned_labels,
    content_moment,
    derived_uid,
    describe_source,
    digest,
    encode,
    find_segments,
    plain_text,
    plane_of,
)
from medseg3d.io.dicom.frames import Frame, Plane, lps
from medseg3d.io.dicom.headers import guarded
from medseg3d.io.dicom.series import Series, find_stack, read_headers
from medseg3d.io.dicom.stacks import Stack
from medseg3d.labels import LabelScheme
from medseg3d.terms import Term
from medseg3d.volume import Volume

STUDY_CLASS: Final = "1.2.840.10008.3.1.2.3.1"
"""Detached Study Management, retired: how structure sets refer to a study (PS3.3 C.8.8.5.4)."""

SERIES_NUMBER: Final = 9100
"""Behind the source's own series in lists; archives go by the identifier."""

INTERPRETED_TYPES: Final = {"91723000": "ORGAN", "228791009": "GTV"}
"""Code of an anatomical structure or of a target -> the older word for it. What other findings
are to a treatment is not said, for nobody has decided it yet."""

CONTOUR_DATA: Final = Tag("ContourData")

Counts: TypeAlias = Mapping[str, int]
"""Identifier of an image -> number of its frames."""


def write_rtstruct(
    label_map: Volume,
    path: str | Path,
    *,
    series: str | Path | Series,
    scheme: LabelScheme,
    volume: str | None = None,
    segments: SegmentKind = "values",
    resample: bool = False,
) -> None:
    """Write a label map as RT Structure Set that belongs to the series it was made from.

    There is one region of interest per value, or per region of the scheme, that has a voxel; a
    code is told where the scheme has one. `volume` chooses of a series that holds several. The
    label map lies on the series' own grid; `resample` allows another, see `aligned_labels`. The
    same input gives the same bytes: identifiers and times come from it.

    Raises:
        SeriesError: the series is no stack of slices, or holds several volumes.
        FormatError: the series is damaged, or names no study.
        GridError: the label map does not lie on the series' grid.
        LabelError: no integers, values foreign to the scheme, or nothing to write.
        ConfigError: the file cannot be written.
    """
    stack = find_stack(series, volume)
    labels = aligned_labels(label_map, stack, resample=resample)
    found = find_segments(labels, scheme, segments)
    headers = read_headers(stack)
    counts = {str(h.SOPInstanceUID): int(h.get("NumberOfFrames") or 1) for h in headers}
    with guarded(stack.frames[0].file):
        structures = _structure_set(headers[0], scheme.name)
        reference = _reference(structures, headers[0].SeriesInstanceUID, stack, counts)
    structures.ReferencedFrameOfReferenceSequence = [reference]
    images = [f"{frame.image_uid} {frame.number}" for frame in stack.frames]
    content = (*images, digest(labels), scheme.model_dump_json(), segments)
    structures.SeriesInstanceUID = derived_uid("RTSTRUCT series", *content)
    structures.SOPInstanceUID = derived_uid("RTSTRUCT", *content)
    for number, segment in enumerate(found, start=1):
        roi, drawing, observation = _region(number, segment.name, scheme)
        roi.ReferencedFrameOfReferenceUID = structures.FrameOfReferenceUID
        drawing.ContourSequence = [*_contours(segment.mask(labels), stack, counts)]
        structures.StructureSetROISequence.append(roi)
        structures.ROIContourSequence.append(drawing)
        structures.RTROIObservationsSequence.append(observation)
    write_atomically(Path(path), encode(structures, ImplicitVRLittleEndian))


def _structure_set(header: Dataset, name: str) -> Dataset:
    """Give a structure set of the source's patient, without any structure."""
    structures = Dataset()
    describe_source(structures, header)
    structures.SOPClassUID = RTStructureSetStorage
    structures.Modality = "RTSTRUCT"
    structures.SeriesNumber = SERIES_NUMBER
    structures.SeriesDescription = plain_text(f"medseg3d {name}", 64)
    structures.OperatorsName = None
    structures.InstanceNumber = 1
    structures.StructureSetLabel = plain_text(name, 16)
    structures.StructureSetDate, structures.StructureSetTime = content_moment(header)
    structures.StructureSetROISequence = []
    structures.ROIContourSequence = []
    structures.RTROIObservationsSequence = []
    structures.ApprovalStatus = "UNAPPROVED"
    return structures


def _reference(structures: Dataset, series_uid: str, stack: Stack, counts: Counts) -> Dataset:
    """Refer to the source's frame of reference, in it study, series and images."""
    files: dict[str, list[Frame]] = {}
    for frame in stack.frames:
        files.setdefault(frame.image_uid, []).append(frame)
    series, study, reference = Dataset(), Dataset(), Dataset()
    series.SeriesInstanceUID = series_uid
    series.ContourImageSequence = [_image(frames, counts) for frames in files.values()]
    study.ReferencedSOPClassUID = STUDY_CLASS
    study.ReferencedSOPInstanceUID = structures.StudyInstanceUID
    study.RTReferencedSeriesSequence = [series]
    reference.FrameOfReferenceUID = structures.FrameOfReferenceUID
    reference.RTReferencedStudySequence = [study]
    return reference


def _image(frames: Sequence[Frame], counts: Counts) -> Dataset:
    """Refer to frames of one image, or to all of it."""
    image = Dataset()
    image.ReferencedSOPClassUID = frames[0].class_uid
    image.ReferencedSOPInstanceUID = frames[0].image_uid
    numbers = sorted({frame.number + 1 for frame in frames})
    if len(numbers) < counts[frames[0].image_uid]:
        image.ReferencedFrameNumber = numbers
    return image


def _region(number: int, name: str, scheme: LabelScheme) -> tuple[Dataset, Dataset, Dataset]:
    """Give a region of interest, the start of its drawing, and what is observed of it."""
    roi, drawing, observation = Dataset(), Dataset(), Dataset()
    roi.ROINumber = drawing.ReferencedROINumber = observation.ReferencedROINumber = number
    roi.ROIName = plain_text(name, 64)
    roi.ROIGenerationAlgorithm = "AUTOMATIC"
    drawing.ROIDisplayColor = [*bytes.fromhex(scheme.display_color(name)[1:])]
    observation.ObservationNumber = number
    observation.ROIObservationLabel = plain_text(name, 16)
    observation.RTROIInterpretedType = None
    observation.ROIInterpreter = None
    if term := scheme.codes.get(name):
        _describe(observation, term)
    return roi, drawing, observation


def _describe(observation: Dataset, term: Term) -> None:
    said = (INTERPRETED_TYPES.get(code.value) for code in (term.type, term.category))
    observation.RTROIInterpretedType = next(filter(None, said), None)
    add_term(observation, term, sequence="RTROIIdentificationCodeSequence")


def _contours(
    mask_KJI: Bool[np.ndarray, "K J I"], stack: Stack, counts: Counts
) -> Iterator[Dataset]:
    """Draw a mask on the slices it is in."""
    for k in np.flatnonzero(mask_KJI.any(axis=(1, 2))):
        frame = stack.frames[k]
        for polygon in outline_mask(mask_KJI[k].transpose()):
            contour = Dataset()
            contour.ContourImageSequence = [_image([frame], counts)]
            contour.ContourGeometricType = "CLOSED_PLANAR"
            contour.NumberOfContourPoints = len(polygon)
            contour.set_original_encoding(True, True, "iso8859")  # or numbers would be parsed
            contour[CONTOUR_DATA] = _decimals(_in_patient(polygon, plane_of(frame)))
            yield contour


def _in_patient(
    polygon: Float64[np.ndarray, "points 2"], plane: Plane
) -> Float64[np.ndarray, "points 3"]:
    """Place pixels in the patient, in DICOM's own LPS."""
    steps_mm = np.array([plane.along_i_mm, plane.along_j_mm])
    points_mm: Float64[np.ndarray, "points 3"] = polygon @ steps_mm + plane.corner_mm
    return lps(points_mm)


def _decimals(points_mm: Float64[np.ndarray, "points 3"]) -> RawDataElement:
    """Write numbers as DICOM's decimal strings, to a nanometre, each of at most 16 characters.

    Raw, for pydicom's look at each number takes longer than all the rest.
    """
    numbers = points_mm.round(6).ravel().tolist()
    text = "\\".join([f"{number:.10g}" for number in numbers]).encode()
    text += b" " * (len(text) % 2)
    return RawDataElement(CONTOUR_DATA, "DS", len(text), text, 0, True, True)
