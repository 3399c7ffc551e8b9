"""Zip archives of DICOM: what they hold, one member at a time, never on disk."""

import zipfile
from functools import lru_cache
from pathlib import Path
from typing import Final

from medseg3d.errors import FormatError

LARGEST_UNPACKED: Final = 2**30
"""1 GiB; what one member of a zip, or a deflated file, may unpack to."""

LONGEST_END: Final = 22 + 0xFFFF
"""Bytes of the last record of an archive and the comment after it."""

MANY_ENTRIES: Final = 0xFFFF
"""What an archive says that has more entries than that."""


@lru_cache(maxsize=4)
def _archive(path: Path, _changed: int) -> zipfile.ZipFile:
    """Open an archive once: its directory is read anew each time, which takes longer the larger."""
    return zipfile.ZipFile(path)


def list_members(path: Path) -> list[str]:
    """List the files of an archive; none but "" where it is damaged or a name comes twice."""
    try:
        archive = _archive(path, path.stat().st_mtime_ns)
    except Exception:  # noqa: BLE001 # zipfile raises whatever a damaged archive leads it to
        return [""]
    entries = archive.infolist()
    names = [info.filename for info in entries if not info.is_dir()]
    if len({*names}) < len(names) or _promised_entries(path) not in (len(entries), MANY_ENTRIES):
        return [""]
    return sorted(name for name in names if not Path(name).name.startswith("."))


def _promised_entries(path: Path) -> int:
    """Read how many entries an archive says it has; a damaged directory swallows some."""
    with path.open("rb") as stream:
        stream.seek(max(path.stat().st_size - LONGEST_END, 0))
        end = stream.read()
    at = end.rfind(b"PK\5\6")
    return int.from_bytes(end[at + 10 : at + 12], "little")


def unpack_member(path: Path, member: str, most: int | None = None) -> bytes:
    """Unpack a member of an archive, or its first bytes.

    Raises:
        FormatError: it is encrypted, or larger than the budget.
    """
    archive = _archive(path, path.stat().st_mtime_ns)
    info = archive.getinfo(member)
    if info.flag_bits & 1:
        raise FormatError("is encrypted; unpack the archive first")
    if most is None and info.file_size > LARGEST_UNPACKED:
        raise FormatError(f"unpacks to {info.file_size} bytes; unpack the archive first")
    with archive.open(info) as stream:
        return stream.read(LARGEST_UNPACKED if most is None else most)
