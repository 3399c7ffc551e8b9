"""NIfTI files: headers through nibabel, bytes through isal.

Nothing is believed that can be checked: a header's promises are held against the size of the file
before memory is taken, and every byte, checksums included, is read before a volume is given out.
"""

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedIOBase
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
from isal import igzip, isal_zlib
from isal.igzip_lib import IsalError
from jaxtyping import Shaped
from nibabel.nifti1 import Nifti1Header

from medseg3d.arrays import ArrayCIJK
from medseg3d.errors import ConfigError, FormatError
from medseg3d.io.atomic import write_atomically
from medseg3d.io.nifti_header import (
    doubts,
    header_like,
    header_of,
    read_header,
    stored_dtype,
    stored_grid,
    stored_shape,
)
from medseg3d.volume import Grid, Volume, require_one_grid

ArrayIJKC: TypeAlias = Shaped[np.ndarray, "I J K C"]

LARGEST_BYTES: Final = 2**34
"""16 GiB of voxels; beyond any scan, but not beyond what a small gzip file can unpack to."""

LONGEST_PADDING: Final = 4096
"""Bytes of zero that some tools write after the voxels."""

DEFLATE_RATIO: Final = 1032
"""No gzip file unpacks to more than this multiple of its size."""

log = logging.getLogger(__name__)


def read_nifti(path: Path) -> Volume:
    """Read a `.nii` or `.nii.gz` file of three axes; a fourth becomes the channels.

    The stored dtype is kept, in native byte order, unless the header scales the values: then they
    are scaled in float64 and given as float32 (float64 where stored so). The array is a view in
    the order of the file, first axis fastest.

    The place is the sform where its code is positive, else the qform, else, as in nibabel, the
    spacing alone with x reversed and the origin in the middle. A qform that disagrees with the
    sform, a missing place, and a unit other than the millimetre are logged, once per file.

    Raises:
        FormatError: no such file, truncated, damaged, not NIfTI, larger than its data, of colours
            or complex numbers, of more than four axes, or without a usable place.
    """
    with _opened(path) as stream:
        header = read_header(stream)
        grid = stored_grid(header)
        most = path.stat().st_size * (DEFLATE_RATIO if _is_gzip(path) else 1)
        array_IJKC = _scaled(_read_voxels(stream, header, most=most), header)
    if decided := "; ".join(doubts(header)):
        log.warning("'%s' %s", path, decided)
    return Volume(np.moveaxis(array_IJKC, -1, 0), grid.affine)


def write_nifti(volume: Volume, path: Path, *, like: Path | None = None) -> None:
    """Write a `.nii` or `.nii.gz` file; several channels become a fourth axis.

    The same volume gives the same bytes. The header holds no free text and no extension. With
    `like`, every field that says where the voxels lie is taken from that file, unchanged.

    Raises:
        GridError: `like` does not lie on the volume's grid.
        FormatError: `like` cannot be read.
        ConfigError: NIfTI has no such dtype.
        OSError: see `write_atomically`.
    """
    array_IJKC = np.moveaxis(_storable(volume.array_CIJK), 0, -1)
    header = header_of(volume.grid) if like is None else _header_like(like, volume.grid)
    header.set_data_dtype(array_IJKC.dtype)
    header.set_data_shape(array_IJKC.shape[: 3 + (volume.num_channels > 1)])
    header["vox_offset"] = header.single_vox_offset
    head = header.binaryblock.ljust(header.single_vox_offset, b"\0")
    voxels = np.asfortranarray(array_IJKC).T.data.cast("B")
    write_atomically(path, _gzip(head, voxels) if _is_gzip(path) else head + voxels)


@contextmanager
def _opened(path: Path) -> Iterator[BufferedIOBase]:
    """Open a file and turn everything that can go wrong into a FormatError that names it."""
    try:
        with igzip.open(path) if _is_gzip(path) else path.open("rb") as stream:
            yield stream
    except FileNotFoundError as error:
        raise FormatError(f"'{path}': no such file") from error
    except (EOFError, igzip.BadGzipFile, IsalError) as error:  # type: ignore[misc] # isal's stub
        raise FormatError(
            f"'{path}' is not a sound gzip file ({error}). Copy or export it again; "
            "a NIfTI file that is not compressed is named '.nii'."
        ) from error
    except OSError as error:
        raise FormatError(f"'{path}' cannot be read: {error.strerror}") from error
    except MemoryError as error:
        raise FormatError(f"'{path}' does not fit into this machine's memory") from error
    except FormatError as error:
        raise FormatError(f"'{path}' {error}") from error


