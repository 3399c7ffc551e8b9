"""What a header says of its frames, classic or enhanced.

DICOM speaks LPS: places and directions are turned to RAS+ here.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
from pydicom import Dataset
from pydicom.datadict import tag_for_keyword
from pydicom.uid import UID

from medseg3d.errors import FormatError
from medseg3d.io.dicom.frames import Frame, Pixels, Plane, Traits, lps, triple
from medseg3d.io.dicom.headers import DicomFile
from medseg3d.io.dicom.mosaic import cut_mosaic

UNIT_TOLERANCE: Final = 1e-3
"""How far direction cosines may be from two perpendicular vectors of length 1."""

LONGEST_MM: Final = 1e4
"""No edge of a voxel is longer."""

GROUPS: Final = (
    "PlanePositionSequence",
    "PlaneOrientationSequence",
    "PixelMeasuresSequence",
    "PixelValueTransformationSequence",
    "FrameContentSequence",
    "TemporalPositionSequence",
    "CardiacSynchronizationSequence",
    "MREchoSequence",
    "MRDiffusionSequence",
    "DiffusionGradientDirectionSequence",
    "MRImageFrameTypeSequence",
    "CTImageFrameTypeSequence",
    "PETFrameTypeSequence",
)
"""Functional groups of enhanced files whose attributes are looked at."""

PLACES: Final = {
    tag_for_keyword(name)
    for name in ("ImagePositionPatient", "InStackPositionNumber", "SliceLocation")
}
"""Tags that tell a frame's place, where they index a dimension."""

COMPONENTS: Final = {
    "P": "phase", "PHASE": "phase", "PHASE MAP": "phase",
    "R": "real", "REAL": "real",
    "I": "imaginary", "IMAGINARY": "imaginary",
}  # fmt: skip
"""Values of Image Type or Complex Image Component -> component; others are magnitude."""


def frames_of(file: DicomFile, header: Dataset) -> list[Frame]:
    """Give the frames of a file; none where it holds no pixels. Call it `guarded`.

    Raises:
        FormatError: attributes that cannot be understood.
    """
    if not header.get("Rows") or not header.get("Columns"):
        if "Image Storage" in UID(header.SOPClassUID).name:
            raise FormatError("is damaged: an image without rows or columns")
        return []
    frames = [_frame(file, header, number, layers) for number, layers in enumerate(_layers(header))]
    return cut_mosaic(frames[0], header) if len(frames) == 1 else frames


def _layers(header: Dataset) -> Iterator[list[Dataset]]:
    """Give for each frame the datasets to look an attribute up in, the frame's own first."""
    per_frame = header.get("PerFrameFunctionalGroupsSequence")
    count = int(header.get("NumberOfFrames") or 1)
    if not per_frame:
        yield [header]
        return
    if len(per_frame) != count:
        raise FormatError(f"says it has {count} frames and describes {len(per_frame)}")
    shared = [*_groups((header.get("SharedFunctionalGroupsSequence") or [Dataset()])[0])]
    for item in per_frame:
        yield [*_groups(item), *shared, header]


def _groups(item: Dataset) -> Iterator[Dataset]:
    for name in GROUPS:
        if found := item.get(name):
            yield found[0]
            yield from _groups(found[0])


def _find(layers: Sequence[Dataset], *names: str) -> Any:
    """Give the first attribute that is there and has a value, or None."""
    for name in names:
        for layer in layers:
            if (value := layer.get(name)) not in (None, "", b""):
                return value
    return None


def _number(layers: Sequence[Dataset], *names: str) -> float | None:
    value = _find(layers, *names)
    return None if value is None else float(value)


def _numbers(layers: Sequence[Dataset], name: str, count: int) -> list[float] | None:
    value = _find(layers, name)
    if value is None:
        return None
    if isinstance(value, str | float | int) or len(value) != count:
        raise FormatError(f"is damaged: {name} has not {count} values")
    return [float(number) for number in value]


def _frame(file: DicomFile, header: Dataset, number: int, layers: list[Dataset]) -> Frame:
    plane, fault = _plane(layers)
    pixels = pixels_of(layers)
    colours = str(header.get("PhotometricInterpretation") or "MONOCHROME2")
    if int(header.get("SamplesPerPixel") or 1) != 1 or not colours.startswith("MONOCHROME"):
        fault = f"has colours ({colours})"
    elif int(header.get("NumberOfFrames") or 1) > 1 and layers == [header]:
        fault = "has frames of which nothing says where each lies"
    elif header.get("ModalityLUTSequence"):
        fault = "maps its values by a table (Modality LUT)"
    elif not _possible(pixels):
        fault = (
            f"says it stores {pixels.bits_stored} bits up to bit {pixels.high_bit} of "
            f"{pixels.bits_allocated}"
        )
    elif pixels.slope == 0 or not math.isfinite(pixels.slope + pixels.intercept):
        fault = f"scales its values by {pixels.slope:g} and adds {pixels.intercept:g}"
    return Frame(
        file=file,
        number=number,
        image_uid=str(header.get("SOPInstanceUID", "")),
        class_uid=str(header.SOPClassUID),
        shape_IJ=(int(header.Columns), int(header.Rows)),
        corner_IJ=(0, 0),
        plane=plane,
        spacing_mm=_length_mm(layers, "SpacingBetweenSlices"),
        thickness_mm=_length_mm(layers, "SliceThickness"),
        pixels=pixels,
        traits=_traits(layers),
        order=_order(layers),
        fault=fault,
    )


