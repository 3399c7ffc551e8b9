"""Which prediction is scored against which reference; what lacks its partner stays in the list."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Final

from medseg3d.data.cases import read_cases
from medseg3d.data.patterns import VOLUME_SUFFIXES, match_pattern, volume_stem
from medseg3d.errors import ConfigError

LEFT_OUT: Final = {".img", ".img.gz", ".png", ".jpg", ".jpeg", ".tif", ".tiff"}
"""What often lies beside a label map of the same name: its voxels, or a picture of it."""

BESIDE: Final = ("_uncertainty", "_probabilities")
"""How names end that `predict` gives to what goes with a label map."""

LAYOUTS: Final = (
    tuple("{case}" + suffix for suffix in VOLUME_SUFFIXES if suffix not in LEFT_OUT),
    ("{case}/{case}-seg.nii.gz",),
    ("{case}/{case}_seg.nii.gz",),
    ("{case}-seg.nii.gz",),
    ("{case}_seg.nii.gz",),
    ("labelsTr/{case}.nii.gz",),
    ("labelsTs/{case}.nii.gz",),
)
"""Where label maps are looked for in a folder. Of all combinations of two layouts, the one with the
most cases in common is taken, of equals the first; what else lies there is listed with it."""


@dataclass(frozen=True, slots=True)
class Pair:
    """The two files of a case; one may be missing."""

    case: str
    predicted: Path | None
    reference: Path | None


def find_pairs(
    predicted: Path,
    reference: Path | None = None,
    *,
    predicted_pattern: str | None = None,
    reference_pattern: str | None = None,
) -> list[Pair]:
    """Pair two files, or two folders or tables by the names of their cases.

    Folders may differ in their layout (`LAYOUTS`); a pattern says where label maps lie below
    theirs. A table (`.csv`) has the columns `case` and `predicted`, `reference` or both; with both
    it may stand alone. Every prediction and every reference is in the list, in alphabetical order.

    Raises:
        ConfigError: an input does not exist, two files fit one case, or nothing fits together.
        FormatError: a table cannot be read.
    """
    if reference is None and not _is_table(predicted):
        raise ConfigError(
            f"'{predicted}' alone is nothing to score; name the references too, or a .csv with the "
            "columns case, predicted and reference"
        )
    reference = reference or predicted
    for path in (predicted, reference):
        if not path.exists():
            raise ConfigError(f"'{path}' does not exist; nothing to score")
    if predicted.is_file() and reference.is_file() and not _is_table(reference):
        return [Pair(volume_stem(predicted), predicted, reference)]
    if not all(path.is_dir() or _is_table(path) for path in (predicted, reference)):
        raise ConfigError(
            f"'{predicted}' and '{reference}': expected two files, or a folder or .csv of "
            "predictions with a folder or .csv of references"
        )
    claims, truths = _best_layouts(
        _found(predicted, "predicted", predicted_pattern),
        _found(reference, "reference", reference_pattern),
    )
    if not claims.keys() & truths.keys():
        raise ConfigError(
            f"no prediction has a reference: '{predicted}' holds {_names(claims)}, "
            f"'{reference}' holds {_names(truths)}. Case names must agree; a pattern says where "
            "they stand (--set evaluate.predicted=… or evaluate.reference=…), for example "
            "'{case}/{case}-seg.nii.gz', or name the files in a .csv."
        )
    cases = sorted(claims.keys() | truths.keys())
    return [Pair(case, claims.get(case), truths.get(case)) for case in cases]


def _is_table(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() == ".csv"


def _found(source: Path, column: str, pattern: str | None) -> list[dict[str, Path]]:
    """Give the label maps of a folder or table by case, once for each way to read the folder."""
    if _is_table(source):
        cases = read_cases(source)
        files = {
            c.id: c.reference if column == "reference" else c.images.get(column) for c in cases
        }
        named = {case: path for case, path in files.items() if path}
        if not named:
            raise ConfigError(
                f"'{source}' names no {column}; it needs the columns 'case' and '{column}', parted "
                "by commas, with paths from the table's own folder"
            )
        return [named]
    if pattern is not None and "{case}" not in pattern:
        raise ConfigError(f"{column} pattern '{pattern}' has no '{{case}}' in it")
    return [_match(source, layout) for layout in ([(pattern,)] if pattern else LAYOUTS)]


def _best_layouts(
    claims: Sequence[dict[str, Path]], truths: Sequence[dict[str, Path]]
) -> tuple[dict[str, Path], dict[str, Path]]:
    def worth(pair: tuple[dict[str, Path], dict[str, Path]]) -> tuple[int, int]:
        shared = len(pair[0].keys() & pair[1].keys())
        return shared, sum(map(bool, pair))  # where none is shared, layouts that hold something

    best = max(product(claims, truths), key=worth)
    return _complete(best[0], claims), _complete(best[1], truths)


def _complete(found: dict[str, Path], layouts: Sequence[dict[str, Path]]) -> dict[str, Path]:
    """Add the files that lie there in other layouts, so that no case is lost.

    Raises:
        ConfigError: a case has one file in this layout and another in that.
    """
    whole, used = dict(found), {*found.values()}
    for layout in layouts:
        for case, path in layout.items():
            if path not in used:
                _require_new(case, path, whole)
                whole[case] = path
                used.add(path)
    return whole


def _match(folder: Path, patterns: Sequence[str]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for pattern in patterns:
        for case, path in match_pattern(folder, pattern).items():
            _require_new(case, path, found)
            found[case] = path
    beside = {case + end for case in found for end in BESIDE}
    return {case: path for case, path in found.items() if case not in beside}


def _require_new(case: str, path: Path, found: Mapping[str, Path]) -> None:
    if case in found:
        raise ConfigError(
            f"two files are case '{case}': '{found[case]}' and '{path}'. Remove one, or say by a "
            "pattern which is meant (--set evaluate.predicted=… or evaluate.reference=…)."
        )


def _names(cases: Iterable[str]) -> str:
    names = [f"'{case}'" for case in cases]
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return (", ".join(names[:3]) + more) if names else "none that fits"
