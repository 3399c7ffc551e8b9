"""Output that is either whole or not there."""

import os
import re
import secrets
import tempfile
from collections.abc import Container, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from medseg3d.errors import ConfigError

UNFINISHED: Final = re.compile(r"\.(?P<target>.+)\.[0-9a-f]{8}\.part")
"""Names of temporary files."""


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

    The bytes go to a hidden temporary file beside the target, are flushed to the disk, and take
    the target's name in one step.

    Raises:
        ConfigError: the folder does not exist, is not writable, or the disk is full; nothing is
            left behind.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with temporary.open("xb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if not isinstance(error, OSError):
            raise
        raise ConfigError(
            f"cannot write '{path}': {error.strerror}. Nothing was left behind; choose a folder "
            "that exists, is writable and has room."
        ) from error


def remove_unfinished(folder: Path, *, names: Container[str] | None = None) -> None:
    """Remove what writes that were killed have left in a folder, or of files with these names."""
    for path in folder.glob(".*.part"):
        unfinished = UNFINISHED.fullmatch(path.name)
        if unfinished and (names is None or unfinished["target"] in names):
            path.unlink(missing_ok=True)
