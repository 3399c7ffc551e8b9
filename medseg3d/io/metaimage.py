"""MetaImage, `.mha` and `.mhd`: a header of text, and voxels behind it or in a file beside it.

Source: "MetaIO/Documentation", itk.org/Wiki/MetaIO. ITK's own reader takes voxels that do not
unpack for sound, so they are unpacked here.
"""

from pathlib import Path
from typing import Final

import numpy as np

from medseg3d.arrays import Affine
from medseg3d.errors import FormatError
from medseg3d.io.atomic import write_atomically
from medseg3d.io.itk import LPS, grid_of, ras_affine, storable
from medseg3d.io.layout import Layout, file_beside, read_layout
from medseg3d.io.text_header import TextHeader, quoted, read_text_header
from medseg3d.io.voxels import opened, pack, voxel_bytes
from medseg3d.volume import Volume

DTYPES: Final = {
    "met_char": "i1", "met_uchar": "u1", "met_short": "i2", "met_ushort": "u2",
    "met_int": "i4", "met_uint": "u4", "met_long": "i4", "met_ulong": "u4",
    "met_long_long": "i8", "met_ulong_long": "u8", "met_float": "f4", "met_double": "f8",
}  # fmt: skip
"""Name of a type, in lower case -> NumPy's."""

TYPES: Final = {dtype: name.upper() for name, dtype in DTYPES.items() if "g" not in name[:8]} | {
    "i8": "MET_LONG_LONG", "u8": "MET_ULONG_LONG",
}  # fmt: skip
"""NumPy's name of a type -> that in a file that is written."""

YES: Final = {"true": True, "false": False, "1": True, "0": False}

LAST: Final = "elementdatafile"
"""The field that ends a header."""


def read_metaimage(path: Path) -> Volume:
    """Read a `.mha` or `.mhd` file of two or three axes; a fourth or elements become the channels.

    Voxels are raw or packed with zlib, behind the header or in one file of its folder. The place is
    LPS, as ITK reads it; a flat image gets a third axis of 1 mm along its normal. Where the header
    has no origin or no axes, that is logged.

    Raises:
        FormatError: no such file, truncated, damaged, not MetaImage, larger than its data, of
            text instead of bytes, of more than four axes, in another unit than the millimetre, or
            with its voxels outside its folder or in many files.
    """
    with opened(path) as stream:
        layout = _layout(path, read_text_header(stream, split=_field, last=LAST))
    return read_layout(layout, path)


def write_metaimage(volume: Volume, path: Path) -> None:
    """Write a `.mha` file packed with zlib, or a `.mhd` file and its voxels beside it as `.raw`.

    The header of a `.mhd` is written last. Several channels become elements. The same volume gives
    the same bytes; the axes of the affine are kept but for their last bit.

    Raises:
        ConfigError: MetaImage has no such dtype, or as `write_atomically`.
    """
    array_CIJK = storable(volume.array_CIJK, kind="MetaImage")
    voxels = voxel_bytes(array_CIJK)
    alone = path.suffix.lower() == ".mha"
    beside = path.with_suffix(".raw")
    data = pack("zlib", voxels) if alone else bytes(voxels)
    columns = np.diag(LPS) @ volume.affine[:3] + 0.0  # no -0
    spacing = np.array(volume.spacing_mm)
    lines = [
        "ObjectType = Image",
        "NDims = 3",
        "BinaryData = True",
        "BinaryDataByteOrderMSB = False",
        *([f"CompressedData = True\nCompressedDataSize = {len(data)}"] if alone else []),
        f"TransformMatrix = {_words((columns[:, :3] / spacing).T)}",
        f"Offset = {_words(columns[:, 3])}",
        "CenterOfRotation = 0 0 0",
        f"ElementSpacing = {_words(spacing)}",
        f"DimSize = {' '.join(map(str, volume.shape_IJK))}",
        *([f"ElementNumberOfChannels = {volume.num_channels}"] if volume.num_channels > 1 else []),
        f"ElementType = {TYPES[array_CIJK.dtype.str[1:]]}",
        f"ElementDataFile = {'LOCAL' if alone else beside.name}",
    ]
    head = ("\n".join(lines) + "\n").encode()
    if not alone:
        write_atomically(beside, data)
    write_atomically(path, head + data if alone else head)


