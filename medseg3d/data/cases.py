"""Cases: which files belong to one exam, found by path patterns or read from a table."""

import csv
import io
import logging
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from medseg3d.config.data import COLUMNS, DataConfig, Missing
from medseg3d.config.preprocess import PreprocessConfig
from medseg3d.data.patterns import match_pattern
from medseg3d.errors import ConfigError, FormatError
from medseg3d.io.atomic import write_atomically
from medseg3d.io.files import read_volume, stack_channels
from medseg3d.volume import Volume, require_one_grid

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Case:
    """One exam: its name, one file per channel, and the reference label map where there is one."""

    id: str
    images: dict[str, Path]
    """Channels in one file name it several times; a channel to be zeros is not there."""
    reference: Path | None = None
    patient: str = ""
    """Whose exam it is; where nobody says so, a patient has one case and its name."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "patient", self.patient or self.id)

    def with_channels(self, channels: Iterable[str]) -> "Case":
        """Take these channels, in this order, as far as they are there."""
        return replace(self, images={c: self.images[c] for c in channels if c in self.images})


def find_cases(data: DataConfig) -> list[Case]:
    """Find every case of a data set, complete but for what `data.missing` lets be missing.

    Raises:
        ConfigError: no folder, no case, or cases that lack a file or a patient; all at once.
        FormatError: `data.table` is damaged.
    """
    cases, faults = search_cases(data)
    if faults:
        raise ConfigError(
            f"'{data.folder}' lacks files:\n  " + "\n  ".join(faults) + "\nAdd them, correct the "
            "patterns, or set data.missing to drop such cases or to put zeros in place of images."
        )
    return cases


def search_cases(data: DataConfig) -> tuple[list[Case], list[str]]:
    """Find the cases of a data set that can be used, and say what is wrong with the others.

    Raises:
        ConfigError: no folder, or no case at all.
        FormatError: `data.table` is damaged.
    """
    if not data.folder.is_dir():
        raise ConfigError(
            f"data.folder: '{data.folder}' is not a folder. Set it to the data set's."
        )
    if data.table:
        wanted = dict.fromkeys(data.images, "")
        cases = [case.with_channels(wanted) for case in read_cases(data.folder / data.table)]
        reference = "" if any(case.reference for case in cases) else None
    else:
        wanted, reference = data.images, data.reference
        cases = match_cases(data.folder, wanted, reference)
    if not cases:
        patterns = ", ".join(f"'{p}'" for p in [*data.images.values(), data.reference] if p)
        raise ConfigError(
            f"no file in '{data.folder}' fits {patterns}; it holds {contents_of(data.folder)}. "
            "Correct data.folder or the patterns under data.images and data.reference."
        )
    complete, faults = complete_cases(cases, wanted, reference, missing=data.missing)
    if data.patient is None:
        return complete, faults
    named, unnamed = _name_patients(complete, data.patient)
    return named, faults + unnamed


def match_cases(
    folder: Path,
    images: Mapping[str, str],
    reference: str | None = None,
    *,
    case: str | None = None,
) -> list[Case]:
    """Join what each pattern finds into cases, which may lack files.

    What fits two patterns belongs to the one that says more: `p1_seg.nii.gz` is of
    `{case}_seg.nii.gz`, and no image `{case}.nii.gz` of a case `p1_seg`.
    """
    patterns = dict.fromkeys([*images.values(), *([reference] if reference else [])])
    found = {pattern: match_pattern(folder, pattern, case=case) for pattern in patterns}
    said = {pattern: len(re.sub(r"{case}|\*", "", pattern)) for pattern in patterns}
    for pattern in patterns:
        taken = {p for more in patterns if said[more] > said[pattern] for p in found[more].values()}
        found[pattern] = {n: path for n, path in found[pattern].items() if path not in taken}
    return [
        Case(
            name,
            {channel: found[p][name] for channel, p in images.items() if name in found[p]},
            found[reference].get(name) if reference else None,
        )
        for name in sorted(set().union(*found.values()))
    ]


def complete_cases(
    cases: Sequence[Case],
    images: Mapping[str, str],
    reference: str | None = None,
    *,
    missing: Missing = "refuse",
) -> tuple[list[Case], list[str]]:
    """Part cases into those to be used and what the others lack, of channels and references.

    Patterns are for the message alone, and are empty where there are none.

    With `drop`, what is incomplete is left out, with one WARNING; with `zeros`, a case has at least
    one image, and those that lack others are told.
    """
    complete, incomplete, faults = [], [], []
    for case in cases:
        lacks = [_no(channel, p) for channel, p in images.items() if channel not in case.images]
        if missing == "zeros" and case.images and lacks:
            incomplete.append(case.id)
            lacks = []
        if reference is not None and not case.reference:
            lacks.append(_no("reference", reference))
        if not lacks:
            complete.append(case)
        elif missing == "drop":
            incomplete.append(case.id)
        else:
            faults.append(f"case '{case.id}': {', '.join(lacks)}")
    if incomplete:
        done = "are left out" if missing == "drop" else "get zeros in their place"
        log.warning("%d cases lack files and %s: %s", len(incomplete), done, ", ".join(incomplete))
    return complete, faults


def _no(what: str, pattern: str) -> str:
    return f"no {what}" + (f" ('{pattern}')" if pattern else "")


def _name_patients(cases: Sequence[Case], expression: str) -> tuple[list[Case], list[str]]:
    """Find the patient in each case's name, unless a table has told it; say where there is none."""
    found = {case.id: re.search(expression, case.id) for case in cases}
    faults = [
        f"case '{name}': data.patient '{expression}' finds no patient in its name"
        for name, match in found.items()
        if not (match and match[1])
    ]
    return [
        replace(case, patient=match[1]) if match and case.patient == case.id else case
        for case, match in zip(cases, found.values(), strict=True)
    ], faults


