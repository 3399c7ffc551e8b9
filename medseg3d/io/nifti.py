"""NIfTI files: headers through nibabel, bytes through isal."""

import logging
from contextlib import AbstractContextManager
from io import BufferedIOBase
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
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
from medseg3d.io.voxels import (
    DEFLATE_RATIO,
    is_gzip,
    opened,
    pack,
    read_voxels,
    skip,
    voxel_bytes,
)
from medseg3d.volume import Grid, Volume, require_one_grid

ArrayIJKC: TypeAlias = Shaped[np.ndarray, "I J K C"]

PAIRED: Final = {".hdr": ".img", ".img": ".hdr"}
"""Suffix of one file of a pair -> suffix of the other."""

NIFTI_SUFFIXES: Final = (".nii.gz", ".nii", ".hdr", ".hdr.gz", ".img", ".img.gz")

log = logging.getLogger(__name__)


def read_nifti(path: Path) -> Volume:
    """Read a file of three axes, `.nii` or a pair of `.hdr` and `.img`, each perhaps `.gz`.

    A fourth axis becomes the channels. Of a pair, either file may be named. The stored dtype is
    kept, in native byte order, unless the header scales the values: then they are scaled in float64
    and given as float32 (float64 where stored so). The array is a view in the order of the file,
    first axis fastest.

    The place is the sform where its code is positive, else the qform, else, as in nibabel, the
    spacing alone with x reversed and the origin in the middle. A qform that disagrees with the
    sform, a missing place, and a unit other than the millimetre are logged, once per file.

    Raises:
        FormatError: no such file, truncated, damaged, not NIfTI (ANALYZE 7.5 has no sides), larger
            than its data, of colours or complex numbers, of more than four axes, or without a
            usable place.
    """
    header_path, voxel_path = _parts(path)
    header, grid = _read_place(header_path)
    with _opened(voxel_path) as stream:
        most = voxel_path.stat().st_size * (DEFLATE_RATIO if is_gzip(voxel_path) else 1)
        array_IJKC = _scaled(_read_array(stream, header, most=most), header)
    if decided := "; ".join(doubts(header)):
        log.warning("'%s' %s", path, decided)
    return Volume(np.moveaxis(array_IJKC, -1, 0), grid.affine)


def scan_nifti(path: Path) -> tuple[Grid, np.dtype[Any]]:
    """Tell a file's grid and the dtype it would be read as, from its header alone.

    Raises:
        FormatError: as `read_nifti`, of what the header says.
    """
    header_path, _ = _parts(path)
    header, grid = _read_place(header_path)
    none = np.empty((0, 0, 0, 0), dtype=stored_dtype(header).newbyteorder("="))
    return grid, _scaled(none, header).dtype


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
    voxels = voxel_bytes(array_IJKC)
    write_atomically(path, pack("gzip", head, voxels) if is_gzip(path) else head + voxels)


def _opened(path: Path) -> AbstractContextManager[BufferedIOBase]:
    return opened(path, packing="gzip" if is_gzip(path) else None)


def _parts(path: Path) -> tuple[Path, Path]:
    """Give the file with the header and the file with the voxels."""
    packed = path.suffix if is_gzip(path) else ""
    plain = path.with_suffix("") if packed else path
    if plain.suffix.lower() not in PAIRED:
        return path, path
    suffix = PAIRED[plain.suffix.lower()]
    other = plain.with_suffix(suffix.upper() if plain.suffix.isupper() else suffix)
    tries = [other.with_name(other.name + end) for end in (packed, "" if packed else ".gz")]
    found = next((path for path in tries if path.is_file()), None)
    if found is None:
        raise FormatError(
            f"'{path}' is one of a pair, but neither '{tries[0].name}' nor '{tries[1].name}' lies "
            "beside it. Copy both files."
        )
    return (found, path) if suffix == ".hdr" else (path, found)


def _read_place(path: Path) -> tuple[Nifti1Header, Grid]:
    with _opened(path) as stream:
        header = read_header(stream, paired=path.name.lower().endswith((".hdr", ".hdr.gz")))
        return header, stored_grid(header)


def _read_array(stream: BufferedIOBase, header: Nifti1Header, *, most: int) -> ArrayIJKC:
    paired = header["magic"].item() == header.pair_magic
    first = 0 if paired else header.single_vox_offset
    offset = float(header["vox_offset"]) or first  # 0 is written by some tools
    if not first <= offset <= most or offset % 1:
        raise FormatError(f"is damaged: its header says that voxels start at byte {offset:g}")
    skip(stream, int(offset))
    return read_voxels(stream, stored_dtype(header), stored_shape(header), most=most)


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
    source, source_grid = _read_place(_parts(like)[0])
    require_one_grid([source_grid, grid], [str(like), "volume to write"])
    return header_like(source)