def _words(numbers: np.ndarray) -> str:
    return " ".join(map(repr, numbers.ravel().tolist()))


def _field(line: str) -> tuple[str, str]:
    name, separator, value = line.partition("=")
    if not separator:
        raise FormatError(
            f"is no MetaImage file, or damaged: its header holds the line {quoted(line)}, no field"
        )
    return name, value


def _layout(path: Path, header: TextHeader) -> Layout:
    header.choice("objecttype", known=("image",), default="image")
    rank = header.integer("ndims", least=2, most=4)
    sizes = tuple(header.numbers("dimsize", kind=int))
    if len(sizes) != rank or min(sizes) < 1:
        raise FormatError(f"is damaged: its header speaks of {rank} axes of {sizes[:8]} voxels")
    elements = header.integer("elementnumberofchannels", default=1, least=1)
    if rank == 4 and elements > 1:
        raise FormatError("has four axes of several elements; expected one or the other. Split it.")
    if not YES[header.choice("binarydata", known=YES, default="true")]:
        raise FormatError("holds its voxels as text; expected BinaryData = True. Convert it first.")
    affine, doubt = _place(header, rank)
    dtype = DTYPES[header.choice("elementtype", known=DTYPES)]
    big = header.choice("binarydatabyteordermsb", "elementbyteordermsb", known=YES, default="false")
    beside = header.text(LAST)
    local = beside.upper() == "LOCAL"
    packed = YES[header.choice("compresseddata", known=YES, default="false")]
    if "compresseddatasize" in header.fields and not packed:
        raise FormatError("is damaged: its header gives a compressed size, but no compression")
    before = header.integer("headersize", default=0, least=-1 if not packed else 0)
    return Layout(
        grid=grid_of(sizes[:3], affine),
        sizes=(elements, *sizes) if elements > 1 else sizes,
        channel_axis=0 if elements > 1 else 3 if rank == 4 else None,
        dtype=np.dtype((">" if YES[big] else "<") + dtype),
        path=path if local else file_beside(path, beside),
        packing="zlib" if packed else None,
        offset=None if before < 0 else before + header.length * local,
        doubt=doubt,
    )


def _place(header: TextHeader, rank: int) -> tuple[Affine, str | None]:
    """Give the affine in RAS+, and what had to be decided for it."""
    matrix, origin = (
        ("transformmatrix", "rotation", "orientation"),
        ("offset", "position", "origin"),
    )
    identity = " ".join(str(x) for x in np.eye(rank, dtype=int).ravel())
    axes = header.numbers(*matrix, kind=float, default=identity)
    first = header.numbers(*origin, kind=float, default="0 " * rank)
    spacing = header.numbers("elementspacing", "elementsize", kind=float, default="1 " * rank)
    if (len(axes), len(first), len(spacing)) != (rank**2, rank, rank):
        raise FormatError(
            f"is damaged: its header places {rank} axes by {len(axes)} numbers of axes, "
            f"{len(first)} of the origin and {len(spacing)} of spacing"
        )
    if header.text("distanceunits", default="mm").lower() not in ("mm", "?"):
        raise FormatError("gives lengths in another unit than mm. Convert it first.")
    num_axes = min(rank, 3)
    with np.errstate(all="ignore"):  # Grid refuses what comes out
        rows = np.reshape(axes, (rank, rank)) * np.reshape(spacing, (rank, 1))
    columns = np.pad(rows, ((0, 0), (0, 1)))[:num_axes, :3]
    affine = ras_affine(columns.tolist(), [*first, 0.0][:3])
    if any(name in header.fields for name in matrix) and any(n in header.fields for n in origin):
        return affine, None
    return affine, (
        "does not say where its voxels lie in the patient; its axes and origin are taken for those "
        "of LPS, as ITK does: sides may be swapped"
    )
