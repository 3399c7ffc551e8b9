"""What a stored case is made from, in one key: the bytes of its files and what is done to them."""

import hashlib
import json
import os
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from medseg3d.config.preprocess import PreprocessConfig
from medseg3d.data.cases import Case
from medseg3d.data.store import Store
from medseg3d.io.atomic import write_atomically
from medseg3d.labels import LabelScheme

PREPROCESSING: Final = 3
"""Counted up when the same files and configuration give other files of a store than before."""

KEY_DIGITS: Final = 16
"""Hexadecimal digits of a key: enough that no two of a billion cases share one by chance."""

NAMED: Final = re.compile(rb"^(?:data ?file|ElementDataFile)\s*[:=]\s*(.*\S)", re.I | re.M)
"""The line of a header that names the file with its voxels."""

DIGESTS: Final = "digests.json"
"""File of a store that spares reading files again: path -> size, time, digest."""


def find_keys(
    cases: Sequence[Case], store: Store, config: PreprocessConfig, labels: LabelScheme
) -> dict[str, str]:
    """Give the key of each case: names and times of files do not count, what is in them does.

    So a data set may be copied or moved. A file is read again only where its path, size or time is
    not the one that the store remembers.
    """
    paths = {path for case in cases for path in (*case.paths, case.reference) if path}
    parts = {path: _parts(path) for path in paths}
    digests = _find_digests({part for found in parts.values() for part in found}, store)
    done = [PREPROCESSING, config.model_dump(mode="json"), labels.channel_values, labels.ignore]

    def content(path: Path | None) -> list[str]:
        return [digests[part] for part in parts[path]] if path else []

    return {
        case.id: _shorten([done, [*map(content, case.paths)], content(case.reference)])
        for case in cases
    }


def _parts(path: Path) -> list[Path]:
    """List the files that a path stands for: those of a folder, or of a header and its voxels."""
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.is_file())
    if path.suffix.lower() in (".mhd", ".nhdr"):
        return [path, *_voxels_beside(path)]
    return [path]


def _voxels_beside(header: Path) -> list[Path]:
    """Find the file that a header of NRRD or MetaImage names; it may be called anything."""
    named = NAMED.findall(header.read_bytes())
    return [file for name in named if (file := header.parent / os.fsdecode(name)).is_file()]


def _find_digests(files: Iterable[Path], store: Store) -> dict[Path, str]:
    memory = store.folder / DIGESTS
    known = json.loads(memory.read_text(encoding="utf-8")) if memory.exists() else {}
    stats = {file: file.stat() for file in files}
    now = {file: (str(file.resolve()), s.st_size, s.st_mtime_ns) for file, s in stats.items()}
    new = [file for file, (path, *state) in now.items() if known.get(path, [])[:2] != state]
    if new:
        with ThreadPoolExecutor() as pool:
            for file, digest in zip(new, pool.map(_digest, new), strict=True):
                path, *state = now[file]
                known[path] = [*state, digest]
        write_atomically(memory, json.dumps(known).encode())
    return {file: known[path][2] for file, (path, *_) in now.items()}


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _shorten(made_from: object) -> str:
    return hashlib.sha256(json.dumps(made_from).encode()).hexdigest()[:KEY_DIGITS]
