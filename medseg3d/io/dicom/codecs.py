"""Compressed pixels of one frame: checked, then decoded by pydicom's plug-ins or by SimpleITK."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np
from jaxtyping import Shaped
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import (
    UID,
    JPEG2000TransferSyntaxes,
    JPEGExtended12Bit,
    JPEGLSTransferSyntaxes,
    JPEGTransferSyntaxes,
    RLELossless,
    SecondaryCaptureImageStorage,
)

from medseg3d.errors import FormatError

IMAGE_PIXEL: Final = (
    "SamplesPerPixel", "PhotometricInterpretation", "Rows", "Columns", "BitsAllocated",
    "BitsStored", "HighBit", "PixelRepresentation",
)  # fmt: skip
"""All that a codec needs to know."""

END_OF_IMAGE: Final = b"\xff\xd9"
"""Last marker of every JPEG, JPEG-LS and JPEG 2000; an odd length is padded."""

FRAME_MARKERS: Final = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
"""Second bytes of the markers before the size of a JPEG or JPEG-LS image."""


def decompress(header: Dataset, data: bytes, syntax: UID) -> Shaped[np.ndarray, "J I"]:
    """Decode the pixels of one frame; of RLE all bits that are allocated, else the values stored.

    Raises:
        FormatError: truncated, of another size than the header says, or no codec reads it.
    """
    bare = Dataset()
    for name in IMAGE_PIXEL:
        setattr(bare, name, header[name].value)
    if syntax == RLELossless:
        bare.BitsStored, bare.HighBit = bare.BitsAllocated, bare.BitsAllocated - 1
    else:
        _require_whole(data, (int(bare.Rows), int(bare.Columns)), syntax)
    bare.PixelData = encapsulate([data])
    bare["PixelData"].VR = "OB"
    bare.file_meta = FileMetaDataset()
    bare.file_meta.TransferSyntaxUID = syntax
    try:
        decoder = get_decoder(syntax)
    except (NotImplementedError, ValueError):
        raise FormatError(f"is compressed in a way that no codec here reads ({syntax})") from None
    if decoder.is_available and not (syntax == JPEGExtended12Bit and bare.BitsStored > 8):
        plane, _ = decoder.as_array(bare, index=0, raw=True)
    else:
        plane = _decompress_by_itk(bare, data)
    if syntax != RLELossless:
        _require_range(plane, int(header.BitsStored), signed=bool(header.PixelRepresentation))
    return plane


def _require_whole(data: bytes, shape: tuple[int, int], syntax: UID) -> None:
    """See that a frame has an end, and the size that the header says."""
    if END_OF_IMAGE not in data[-4:]:
        raise FormatError("is truncated: its compressed pixels have no end")
    if syntax in (*JPEGTransferSyntaxes, *JPEGLSTransferSyntaxes):
        coded: tuple[int, ...] | None = _jpeg_frame(data)[1:]
    elif syntax in JPEG2000TransferSyntaxes:
        coded = _jpeg2000_shape(data)
    else:
        return
    if coded != shape:
        raise FormatError(
            f"is damaged: its compressed pixels are {coded} rows and columns, its header says "
            f"{shape}"
        )


def _require_range(plane: Shaped[np.ndarray, "J I"], bits: int, *, signed: bool) -> None:
    """See that no value needs more bits than are said to be stored."""
    low, high = int(plane.min()), int(plane.max())
    least, most = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    if low < least or high > most:
        raise FormatError(f"holds values from {low} to {high} and says it stores {bits} bits each")


def _jpeg_frame(data: bytes) -> tuple[int, int, int]:
    """Read bits, rows and columns from the frame header, or zeros where there is none.

    ISO/IEC 10918-1 B.2.2 and 14495-1 C.2.2.
    """
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if marker in FRAME_MARKERS:
            rows, columns = data[at + 5 : at + 7], data[at + 7 : at + 9]
            return data[at + 4], int.from_bytes(rows, "big"), int.from_bytes(columns, "big")
        at += 1 if marker == 0xFF else 2 + length
    return 0, 0, 0


def _jpeg2000_shape(data: bytes) -> tuple[int, int] | None:
    """Read rows and columns from the marker SIZ, ISO/IEC 15444-1 A.5.1."""
    at = data.find(b"\xff\x4f\xff\x51")
    if at < 0 or len(data) < at + 24:
        return None
    right, low, left, top = (
        int.from_bytes(data[at + n : at + n + 4], "big") for n in (8, 12, 16, 20)
    )
    return low - top, right - left


def _decompress_by_itk(bare: Dataset, data: bytes) -> Shaped[np.ndarray, "J I"]:
    """Decode with SimpleITK, which knows lossless JPEG; it sees a file of pixels alone."""
    import SimpleITK  # noqa: PLC0415

    syntax = bare.file_meta.TransferSyntaxUID
    bare.PhotometricInterpretation = "MONOCHROME2"  # MONOCHROME1 would come back inverted
    bits, *_ = _jpeg_frame(data)
    if not bare.PixelRepresentation or bits == bare.BitsAllocated:
        # else values of more bits than are said would be cut
        bare.BitsStored, bare.HighBit = bare.BitsAllocated, bare.BitsAllocated - 1
    bare.SOPClassUID = bare.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    bare.SOPInstanceUID = bare.file_meta.MediaStorageSOPInstanceUID = UID("2.25.1")
    with TemporaryDirectory() as folder:
        path = Path(folder, "frame.dcm")
        bare.save_as(path, enforce_file_format=True)
        try:
            image = SimpleITK.ReadImage(str(path), imageIO="GDCMImageIO")
        except RuntimeError as error:
            raise FormatError(
                f"is compressed in a way that no codec here reads, or damaged ({syntax.name})"
            ) from error
    return SimpleITK.GetArrayFromImage(image)[0]
