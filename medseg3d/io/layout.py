"""Where in the world voxels lie, and in which bytes, as a header promises it.

Messages of errors go on after the name of the file, which the caller puts before them.
"""

import logging
import math
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np

from medseg3d.errors import FormatError
from medseg3d.io.text_header import quoted
from medseg3d.io.voxels import DEFLATE_RATIO, opened, read_voxels, skip, unpacked
from medseg3d.volume import Grid, Volume

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Layout:
    """What a header promises: where voxels lie in the world, and in which bytes."""

    grid: Grid
    sizes: tuple[int, ...]
    """Of the axes as stored, the quickest first."""
    channel_axis: int | None
    dtype: np.dtype[Any]
    path: Path
    """The file with the voxels."""
    packing: str | None = None
    offset: int | None = 0
    """Bytes before the voxels, packed or not; None if the voxels are the end of the file."""
    unpacked_offset: int = 0
    """Bytes before the voxels once they are unpacked."""
    doubt: str | None = None
    """What had to be decided about the place."""


def file_beside(path: Path, name: str) -> Path:
    """Give the file that a header names, which lies in its folder or below.

    Raises:
        FormatError: it would lie elsewhere, where a header has nothing to ask for.
    """
    if "%" in name or name.upper().split()[:1] == ["LIST"]:
        raise FormatError("keeps its voxels in many files; expected one. Convert it first.")
    parts = PureWindowsPath(name)  # knows both kinds of slashes
    if parts.anchor or ".." in parts.parts or not name.isprintable() or not parts.name:
        raise FormatError(
            f"keeps its voxels in {quoted(name)}; only files in its own folder are read. Move the "
            "file there and correct the header."
        )
    return path.parent / name


def read_layout(layout: Layout, source: Path) -> Volume:
    """Read the voxels that the header of `source` promises; log what had to be decided.

    Raises:
        FormatError: the file with the voxels is missing or damaged, or holds less or more.
    """
    with opened(layout.path) as stream:
        size = layout.path.stat().st_size
        needed = math.prod(layout.sizes) * layout.dtype.itemsize
        skip(stream, max(0, size - needed) if layout.offset is None else layout.offset)
        most = size * (DEFLATE_RATIO if layout.packing else 1)
        voxels = stream if layout.packing is None else unpacked(stream, layout.packing)
        skip(voxels, layout.unpacked_offset)
        array = read_voxels(voxels, layout.dtype, layout.sizes, most=most)
    if layout.doubt:
        log.warning("'%s' %s", source, layout.doubt)
    axis = layout.channel_axis
    channels = array[np.newaxis] if axis is None else np.moveaxis(array, axis, 0)
    flat = channels.ndim < 4
    return Volume(channels[..., np.newaxis] if flat else channels, layout.grid.affine)
