"""Frames of a segmentation: what each shows, where it lies, what it was made from, its pixels."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Bool
from pydicom import DataElement, Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels.encoders.base import RLELosslessEncoder
from pydicom.tag import Tag
from pydicom.valuerep import format_number_as_ds

from medseg3d.io.dicom.derived import LabelMapKJI, Segment, code_item, derived_uid, plane_of
from medseg3d.io.dicom.frames import Frame, lps
from medseg3d.io.dicom.stacks import Stack
from medseg3d.labels import count_values
from medseg3d.terms import Code

SEGMENTATION: Final = Code(value="113076", meaning="Segmentation", scheme="DCM")
SOURCE_IMAGE: Final = Code(
    value="121322", meaning="Source image for image processing operation", scheme="DCM"
)

DIMENSIONS: Final = {
    "ReferencedSegmentNumber": "SegmentIdentificationSequence",
    "ImagePositionPatient": "PlanePositionSequence",
}
"""What the frames are sorted by -> the functional group that tells it."""


class Shown(NamedTuple):
    """What a frame shows: a segment, or all of them (0), on a slice."""

    number: int
    k: int


def add_frames(
    seg: Dataset, labels: LabelMapKJI, parts: Sequence[Segment], stack: Stack, source: Dataset
) -> None:
    """Add one frame for each slice, and each segment of a binary segmentation, that has a voxel.

    `labels` are the voxels in the order of the stack's frames, `parts` the segments in the order
    of their numbers, and `source` is the header of the stack's first frame.
    """
    labelmap = seg.SegmentationType == "LABELMAP"
    shown = [*_shown(labels, parts, labelmap=labelmap)]
    seg.NumberOfFrames = len(shown)
    seg.Rows, seg.Columns = labels.shape[1:]
    seg.SamplesPerPixel, seg.PhotometricInterpretation = 1, "MONOCHROME2"
    seg.BitsAllocated = seg.BitsStored = labels.itemsize * 8 if labelmap else 1
    seg.HighBit, seg.PixelRepresentation = seg.BitsStored - 1, 0
    seg.SharedFunctionalGroupsSequence = [_shared_groups(stack)]
    seg.PerFrameFunctionalGroupsSequence = [*_frame_groups(shown, stack, source)]
    seg.ReferencedSeriesSequence = [_source_series(stack, source)]
    _add_dimensions(seg, ["ImagePositionPatient"] if labelmap else [*DIMENSIONS])
    if labelmap:
        seg.PixelData = encapsulate([*_run_lengths(labels, shown)])
    else:
        seg.PixelData = _packed(parts[n - 1].mask(labels[k : k + 1]) for n, k in shown)


def _shown(labels: LabelMapKJI, parts: Sequence[Segment], *, labelmap: bool) -> Iterator[Shown]:
    there = [count_values(labels[k : k + 1]).keys() - {0} for k in range(len(labels))]
    if labelmap:
        yield from (Shown(0, k) for k, values in enumerate(there) if values)
        return
    for number, part in enumerate(parts, start=1):
        yield from (Shown(number, k) for k, values in enumerate(there) if values & {*part.values})


def _add_dimensions(seg: Dataset, names: Sequence[str]) -> None:
    """Say what the frames are sorted by (PS3.3 C.7.6.17)."""
    organization = Dataset()
    organization.DimensionOrganizationUID = derived_uid("dimensions", seg.SOPInstanceUID)
    seg.DimensionOrganizationSequence = [organization]
    seg.DimensionIndexSequence = []
    for name in names:
        index = Dataset()
        index.DimensionOrganizationUID = organization.DimensionOrganizationUID
        index.DimensionIndexPointer = Tag(name)
        index.FunctionalGroupPointer = Tag(DIMENSIONS[name])
        index.DimensionDescriptionLabel = name
        seg.DimensionIndexSequence.append(index)


def _shared_groups(stack: Stack) -> Dataset:
    """Say what holds for every frame: directions, and the size of a pixel."""
    frame = stack.frames[0]
    plane = plane_of(frame)
    columns_mm, rows_mm = np.linalg.norm([plane.along_i_mm, plane.along_j_mm], axis=1)
    orientation, measures, shared = Dataset(), Dataset(), Dataset()
    orientation.ImageOrientationPatient = [
        *_lps(np.divide(plane.along_i_mm, columns_mm)),
        *_lps(np.divide(plane.along_j_mm, rows_mm)),
    ]
    measures.PixelSpacing = _decimals([rows_mm, columns_mm])
    apart_mm = np.ptp(stack.positions_mm) / max(len(stack.frames) - 1, 1)
    if len(stack.frames) > 1 and not [*stack.gaps()]:
        measures.SpacingBetweenSlices = format_number_as_ds(float(apart_mm))
    measures.SliceThickness = format_number_as_ds(frame.thickness_mm or float(apart_mm) or 1.0)
    shared.PlaneOrientationSequence = [orientation]
    shared.PixelMeasuresSequence = [measures]
    return shared


def _frame_groups(shown: Sequence[Shown], stack: Stack, source: Dataset) -> Iterator[Dataset]:
    """Describe each frame. Frames of one slice, or one segment, share what they have in common."""
    ranks = {k: rank for rank, k in enumerate(sorted({k for _, k in shown}), start=1)}
    slices = {k: [*_slice_groups(stack, k, source)] for k in ranks}
    segments = {number: _segment_group(number) for number, _ in shown if number}
    for number, k in shown:
        content, groups = Dataset(), Dataset()
        content.DimensionIndexValues = [number, ranks[k]] if number else [ranks[k]]
        groups.FrameContentSequence = [content]
        for element in slices[k]:
            groups.add(element)
        if number:
            groups.add(segments[number])
        yield groups


def _segment_group(number: int) -> DataElement:
    segment = Dataset()
    segment.ReferencedSegmentNumber = number
    return DataElement("SegmentIdentificationSequence", "SQ", [segment])


def _slice_groups(stack: Stack, k: int, source: Dataset) -> Iterator[DataElement]:
    """Say where a slice lies, and which image it is of."""
    frame = stack.frames[k]
    position, derivation = Dataset(), Dataset()
    position.ImagePositionPatient = _lps(plane_of(frame).corner_mm)
    image = _reference(frame)
    mosaic = any(any(other.corner_IJ) for other in stack.frames)
    image.SpatialLocationsPreserved = "NO" if mosaic else "YES"
    if int(source.get("NumberOfFrames") or 1) > 1:
        image.ReferencedFrameNumber = frame.number + 1
    image.PurposeOfReferenceCodeSequence = [code_item(SOURCE_IMAGE)]
    derivation.SourceImageSequence = [image]
    derivation.DerivationCodeSequence = [code_item(SEGMENTATION)]
    yield DataElement("PlanePositionSequence", "SQ", [position])
    yield DataElement("DerivationImageSequence", "SQ", [derivation])


def _source_series(stack: Stack, source: Dataset) -> Dataset:
    """Refer to the series and each of its images, a file of several slices once."""
    series = Dataset()
    series.SeriesInstanceUID = source.SeriesInstanceUID
    images: Mapping[str, Frame] = {frame.image_uid: frame for frame in stack.frames}
    series.ReferencedInstanceSequence = [_reference(frame) for frame in images.values()]
    return series


def _reference(frame: Frame) -> Dataset:
    image = Dataset()
    image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID = frame.class_uid, frame.image_uid
    return image


def _lps(vector_ras: Sequence[float] | np.ndarray) -> list[str]:
    """Write a place or a direction as DICOM does."""
    return _decimals(lps(vector_ras))


def _decimals(numbers: Iterable[float]) -> list[str]:
    """Write numbers in at most 16 characters; 0 has no sign."""
    return [format_number_as_ds(round(float(number), 12) + 0.0) for number in numbers]


def _packed(masks: Iterator[Bool[np.ndarray, "1 J I"]]) -> bytes:
    """Pack pixels as bits, without a gap between frames; eight frames are whole bytes."""
    eights = iter(lambda: [*islice(masks, 8)], [])
    return b"".join(np.packbits(eight, bitorder="little").tobytes() for eight in eights)


def _run_lengths(labels: LabelMapKJI, shown: Sequence[Shown]) -> Iterator[bytes]:
    for _, k in shown:
        yield RLELosslessEncoder.encode(
            labels[k],
            number_of_frames=1,
            rows=labels.shape[1],
            columns=labels.shape[2],
            samples_per_pixel=1,
            bits_allocated=labels.itemsize * 8,
            bits_stored=labels.itemsize * 8,
            pixel_representation=0,
            photometric_interpretation="MONOCHROME2",
        )
