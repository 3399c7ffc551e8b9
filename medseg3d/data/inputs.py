"""What a user names to be segmented: files, folders of cases, DICOM, and tables."""

import logging
import re
from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import Final

from medseg3d.config.data import Missing
from medseg3d.data.cases import (
    Case,
    complete_cases,
    contents_of,
    doubled_names,
    match_cases,
    read_cases,
)
from medseg3d.data.filenames import says_reference
from medseg3d.data.patterns import pattern_expression, volume_stem
from medseg3d.errors import ConfigError
from medseg3d.io.files import holds_dicom

FOUR_DIGITS: Final = re.compile(r"_\d{4}$")
"""How nnU-Net numbers channels."""

log = logging.getLogger(__name__)


def find_inputs(
    inputs: Sequence[Path], images: Mapping[str, str], *, missing: Missing = "refuse"
) -> list[Case]:
    """Find the cases to segment among the files, folders and tables a user names.

    A folder is searched with the patterns of training, with and without their leading folders, or
    is itself the folder of one case. Where none fits, a network of one channel takes every folder
    of DICOM images in it for a case. A table (`.csv`) has the columns `case` and one per channel.
    Files are a case each where all channels have one pattern; otherwise they are the files of one
    case, in order, and so are folders of DICOM, one each. Where the model was trained with cases
    that lack channels, `missing` is `zeros`, and folders and tables may lack them, too.

    Raises:
        ConfigError: an input does not exist, holds no case, lacks a channel, or two cases share a
            name; says which.
    """
    cases: list[Case] = []
    one_each = 1 < len({*images.values()}) == len(inputs)
    files = []
    for path in inputs:
        if not path.exists():
            raise ConfigError(f"input '{path}' does not exist")
        if path.suffix.lower() == ".csv":
            cases += _cases_in_table(path, images, missing)
        elif path.is_file() or (one_each and holds_dicom(path)):
            files.append(path)
        else:
            cases += _cases_in_folder(path, images, missing)
    cases += _cases_of_files(files, images)
    names = [case.id for case in cases]
    if doubled := doubled_names(names):
        raise ConfigError(
            f"two inputs are called {', '.join(doubled)}: their results would be one file. "
            "Segment them into different folders."
        )
    return cases


def _cases_in_folder(folder: Path, images: Mapping[str, str], missing: Missing) -> list[Case]:
    shortened = {channel: without_leading_folders(pattern) for channel, pattern in images.items()}
    tries: list[tuple[Path, Mapping[str, str], str | None]] = [
        (folder, images, None),
        (folder, shortened, None),
    ]
    own = folder.absolute()
    outer, *inner = PurePosixPath(next(iter(shortened.values()))).parts
    if inner and (named := pattern_expression(outer).fullmatch(own.name)):
        tries.append((own.parent, shortened, named["case"]))
    said: list[str] = []
    for root, patterns, case in tries:
        matched = _without_references(root, match_cases(root, patterns, case=case))
        cases, faults = complete_cases(matched, patterns, missing=missing)
        if cases and not faults:
            return cases
        said = said or faults
    if not said and holds_dicom(folder):
        return _cases_of_dicom(folder, images)
    if said:
        raise ConfigError(f"'{folder}' lacks channels:\n  " + "\n  ".join(said))
    wanted = ", ".join(f"{channel} = '{pattern}'" for channel, pattern in images.items())
    raise ConfigError(
        f"no case in '{folder}': the model looks for {wanted}; the folder holds "
        f"{contents_of(folder)}. Give files or a CSV, or set the pattern by --set images.CHANNEL=…"
    )


def _without_references(folder: Path, cases: Sequence[Case]) -> list[Case]:
    """Leave out what is called like a case with a word more, such as `p1_seg` and `p1_0000`."""
    names = {case.id for case in cases}
    beside = [
        name
        for name in names
        if (says_reference(name) or FOUR_DIGITS.search(name))
        and re.sub(r"[_-][^_-]+$", "", name) in names - {name}
    ]
    if beside:
        log.warning(
            "'%s': not taken for images, by their names: %s", folder, ", ".join(sorted(beside))
        )
    return [case for case in cases if case.id not in beside]


def _cases_of_dicom(folder: Path, images: Mapping[str, str]) -> list[Case]:
    from medseg3d.io.dicom.series import find_image_folders  # noqa: PLC0415 # needs an extra

    folders = find_image_folders(folder)
    if not folders:
        raise ConfigError(f"'{folder}' holds DICOM, but no images; see `medseg3d info FOLDER`")
    if len({*images.values()}) > 1:
        raise ConfigError(
            f"'{folder}' holds DICOM, which does not say what is what of {', '.join(images)}. Name "
            "one folder per channel, in this order, or give a CSV with the columns case and "
            "these, or convert it first (medseg3d convert)."
        )
    own = folder.absolute().name
    return [
        Case("_".join((own, *path.relative_to(folder).parts)), dict.fromkeys(images, path))
        for path in folders
    ]


def without_leading_folders(pattern: str) -> str:
    """Shorten a pattern to begin at the part with `{case}`, as a folder of new cases has it."""
    parts = PurePosixPath(pattern).parts
    first = next(n for n, part in enumerate(parts) if "{case}" in part)
    return "/".join(parts[first:])


def _cases_in_table(table: Path, images: Mapping[str, str], missing: Missing) -> list[Case]:
    cases, faults = complete_cases(read_cases(table), dict.fromkeys(images, ""), missing=missing)
    if faults:
        raise ConfigError(f"'{table}' lacks channels:\n  " + "\n  ".join(faults))
    return [case.with_channels(images) for case in cases]


def _cases_of_files(files: Sequence[Path], images: Mapping[str, str]) -> list[Case]:
    if not files:
        return []
    if len({*images.values()}) == 1:
        return [Case(volume_stem(path), dict.fromkeys(images, path)) for path in files]
    spread = spread_files(files, images)
    for channel, path in spread.items():
        fits = [other for other, p in images.items() if _is_named_like(path, p)]
        if fits and channel not in fits:
            raise ConfigError(
                f"'{path.name}' stands in the place of channel '{channel}' but is named like "
                f"'{fits[0]}'. The order is {', '.join(images)}."
            )
    return [Case(_common_name(files), spread)]


def spread_files(files: Sequence[Path], images: Mapping[str, str]) -> dict[str, Path]:
    """Give each channel its file: one file per channel, or per pattern where some share one.

    Raises:
        ConfigError: there are more or fewer files.
    """
    patterns = [*dict.fromkeys(images.values())]
    if len(files) == len(images):
        return dict(zip(images, files, strict=True))
    if len(files) == len(patterns):
        return {channel: files[patterns.index(pattern)] for channel, pattern in images.items()}
    of_patterns = f" or {len(patterns)} with several" if len(patterns) < len(images) else ""
    raise ConfigError(
        f"the model takes {len(images)} channels ({', '.join(images)}), got {len(files)} files. "
        f"Name one file per channel in this order{of_patterns}, or a folder, or a CSV."
    )


def _is_named_like(path: Path, pattern: str) -> bool:
    return bool(pattern_expression(PurePosixPath(pattern).name).fullmatch(path.name))


def _common_name(files: Sequence[Path]) -> str:
    """Name a case by what its files' names begin with, up to a sign that parts words."""
    stems = [volume_stem(path) for path in files]
    same = takewhile(lambda letters: len({*letters}) == 1, zip(*stems, strict=False))
    common = re.match(r"(.*[^_.-])[_.-]", "".join(letters[0] for letters in same))
    return common[1] if common else stems[0]
