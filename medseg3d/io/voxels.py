"""Voxels as the bytes of a file, packed or not.

Nothing is believed that can be checked: what a header promises is held against the size of the file
before memory is taken, and every byte, checksums included, is read before voxels are given out.
Messages of errors go on after the name of the file, which `opened` puts before them.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedIOBase, BufferedReader, RawIOBase
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
from isal import isal_zlib
from isal.isal_zlib import IsalError
from jaxtyping import Shaped

from medseg3d.errors import FormatError

Voxels: TypeAlias = Shaped[np.ndarray, "..."]

LARGEST_BYTES: Final = 2**34
"""16 GiB of voxels; beyond any scan, but not beyond what a small packed file can unpack to."""

LONGEST_PADDING: Final = 4096
"""Bytes of zero that some tools write after the voxels."""

DEFLATE_RATIO: Final = 1032
"""No gzip or zlib file unpacks to more than this multiple of its size."""

WBITS: Final = {"gzip": 31, "zlib": 15}
"""Packing -> zlib's name for it."""

PIECE: Final = 2**20
"""Bytes unpacked at a time: quickest where the piece still lies in the processor's cache."""


@contextmanager
def opened(path: Path, *, packing: str | None = None) -> Iterator[BufferedIOBase]:
    """Open a file, unpacked if need be, and turn all that goes wrong into a FormatError."""
    try:
        with path.open("rb") as stream:
            yield stream if packing is None else unpacked(stream, packing)
    except FileNotFoundError as error:
        raise FormatError(f"'{path}': no such file") from error
    except (EOFError, IsalError) as error:  # type: ignore[misc] # isal's stub
        what = "is not a sound gzip file" if is_gzip(path) else "is not soundly compressed"
        hint = " A file that is not compressed is not named '.gz'." if is_gzip(path) else ""
        raise FormatError(f"'{path}' {what} ({error}). Copy or export it again.{hint}") from error
    except OSError as error:
        raise FormatError(f"'{path}' cannot be read: {error.strerror}") from error
    except MemoryError as error:
        raise FormatError(f"'{path}' does not fit into this machine's memory") from error
    except FormatError as error:
        raise FormatError(f"'{path}' {error}") from error


class Unpacked(RawIOBase):
    """What a gzip file, of one member or several, or a zlib stream unpacks to, checksums checked.

    Raises:
        EOFError, IsalError: the stream is cut off or damaged.
    """

    def __init__(self, packed: BufferedIOBase, packing: str) -> None:
        self._packed = packed
        self._wbits = WBITS[packing]
        self._inflate = isal_zlib.decompressobj(wbits=self._wbits)

    def readable(self) -> bool:
        """Say that this can be read."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override] # any buffer will do
        """Unpack a piece; give its length, 0 at the end."""
        while True:
            if self._inflate.eof:
                rest = self._inflate.unused_data.lstrip(b"\0") or self._next_piece().lstrip(b"\0")
                if not rest:
                    return 0
                self._inflate = isal_zlib.decompressobj(wbits=self._wbits)
            else:
                rest = self._inflate.unconsumed_tail or self._next_piece()
            data = self._inflate.decompress(rest, min(len(buffer), PIECE))
            if data:
                buffer[: len(data)] = data
                return len(data)
            if not rest and not self._inflate.eof:
                raise EOFError("it ends before its checksum")

    def _next_piece(self) -> bytes:
        return self._packed.read(PIECE // 8)


def unpacked(stream: BufferedIOBase, packing: str) -> BufferedReader:
    """Give what a packed stream unpacks to, from where it stands."""
    return BufferedReader(Unpacked(stream, packing))


def skip(stream: BufferedIOBase, count: int) -> None:
    """Pass over bytes of a stream that may be packed."""
    while count and (piece := stream.read(min(count, PIECE))):
        count -= len(piece)


def is_gzip(path: Path) -> bool:
    """Say whether a file is packed, by its name."""
    return path.suffix.lower() == ".gz"


def read_voxels(
    stream: BufferedIOBase, dtype: np.dtype[Any], sizes: tuple[int, ...], *, most: int
) -> Voxels:
    """Read all voxels, first axis fastest, in native byte order, and see the file end there.

    `most` is the number of bytes that the file can hold at best.

    Raises:
        FormatError: it holds less or more, or more than medseg3d reads.
    """
    needed = math.prod(sizes) * dtype.itemsize
    if needed > min(most, LARGEST_BYTES):
        raise FormatError(
            f"promises {'×'.join(map(str, sizes))} voxels of {dtype}, {needed} bytes; "
            f"a file of its size holds at most {most}, medseg3d reads at most {LARGEST_BYTES}"
        )
    voxels = np.empty(needed, dtype=np.uint8)
    found = _fill(stream, voxels.data)
    rest = stream.read(LONGEST_PADDING + 1)
    if found < needed or len(rest) > LONGEST_PADDING or any(rest):
        raise FormatError(
            f"promises {needed} bytes of voxels and holds {found if found < needed else 'more'}: "
            "it is truncated or its header is wrong. Copy or export it again."
        )
    array = voxels.view(dtype).reshape(sizes, order="F")
    return array.astype(dtype.newbyteorder("="), copy=False)


def pack(packing: str, *parts: bytes | memoryview) -> bytes:
    """Compress without a name or a time, so that the result depends on the parts alone."""
    compressor = isal_zlib.compressobj(wbits=WBITS[packing])
    return b"".join([*map(compressor.compress, parts), compressor.flush()])


def voxel_bytes(array: Voxels) -> memoryview:
    """Give an array's bytes, first axis fastest, uncopied where they already lie so."""
    return np.asfortranarray(array).T.data.cast("B")


def _fill(stream: BufferedIOBase, buffer: memoryview) -> int:
    """Read until the buffer is full or the file ends; give the number of bytes read."""
    filled = 0
    while filled < len(buffer) and (count := stream.readinto(buffer[filled:])):
        filled += count
    return filled
