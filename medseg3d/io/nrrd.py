"""NRRD, `.nrrd` and `.nhdr`: a header of text, and voxels behind it or in a file beside it.

Source: "Definition of NRRD File Format", teem.sourceforge.net/nrrd/format.html. ITK's own reader
takes voxels with a wrong checksum for sound, so they are unpacked here.
"""

import math
import re
from pathlib import Path
from typing import Final

import numpy as np

from medseg3d.arrays import Affine
from medseg3d.errors import FormatError
from medseg3d.io.atomic import write_atomically
from medseg3d.io.itk import LPS, grid_of, ras_affine, storable
from medseg3d.io.layout import Layout, file_beside, read_layout
from medseg3d.io.text_header import TextHeader, parse_numbers, quoted, read_text_header
from medseg3d.io.voxels import opened, pack, voxel_bytes
from medseg3d.volume import Volume

SPACES: Final = {
    "left-posterior-superior": LPS, "lps": LPS,
    "right-anterior-superior": (1, 1, 1), "ras": (1, 1, 1),
    "left-anterior-superior": (-1, 1, 1), "las": (-1, 1, 1),
}  # fmt: skip
"""Name of a space -> signs that make it RAS+."""

DTYPES: Final = {
    name: dtype
    for dtype, names in {
        "i1": "signed char, int8, int8_t",
        "u1": "uchar, unsigned char, uint8, uint8_t",
        "i2": "short, short int, signed short, signed short int, int16, int16_t",
        "u2": "ushort, unsigned short, unsigned short int, uint16, uint16_t",
        "i4": "int, signed int, int32, int32_t",
        "u4": "uint, unsigned int, uint32, uint32_t",
        "i8": "longlong, long long, long long int, signed long long, signed long long int, int64, "
        "int64_t",
        "u8": "ulonglong, unsigned long long, unsigned long long int, uint64, uint64_t",
        "f4": "float",
        "f8": "double",
    }.items()
    for name in names.split(", ")
}
"""Name of a type -> NumPy's."""

PACKINGS: Final = {"raw": None, "gzip": "gzip", "gz": "gzip"}
"""Name of an encoding -> how the bytes are packed."""

UNNAMED_SPACES: Final = ("", "scanner-xyz", "3d-right-handed", "3d-left-handed")
"""Names of spaces that do not say left from right."""

MILLIMETRES: Final = {"", "mm", "millimeter", "millimeters", "millimetre", "millimetres", "???"}
"""What a unit may be called."""

SPATIAL_KINDS: Final = {"domain", "space", "???", "none"}
"""Kinds of axes that are not channels."""

CHANNEL_KINDS: Final = re.compile(
    r"time|list|point|(covariant-)?vector|normal|stub|scalar|complex|quaternion|"
    r"[234]-(vector|color|gradient|normal)|(rgba?|hsv|xyz)-color|[23]d-(masked-)?(symmetric-)?matrix"
)
"""Kinds of axes that are."""

VECTOR: Final = re.compile(r"\(([^()]*)\)|none")
"""A direction, or that there is none."""

ENDIANS: Final = {"little": "<", "big": ">"}
"""Name of a byte order -> NumPy's."""

TYPES: Final = {"f4": "float", "f8": "double"}
"""What NumPy's types are called in a file that is written, where not as in NumPy."""


def read_nrrd(path: Path) -> Volume:
    """Read a `.nrrd` or `.nhdr` file of two or three axes; one more becomes the channels.

    Voxels are raw or packed with gzip, behind the header or in one file of its folder. The place is
    that of `space directions` and `space origin`; a flat image gets a third axis of 1 mm along its
    normal. Where the header names no place, or a space that does not say left from right, its
    numbers are read as LPS, as ITK does, and that is logged.

    Raises:
        FormatError: no such file, truncated, damaged, not NRRD, larger than its data, of another
            encoding, of blocks, of more than four axes, in another unit than the millimetre, or
            with its voxels outside its folder.
    """
    with opened(path) as stream:
        magic = stream.readline(16)
        if not re.fullmatch(rb"NRRD000[1-5]\r?\n", magic):
            raise FormatError(
                "is no NRRD file: it does not begin with 'NRRD0001' to 'NRRD0005'. Check what was "
                "exported under this name."
            )
        layout = _layout(path, read_text_header(stream, split=_field), len(magic))
    return read_layout(layout, path)


def write_nrrd(volume: Volume, path: Path) -> None:
    """Write a `.nrrd` file, packed with gzip; several channels become the last axis.

    The same volume gives the same bytes, and the affine is kept to the last bit.

    Raises:
        ConfigError: NRRD has no such dtype, or as `write_atomically`.
    """
    array = np.moveaxis(storable(volume.array_CIJK, kind="NRRD"), 0, -1)
    array = array if volume.num_channels > 1 else array[..., 0]
    columns = (np.diag(LPS) @ volume.affine[:3] + 0.0).T.tolist()  # no -0
    vectors = [f"({','.join(map(repr, column))})" for column in columns]
    lines = [
        "NRRD0004",
        f"type: {TYPES.get(array.dtype.str[1:], array.dtype.name)}",
        f"dimension: {array.ndim}",
        "space: left-posterior-superior",
        f"sizes: {' '.join(map(str, array.shape))}",
        f"space directions: {' '.join([*vectors[:3], 'none'][: array.ndim])}",
        f"kinds: {' '.join(['domain', 'domain', 'domain', 'list'][: array.ndim])}",
        "endian: little",
        "encoding: gzip",
        f"space origin: {vectors[3]}",
    ]
    head = ("\n".join(lines) + "\n\n").encode()
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    write_atomically(path, head + pack("gzip", voxel_bytes(little)))


