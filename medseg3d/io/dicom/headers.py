"""DICOM files, on disk or in a zip, and their headers, read within a budget.

pydicom raises whatever a damaged file leads it to, and unpacks whatever it is told to; here both
end in a FormatError. LPS coordinates are left as they are, see frames.py.
"""

import logging
import os
import re
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from threading import Lock
from typing import BinaryIO, Final

from pydicom import Dataset, dcmread
from pydicom.uid import UID, MediaStorageDirectoryStorage, SegmentationStorage

from medseg3d.errors import FormatError

PREAMBLE: Final = 128
"""Bytes before the mark `DICM`."""

NAMED_LIKE_DICOM: Final = (".dcm", ".dicom", ".ima")
"""Suffixes that promise DICOM; most files of hospitals have none."""

FLOAT_PIXELS: Final = {
    b"\xe0\x7f\x08\x00": "FloatPixelData",
    b"\x7f\xe0\x00\x08": "FloatPixelData",
    b"\xe0\x7f\x09\x00": "DoubleFloatPixelData",
    b"\x7f\xe0\x00\x09": "DoubleFloatPixelData",
}
"""Tags in either byte order; nothing else in a header tells floats for sure."""

LARGEST_UNPACKED: Final = 2**30
"""1 GiB; what one member of a zip, or a deflated file, may unpack to."""

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
        """Where it lies; an archive's folders are below the archive."""
        return (self.path / self.member).parent

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """Open for reading; members of archives are unpacked in memory.

        Raises:
            FormatError: it cannot be read, or unpacks to more than 1 GiB.
        """
        try:
            if not self.member:
                with self.path.open("rb") as stream:
                    yield stream
            else:
                with zipfile.ZipFile(self.path) as archive:
                    content = _unpacked(archive, self.member)
                yield BytesIO(content)
        except (OSError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
            raise FormatError(f"'{self.name}' cannot be read: {error}") from error


def find_files(source: Path) -> Iterator[DicomFile]:
    """Give every file of a folder and of the folders and zip archives in it, in order of name.

    Hidden files are passed over. `source` may also be one file.

    Raises:
        FormatError: no such file or folder, or an archive is damaged.
    """
    if not source.exists():
        raise FormatError(f"'{source}': no such file or folder")
    paths = [source] if source.is_file() else sorted(_visible_files(source))
    for path in paths:
        if path.suffix.lower() == ".zip":
            yield from (DicomFile(path, member) for member in _members(path))
        else:
            yield DicomFile(path)


def is_dicom(file: DicomFile) -> bool:
    """Look whether a file begins like DICOM, with or without the preamble.

    Raises:
        FormatError: the file is named or built like DICOM and does not begin so, or begins with
            nothing and has no suffix that says what it is.
    """
    with file.open() as stream:
        head = stream.read(300)
    if head[PREAMBLE : PREAMBLE + 4] == b"DICM" or _begins_like_dataset(head):
        return True
    built_like_dicom = b"DICM" in head or _begins_like_dataset(head[PREAMBLE + 4 :])
    if built_like_dicom or file.name.lower().endswith(NAMED_LIKE_DICOM):
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
        if DEFLATED in head:
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

    They quote the values of attributes. `warnings.catch_warnings` alone is for one thread.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._inside = 0
        self._undo = ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                self._undo.enter_context(warnings.catch_warnings())
                warnings.simplefilter("ignore")
                log = logging.getLogger("pydicom")
                self._undo.callback(setattr, log, "disabled", log.disabled)
                log.disabled = True

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._undo.close()


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
    except MemoryError as error:
        raise FormatError(f"'{file.name}' does not fit into this machine's memory") from error
    except Exception as error:  # noqa: BLE001 # anything, see above
        raise FormatError(
            f"'{file.name}' is damaged ({type(error).__name__}). Copy or export it again."
        ) from None  # the cause quotes values


def _visible_files(folder: Path) -> Iterator[Path]:
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths = (Path(root, name) for name in names if not name.startswith("."))
        yield from (path for path in paths if path.is_file())  # a pipe would be waited for


def _members(path: Path) -> list[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = {info.filename for info in archive.infolist() if not info.is_dir()}
    except (OSError, zipfile.BadZipFile) as error:
        raise FormatError(f"'{path}' is no sound zip archive: {error}") from error
    return sorted(name for name in names if not Path(name).name.startswith("."))


def _unpacked(archive: zipfile.ZipFile, member: str) -> bytes:
    info = archive.getinfo(member)
    if info.flag_bits & 1:
        raise FormatError(f"'{Path(member).name}' is encrypted; unpack the archive first")
    if info.file_size > LARGEST_UNPACKED:
        raise FormatError(
            f"'{Path(member).name}' unpacks to {info.file_size} bytes; unpack the archive first"
        )
    with archive.open(info) as stream:
        return stream.read()


def _begins_like_dataset(head: bytes) -> bool:
    """Recognise the first attribute of a file without preamble: group 2 or 8, in either order."""
    little, big = head[:2] in (b"\2\0", b"\x08\0"), head[:2] in (b"\0\2", b"\0\x08")
    explicit = head[4:6].isalpha() and head[4:6].isupper()
    implicit = head[6:8] == b"\0\0" != head[4:6]
    return (little and head[3] == 0 and (explicit or implicit)) or (big and explicit)


def _inflated(content: bytes) -> bytes:
    """Give a deflated file as it would be if it were not."""
    start = PREAMBLE + 16 + int.from_bytes(content[PREAMBLE + 12 : PREAMBLE + 16], "little")
    if content[PREAMBLE + 4 : PREAMBLE + 8] != b"\2\0\0\0" or start > len(content):
        raise FormatError("is damaged: its file meta information has no length")
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    body = unpacker.decompress(content[start:], LARGEST_UNPACKED)
    if unpacker.unconsumed_tail:
        raise FormatError(f"unpacks to more than {LARGEST_UNPACKED} bytes")
    if not unpacker.eof:
        raise FormatError("is truncated")
    return content[:start].replace(DEFLATED, PLAIN) + body
