"""Output that is either whole or not there."""

import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final

from medseg3d.errors import ConfigError

UNFINISHED: Final = re.compile(r"\.(?P<target>.+)\.[0-9a-f]{8}\.part")
"""Names of temporary files and folders."""


def prepare_folder(folder: Path, *, keep: Iterable[Path] = ()) -> None:
    """Make an output folder before any work is done, and see that it can be written to.

    Raises:
        ConfigError: the folder cannot be made or written to, or a file of `keep` exists.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigError(
            f"output folder '{folder}' cannot be written to: {error.strerror}. "
            "Choose another --out."
        ) from error
    if there := sorted(path.name for path in keep if path.exists()):
        more = f" and {len(there) - 3} more" if len(there) > 3 else ""
        raise ConfigError(
            f"'{folder}' already holds {', '.join(there[:3])}{more}. "
            "Choose another --out, or allow it with --overwrite."
        )


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that no reader, crash or full disk ever leaves half of it.

    Raises:
        ConfigError: as `open_atomically`.
    """
    with open_atomically(path) as stream:
        stream.write(data)


@contextmanager
def open_atomically(path: Path) -> Iterator[BinaryIO]:
    """Give a stream to write a file to, which is there when all of it is written.

    The bytes go to a hidden temporary file beside the target, are flushed to the disk, and take
    the target's name in one step.

    Raises:
        ConfigError: the folder does not exist, is not writable, or the disk is full; nothing is
            left behind.
    """
    with _or_nothing(path) as temporary:
        with temporary.open("xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)


@contextmanager
def fill_folder(path: Path) -> Iterator[Path]:
    """Give a hidden folder to write files to, which takes its name when all are written.

    Of several who fill one folder at the same time, the first gives it, and the others' work is
    removed.

    Raises:
        ConfigError: as `open_atomically`.
    """
    with _or_nothing(path) as temporary:
        temporary.mkdir()
        yield temporary
        try:
            temporary.rename(path)
        except OSError:
            if not path.is_dir():
                raise
            _remove(temporary)


def remove_unfinished(
    folder: Path, *, names: Container[str] | None = None, older_than_s: float = 0.0
) -> None:
    """Remove what writes that were killed have left in a folder, or of files with these names.

    Where others may be writing, `older_than_s` spares what is being written.
    """
    for path in folder.glob(".*.part"):
        unfinished = UNFINISHED.fullmatch(path.name)
        if unfinished and (names is None or unfinished["target"] in names):
            with suppress(FileNotFoundError):  # others may remove it too
                if time.time() - path.stat().st_mtime >= older_than_s:
                    _remove(path)


@contextmanager
def _or_nothing(path: Path) -> Iterator[Path]:
    """Give a temporary name beside a path, of which nothing is left when writing fails."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        yield temporary
    except BaseException as error:
        _remove(temporary)
        if not isinstance(error, OSError):
            raise
        raise ConfigError(
            f"cannot write '{path}': {error.strerror}. Nothing was left behind; choose a folder "
            "that exists, is writable and has room."
        ) from error


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()