def _field(line: str) -> tuple[str, str] | None:
    if line.startswith("#") or ":=" in line:
        return None
    name, separator, value = line.partition(":")
    if not separator:
        raise FormatError(f"is damaged: its header holds the line {quoted(line)}, no field")
    return re.sub(r"\s+", "", name), value


def _layout(path: Path, header: TextHeader, before: int) -> Layout:
    dtype = DTYPES[header.choice("type", known=DTYPES)]
    sizes = tuple(header.numbers("sizes", kind=int))
    if [len(sizes)] != header.numbers("dimension", kind=int) or not 2 <= len(sizes) <= 4:
        raise FormatError(
            f"has {len(sizes)} axes; expected two to four, as many as its header's dimension. "
            "Split the file first."
        )
    if min(sizes) < 1:
        raise FormatError(f"is damaged: its header speaks of axes of {sizes} voxels")
    channel_axis = _channel_axis(header, len(sizes))
    spatial = [axis for axis in range(len(sizes)) if axis != channel_axis]
    affine, doubt = _place(header, spatial)
    if not dtype.endswith("1"):
        dtype = ENDIANS[header.choice("endian", known=ENDIANS)] + dtype
    packing = PACKINGS[header.choice("encoding", known=PACKINGS)]
    beside = header.text("datafile", default="")
    first = 0 if beside else before + header.length
    skipped = header.integer("byteskip", default=0, least=0 if packing else -1)
    header.integer("lineskip", default=0, least=0, most=0)
    plain = first + skipped if skipped >= 0 else None
    return Layout(
        grid=grid_of([sizes[axis] for axis in spatial], affine),
        sizes=sizes,
        channel_axis=channel_axis,
        dtype=np.dtype(dtype),
        path=file_beside(path, beside) if beside else path,
        packing=packing,
        offset=first if packing else plain,
        unpacked_offset=skipped if packing else 0,
        doubt=doubt,
    )


def _channel_axis(header: TextHeader, rank: int) -> int | None:
    """Find the axis that is not one of space; of four axes without a mark, the last."""
    kinds = header.text("kinds", default="").lower().split()
    directions = _directions(header)
    if any(len(marks) not in (0, rank) for marks in (kinds, directions)):
        raise FormatError(f"is damaged: its header describes more or less than {rank} axes")
    if other := [k for k in kinds if k not in SPATIAL_KINDS and not CHANNEL_KINDS.fullmatch(k)]:
        raise FormatError(f"has an axis of the kind {quoted(other[0])}, which NRRD does not know")
    marked = {n for n, kind in enumerate(kinds) if kind not in SPATIAL_KINDS}
    marked |= {n for n, direction in enumerate(directions) if direction is None}
    if len(marked) > 1 or rank - len(marked) < 2:
        raise FormatError(
            f"has {rank} axes, {rank - len(marked)} of them of space; expected two or three, and "
            "at most one more for channels. Split the file first."
        )
    return min(marked, default=3 if rank == 4 else None)


def _directions(header: TextHeader) -> list[list[float] | None]:
    text = header.text("spacedirections", default="")
    if VECTOR.sub("", text).strip():
        raise FormatError(f"is damaged: its header says space directions {quoted(text)}")
    return [None if found[0] == "none" else _vector(found[1]) for found in VECTOR.finditer(text)]


def _vector(text: str) -> list[float]:
    """Give three numbers of two to four: flat images have no third, a fourth is time."""
    vector = parse_numbers(text.replace(",", " "), "place", float)
    if len(vector) not in (2, 3, 4):
        raise FormatError(f"is damaged: its header says a place of {len(vector)} numbers")
    return [*vector, 0.0][:3]


def _place(header: TextHeader, spatial: list[int]) -> tuple[Affine, str | None]:
    """Give the affine in RAS+, and what had to be decided for it."""
    units = re.findall(r'"([^"]*)"', header.text("spaceunits", default=""))
    if other := {unit.strip().lower() for unit in units} - MILLIMETRES:
        raise FormatError(f"gives lengths in {quoted(min(other))}; expected mm. Convert it first.")
    space = header.choice("space", known=(*SPACES, *UNNAMED_SPACES), default="")
    directions = _directions(header)
    rank = max(spatial) + 1
    spacings = header.numbers("spacings", kind=float, default="1 " * rank)
    if len(spacings) < rank:
        raise FormatError(f"is damaged: its header has {len(spacings)} spacings, expected {rank}")
    spaced = np.array([spacings[axis] for axis in spatial])
    with np.errstate(all="ignore"):  # Grid refuses what comes out
        axes = (np.eye(3)[: len(spatial)] * spaced[:, np.newaxis]).tolist()
    if directions:
        axes = [directions[axis] or [] for axis in spatial]
    origin = VECTOR.fullmatch(header.text("spaceorigin", default="(0,0,0)"))
    first = _vector(origin[1] or "") if origin else [math.nan] * 3
    affine = ras_affine(axes, first, signs=SPACES.get(space, LPS))
    if directions and space in SPACES and "spaceorigin" in header.fields:
        return affine, None
    return affine, (
        "does not say where its voxels lie in the patient; its numbers are read as LPS, as ITK "
        "does: sides may be swapped"
    )
