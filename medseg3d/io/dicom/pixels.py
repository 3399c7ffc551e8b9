"""Pixels of frames: decoded, cut free of unused bits, and scaled to the values they stand for."""

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
from jaxtyping import Shaped
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import UID, JPEGExtended12Bit, RLELossless, SecondaryCaptureImageStorage

from medseg3d.arrays import ArrayIJK
from medseg3d.errors import FormatError
from medseg3d.io.dicom.frames import Frame, Pixels
from medseg3d.io.dicom.headers import DicomFile, guarded, read_header

LARGEST_PLANE: Final = 2**27
"""Pixels of one plane; beyond, the header is wrong."""

LARGEST_BYTES: Final = 2**34
"""16 GiB of voxels; beyond any scan."""

INTEGERS: Final = ("uint8", "int16", "uint16", "int32", "uint32", "int64")
"""Dtypes of unscaled values; the first that holds what the bits can say is taken."""

IMAGE_PIXEL: Final = (
    "SamplesPerPixel", "PhotometricInterpretation", "Rows", "Columns", "BitsAllocated",
    "BitsStored", "HighBit", "PixelRepresentation",
)  # fmt: skip
"""All that a codec needs to know."""


def read_pixels(frames: Sequence[Frame]) -> ArrayIJK:
    """Read the values of a stack, frame k as slice k, in the order of a NIfTI file.

    Integers stay integers where slope and intercept leave them so, in 8 or 16 bits where those
    hold every value; else float32 (float64 for more than 24 bits). Values of
    MONOCHROME1, which are shown from white to black, are given as they are stored.

    Raises:
        FormatError: damaged or truncated pixels, more than 16 GiB, or no codec for them.
    """
    columns, rows = frames[0].shape_IJ
    dtype = value_dtype([frame.pixels for frame in frames])
    if (
        columns * rows > LARGEST_PLANE
        or columns * rows * len(frames) * dtype.itemsize > LARGEST_BYTES
    ):
        raise FormatError(
            f"'{frames[0].name}' promises {columns}×{rows} pixels in {len(frames)} slices of "
            f"{dtype}; medseg3d reads at most {LARGEST_BYTES} bytes"
        )
    values_KJI = np.empty((len(frames), rows, columns), dtype=dtype)
    places: dict[DicomFile, list[int]] = defaultdict(list)
    for k, frame in enumerate(frames):
        places[frame.file].append(k)

    def fill(file: DicomFile) -> None:
        own = [frames[k] for k in places[file]]
        for k, frame, stored in zip(places[file], own, _stored(file, own), strict=True):
            _scale(stored, frame, out=values_KJI[k])

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for _ in pool.map(fill, places):
            pass
    return _narrowed(values_KJI).T


def value_dtype(pixels: Sequence[Pixels]) -> np.dtype[Any]:
    """Give the dtype that holds every value such pixels can stand for."""
    most_bits = max(p.bits_stored for p in pixels)
    if any(p.real or p.slope != 1 or p.intercept % 1 for p in pixels):
        return np.dtype(np.float64 if most_bits > 24 and not _only_float32(pixels) else np.float32)
    lows = [p.intercept - (2 ** (p.bits_stored - 1) if p.signed else 0) for p in pixels]
    highs = [p.intercept + 2 ** (p.bits_stored - p.signed) - 1 for p in pixels]
    for name in INTEGERS:
        if np.iinfo(name).min <= min(lows) and max(highs) <= np.iinfo(name).max:
            return np.dtype(name)
    return np.dtype(np.float64)


def _narrowed(values: Shaped[np.ndarray, "K J I"]) -> Shaped[np.ndarray, "K J I"]:
    """Store wide integers in 16 bits if they fit: scanners say 16 bits and use twelve."""
    if values.dtype.kind == "f" or values.dtype.itemsize < 4:
        return values
    low, high = values.min(), values.max()
    for name in ("int16", "uint16"):
        if np.iinfo(name).min <= low and high <= np.iinfo(name).max:
            return values.astype(name)
    return values


def _only_float32(pixels: Sequence[Pixels]) -> bool:
    return all(p.real and p.bits_allocated == 32 for p in pixels)


def _stored(file: DicomFile, frames: Sequence[Frame]) -> Iterator[Shaped[np.ndarray, "J I"]]:
    """Give each frame's pixels as they are stored, cut out of their mosaic."""
    header = read_header(file, pixels=True)
    with guarded(file):
        numbers = sorted({frame.number for frame in frames})
        planes = dict(zip(numbers, _decoded(header, numbers), strict=True))
        for frame in frames:
            (i, j), (columns, rows) = frame.corner_IJ, frame.shape_IJ
            yield planes[frame.number][j : j + rows, i : i + columns]


