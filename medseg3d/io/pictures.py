"""What the headers of PNG, TIFF and JPEG say that SimpleITK does not heed.

Messages of errors go on after the name of the file, which the caller puts before them.
"""

import math
import struct
from collections.abc import Iterator, Sequence
from io import BufferedIOBase
from typing import Final

from medseg3d.errors import FormatError
from medseg3d.io.voxels import LARGEST_BYTES

PNG: Final = b"\x89PNG\r\n\x1a\n"
JPEG: Final = b"\xff\xd8\xff"
TIFF: Final = {b"II*\0": "<", b"MM\0*": ">"}
"""First bytes of a TIFF -> its byte order; BigTIFF is another kind."""

TAGS: Final = {
    256: "width",
    257: "height",
    258: "bits",
    262: "meaning",
    277: "samples",
    339: "type",
}
"""Of a page of a TIFF, what must be alike in all pages."""

MOST_PAGES: Final = 2**16

IMAGE_RATIO: Final = 2**12
"""No sensible picture of any kind unpacks to more than this multiple of its file."""

PALETTE: Final = 3
"""What a PNG and a TIFF alike call pixels that are numbers of colours."""


def check_picture(stream: BufferedIOBase) -> None:
    """See that SimpleITK will give the very pixels that are stored.

    Raises:
        FormatError: no PNG, TIFF or JPEG, a palette (ITK gives its colours), less than 8 bits (ITK
            stretches them to 8), pages that differ (ITK takes them for alike), or a JPEG without
            its end (ITK makes it up).
    """
    head = stream.read(32)
    if head.startswith(PNG):
        depth, meaning = (*head[24:26], 0, 0)[:2]
        _check_pixels(bits=depth, meaning=meaning)
    elif head[:4] in TIFF:
        _check_pages(stream, TIFF[head[:4]])
    elif head.startswith(JPEG):
        stream.seek(-min(stream.seek(0, 2), 4096), 2)
        if not stream.read().rstrip(b"\0").endswith(b"\xff\xd9"):
            raise FormatError("is truncated: its end is missing. Copy or export it again.")
    else:
        raise FormatError("is no PNG, TIFF or JPEG. Check what was exported under this name.")


def require_size(shape: Sequence[int], size: int) -> None:
    """Hold what a header promises against the size of the file, before memory is taken.

    Raises:
        FormatError: the file cannot hold as much, or medseg3d does not read as much.
    """
    most = min(size * IMAGE_RATIO, LARGEST_BYTES)
    if math.prod(shape) > most:
        raise FormatError(
            f"promises {'×'.join(map(str, shape))} pixels; a file of its size holds at most {most}"
        )


def _check_pixels(*, bits: int, meaning: int) -> None:
    if meaning == PALETTE:
        raise FormatError(
            "holds numbers of a palette, which would be read as colours. Save it as grey of 8 bits."
        )
    if bits < 8:
        raise FormatError(
            f"has pixels of {bits} bits, which would be stretched to 8. Save it with 8 bits."
        )


def _check_pages(stream: BufferedIOBase, order: str) -> None:
    first: dict[str, int] | None = None
    for page in _pages(stream, order):
        first = first or page
        if page != first:
            raise FormatError(f"has pages that differ ({first} and {page}). Split the file first.")
    if first is None:
        raise FormatError("is damaged: it has no page. Copy or export it again.")
    size = stream.seek(0, 2)  # ITK takes memory for every row before it can be asked
    require_size((first.get("width", 1), first.get("height", 1), first.get("samples", 1)), size)
    _check_pixels(bits=first.get("bits", 1), meaning=first.get("meaning", 0))


def _pages(stream: BufferedIOBase, order: str) -> Iterator[dict[str, int]]:
    """Give the tags of each page; of a tag with many values, the first."""
    stream.seek(4)
    seen: set[int] = set()
    while place := _unpack(stream, order + "I"):
        if place in seen or len(seen) > MOST_PAGES:
            raise FormatError("is damaged: its pages go round in a circle. Export it again.")
        seen.add(place)
        stream.seek(place)
        entries = stream.read(12 * _unpack(stream, order + "H"))
        page = {}
        after = stream.tell()
        for tag, kind, count, value in struct.iter_unpack(
            order + "HHI4s", entries[: len(entries) // 12 * 12]
        ):
            if tag in TAGS:
                page[TAGS[tag]] = _value(stream, order, kind, count, value)
        stream.seek(after)
        yield page


def _value(stream: BufferedIOBase, order: str, kind: int, count: int, value: bytes) -> int:
    """Give the first value of a tag: it stands in the tag itself where all of them fit there."""
    code, size = ("H", 2) if kind == 3 else ("I", 4)
    if count * size > 4:
        stream.seek(struct.unpack(order + "I", value)[0])
        return _unpack(stream, order + code)
    return int(struct.unpack_from(order + code, value)[0])


def _unpack(stream: BufferedIOBase, code: str) -> int:
    try:
        return int(struct.unpack(code, stream.read(struct.calcsize(code)))[0])
    except struct.error:
        raise FormatError("is truncated: a page is missing. Copy or export it again.") from None
