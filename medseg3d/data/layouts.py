"""Which layout a data set has: the known ones as a table, others by how files are called.

A layout becomes a `DataConfig`, that is patterns and labels; no code is left that knows of it.
"""

import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from medseg3d.config.data import DataConfig
from medseg3d.config.load import load_config, override_section, parse_section
from medseg3d.config.preprocess import PreprocessConfig
from medseg3d.config.section import Section
from medseg3d.data.cases import doubled_names, read_cases
from medseg3d.data.challenges import LAYOUTS, by_files, find_values
from medseg3d.data.filenames import Content, by_bids, by_names
from medseg3d.data.patterns import contents_of, match_pattern
from medseg3d.errors import ConfigError, FormatError
from medseg3d.labels import LabelScheme

log = logging.getLogger(__name__)


SPLITS: Final = "splits_final.json"
"""nnU-Net's file of folds."""


LOOKED_FOR: Final = (
    "dataset.json with imagesTr (nnU-Net, Medical Segmentation Decathlon)",
    *LAYOUTS,
    "BIDS (sub-01/anat/sub-01_T1w.nii.gz, references under derivatives)",
    "a folder of images beside one of labels",
    "one folder per case",
    "files such as case_t1.nii.gz and case_seg.nii.gz",
)


def detect_layout(folder_or_csv: Path) -> DataConfig:
    """Recognise how a data set is laid out: channels, references, labels, patients, lists.

    Where nothing says what labels mean, every reference is read, and a value 3 is called `value_3`.

    Raises:
        ConfigError: it is neither folder nor CSV, or of no layout; says what was looked for.
        FormatError: its table or `dataset.json` is damaged.
    """
    source = folder_or_csv
    with suppress(RuntimeError):  # no such user: then `~` is a letter like any other
        source = source.expanduser()
    if source.suffix.lower() == ".csv":
        return _parsed(source.parent, _of_table(source))
    if not source.is_dir():
        raise ConfigError(f"'{source}' is neither a folder nor a CSV; name the data set's")
    for recognise in RECOGNISERS:
        if content := recognise(source):
            return _parsed(source, content)
    raise ConfigError(
        f"'{source}' is laid out in no way that is known; it holds {contents_of(source)}. Looked "
        "for\n  " + "\n  ".join(LOOKED_FOR) + "\nWrite data.images and data.reference as patterns, "
        "or give a CSV with the columns case, one per channel, and reference."
    )


class DataSet(Section):
    """A data set, and how its files are read."""

    data: DataConfig
    """Cases, labels, split."""
    preprocess: PreprocessConfig = PreprocessConfig()
    """From file to network and back."""


def find_data_set(source: Path, settings: Sequence[str] = ()) -> DataSet:
    """Take a data set from the YAML of a run, or recognise that of a folder or CSV.

    Raises:
        ConfigError: as `load_config` or `detect_layout`.
        FormatError: as `detect_layout`.
    """
    if source.is_dir() or source.suffix.lower() == ".csv":
        return override_section(DataSet(data=detect_layout(source)), settings)
    run = load_config(source, settings)
    return DataSet(data=run.data, preprocess=run.preprocess)


def scheme_of(references: Iterable[Path]) -> LabelScheme:
    """Make a scheme of the values that references hold; a value 3 is called `value_3`.

    Without any, there is one value, 1; logs so.
    """
    values = find_values(references)
    if not values:
        log.warning("no reference holds a label: labels are taken to be 1, 'value_1', alone")
    return LabelScheme(values={value: f"value_{value}" for value in values or [1]})


def _parsed(folder: Path, content: Content) -> DataConfig:
    """Fill in what is the same for all layouts, and check the whole."""
    cases = match_pattern(folder, next(iter(content["images"].values())))
    if "labels" not in content:
        reference = content.get("reference")
        references = match_pattern(folder, reference).values() if reference else ()
        content["labels"] = scheme_of(references)
    if (folder / SPLITS).is_file():
        content.setdefault("split", {"source": SPLITS})
    content.setdefault("split", {"num_folds": max(2, min(5, len(cases)))})
    return parse_section(DataConfig, {"folder": folder, **content}, source=f"'{folder}'")


def _by_dataset_json(folder: Path) -> Content | None:
    """Take channels and labels from the file of nnU-Net and of the Medical Decathlon."""
    path = folder / "dataset.json"
    if not path.is_file():
        return None
    try:
        told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        channels: dict[str, str] = told.get("channel_names") or told["modality"]
        ordered = {int(number): str(channels[number]) for number in sorted(channels, key=int)}
        labels = _labels_in(told["labels"])
        ending = str(told.get("file_ending", ".nii.gz"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise FormatError(
            f"'{path}' needs 'channel_names' or 'modality', {{\"0\": name}}, and 'labels', "
            f'{{name: value}} or {{"value": name}}: {error!r}. Mend it, or write data.images, '
            "data.reference and data.labels yourself."
        ) from error
    doubled = doubled_names([*ordered.values()])
    names = {n: f"{name}_{n}" if name in doubled else name for n, name in ordered.items()}
    apart = bool(match_pattern(folder, f"imagesTr/{{case}}_0000{ending}"))
    content: Content = {
        "images": {
            name: f"imagesTr/{{case}}_{number:04d}{ending}"
            if apart
            else f"imagesTr/{{case}}{ending}"
            for number, name in names.items()
        },
        "labels": labels,
    }
    if (folder / "labelsTr").is_dir():
        content["reference"] = f"labelsTr/{{case}}{ending}"
    if told.get("validation"):
        content["split"] = {"source": path.name}
    return content


def _labels_in(told: Mapping[str, Any]) -> Content:
    """Read {name: value}, {name: [values]} of regions, or {"value": name}; 0 is background."""
    if all(key.isdigit() for key in told):
        return {"values": {int(key): str(name) for key, name in told.items() if int(key)}}
    members = {
        name: tuple(given) if isinstance(given, list) else (int(given),)
        for name, given in told.items()
    }
    ignored = members.pop("ignore", None)
    members = {name: values for name, values in members.items() if values != (0,)}
    named = {values[0]: name for name, values in members.items() if len(values) == 1}
    every = sorted({value for values in members.values() for value in values})
    labels: Content = {"values": {value: named.get(value, f"value_{value}") for value in every}}
    if any(len(values) > 1 for values in members.values()):
        labels["regions"] = members
    return labels if ignored is None else labels | {"ignore": ignored[0]}


def _of_table(table: Path) -> Content:
    """Take for channels the columns that name files, and patients where there is that column."""
    cases = read_cases(table)
    columns = dict.fromkeys(column for case in cases for column in case.images)
    channels = [c for c in columns if any(c in e.images and e.images[c].exists() for e in cases)]
    if not channels:
        raise ConfigError(
            f"'{table}': no column names files that exist; columns are {', '.join(columns)}. "
            "Relative paths start at the table's folder"
        )
    if others := [column for column in columns if column not in channels]:
        log.warning("'%s': columns %s name no files", table, ", ".join(others))
    alone = len(channels) == 1
    references = [case.reference for case in cases if case.reference]
    content: Content = {"reference": "{case}_seg.nii.gz"} if references else {}
    return content | {
        "table": table.name,
        "images": {c: "{case}.nii.gz" if alone else f"{{case}}_{c}.nii.gz" for c in channels},
        "labels": scheme_of(references),
        "split": {"num_folds": max(2, min(5, len({case.patient for case in cases})))},
    }


RECOGNISERS: Final[Sequence[Callable[[Path], Content | None]]] = (
    _by_dataset_json,
    by_files,
    by_bids,
    by_names,
)
