"""What a NIfTI-1 or NIfTI-2 header says: the shape, the dtype, and the place in the world.

Messages of errors go on after the name of the file, which the caller puts before them.
"""

import math
from collections.abc import Iterator
from io import BufferedIOBase
from typing import Any, Final

import numpy as np
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header
from nibabel.spatialimages import HeaderDataError

from medseg3d.errors import FormatError
from medseg3d.volume import Grid, grid_difference

HEADERS: Final[dict[int, type[Nifti1Header]]] = {348: Nifti1Header, 540: Nifti2Header}
"""Length of a header in bytes, which is also its first number -> who reads it."""

DTYPES: Final = {
    2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8",
    1280: "u8",
}  # fmt: skip
"""The header's code of a dtype that is read -> NumPy's; others are colours and complex numbers."""

UNIT_MM: Final = {1: 1e3, 3: 1e-3}
"""The header's code of a unit of length -> millimetres, where it is not the millimetre."""

PLACE_FIELDS: Final = (
    "sform_code", "srow_x", "srow_y", "srow_z",
    "qform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z",
    "xyzt_units",
)  # fmt: skip
"""What places the voxels in the world, together with the first four numbers of `pixdim`."""


def read_header(stream: BufferedIOBase, *, paired: bool = False) -> Nifti1Header:
    """Read a header of either version and byte order; `paired` if its voxels are another file.

    Raises:
        FormatError: there is none, or one of ANALYZE 7.5, which does not say left from right.
    """
    marks = ("ni1", "ni2") if paired else ("n+1", "n+2")
    block = stream.read(348)
    for code in "<>":
        size = int.from_bytes(block[:4], "little" if code == "<" else "big")
        if size not in HEADERS:
            continue
        block += stream.read(size - 348)
        if len(block) < size:
            break
        header = HEADERS[size](block, code, check=False)
        if header["pixdim"][0] == 0:
            header["pixdim"][0] = 1  # nifti1.h: should not occur, and means 1
        if header["magic"].item() == (header.pair_magic if paired else header.single_magic):
            return header
        if paired and size == 348 and not header["magic"].item():
            raise FormatError(
                "is a header of ANALYZE 7.5, which does not say left from right; expected NIfTI, "
                "which says so. Convert it with the program that wrote it."
            )
    raise FormatError(
        f"is no NIfTI file: it does not begin with a header of {' or '.join(map(str, HEADERS))} "
        f"bytes and its mark '{marks[0]}' or '{marks[1]}'. Check what was exported under this name."
    )


def stored_shape(header: Nifti1Header) -> tuple[int, int, int, int]:
    """Give I, J, K and the number of channels; axes of length 1 beyond the third do not count.

    Raises:
        FormatError: empty or negative axes, or two axes beyond the third.
    """
    rank, *sizes = (int(n) for n in header["dim"])
    if not 1 <= rank <= 7 or min(sizes[:rank]) < 1:
        raise FormatError(
            f"is damaged: its header speaks of {rank} axes of {sizes} voxels, "
            "NIfTI has 1 to 7 axes of at least one"
        )
    i, j, k, *further = sizes[:rank] + [1] * (7 - rank)
    channels = [size for size in further if size > 1]
    if len(channels) > 1:
        raise FormatError(
            f"has {rank} axes, {'×'.join(map(str, sizes[:rank]))}; expected three, and at most "
            "one more for channels. Split the file first."
        )
    return i, j, k, math.prod(channels)


def stored_dtype(header: Nifti1Header) -> np.dtype[Any]:
    """Give the dtype of the voxels, in the file's byte order.

    Raises:
        FormatError: colours, complex numbers, more than 64 bits, or a code that NIfTI lacks.
    """
    code = int(header["datatype"])
    if code not in DTYPES:
        raise FormatError(
            f"holds voxels of NIfTI's type {code}; expected real numbers, type "
            f"{', '.join(map(str, DTYPES))}. Convert colours and complex numbers first."
        )
    return np.dtype(header.endianness + DTYPES[code])


def stored_grid(header: Nifti1Header) -> Grid:
    """Give the sform where its code is positive, else the qform, else the spacing as nibabel does.

    Raises:
        FormatError: what the header says is no place.
    """
    return _grid(header, _form(header))


def doubts(header: Nifti1Header) -> Iterator[str]:
    """Say what had to be decided about the place."""
    form, unit_mm = _form(header), _unit_mm(header)
    if form == "sform" and header["qform_code"] > 0 and (other := _qform_difference(header)):
        yield f"has an sform and a qform that disagree ({other}); the sform is taken"
    if form == "base_affine":
        yield (
            "says its spacing but not its place; taken as in nibabel, x towards the left and the "
            "origin in the middle: sides may be swapped"
        )
    if unit_mm != 1:
        yield f"gives lengths in units of {unit_mm:g} mm; they are read as millimetres"


def header_of(grid: Grid) -> Nifti1Header:
    """Build a header that says where a grid lies, twice where a qform can (no shear)."""
    header = Nifti2Header() if max(grid.shape_IJK) > np.iinfo(np.int16).max else Nifti1Header()
    header.set_data_shape(grid.shape_IJK)
    header.set_sform(grid.affine, code="scanner")
    header.set_qform(grid.affine, code="scanner")
    header.set_xyzt_units("mm")
    if _qform_difference(header):
        header["qform_code"] = 0
    return header


def header_like(source: Nifti1Header) -> Nifti1Header:
    """Build a header that says where another's voxels lie, in the same words, and nothing else."""
    header = type(source)()
    for field in PLACE_FIELDS:
        header[field] = source[field]
    header["pixdim"][:4] = source["pixdim"][:4]
    return header


def _form(header: Nifti1Header) -> str:
    """Choose what places the voxels: nibabel's name for it."""
    if header["sform_code"] > 0:
        return "sform"
    return "qform" if header["qform_code"] > 0 else "base_affine"


def _grid(header: Nifti1Header, form: str) -> Grid:
    i, j, k, _ = stored_shape(header)
    try:
        with np.errstate(all="ignore"):  # Grid refuses what a damaged header overflows to
            affine = getattr(header, f"get_{form}")()
            affine[:3] *= _unit_mm(header)
        return Grid((i, j, k), affine)
    except (HeaderDataError, ValueError) as error:
        raise FormatError(
            f"is damaged: the {form} in its header gives the voxels no place ({error})"
        ) from error


def _unit_mm(header: Nifti1Header) -> float:
    return UNIT_MM.get(int(header["xyzt_units"]) & 7, 1.0)


def _qform_difference(header: Nifti1Header) -> str | None:
    try:
        return grid_difference(_grid(header, "sform"), _grid(header, "qform"))
    except FormatError:
        return "the qform is damaged"
