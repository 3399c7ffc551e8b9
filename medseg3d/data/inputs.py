"""What a user names to be segmented: files, folders of cases, DICOM, and tables."""

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from medseg3d.data.cases import (
    Case,
    assemble_cases,
    contents_of,
    doubled_names,
    pattern_expression,
    read_cases,
    volume_stem,
)
from medseg3d.errors import ConfigError
from medseg3d.io.files import holds_dicom


def find_inputs(inputs: Sequence[Path], images: Mapping[str, str]) -> list[Case]:
    """Find the cases to segment among the files, folders and tables a user names.

    A folder is searched with the patterns of training, with and without their leading folders, or
    is itself the folder of one case. Where none fits, a network of one channel takes every folder
    of DICOM images in it for a case. A table (`.csv`) has the columns `case` and one per channel.
    Files are a case each for a network of one channel; otherwise they are the channels of one
    case, in order, and so are folders of DICOM, one each.

    Raises:
        ConfigError: an input does not exist, holds no case, lacks a channel, or two cases share a
            name; says which.
    """
    cases: list[Case] = []
    one_each = 1 < len(images) == len(inputs)
    files = []
    for path in inputs:
        if not path.exists():
            raise ConfigError(f"input '{path}' does not exist")
        if path.suffix.lower() == ".csv":
            cases += _cases_in_table(path, images)
        elif path.is_file() or (one_each and holds_dicom(path)):
            files.append(path)
        else:
            cases += _cases_in_folder(path, images)
    cases += _cases_of_files(files, images)
    names = [case.id for case in cases]
    if doubled := doubled_names(names):
        raise ConfigError(
            f"two inputs are called {', '.join(doubled)}: their results would be one file. "
            "Segment them into different folders."
        )
    return cases


def _cases_in_folder(folder: Path, images: Mapping[str, str]) -> list[Case]:
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
        cases, faults = assemble_cases(root, patterns, None, case=case)
        if cases:
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


def _cases_of_dicom(folder: Path, images: Mapping[str, str]) -> list[Case]:
    from medseg3d.io.dicom.series import find_image_folders  # noqa: PLC0415 # needs an extra

    folders = find_image_folders(folder)
    if not folders:
        raise ConfigError(f"'{folder}' holds DICOM, but no images; see `medseg3d info FOLDER`")
    if len(images) > 1:
        raise ConfigError(
            f"'{folder}' holds DICOM, which does not say what is what of {', '.join(images)}. Name "
            "one folder per channel, in this order, or give a CSV with the columns case and "
            "these, or convert it first (medseg3d convert)."
        )
    own = folder.absolute().name
    [channel] = images
    return [
        Case("_".join((own, *path.relative_to(folder).parts)), {channel: path}) for path in folders
    ]


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
            c
            for c, p in images.items()
            if pattern_expression(PurePosixPath(p).name).fullmatch(path.name)
        ]
        if fits and place not in fits:
            raise ConfigError(
                f"'{path.name}' stands in the place of channel '{place}' but is named like "
                f"'{fits[0]}'. The order is {', '.join(channels)}."
            )
    return [Case(volume_stem(files[0]), dict(zip(channels, files, strict=True)))]
