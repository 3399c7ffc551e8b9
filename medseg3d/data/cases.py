"""Cases: which files belong to one exam, found by path patterns or read from a table."""

import csv
import glob
import io
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from medseg3d.config.data import DataConfig
from medseg3d.config.preprocess import PreprocessConfig
from medseg3d.errors import ConfigError, FormatError
from medseg3d.io.atomic import write_atomically
from medseg3d.io.files import READERS, read_volume
from medseg3d.volume import Volume

VOLUME_SUFFIXES = tuple(READERS)
"""Ends of the names of files that hold volumes."""


@dataclass(frozen=True, slots=True)
class Case:
    """One exam: its name, one file per channel, and the reference label map where there is one."""

    id: str
    images: dict[str, Path]
    reference: Path | None = None


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


def find_cases(data: DataConfig) -> list[Case]:
    """Find every case of a data set, complete with each channel and the reference.

    Raises:
        ConfigError: no folder, no case, or cases that lack a file; all faults at once.
    """
    if not data.folder.is_dir():
        raise ConfigError(
            f"data.folder: '{data.folder}' is not a folder. Set it to the data set's."
        )
    cases, faults = assemble_cases(data.folder, data.images, data.reference)
    if not cases and not faults:
        patterns = ", ".join(f"'{p}'" for p in [*data.images.values(), data.reference] if p)
        raise ConfigError(
            f"no file in '{data.folder}' fits {patterns}; it holds {contents_of(data.folder)}. "
            "Correct data.folder or the patterns under data.images and data.reference."
        )
    if faults:
        raise ConfigError(f"'{data.folder}' lacks files:\n  " + "\n  ".join(faults))
    return cases


def read_cases(table: Path) -> list[Case]:
    """Read a CSV with the columns `case`, one per channel, and optionally `reference`.

    Relative paths start at the table's own folder; an empty field is a file that is not there.

    Raises:
        FormatError: not a CSV with a column `case`, no rows, or a name that occurs twice or
            cannot be a file's.
    """
    try:
        with table.open(newline="", encoding="utf-8-sig") as stream:  # Excel writes a mark
            reader = csv.DictReader(stream)
            rows, columns = list(reader), [*(reader.fieldnames or [])]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise FormatError(f"'{table}' cannot be read as a table: {error}") from error
    if not rows or any(not row.get("case") for row in rows):
        raise FormatError(
            f"'{table}' needs a column 'case', filled in every row, one column per channel and "
            f"optionally 'reference'; it has {len(rows)} rows, columns {columns}"
        )
    if doubled := doubled_names(columns):
        raise FormatError(f"'{table}' has more than one column {', '.join(doubled)}")
    names = [row["case"] for row in rows]
    if doubled := doubled_names(names):
        raise FormatError(f"'{table}' names {', '.join(doubled)} more than once")
    if paths := [name for name in names if "/" in name]:
        raise FormatError(
            f"'{table}' names case '{paths[0]}'; results are called like their case, so a name "
            "holds no '/'"
        )
    return [_case_of_row(row, table.parent) for row in rows]


def write_cases(table: Path, cases: Sequence[Case]) -> None:
    """Write cases as a CSV that `read_cases` reads; paths become absolute."""
    channels = [*cases[0].images] if cases else []
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["case", *channels, "reference"])
    for case in cases:
        paths = [*(case.images[channel] for channel in channels), case.reference]
        writer.writerow([case.id, *(path.resolve() if path else "" for path in paths)])
    write_atomically(table, text.getvalue().encode())


def read_images(paths: Sequence[Path], config: PreprocessConfig) -> Volume:
    """Read the channels of a case, with what the config says about NaN, and tilt and gaps of DICOM.

    Raises:
        FormatError, GridError: as `read_volume`.
    """
    return read_volume(
        paths,
        nonfinite=config.nonfinite,
        volume=config.volume,
        tilt=config.tilt,
        gaps=config.gaps,
    )


def volume_stem(path: Path) -> str:
    """Give a volume file's name without its suffix."""
    for suffix in VOLUME_SUFFIXES:
        if path.name.lower().endswith(suffix):
            return path.name[: -len(suffix)]
    return path.stem


def pattern_expression(pattern: str) -> re.Pattern[str]:
    """Write a pattern as a regular expression with the group `case`."""
    literal = re.escape(pattern).replace(r"\*", "[^/]*")
    first, *more = literal.split(re.escape("{case}"))
    expression = first + r"(?P<case>[^/.][^/]*)" if more else first
    return re.compile(expression + "(?P=case)".join(more) if more else expression)


def assemble_cases(
    folder: Path, images: Mapping[str, str], reference: str | None, *, case: str | None = None
) -> tuple[list[Case], list[str]]:
    """Join what each pattern finds into cases, and say which files are missing."""
    found = {c: match_pattern(folder, pattern, case=case) for c, pattern in images.items()}
    references = match_pattern(folder, reference) if reference else None
    names = sorted(set().union(*found.values(), references or ()))
    faults = [
        f"case '{name}': no {channel} ('{images[channel]}')"
        for name in names
        for channel in images
        if name not in found[channel]
    ]
    if references is not None:
        faults += [
            f"case '{n}': no reference ('{reference}')" for n in names if n not in references
        ]
    if faults:
        return [], faults
    return [
        Case(
            name,
            {channel: found[channel][name] for channel in images},
            references[name] if references else None,
        )
        for name in names
    ], []


def _case_of_row(row: Mapping[str, str], folder: Path) -> Case:
    paths = {
        name: folder / value for name, value in row.items() if name and name != "case" and value
    }
    reference = paths.pop("reference", None)
    return Case(row["case"], paths, reference)


def doubled_names(names: Sequence[str]) -> list[str]:
    """Give the names that occur more than once."""
    return sorted(name for name, count in Counter(names).items() if count > 1)


def contents_of(folder: Path) -> str:
    """Say in a few words what a folder holds."""
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return (", ".join(f"'{name}'" for name in names[:4]) + more) if names else "nothing"
