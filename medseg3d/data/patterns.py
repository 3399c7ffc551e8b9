"""Names of files with volumes, and patterns of them: `imagesTr/{case}_0000.nii.gz`."""

import glob
import re
from pathlib import Path

from medseg3d.errors import ConfigError
from medseg3d.io.files import READERS

VOLUME_SUFFIXES = tuple(READERS)
"""Ends of the names of files that hold volumes."""


def match_pattern(folder: Path, pattern: str, *, case: str | None = None) -> dict[str, Path]:
    """Find the files that fit a pattern, by case, in alphabetical order; or those of one case.

    `{case}` stands for the case's name (the same each time it occurs), `*` for anything within one
    path part. Hidden files are passed over: unpacked archives are full of `._name.nii.gz`.

    Raises:
        ConfigError: two files fit one case.
    """
    found: dict[str, Path] = {}
    expression = pattern_expression(pattern)
    wildcard = "*" if case is None else glob.escape(case)
    literal = pattern.replace("[", "[[]").replace("?", "[?]")
    for path in sorted(folder.glob(literal.replace("{case}", wildcard))):
        match = expression.fullmatch(path.relative_to(folder).as_posix())
        if match is None:
            continue
        name = match["case"]
        if name in found:
            raise ConfigError(
                f"pattern '{pattern}' fits two files of case '{name}' in '{folder}': "
                f"'{found[name].name}' and '{path.name}'. Write the pattern so that it fits one."
            )
        found[name] = path
    return found


def pattern_expression(pattern: str) -> re.Pattern[str]:
    """Write a pattern as a regular expression with the group `case`."""
    literal = re.escape(pattern).replace(r"\*", "[^/]*")
    first, *more = literal.split(re.escape("{case}"))
    expression = first + r"(?P<case>[^/.][^/]*)" if more else first
    return re.compile(expression + "(?P=case)".join(more) if more else expression)


def volume_stem(path: Path) -> str:
    """Give a volume file's name without its suffix."""
    for suffix in VOLUME_SUFFIXES:
        if path.name.lower().endswith(suffix):
            return path.name[: -len(suffix)]
    return path.stem
