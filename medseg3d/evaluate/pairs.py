"""Which prediction is scored against which reference; what lacks its partner stays in the list."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from medseg3d.data.cases import VOLUME_SUFFIXES, match_pattern, read_cases, volume_stem
from medseg3d.errors import ConfigError

PREDICTED: Final = tuple("{case}" + suffix for suffix in VOLUME_SUFFIXES)
"""Patterns of predictions."""

LAYOUTS: Final = (
    PREDICTED,
    ("{case}/{case}-seg.nii.gz",),
    ("{case}/{case}_seg.nii.gz",),
    ("labelsTr/{case}.nii.gz",),
)
"""Where references are looked for, in order; the first layout that fits a prediction is taken."""


@dataclass(frozen=True, slots=True)
class Pair:
    """The two files of a case; one may be missing."""

    case: str
    predicted: Path | None
    reference: Path | None


def find_pairs(predicted: Path, reference: Path, *, pattern: str | None = None) -> list[Pair]:
    """Pair two files, or a folder of predictions with a folder or table of references, by case.

    Predictions are named `CASE.nii.gz` or `CASE.nii`. `pattern` says where references lie below
    their folder; without it `LAYOUTS` are tried. A table (`.csv`) has the columns `case` and
    `reference`. Every prediction and every reference is in the list, in alphabetical order.

    Raises:
        ConfigError: an input does not exist, two files fit one case, or nothing fits together.
        FormatError: the table cannot be read.
    """
    for path in (predicted, reference):
        if not path.exists():
            raise ConfigError(f"'{path}' does not exist; nothing to score")
    is_table = reference.suffix.lower() == ".csv"
    if predicted.is_file() and reference.is_file() and not is_table:
        return [Pair(volume_stem(predicted), predicted, reference)]
    if not predicted.is_dir() or not (reference.is_dir() or is_table):
        raise ConfigError(
            f"'{predicted}' and '{reference}': expected two files, or a folder of predictions with "
            "a folder or a .csv of references"
        )
    predictions = _match(predicted, PREDICTED)
    if is_table and not any(case.reference for case in read_cases(reference)):
        raise ConfigError(f"'{reference}' names no reference; it needs a column 'reference'")
    references = (
        {case.id: case.reference for case in read_cases(reference)}
        if is_table
        else _find_references(reference, predictions, pattern)
    )
    if not predictions.keys() & references.keys():
        raise ConfigError(
            f"no prediction has a reference: '{predicted}' holds {_names(predictions)}, "
            f"'{reference}' holds {_names(references)}. Case names must agree; the reference "
            "pattern says where they stand, for example '{case}/{case}-seg.nii.gz'."
        )
    cases = sorted(predictions.keys() | references.keys())
    return [Pair(case, predictions.get(case), references.get(case)) for case in cases]


def _find_references(
    folder: Path, predictions: dict[str, Path], pattern: str | None
) -> dict[str, Path]:
    """Match the pattern, or the first layout that fits a prediction, or else any."""
    if pattern is not None:
        if "{case}" not in pattern:
            raise ConfigError(f"reference pattern '{pattern}' has no '{{case}}' in it")
        return _match(folder, (pattern,))
    found = [_match(folder, patterns) for patterns in LAYOUTS]
    fitting = [references for references in found if references.keys() & predictions.keys()]
    return (fitting or [references for references in found if references] or [{}])[0]


def _match(folder: Path, patterns: Sequence[str]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for pattern in patterns:
        for case, path in match_pattern(folder, pattern).items():
            if case in found:
                raise ConfigError(
                    f"two files are case '{case}': '{found[case]}' and '{path}'. Remove one."
                )
            found[case] = path
    return found


def _names(cases: Iterable[str]) -> str:
    names = [f"'{case}'" for case in cases]
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return (", ".join(names[:3]) + more) if names else "none that fits"
