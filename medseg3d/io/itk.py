"""What is ITK's: the world of LPS, and pictures (PNG, TIFF, JPEG) through SimpleITK.

Elsewhere in medseg3d the world is RAS+. ITK passes over some damage, so that is looked for first.
"""

import logging
import re
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import numpy as np

from medseg3d.arrays import Affine, ArrayCIJK
from medseg3d.errors import ConfigError, FormatError, GridError
from medseg3d.io.atomic import write_atomically
from medseg3d.io.pictures import check_picture, require_size
from medseg3d.io.voxels import Voxels, opened
from medseg3d.volume import Grid, Volume, grid_difference

LPS: Final = (-1, -1, 1)
"""Signs between LPS and RAS+."""

log = logging.getLogger(__name__)


def ras_affine(
    axes: Sequence[Sequence[float]], origin: Sequence[float], *, signs: Sequence[int] = LPS
) -> Affine:
    """Join axes and origin of a world whose `signs` make it RAS+.

    Two axes get a third, 1 mm along their normal. What is no affine comes out as one of NaN.
    """
    affine = np.eye(4)
    with np.errstate(all="ignore"):
        affine[:3, : len(axes)] = np.transpose(axes)
        affine[:3, 3] = origin
        if len(axes) == 2:
            normal = np.cross(affine[:3, 0], affine[:3, 1])
            affine[:3, 2] = normal / np.linalg.norm(normal)
    affine[:3] *= np.reshape(signs, (3, 1))
    return affine + 0.0  # no -0


def grid_of(shape: Sequence[int], affine: Affine) -> Grid:
    """Give the grid of two or three axes.

    Raises:
        FormatError: what the header says is no place.
    """
    try:
        i, j, k = (*shape, 1)[:3]
        return Grid((i, j, k), affine)
    except GridError as error:
        raise FormatError(f"is damaged: its header gives the voxels no place ({error})") from error


def storable(array_CIJK: ArrayCIJK, *, kind: str) -> ArrayCIJK:
    """Bring an array to little-endian numbers of a dtype that a kind of file has, unchanged.

    Raises:
        ConfigError: there is none.
    """
    dtype = {"bool": "u1", "float16": "f4"}.get(array_CIJK.dtype.name, array_CIJK.dtype)
    dtype = np.dtype(dtype).newbyteorder("<")
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise ConfigError(
            f"{kind} files are written of integers and real numbers of up to 64 bits, got "
            f"{array_CIJK.dtype}; convert the array first"
        )
    return array_CIJK.astype(dtype, copy=False)


def read_image(path: Path) -> Volume:
    """Read a PNG, TIFF or JPEG; colours become channels, the pages of a TIFF the third axis.

    The first axis runs along the rows of the picture. Pixels are placed as ITK does: the first at
    the origin, rows from right to left, columns from front to back, pixels of the size that ITK
    finds in the file (often one meant for printing), else of 1 mm, pages 1 mm apart.

    PNG guards its pixels by checksums; a JPEG or TIFF whose pixels were changed looks sound.

    Raises:
        FormatError: no such file, truncated, damaged, or what `check_picture` refuses.
    """
    with opened(path) as stream:
        check_picture(stream)
        import SimpleITK

        try:
            reader = SimpleITK.ImageFileReader()
            reader.SetFileName(str(path))
            reader.ReadImageInformation()
            shape = (*reader.GetSize(), reader.GetNumberOfComponents())
            require_size(shape, path.stat().st_size)
            image = reader.Execute()
        except RuntimeError as error:
            raise FormatError(
                f"cannot be read as a picture ({_reason(error)}). Copy or export it again."
            ) from error
    array = SimpleITK.GetArrayFromImage(image)
    channels = image.GetNumberOfComponentsPerPixel()
    pages_KJIC = array.reshape(-1, *image.GetSize()[1::-1], channels)
    axes = np.diag([*image.GetSpacing(), 1.0][:3])
    affine = ras_affine(axes.tolist(), [*image.GetOrigin(), 0.0][:3])
    return Volume(pages_KJIC.transpose(3, 2, 1, 0), affine)


def write_image(volume: Volume, path: Path) -> None:
    """Write a PNG or TIFF; several channels become colours, the third axis the pages of a TIFF.

    The same volume gives the same bytes. Of its place, a picture keeps the size of pixels alone;
    what is lost is logged.

    Raises:
        ConfigError: the kind of file cannot hold the dtype, the channels or the third axis, or as
            `write_atomically`.
    """
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / f"copy{path.suffix.lower()}"
        _write(volume, copy)
        try:
            read = read_image(copy)
        except FormatError:
            read = None
        array_CIJK = volume.array_CIJK
        if read is None or not _is_same(read.array_CIJK, array_CIJK):
            raise ConfigError(
                f"'{path}' cannot hold {array_CIJK.dtype} of {volume.num_channels} channels of "
                f"{'×'.join(map(str, volume.shape_IJK))}: PNG takes one plane of uint8 or uint16, "
                "TIFF also pages and numbers of up to 32 bits. Convert the array, or write .nii.gz."
            )
        data = copy.read_bytes()
    if lost := grid_difference(volume.grid, read.grid):
        log.warning("'%s' does not keep where the image lies in the world: %s", path, lost)
    write_atomically(path, data)


def _write(volume: Volume, path: Path) -> None:
    """Write what SimpleITK can; nothing where it cannot."""
    import SimpleITK

    array_KJIC = storable(volume.array_CIJK, kind="picture").transpose(3, 2, 1, 0)
    several = volume.num_channels > 1
    array = array_KJIC if several else array_KJIC[..., 0]
    flat = array[0] if volume.shape_IJK[2] == 1 else array
    with suppress(RuntimeError, NotImplementedError, TypeError):
        image = SimpleITK.GetImageFromArray(np.ascontiguousarray(flat), isVector=several)
        image.SetSpacing(volume.spacing_mm[: image.GetDimension()])
        SimpleITK.WriteImage(image, str(path), True)


def _is_same(read: Voxels, array: Voxels) -> bool:
    dtype = np.dtype("u1") if array.dtype == np.bool_ else array.dtype
    exact = array.dtype.kind != "f"
    return read.dtype == dtype and np.array_equal(read, array, equal_nan=not exact)


def _reason(error: RuntimeError) -> str:
    """Give the last line that ITK says, without addresses in memory and names of files."""
    *_, last = str(error).strip().splitlines() or [""]
    return re.sub(r"\(0x[0-9a-f]+\)|\S*/\S*", "", last)
