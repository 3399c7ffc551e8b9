"""What the header of a DICOM SEG says of its segments and frames, and its pixels as numbers."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Integer, Shaped
from pydantic import ValidationError
from pydicom import Dataset

from medseg3d.errors import FormatError
from medseg3d.io.dicom.headers import is_segmentation
from medseg3d.io.dicom.pixels import LARGEST_PLANE, read_planes
from medseg3d.terms import Term


@dataclass(frozen=True, slots=True)
class StoredSegment:
    """What a file says of one of its segments."""

    number: int
    name: str
    term: Term | None
    """None where codes are missing or cannot be understood."""
    tracking_uid: str
    """Empty where the file has none."""


def stored_segments(seg: Dataset) -> tuple[StoredSegment, ...]:
    """List the segments; a label map's background is none.

    Raises:
        FormatError: this is no DICOM SEG, or its segments are not told apart by their numbers.
    """
    if not is_segmentation(seg):
        raise FormatError(f"is no DICOM SEG but {seg.SOPClassUID.name}")
    if (kind := seg.get("SegmentationType")) not in ("BINARY", "FRACTIONAL", "LABELMAP"):
        raise FormatError(f"is damaged: its segmentation type is {kind!r}")
    items = [item for item in seg.get("SegmentSequence") or () if item.SegmentNumber]
    numbers = [int(item.SegmentNumber) for item in items]
    if not numbers or len({*numbers}) < len(numbers):
        raise FormatError(f"is damaged: it numbers its segments {numbers}")
    return tuple(
        StoredSegment(
            number=number,
            name=str(item.get("SegmentLabel") or number),
            term=_term(item),
            tracking_uid=str(item.get("TrackingUID") or ""),
        )
        for number, item in zip(numbers, items, strict=True)
    )


def frame_numbers(seg: Dataset, segments: Sequence[StoredSegment]) -> list[int]:
    """Give the segment of each frame; 0 in a label map, where every pixel tells its own.

    Raises:
        FormatError: a frame is of a segment that is not described.
    """
    items = seg.get("PerFrameFunctionalGroupsSequence") or ()
    if seg.SegmentationType == "LABELMAP":
        return [0] * len(items)
    shared = _shared_groups(seg).get("SegmentIdentificationSequence")
    groups = [item.get("SegmentIdentificationSequence") or shared for item in items]
    numbers = [int(group[0].ReferencedSegmentNumber) for group in groups]
    if unknown := {*numbers} - {segment.number for segment in segments}:
        raise FormatError(f"has frames of segments {sorted(unknown)} and does not describe them")
    return numbers


def slice_spacing_mm(seg: Dataset) -> float | None:
    """Give the distance between slices where the file tells it."""
    measures = (_shared_groups(seg).get("PixelMeasuresSequence") or [Dataset()])[0]
    spacing_mm = measures.get("SpacingBetweenSlices")
    return float(spacing_mm) if spacing_mm else None


def least_pixel(seg: Dataset, threshold: float | None) -> float:
    """Give the least stored pixel that belongs to a segment.

    Raises:
        FormatError: the pixels are fractions, and there is no threshold.
    """
    if seg.SegmentationType != "FRACTIONAL":
        return 1.0
    if threshold is None:
        raise FormatError(
            f"holds fractions ({seg.get('SegmentationFractionalType', '?').lower()}), not masks; "
            "say from which share of the highest value on a voxel belongs: threshold=0.5"
        )
    return threshold * float(seg.MaximumFractionalValue)


def decode_numbers(
    seg: Dataset, numbers: Sequence[int], *, least: float
) -> Iterator[Integer[np.ndarray, "J I"]]:
    """Decode each frame into segment numbers, 0 for none.

    Raises:
        FormatError: a label map holds numbers that it does not describe, or a frame is too large.
    """
    if int(seg.Rows) * int(seg.Columns) > LARGEST_PLANE:
        raise FormatError(f"promises frames of {seg.Columns}×{seg.Rows} pixels")
    described = [int(item.SegmentNumber) for item in seg.SegmentSequence]
    background = int(seg.get("PixelPaddingValue") or 0)
    dtype = np.min_scalar_type(max(described))
    for number, stored in zip(numbers, _stored_frames(seg), strict=True):
        if number:
            yield (stored >= least) * dtype.type(number)
            continue
        if unknown := {*np.unique(stored).tolist()} - {background, *described}:
            raise FormatError(f"holds segments {sorted(unknown)} and does not describe them")
        yield np.where(stored == background, 0, stored).astype(dtype)


def _stored_frames(seg: Dataset) -> Iterator[Shaped[np.ndarray, "J I"]]:
    """Give the pixels of each frame as they are stored."""
    syntax = getattr(seg, "file_meta", {}).get("TransferSyntaxUID")
    if seg.BitsAllocated != 1 or (syntax and syntax.is_encapsulated):
        yield from (plane for _, plane in read_planes(seg, range(int(seg.NumberOfFrames))))
        return
    # frames do not start with a byte, which pydicom 3.0.2 gets wrong for all but the first
    shape, bits = (int(seg.Rows), int(seg.Columns)), memoryview(seg.PixelData)
    needed = math.prod(shape) * int(seg.NumberOfFrames)
    if not needed <= len(bits) * 8 < needed + 16:
        raise FormatError(
            f"promises {-(-needed // 8)} bytes of pixels and holds {len(bits)}: it is truncated or "
            "its header is wrong. Copy or export it again."
        )
    for start in range(0, needed, math.prod(shape)):
        stop = start + math.prod(shape)
        data = np.frombuffer(bits[start // 8 : -(-stop // 8)], dtype=np.uint8)
        yield np.unpackbits(data, bitorder="little")[start % 8 :][: stop - start].reshape(shape)


def _shared_groups(seg: Dataset) -> Dataset:
    return (seg.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]


def _term(item: Dataset) -> Term | None:
    kind = (item.get("SegmentedPropertyTypeCodeSequence") or [Dataset()])[0]
    codes = {
        "category": _code(item, "SegmentedPropertyCategoryCodeSequence"),
        "type": _code(item, "SegmentedPropertyTypeCodeSequence"),
        "modifier": _code(kind, "SegmentedPropertyTypeModifierCodeSequence"),
        "region": _code(item, "AnatomicRegionSequence"),
    }
    try:
        return Term.model_validate(codes)
    except ValidationError:
        return None


def _code(item: Dataset, sequence: str) -> dict[str, str] | None:
    if not item.get(sequence):
        return None
    code = item[sequence][0]
    return {
        "value": str(code.get("CodeValue", "")),
        "meaning": str(code.get("CodeMeaning", "")),
        "scheme": str(code.get("CodingSchemeDesignator", "")),
    }
