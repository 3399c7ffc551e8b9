"""Output that is either whole or not there."""

import os
import secrets
import tempfile
from collections.abc import Iterable
from pathlib import Path

from medseg3d.errors import ConfigError


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
        OSError: the folder does not exist, is not writable, or the disk is full; nothing is left.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with temporary.open("xb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