def _plane(layers: list[Dataset]) -> tuple[Plane | None, str | None]:
    """Give the plane, or what is missing."""
    corner = _numbers(layers, "ImagePositionPatient", 3)
    cosines = _numbers(layers, "ImageOrientationPatient", 6)
    spacing = _numbers(layers, "PixelSpacing", 2)
    if corner is None or cosines is None or spacing is None:
        missing = "position" if corner is None else "orientation" if cosines is None else "spacing"
        return None, f"has no {missing} (of pixels in the patient)"
    row, column = lps(np.reshape(cosines, (2, 3)))
    products = row @ row - 1, column @ column - 1, row @ column
    if not np.abs(products).max() <= UNIT_TOLERANCE:
        return None, "has an orientation that is not two perpendicular directions"
    if not all(0 < edge < LONGEST_MM for edge in spacing) or not np.abs(corner).max() < 1e6:
        return None, f"has pixels of {spacing[1]:g} × {spacing[0]:g} mm at {corner} mm"
    along_i = row / np.linalg.norm(row) * spacing[1]
    along_j = column / np.linalg.norm(column) * spacing[0]
    return Plane(triple(lps(corner)), triple(along_i), triple(along_j)), None


def _index(layers: list[Dataset]) -> tuple[int, ...] | None:
    """Give an enhanced frame's index along each dimension of the file that is not its place."""
    values = _find(layers, "DimensionIndexValues")
    dimensions = layers[-1].get("DimensionIndexSequence") or ()
    if values is None or len(dimensions) != len(np.atleast_1d(values)):
        return None
    pointers = [int(dimension.DimensionIndexPointer) for dimension in dimensions]
    pairs = zip(pointers, np.atleast_1d(values).tolist(), strict=True)
    return tuple(int(value) for pointer, value in pairs if pointer not in PLACES)


def _length_mm(layers: Sequence[Dataset], name: str) -> float | None:
    """Give a length, None where it is not said or impossible (some say -1)."""
    length = _number(layers, name)
    return length if length and 0 < length < LONGEST_MM else None


def _possible(pixels: Pixels) -> bool:
    """Tell whether as many bits can be stored in as many, up to that one."""
    stored, high, allocated = pixels.bits_stored, pixels.high_bit, pixels.bits_allocated
    return allocated in (8, 16, 32, 64) and 1 <= stored <= high + 1 <= allocated


def pixels_of(layers: Sequence[Dataset]) -> Pixels:
    """Give how the pixels of a frame are stored; the last dataset is the file's."""
    header = layers[-1]
    allocated = int(header.get("BitsAllocated") or 0)
    stored = int(header.get("BitsStored") or allocated)
    slope, intercept = (_number(layers, name) for name in ("RescaleSlope", "RescaleIntercept"))
    return Pixels(
        bits_allocated=allocated,
        bits_stored=stored,
        high_bit=int(header.get("HighBit") or stored - 1),
        signed=bool(header.get("PixelRepresentation")),
        real="FloatPixelData" in header or "DoubleFloatPixelData" in header,
        rescaled=slope is not None or intercept is not None,
        slope=1.0 if slope is None else slope,
        intercept=intercept or 0.0,
    )


def _traits(layers: list[Dataset]) -> Traits:
    header = layers[-1]
    image_type = [str(part).upper() for part in _find(layers, "FrameType", "ImageType") or []]
    component = str(_find(layers, "ComplexImageComponent") or "")
    parts = [COMPONENTS[part] for part in (component, *image_type[2:]) if part in COMPONENTS]
    return {
        "space": str(header.get("FrameOfReferenceUID") or ""),
        "kind": "localizer" if "LOCALIZER" in image_type else "",
        "component": parts[0] if parts else "",
        "display": "inverted" if header.get("PhotometricInterpretation") == "MONOCHROME1" else "",
        "stack": str(_find(layers, "StackID") or ""),
        "time": _number(layers, "TemporalPositionIndex", "TemporalPositionIdentifier"),
    }


def _order(layers: list[Dataset]) -> Traits:
    """Give what may tell repeated places apart, the surest first; None where nothing is said."""
    header = layers[-1]
    acquired = _find(layers, "FrameAcquisitionDateTime", "AcquisitionDateTime")
    if acquired is None and header.get("AcquisitionTime"):
        acquired = f"{header.get('AcquisitionDate') or ''} {header.AcquisitionTime}"
    instance = header.get("InstanceNumber")
    gradient, b = _find(layers, "DiffusionGradientOrientation"), _number(layers, "DiffusionBValue")
    return {
        "echo": _number(layers, "EffectiveEchoTime", "EchoTime"),
        "b": b,
        "type": "\\".join(map(str, _find(layers, "FrameType", "ImageType") or [])) or None,
        "acquisition": _number(layers, "FrameAcquisitionNumber", "AcquisitionNumber"),
        "acquired": None if acquired is None else str(acquired),
        "trigger": _number(layers, "NominalCardiacTriggerDelayTime", "TriggerTime"),
        "gradient": None if b is None else (b, *(float(x) for x in gradient or ())),
        "index": _index(layers),
        "kernel": str(header.get("ConvolutionKernel") or "") or None,
        "flip": _number(layers, "FlipAngle"),
        "inversion": _number(layers, "InversionTime"),
        "instance": None if instance is None or len(layers) > 1 else int(instance),
    }
