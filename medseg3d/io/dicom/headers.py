"""DICOM files, on disk or in a zip, and their headers, read within a budget.

pydicom raises whatever a damaged file leads it to, and unpacks whatever it is told to; here both
end in a FormatError.
"""

import logging
import os
import re
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO, Final

from pydicom import Dataset, dcmread
from pydicom.uid import UID, MediaStorageDirectoryStorage, SegmentationStorage

from medseg3d.errors import FormatError
from medseg3d.io.dicom.archive import LARGEST_UNPACKED, list_members, unpack_member
from medseg3d.io.files import DICOM_SUFFIXES

PREAMBLE: Final = 128
"""Bytes before the mark `DICM`."""

FLOAT_PIXELS: Final = {
    b"\xe0\x7f\x08\x00": "FloatPixelData",
    b"\x7f\xe0\x00\x08": "FloatPixelData",
    b"\xe0\x7f\x09\x00": "DoubleFloatPixelData",
    b"\x7f\xe0\x00\x09": "DoubleFloatPixelData",
}
"""Tags in either byte order; nothing else in a header tells floats for sure."""

LabelMapSegmentationStorage: Final = UID("1.2.840.10008.5.1.4.1.1.66.7")
"""Newer than pydicom's dictionary."""

DEFLATED: Final = b"1.2.840.10008.1.2.1.99"
PLAIN: Final = b"1.2.840.10008.1.2.1".ljust(len(DEFLATED), b"\0")
"""Transfer syntaxes that differ in one thing: the first is deflated, the second is not."""


@dataclass(frozen=True, slots=True, order=True)
class DicomFile:
    """A file, or a member of a zip archive."""

    path: Path
    member: str = ""

    @property
    def name(self) -> str:
        """Name for messages, without folders."""
        return Path(self.member or self.path).name

    @property
    def folder(self) -> Path:
        """Where it lies: for members the archive."""
        return self.path if self.member else self.path.parent

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """Open for reading; members of archives are unpacked in memory.

        Raises:
            FormatError: it cannot be read, or unpacks to more than 1 GiB.
        """
        with guarded(self):
            if self.member:
                stream: BinaryIO = BytesIO(unpack_member(self.path, self.member))
            else:
                stream = self.path.open("rb")
        with stream:
            yield stream

    def head(self, count: int) -> bytes:
        """Read the first bytes; no more of an archive's member is unpacked.

        Raises:
            FormatError: it cannot be read.
        """
        with guarded(self):
            if self.member:
                return unpack_member(self.path, self.member, count)
            with self.path.open("rb") as stream:
                return stream.read(count)


def find_files(source: Path) -> Iterator[DicomFile]:
    """Give every file of a folder and of the folders and zip archives in it, in order of name.

    Links are followed, hidden files passed over. An archive that cannot be read is given as a file,
    which `is_dicom` refuses. `source` may also be one file.

    Raises:
        FormatError: no such file or folder.
    """
    if not source.exists():
        raise FormatError(f"'{source}': no such file or folder")
    if source.name == "DICOMDIR":
        source = source.parent
    paths = [source] if source.is_file() else sorted(_visible_files(source))
    for path in paths:
        members = list_members(path) if path.suffix.lower() == ".zip" else [""]
        yield from (DicomFile(path, member) for member in members)


def is_dicom(file: DicomFile) -> bool:
    """Look whether a file begins like DICOM, with or without the preamble.

    Raises:
        FormatError: the file is named or built like DICOM and does not begin so, or begins with
            nothing and has no suffix that says what it is.
    """
    if not file.member and file.path.suffix.lower() == ".zip":
        raise FormatError(f"'{file.name}' is no sound zip archive, or has a name in it twice")
    head = file.head(300)
    if head[PREAMBLE : PREAMBLE + 4] == b"DICM" or _begins_like_dataset(head):
        return True
    built_like_dicom = b"DICM" in head or _begins_like_dataset(head[PREAMBLE + 4 :])
    if built_like_dicom or file.name.lower().endswith(DICOM_SUFFIXES):
        raise FormatError(f"'{file.name}' is named or built like DICOM, but is empty or damaged")
    if not any(head[:PREAMBLE]) and not re.search(r"\.\D", file.name):
        raise FormatError(f"'{file.name}' is empty, or DICOM cut off or damaged in its beginning")
    return False