def read_cases(table: Path) -> list[Case]:
    """Read a CSV with the columns `case`, one per channel, and perhaps `reference` and `patient`.

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
            + _other_delimiter(columns)
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
    """Write cases as a CSV that `read_cases` reads; paths become absolute.

    Patients have a column where one has another name than its case.
    """
    channels = [*dict.fromkeys(channel for case in cases for channel in case.images)]
    known = any(case.patient != case.id for case in cases)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["case", *channels, "reference", *(["patient"] if known else [])])
    for case in cases:
        paths = [*(case.images.get(channel) for channel in channels), case.reference]
        fields = [path.resolve() if path else "" for path in paths]
        writer.writerow([case.id, *fields, *([case.patient] if known else [])])
    write_atomically(table, text.getvalue().encode())


def read_images(paths: Sequence[Path | None], config: PreprocessConfig) -> Volume:
    """Read the channels of a case, with what the config says about NaN, and tilt and gaps of DICOM.

    A path that occurs several times is one file with as many channels on its fourth axis, in that
    order; None is a channel of zeros.

    Raises:
        FormatError, GridError: as `read_volume`; a file holds another number of channels than it
            is named for.
        ConfigError: there is no path at all.
    """
    files = [path for path in paths if path is not None]
    volumes = {path: _read_image(path, files.count(path), config) for path in dict.fromkeys(files)}
    if not volumes:
        raise ConfigError("no file to read a volume from; name at least one")
    require_one_grid([v.grid for v in volumes.values()], [str(path) for path in volumes])
    first = next(iter(volumes.values()))
    if len(volumes) == 1 and None not in paths:
        return first
    channels = {path: iter(volume.array_CIJK) for path, volume in volumes.items()}
    zeros_IJK = np.broadcast_to(np.uint8(0), first.shape_IJK)
    arrays = [zeros_IJK if path is None else next(channels[path]) for path in paths]
    return stack_channels([Volume(array[np.newaxis], first.affine) for array in arrays])


def _read_image(path: Path, num_channels: int, config: PreprocessConfig) -> Volume:
    volume = read_volume(
        path,
        nonfinite=config.nonfinite,
        fourth_axis="refuse" if num_channels == 1 else "channels",
        volume=config.volume,
        tilt=config.tilt,
        gaps=config.gaps,
    )
    if volume.num_channels != num_channels:
        raise FormatError(
            f"'{path}' holds {volume.num_channels} channels on its fourth axis, expected "
            f"{num_channels}, as often as its pattern stands under data.images. Name each "
            "channel there once, in the file's order, or give a file per channel."
        )
    return volume


def _case_of_row(row: Mapping[str, str], folder: Path) -> Case:
    images = {
        name: folder / value
        for name, value in row.items()
        if name not in COLUMNS and name and value
    }
    reference = row.get("reference")
    return Case(
        row["case"], images, folder / reference if reference else None, row.get("patient") or ""
    )


def _other_delimiter(columns: Sequence[str]) -> str:
    """Say which sign parts the columns instead of a comma, where one does."""
    for sign, name in ((";", "semicolons"), ("\t", "tabs")):
        if len(columns) == 1 and sign in columns[0]:
            return f". Its columns are parted by {name}; save it with commas"
    return ""


def doubled_names(names: Sequence[str]) -> list[str]:
    """Give the names that occur more than once."""
    return sorted(name for name, count in Counter(names).items() if count > 1)


def contents_of(folder: Path) -> str:
    """Say in a few words what a folder holds."""
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return (", ".join(f"'{name}'" for name in names[:4]) + more) if names else "nothing"
