"""Pixels of frames: decoded, cut free of unused bits, and scaled to the values they stand for."""

import math
import os
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import numpy as np
from jaxtyping import Shaped
from pydicom import Dataset
from pydicom.encaps import generate_frames
from pydicom.uid import UID, RLELossless

from medseg3d.arrays import ArrayIJK
from medseg3d.errors import FormatError
from medseg3d.io.dicom.attributes import frames_of, pixels_of
from medseg3d.io.dicom.codecs import decompress
from medseg3d.io.dicom.frames import Frame, Pixels
from medseg3d.io.dicom.headers import DicomFile, guarded, read_header
from medseg3d.io.voxels import LARGEST_BYTES

LARGEST_PLANE: Final = 2**27
"""Pixels of one plane; beyond, the header is wrong."""

INTEGERS: Final = ("uint8", "int16", "uint16", "int32", "uint32", "int64")
"""Dtypes of unscaled values; the first that holds what the bits can say is taken."""


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
    shape_KJI = len(frames), rows, columns
    if dtype.kind in "iu" and dtype.itemsize > 2:  # scanners say 16 bits and use twelve
        narrow = np.empty(shape_KJI, dtype=np.int16 if dtype.kind == "i" else np.uint16)
        if _fill(narrow, frames):
            return narrow.T
    values_KJI = np.empty(shape_KJI, dtype=dtype)
    _fill(values_KJI, frames)
    return values_KJI.T


def _fill(values_KJI: Shaped[np.ndarray, "K J I"], frames: Sequence[Frame]) -> bool:
    """Read every frame into its slice; False where values do not fit into the dtype."""
    places: dict[DicomFile, list[int]] = defaultdict(list)
    for k, frame in enumerate(frames):
        places[frame.file].append(k)

    def fill(file: DicomFile) -> bool:
        own = [frames[k] for k in places[file]]
        return all(
            _scale(stored, frame.pixels, out=values_KJI[k])
            for k, frame, stored in zip(places[file], own, _values(file, own), strict=True)
        )

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return all(pool.map(fill, places))


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


def _only_float32(pixels: Sequence[Pixels]) -> bool:
    return all(p.real and p.bits_allocated == 32 for p in pixels)


def _values(file: DicomFile, frames: Sequence[Frame]) -> Iterator[Shaped[np.ndarray, "J I"]]:
    """Give each frame's pixels as they are stored, cut out of their mosaic."""
    header = read_header(file, pixels=True)
    with guarded(file):
        now = {(frame.number, frame.corner_IJ): frame for frame in frames_of(file, header)}
        if any(now.get((frame.number, frame.corner_IJ)) != frame for frame in frames):
            raise FormatError("has changed since it was found, or its attributes are disordered")
        planes = dict(read_planes(header, {frame.number for frame in frames}))
        for frame in frames:
            (i, j), (columns, rows) = frame.corner_IJ, frame.shape_IJ
            yield planes[frame.number][j : j + rows, i : i + columns]


def read_planes(
    header: Dataset, numbers: Collection[int]
) -> Iterator[tuple[int, Shaped[np.ndarray, "J I"]]]:
    """Give the number and the stored pixels of these frames, cut free of unused bits.

    Call it `guarded`.

    Raises:
        FormatError: pixels that are truncated, or that no codec here reads.
    """
    meta = getattr(header, "file_meta", {})
    syntax = UID(meta.get("TransferSyntaxUID") or "")
    if syntax and not syntax.is_transfer_syntax:
        raise FormatError(f"has pixels of the unknown transfer syntax {syntax}")
    pixels = pixels_of([header])
    if "PixelData" not in header or not syntax or not syntax.is_encapsulated:
        for number, plane in enumerate(_plain_planes(header)):
            if number in numbers:
                yield number, plane if pixels.real else _used_bits(plane, pixels)
        return
    count = int(header.get("NumberOfFrames") or 1)
    for number, data in enumerate(generate_frames(header.PixelData, number_of_frames=count)):
        if number in numbers:
            plane = decompress(header, data, syntax)
            yield number, _used_bits(plane, pixels) if syntax == RLELossless else plane


def _plain_planes(header: Dataset) -> Shaped[np.ndarray, "K J I"]:
    """View the bytes of pixels that are not compressed, all of which have to be there."""
    kinds = [k for k in ("PixelData", "FloatPixelData", "DoubleFloatPixelData") if k in header]
    if len(kinds) != 1:
        raise FormatError(f"holds {len(kinds)} sets of pixels; expected one")
    pixels, data = pixels_of([header]), header[kinds[0]].value
    shape = int(header.get("NumberOfFrames") or 1), int(header.Rows), int(header.Columns)
    needed = math.prod(shape) * pixels.bits_allocated // 8
    if pixels.bits_allocated not in (8, 16, 32, 64) or not needed <= len(data) <= needed + 1:
        raise FormatError(
            f"promises {needed} bytes of pixels ({pixels.bits_allocated} bits each) and holds "
            f"{len(data)}: it is truncated or its header is wrong. Copy or export it again."
        )
    _, little = header.original_encoding
    kind = "f" if pixels.real else "u"
    dtype = np.dtype(f"{'<' if little else '>'}{kind}{pixels.bits_allocated // 8}")
    if pixels.bits_allocated == 8 and not little and header[kinds[0]].VR == "OW":
        data = np.frombuffer(data, np.uint16).byteswap().tobytes()
    planes = np.frombuffer(data, dtype, count=math.prod(shape)).reshape(shape)
    return planes.astype(dtype.newbyteorder("="), copy=False)


def _used_bits(stored: Shaped[np.ndarray, "J I"], pixels: Pixels) -> Shaped[np.ndarray, "J I"]:
    """Drop what other software has put into the bits around the stored ones."""
    allocated = pixels.bits_allocated
    left, right = allocated - 1 - pixels.high_bit, allocated - pixels.bits_stored
    if stored.dtype.itemsize * 8 != allocated or not 0 <= left <= right < allocated:
        raise FormatError(
            f"is damaged: {pixels.bits_stored} bits up to bit {pixels.high_bit} of {allocated}"
        )
    exact = stored.view(f"{'i' if pixels.signed else 'u'}{allocated // 8}")
    return (exact << left) >> right if right else exact


def _scale(
    stored: Shaped[np.ndarray, "J I"], pixels: Pixels, *, out: Shaped[np.ndarray, "J I"]
) -> bool:
    """Put the values that stored pixels stand for into `out`; False where they do not fit."""
    if out.dtype.kind == "f":
        out[...] = stored * np.float64(pixels.slope) + pixels.intercept
        return True
    shift, limits = int(pixels.intercept), np.iinfo(out.dtype)
    if not limits.min <= int(stored.min()) + shift <= int(stored.max()) + shift <= limits.max:
        return False
    np.add(
        stored,
        shift,
        out=out,
        dtype=np.int64 if stored.itemsize > 2 else np.int32,
        casting="unsafe",
    )
    return True
