"""Label maps as DICOM SEG (PS3.3 A.51 and A.51.6), part of the study they were made from.

The file is built here, not by highdicom, which takes no source that tells its orientation frame
by frame, and wants all regions in one array. The tests ask highdicom, dcmqi and dciodvfy.
"""

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

import numpy as np
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian, RLELossless, SegmentationStorage

from medseg3d import __version__
from medseg3d.io.atomic import write_atomically
from medseg3d.io.dicom.derived import (
    Segment,
    add_term,
    aligned_labels,
    code_item,
    content_moment,
    derived_uid,
    describe_source,
    digest,
    encode,
    find_segments,
    plain_text,
)
from medseg3d.io.dicom.headers import LabelMapSegmentationStorage, guarded, read_header
from medseg3d.io.dicom.seg_frames import add_frames
from medseg3d.io.dicom.series import Series, find_stack
from medseg3d.labels import LabelScheme
from medseg3d.terms import Code
from medseg3d.volume import Volume

SegmentStyle: TypeAlias = Literal["values", "regions", "labelmap"]
"""One segment per value or per region, each with frames of its own; or all values in one map."""

ARTIFICIAL_INTELLIGENCE: Final = Code(
    value="123110", meaning="Artificial Intelligence", scheme="DCM"
)
"""The family of algorithms, of CID 7162."""

BACKGROUND: Final = Code(value="125040", meaning="Background", scheme="DCM")
"""Category and type of what is no segment."""

SERIES_NUMBER: Final = 9001
"""Above those of scanners, so that the series stands last."""

NO_DATE: Final = "19000101"
"""Date of the content where the source tells none; the file must have one."""

SRGB_TO_XYZ: Final = np.array(
    [
        (0.4124564, 0.3575761, 0.1804375),
        (0.2126729, 0.7151522, 0.0721750),
        (0.0193339, 0.1191920, 0.9503041),
    ]
)
"""Linear sRGB to CIE XYZ (IEC 61966-2-1)."""


@dataclass(frozen=True, slots=True)
class Algorithm:
    """What made a label map, as those who look at it are told."""

    name: str = "medseg3d"
    version: str = __version__
    model: str = ""
    """Hash of the model's file, in hexadecimal."""


def write_dicom_seg(
    label_map: Volume,
    path: str | Path,
    *,
    series: str | Path | Series,
    scheme: LabelScheme,
    volume: str | None = None,
    segments: SegmentStyle = "values",
    algorithm: Algorithm = Algorithm(),
    resample: bool = False,
) -> None:
    """Write a label map as DICOM SEG that belongs to the series it was made from.

    There is one segment per value, or per region of the scheme (regions may overlap), that has a
    voxel, and one frame per segment and slice it touches, pixel for pixel as the slice. `labelmap`
    writes all values as one Label Map Segmentation instead, many times smaller, which older
    archives and viewers refuse. `volume` chooses of a series that holds several. The label map
    lies on the series' own grid; `resample` allows another, see `aligned_labels`.

    The same input gives the same bytes: identifiers come from the series, the content and the
    algorithm, dates from the series. Slices of a mosaic refer to its file as a whole.

    Raises:
        SeriesError: the series is no stack of slices, or holds several volumes.
        FormatError: the series is damaged, or names no study.
        GridError: the label map does not lie on the series' grid.
        LabelError: no integers, values foreign to the scheme, or nothing to write.
        ConfigError: a segment has no code, or the file cannot be written.
    """
    stack = find_stack(series, volume)
    labels = np.ascontiguousarray(aligned_labels(label_map, stack, resample=resample))
    parts = find_segments(labels, scheme, "values" if segments == "labelmap" else segments)
    images = [f"{frame.image_uid} {frame.number} {frame.corner_IJ}" for frame in stack.frames]
    content = (*images, digest(labels), scheme.model_dump_json(), segments, *astuple(algorithm))
    file = stack.frames[0].file
    header = read_header(file)
    with guarded(file):
        seg = _segmentation(header, scheme.name, algorithm)
    seg.SeriesInstanceUID = derived_uid("SEG series", *content)
    seg.SOPInstanceUID = derived_uid("SEG", *content)
    seg.SegmentSequence = [_segment(part.name, scheme, algorithm) for part in parts]
    for number, segment in enumerate(seg.SegmentSequence, start=1):
        segment.SegmentNumber = number
        segment.TrackingUID = derived_uid("SEG segment", str(number), *content)
    if segments == "labelmap":
        _as_labelmap(seg, parts)
    values = [value for part in parts for value in part.values]
    seg.SegmentsOverlap = "NO" if len({*values}) == len(values) else "UNDEFINED"
    add_frames(seg, labels, parts, stack, header)
    syntax = RLELossless if segments == "labelmap" else ExplicitVRLittleEndian
    write_atomically(Path(path), encode(seg, syntax))