def _is_gzip(path: Path) -> bool:
    return path.suffix.lower() == ".gz"


def _read_voxels(stream: BufferedIOBase, header: Nifti1Header, *, most: int) -> ArrayIJKC:
    """Read all voxels and see the file end there; `most` is what the file can hold at best."""
    shape_IJKC, dtype = stored_shape(header), stored_dtype(header)
    offset = float(header["vox_offset"]) or header.single_vox_offset  # 0 is written by some tools
    needed = math.prod(shape_IJKC) * dtype.itemsize
    if not header.single_vox_offset <= offset <= most or offset % 1:
        raise FormatError(f"is damaged: its header says that voxels start at byte {offset:g}")
    if needed > min(most, LARGEST_BYTES):
        raise FormatError(
            f"promises {'×'.join(map(str, shape_IJKC))} voxels of {dtype}, {needed} bytes; "
            f"a file of its size holds at most {most}, medseg3d reads at most {LARGEST_BYTES}"
        )
    stream.seek(int(offset))
    voxels = np.empty(needed, dtype=np.uint8)
    found = _fill(stream, voxels.data)
    rest = stream.read(LONGEST_PADDING + 1)
    if found < needed or len(rest) > LONGEST_PADDING or any(rest):
        raise FormatError(
            f"promises {needed} bytes of voxels and holds {found if found < needed else 'more'}: "
            "it is truncated or its header is wrong. Copy or export it again."
        )
    array_IJKC: ArrayIJKC = voxels.view(dtype).reshape(shape_IJKC, order="F")
    return array_IJKC.astype(dtype.newbyteorder("="), copy=False)


def _fill(stream: BufferedIOBase, buffer: memoryview) -> int:
    """Read until the buffer is full or the file ends; give the number of bytes read."""
    filled = 0
    while filled < len(buffer) and (count := stream.readinto(buffer[filled:])):
        filled += count
    return filled


def _scaled(array_IJKC: ArrayIJKC, header: Nifti1Header) -> ArrayIJKC:
    """Apply the header's slope and intercept, slice by slice to spare memory."""
    slope, inter = np.float64(header["scl_slope"]), np.float64(header["scl_inter"])
    if slope == 0 or not np.isfinite(slope) or (slope == 1 and inter == 0):
        return array_IJKC
    if not np.isfinite(inter):
        raise FormatError(f"is damaged: its header adds {inter} to every voxel")
    dtype = np.float64 if array_IJKC.dtype == np.float64 else np.float32
    scaled = np.empty_like(array_IJKC, dtype=dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        for k in range(array_IJKC.shape[2]):
            scaled[:, :, k] = array_IJKC[:, :, k] * slope + inter
    return scaled


def _storable(array_CIJK: ArrayCIJK) -> ArrayCIJK:
    """Bring an array to a dtype that NIfTI has, without changing a value."""
    if array_CIJK.dtype == np.bool_:
        return array_CIJK.astype(np.uint8)
    if array_CIJK.dtype == np.float16:
        return array_CIJK.astype(np.float32)
    if array_CIJK.dtype.kind not in "iuf" or array_CIJK.dtype.itemsize > 8:
        raise ConfigError(
            f"NIfTI files are written of integers and real numbers of up to 64 bits, got "
            f"{array_CIJK.dtype}; convert the array first"
        )
    return array_CIJK.astype(array_CIJK.dtype.newbyteorder("="), copy=False)


def _header_like(like: Path, grid: Grid) -> Nifti1Header:
    with _opened(like) as stream:
        source = read_header(stream)
        source_grid = stored_grid(source)
    require_one_grid([source_grid, grid], [str(like), "volume to write"])
    return header_like(source)


def _gzip(*parts: bytes | memoryview) -> bytes:
    """Compress without a name or a time in the file, so that it depends on the parts alone."""
    compressor = isal_zlib.compressobj(wbits=31)
    return b"".join([*map(compressor.compress, parts), compressor.flush()])