def read_header(file: DicomFile, *, pixels: bool = False) -> Dataset:
    """Read a file's attributes, by default up to the pixels; of floats the empty attribute.

    Raises:
        FormatError: damaged, no DICOM, or larger than the budget.
    """
    with file.open() as stream, guarded(file):
        head = stream.read(4096)
        if DEFLATED in head[: _end_of_meta(head)]:
            stream = BytesIO(_inflated(head + stream.read()))  # noqa: PLW2901
        stream.seek(0)
        header = dcmread(stream, stop_before_pixels=not pixels, force=True)
        if kind := FLOAT_PIXELS.get(stream.read(4)):
            setattr(header, kind, None)
        if not header.get("SOPClassUID") and not is_directory(header):
            raise FormatError("has no SOP Class UID")
        return header


def is_directory(header: Dataset) -> bool:
    """Tell whether this is a DICOMDIR, which lists files and holds none."""
    said = header.file_meta.get("MediaStorageSOPClassUID") if "file_meta" in vars(header) else None
    return bool(said == MediaStorageDirectoryStorage)


def is_segmentation(header: Dataset) -> bool:
    """Tell whether this is a DICOM SEG, which `read_dicom_seg` reads."""
    return header.SOPClassUID in (SegmentationStorage, LabelMapSegmentationStorage)


class _Quiet:
    """Keeps pydicom's warnings back while any thread is inside, and its log of them.

    They quote the values of attributes. `warnings.catch_warnings` is for one thread, and restores
    what others have changed meanwhile.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._inside = 0
        self._filter: Any = None
        self._log = logging.getLogger("pydicom")
        self._was_disabled = False

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                warnings.simplefilter("ignore")
                self._filter = warnings.filters[0]
                self._was_disabled, self._log.disabled = self._log.disabled, True

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                with suppress(ValueError):  # another's catch_warnings has ended meanwhile
                    warnings.filters.remove(self._filter)  # type: ignore[attr-defined]
                self._log.disabled = self._was_disabled


QUIET: Final = _Quiet()


@contextmanager
def guarded(file: DicomFile) -> Iterator[None]:
    """Turn whatever a damaged file leads pydicom to into a FormatError that names the file.

    Its warnings are kept back: they quote what may be the name of a patient.
    """
    try:
        with QUIET:
            yield
    except FormatError as error:
        raise FormatError(f"'{file.name}' {error}") from error
    except OSError as error:
        raise FormatError(f"'{file.name}' cannot be read: {error.strerror}") from error
    except MemoryError as error:
        raise FormatError(f"'{file.name}' does not fit into this machine's memory") from error
    except Exception as error:  # noqa: BLE001 # anything, see above
        raise FormatError(
            f"'{file.name}' is damaged ({type(error).__name__}). Copy or export it again."
        ) from None  # the cause quotes values


def _visible_files(folder: Path) -> Iterator[Path]:
    seen = set()
    for root, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(root)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        paths = (Path(root, name) for name in names if not name.startswith("."))
        yield from (path for path in paths if path.is_file())  # a pipe would be waited for


def _end_of_meta(head: bytes) -> int:
    """Find where the file meta information ends; 0 where it does not say."""
    if head[PREAMBLE + 4 : PREAMBLE + 8] != b"\2\0\0\0":
        return 0
    return PREAMBLE + 16 + int.from_bytes(head[PREAMBLE + 12 : PREAMBLE + 16], "little")


def _begins_like_dataset(head: bytes) -> bool:
    """Recognise the first attribute of a file without preamble: group 2 or 8, in either order."""
    little, big = head[:2] in (b"\2\0", b"\x08\0"), head[:2] in (b"\0\2", b"\0\x08")
    explicit = head[4:6].isalpha() and head[4:6].isupper()
    implicit = head[6:8] == b"\0\0" != head[4:6]
    return (little and head[3] == 0 and (explicit or implicit)) or (big and explicit)


def _inflated(content: bytes) -> bytes:
    """Give a deflated file as it would be if it were not."""
    start = _end_of_meta(content)
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    body = unpacker.decompress(content[start:], LARGEST_UNPACKED)
    if unpacker.unconsumed_tail:
        raise FormatError(f"unpacks to more than {LARGEST_UNPACKED} bytes")
    if not unpacker.eof:
        raise FormatError("is truncated")
    return content[:start].replace(DEFLATED, PLAIN) + body