def _decoded(header: Dataset, numbers: Sequence[int]) -> Iterator[Shaped[np.ndarray, "J I"]]:
    syntax = UID(header.file_meta.TransferSyntaxUID) if "file_meta" in vars(header) else UID("")
    if "PixelData" in header and syntax.is_encapsulated:
        count = int(header.get("NumberOfFrames") or 1)
        wanted = {*numbers}
        for number, data in enumerate(generate_frames(header.PixelData, number_of_frames=count)):
            if number in wanted:
                yield _decompressed(header, data, syntax)
        return
    _require_length(header)
    for plane, _ in get_decoder(syntax).iter_array(header, indices=numbers, raw=True):
        yield plane


def _require_length(header: Dataset) -> None:
    """See that there are as many bytes as pixels."""
    kinds = [k for k in ("PixelData", "FloatPixelData", "DoubleFloatPixelData") if k in header]
    if len(kinds) != 1:
        raise FormatError(f"holds {len(kinds)} sets of pixels; expected one")
    count = int(header.get("NumberOfFrames") or 1)
    needed = int(header.Rows) * int(header.Columns) * count * int(header.BitsAllocated) // 8
    found = len(header[kinds[0]].value)
    if not needed <= found <= needed + 1:
        raise FormatError(
            f"promises {needed} bytes of pixels and holds {found}: it is truncated or its header "
            "is wrong. Copy or export it again."
        )


def _decompressed(header: Dataset, data: bytes, syntax: UID) -> Shaped[np.ndarray, "J I"]:
    if syntax != RLELossless and b"\xff\xd9" not in data[-4:]:
        raise FormatError("is truncated: its compressed pixels have no end")
    bare = Dataset()
    for name in IMAGE_PIXEL:
        setattr(bare, name, header[name].value)
    bare.PixelData = encapsulate([data])
    bare["PixelData"].VR = "OB"
    bare.file_meta = FileMetaDataset()
    bare.file_meta.TransferSyntaxUID = syntax
    decoder = get_decoder(syntax)
    if decoder.is_available and not (syntax == JPEGExtended12Bit and bare.BitsStored > 8):
        plane, _ = decoder.as_array(bare, index=0, raw=True)
        return plane
    return _decompressed_by_itk(bare)


def _decompressed_by_itk(bare: Dataset) -> Shaped[np.ndarray, "J I"]:
    """Decode with SimpleITK, which knows lossless JPEG; it sees a file of pixels alone."""
    import SimpleITK  # noqa: PLC0415

    bare.PhotometricInterpretation = "MONOCHROME2"  # MONOCHROME1 would come back inverted
    bare.SOPClassUID = SecondaryCaptureImageStorage
    bare.SOPInstanceUID = bare.file_meta.MediaStorageSOPInstanceUID = UID("2.25.1")
    bare.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    with TemporaryDirectory() as folder:
        path = Path(folder, "frame.dcm")
        bare.save_as(path, enforce_file_format=True)
        try:
            image = SimpleITK.ReadImage(str(path), imageIO="GDCMImageIO")
        except RuntimeError as error:
            raise FormatError(
                "is compressed in a way that no codec here reads "
                f"({bare.file_meta.TransferSyntaxUID.name})"
            ) from error
    return SimpleITK.GetArrayFromImage(image)[0]


def _scale(
    stored: Shaped[np.ndarray, "J I"], frame: Frame, *, out: Shaped[np.ndarray, "J I"]
) -> None:
    """Put the values that stored pixels stand for into `out`."""
    pixels = frame.pixels
    if stored.shape != out.shape:
        raise FormatError(f"'{frame.name}' has {stored.shape} pixels, expected {out.shape}")
    if not pixels.real:
        stored = _used_bits(stored, pixels)
    if out.dtype.kind == "f":
        out[...] = stored * np.float64(pixels.slope) + pixels.intercept
    else:
        np.add(stored, int(pixels.intercept), out=out, dtype=out.dtype, casting="unsafe")


def _used_bits(stored: Shaped[np.ndarray, "J I"], pixels: Pixels) -> Shaped[np.ndarray, "J I"]:
    """Drop what other software has put into the bits around the stored ones."""
    allocated = pixels.bits_allocated
    if stored.dtype.itemsize * 8 != allocated:
        raise FormatError(f"has pixels of {stored.dtype}, its header says {allocated} bits")
    dtype = np.dtype(f"{'i' if pixels.signed else 'u'}{allocated // 8}")
    left, right = allocated - 1 - pixels.high_bit, allocated - pixels.bits_stored
    if not 0 <= left <= right < allocated:
        raise FormatError(
            f"is damaged: {pixels.bits_stored} bits up to bit {pixels.high_bit} of {allocated}"
        )
    return (
        (stored.astype(dtype.newbyteorder("="), copy=False) << left) >> right
        if right
        else stored.view(dtype)
    )
