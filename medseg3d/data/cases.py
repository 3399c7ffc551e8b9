"""Cases: which files belong to one exam, found by path patterns or read from a table."""

import csv
import glob
import io
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from medseg3d.config.data import DataConfig
from medseg3d.errors import ConfigError, FormatError
from medseg3d.io.atomic import write_atomically
from medseg3d.io.files import READERS

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
    expression = _expression(pattern)
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
    cases, faults = _assemble(data.folder, data.images, data.reference)
    if not cases and not faults:
        patterns = ", ".join(f"'{p}'" for p in [*data.images.values(), data.reference] if p)
        raise ConfigError(
            f"no file in '{data.folder}' fits {patterns}; it holds {_contents(data.folder)}. "
            "Correct data.folder or the patterns under data.images and data.reference."
        )
    if faults:
        raise ConfigError(f"'{data.folder}' lacks files:\n  " + "\n  ".join(faults))
    return cases


def find_inputs(inputs: Sequence[Path], images: Mapping[str, str]) -> list[Case]:
    """Find the cases to segment among the files, folders and tables a user names.

    A folder is searched with the patterns of training, with and without their leading folders, or
    is itself the folder of one case. A table (`.csv`) has the columns `case` and one per channel.
    Files are a case each for a network of one channel; otherwise they are the channels of one
    case, in order.

    Raises:
        ConfigError: an input does not exist, holds no case, lacks a channel, or two cases share a
            name; says which.
    """
    cases: list[Case] = []
    files = [path for path in inputs if path.is_file() and path.suffix.lower() != ".csv"]
    for path in inputs:
        if not path.exists():
            raise ConfigError(f"input '{path}' does not exist")
        if path.is_dir():
            cases += _cases_in_folder(path, images)
        elif path not in files:
            cases += _cases_in_table(path, images)
    cases += _cases_of_files(files, images)
    names = [case.id for case in cases]
    if doubled := _doubled(names):
        raise ConfigError(
            f"two inputs are called {', '.join(doubled)}: their results would be one file. "
            "Segment them into different folders."
        )
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
    if doubled := _doubled(columns):
        raise FormatError(f"'{table}' has more than one column {', '.join(doubled)}")
    names = [row["case"] for row in rows]
    if doubled := _doubled(names):
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


def volume_stem(path: Path) -> str:
    """Give a volume file's name without its suffix."""
    for suffix in VOLUME_SUFFIXES:
        if path.name.lower().endswith(suffix):
            return path.name[: -len(suffix)]
    return path.stem


def _expression(pattern: str) -> re.Pattern[str]:
    literal = re.escape(pattern).replace(r"\*", "[^/]*")
    first, *more = literal.split(re.escape("{case}"))
    expression = first + r"(?P<case>[^/.][^/]*)" if more else first
    return re.compile(expression + "(?P=case)".join(more) if more else expression)


def _assemble(
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


def _cases_in_folder(folder: Path, images: Mapping[str, str]) -> list[Case]:
    shortened = {channel: without_leading_folders(pattern) for channel, pattern in images.items()}
    tries: list[tuple[Path, Mapping[str, str], str | None]] = [
        (folder, images, None),
        (folder, shortened, None),
    ]
    own = folder.absolute()
    outer, *inner = PurePosixPath(next(iter(shortened.values()))).parts
    if inner and (named := _expression(outer).fullmatch(own.name)):
        tries.append((own.parent, shortened, named["case"]))
    said: list[str] = []
    for root, patterns, case in tries:
        cases, faults = _assemble(root, patterns, None, case=case)
        if cases:
            return cases
        said = said or faults
    if said:
        raise ConfigError(f"'{folder}' lacks channels:\n  " + "\n  ".join(said))
    wanted = ", ".join(f"{channel} = '{pattern}'" for channel, pattern in images.items())
    raise ConfigError(
        f"no case in '{folder}': the model looks for {wanted}; the folder holds "
        f"{_contents(folder)}. Give files or a CSV, or set the pattern by --set images.CHANNEL=… "
        "DICOM is not read yet: convert it first, for example with dcm2niix."
    )


def without_leading_folders(pattern: str) -> str:
    """Shorten a pattern to begin at the part with `{case}`, as a folder of new cases has it."""
    parts = PurePosixPath(pattern).parts
    first = next(n for n, part in enumerate(parts) if "{case}" in part)
    return "/".join(parts[first:])


def _cases_in_table(table: Path, images: Mapping[str, str]) -> list[Case]:
    cases = read_cases(table)
    faults = [
        f"case '{case.id}': no {channel}"
        for case in cases
        for channel in images
        if channel not in case.images
    ]
    if faults:
        raise ConfigError(f"'{table}' lacks channels:\n  " + "\n  ".join(faults))
    return [Case(case.id, {c: case.images[c] for c in images}, case.reference) for case in cases]


def _cases_of_files(files: Sequence[Path], images: Mapping[str, str]) -> list[Case]:
    if not files:
        return []
    channels = [*images]
    if len(channels) == 1:
        return [Case(volume_stem(path), {channels[0]: path}) for path in files]
    if len(files) != len(channels):
        raise ConfigError(
            f"the model takes {len(channels)} channels ({', '.join(channels)}), got {len(files)} "
            "files. Name one file per channel in this order, or a folder, or a CSV."
        )
    for place, path in zip(channels, files, strict=True):
        fits = [
            c for c, p in images.items() if _expression(PurePosixPath(p).name).fullmatch(path.name)
        ]
        if fits and place not in fits:
            raise ConfigError(
                f"'{path.name}' stands in the place of channel '{place}' but is named like "
                f"'{fits[0]}'. The order is {', '.join(channels)}."
            )
    return [Case(volume_stem(files[0]), dict(zip(channels, files, strict=True)))]


def _case_of_row(row: Mapping[str, str], folder: Path) -> Case:
    paths = {
        name: folder / value for name, value in row.items() if name and name != "case" and value
    }
    reference = paths.pop("reference", None)
    return Case(row["case"], paths, reference)


def _doubled(names: Sequence[str]) -> list[str]:
    return sorted(name for name, count in Counter(names).items() if count > 1)


def _contents(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return (", ".join(f"'{name}'" for name in names[:4]) + more) if names else "nothing"