def cielab(color: str) -> list[int]:
    """Give a colour, #rrggbb in sRGB, as DICOM says it (PS3.3 C.10.7.1.1): CIE L*a*b* in 16 bits.

    The white is sRGB's own, D65, as viewers take it (dcmqi, dcmjs, highdicom).
    """
    srgb = np.array([*bytes.fromhex(color[1:])]) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    share = SRGB_TO_XYZ @ linear / SRGB_TO_XYZ.sum(axis=1)
    x, y, z = np.where(share > 216 / 24389, np.cbrt(share), (24389 / 27 * share + 16) / 116)
    lab = np.array((116 * y - 16, 500 * (x - y) + 128, 200 * (y - z) + 128))
    return np.rint(np.clip(lab / (100, 255, 255), 0, 1) * 65535).astype(int).tolist()


def _segmentation(header: Dataset, name: str, algorithm: Algorithm) -> Dataset:
    """Give a segmentation of the source's patient, without segments and frames."""
    seg = Dataset()
    describe_source(seg, header)
    seg.SOPClassUID, seg.SegmentationType = SegmentationStorage, "BINARY"
    seg.Modality = "SEG"
    seg.SeriesNumber = SERIES_NUMBER
    seg.SeriesDescription = plain_text(f"{algorithm.name} {name}", 64)
    seg.InstanceNumber = 1
    seg.DeviceSerialNumber = algorithm.model[:64] or "0"
    date, time = content_moment(header)
    seg.ContentDate, seg.ContentTime = date or NO_DATE, time or "000000"
    seg.ImageType = ["DERIVED", "PRIMARY"]
    seg.ContentLabel = "SEGMENTATION"
    seg.ContentDescription = plain_text(name, 64)
    seg.ContentCreatorName = None
    seg.LossyImageCompression = header.get("LossyImageCompression") or "00"
    if seg.LossyImageCompression == "01":
        seg.LossyImageCompressionRatio = header.get("LossyImageCompressionRatio")
        seg.LossyImageCompressionMethod = header.get("LossyImageCompressionMethod")
    return seg


def _as_labelmap(seg: Dataset, parts: Sequence[Segment]) -> None:
    """Number the segments by their values, as the pixels do, and call 0 the background."""
    seg.SOPClassUID, seg.SegmentationType = LabelMapSegmentationStorage, "LABELMAP"
    for part, segment in zip(parts, seg.SegmentSequence, strict=True):
        (segment.SegmentNumber,) = part.values
    background = Dataset()
    background.SegmentNumber = seg.PixelPaddingValue = 0
    background.SegmentLabel = BACKGROUND.meaning
    background.SegmentedPropertyCategoryCodeSequence = [code_item(BACKGROUND)]
    background.SegmentedPropertyTypeCodeSequence = [code_item(BACKGROUND)]
    background.SegmentAlgorithmType = "AUTOMATIC"
    background.SegmentAlgorithmName = seg.SegmentSequence[0].SegmentAlgorithmName
    seg.SegmentSequence.insert(0, background)


def _segment(name: str, scheme: LabelScheme, algorithm: Algorithm) -> Dataset:
    """Describe a segment (PS3.3 C.8.20.4), all but its number.

    Raises:
        ConfigError: the scheme has no code for it.
    """
    segment = Dataset()
    segment.SegmentLabel = segment.TrackingID = plain_text(name, 64)
    add_term(segment, scheme.term_of(name), sequence="SegmentedPropertyTypeCodeSequence")
    segment.RecommendedDisplayCIELabValue = cielab(scheme.display_color(name))
    segment.SegmentAlgorithmType = "AUTOMATIC"
    segment.SegmentAlgorithmName = algorithm.name
    identified = Dataset()
    identified.AlgorithmFamilyCodeSequence = [code_item(ARTIFICIAL_INTELLIGENCE)]
    identified.AlgorithmName, identified.AlgorithmVersion = algorithm.name, algorithm.version
    if algorithm.model:
        identified.AlgorithmParameters = f"model={algorithm.model}"
    segment.SegmentationAlgorithmIdentificationSequence = [identified]
    return segment
