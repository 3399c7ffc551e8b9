"""What shows only among all cases of a data set: doubles, leaks, channels mixed up, outliers."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from medseg3d.config.data import DataConfig
from medseg3d.config.preprocess import PreprocessConfig
from medseg3d.data.cases import Case, search_cases
from medseg3d.data.check import CheckedCase, check_cases
from medseg3d.data.splits import Split, cut_folds
from medseg3d.errors import MedSegError
from medseg3d.labels import LabelScheme
from medseg3d.volume import world_axes

FAR_SPACING: Final = 3.0
"""A voxel edge so many times longer or shorter than the median is told."""

FEWEST_TO_AGREE: Final = 5
MOST_AGREE: Final = 0.9
"""So many cases, and this share of them, make a rule of which channel is brighter."""


@dataclass(frozen=True, slots=True)
class CheckedData:
    """A data set that was looked through."""

    cases: tuple[CheckedCase, ...]
    folds: tuple[Split, ...]
    faults: tuple[str, ...]
    """What makes training fail or worthless, each with the case it is in."""
    warnings: tuple[str, ...]
    """What may be meant so."""

    def summary(self, fold: int) -> str:
        """Say in a line how many cases there are, on which side of a fold, and what was found."""
        sides = "not split"
        if fold < len(self.folds):
            split = self.folds[fold]
            sides = f"{len(split.training)} training, {len(split.validation)} validation"
        return (
            f"{len(self.cases)} cases ({sides}), {len(self.faults)} faults, "
            f"{len(self.warnings)} warnings"
        )

    def to_dict(self) -> dict[str, Any]:
        """Give plain data."""
        return {
            "faults": [*self.faults],
            "warnings": [*self.warnings],
            "cases": [
                {
                    "id": case.id,
                    "shape": case.grid.shape_IJK if case.grid else None,
                    "spacing_mm": case.grid.spacing_mm if case.grid else None,
                    "orientation": case.grid.orientation if case.grid else None,
                    "voxels": case.voxels,
                    "faults": [*case.faults],
                    "warnings": [*case.warnings],
                }
                for case in self.cases
            ],
        }


def check_data(
    data: DataConfig,
    preprocess: PreprocessConfig,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> CheckedData:
    """Look through a data set, and list all that is wrong with it at once.

    Raises:
        ConfigError: there is no case to look at.
        FormatError: the table of cases is damaged.
    """
    cases, faults = search_cases(data)
    folds: list[Split] = []
    try:
        folds = cut_folds(cases, data.split, folder=data.folder) if cases else []
    except MedSegError as error:
        faults.append(str(error))
    checked: list[CheckedCase] = []
    for case in check_cases(cases, data.labels, config=preprocess):
        checked.append(case)
        if progress:
            progress(len(checked), len(cases))
    faults += [f"case '{case.id}': {fault}" for case in checked for fault in case.faults]
    faults += [*_doubles(cases, checked), *_without_labels(checked), *_masks(checked, always=False)]
    warnings = [f"case '{case.id}': {doubt}" for case in checked for doubt in case.warnings]
    warnings += _masks(checked, always=True)
    warnings += [*_unused(checked, data.labels), *_far_spacings(checked), *_other_levels(checked)]
    return CheckedData(tuple(checked), tuple(folds), tuple(faults), tuple(warnings))


def _doubles(cases: Sequence[Case], checked: Sequence[CheckedCase]) -> Iterator[str]:
    """Tell of files with the same voxels, in one case or in several; even ones do not count."""
    patients = {case.id: case.patient for case in cases}
    found: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for case in checked:
        for name, seen in case.seen.items():
            if not seen.is_even:
                found[seen.digest].append((case.id, name))
    for places in found.values():
        if len(places) > 1:
            said = ", ".join(f"{name} of case '{case}'" for case, name in places)
            several = len({patients[case] for case, _ in places}) > 1
            leak = "; these are cases of one patient, or one of them is wrong" if several else ""
            yield f"the same voxels: {said}{leak}"


def _without_labels(checked: Sequence[CheckedCase]) -> Iterator[str]:
    labelled = [case for case in checked if case.voxels]
    if labelled and not any(any(case.voxels.values()) for case in labelled):
        yield f"all {len(labelled)} references are empty: there is nothing to learn"


def _unused(checked: Sequence[CheckedCase], labels: LabelScheme) -> Iterator[str]:
    if any(case.voxels for case in checked):
        for value, name in labels.values.items():
            if not any(case.voxels.get(name) for case in checked):
                yield f"value {value}, '{name}', is in no reference"


def _masks(checked: Sequence[CheckedCase], *, always: bool) -> Iterator[str]:
    """Tell of channels that look like label maps, in all cases, as is perhaps meant, or in some."""
    for channel in _channels(checked):
        having = [case for case in checked if channel in case.seen]
        masks = [
            c.id for c in having if c.seen[channel].is_label_like and not c.seen[channel].is_even
        ]
        if masks and always == (len(masks) == len(having)):
            where = "in all cases" if always else "in " + ", ".join(f"'{m}'" for m in masks)
            yield f"channel {channel} looks like a label map {where}: a few integers, no greys"


def _far_spacings(checked: Sequence[CheckedCase]) -> Iterator[str]:
    """Tell of voxels that are far longer or shorter than the median along an axis of the body."""
    edges = {
        case.id: np.array(case.grid.spacing_mm)[np.argsort(world_axes(case.grid.affine))]
        for case in checked
        if case.grid
    }
    if not edges:
        return
    median = np.median([*edges.values()], axis=0)
    for name, edges_mm in edges.items():
        for axis, edge, usual in zip("xyz", edges_mm, median, strict=True):
            if not 1 / FAR_SPACING <= edge / usual <= FAR_SPACING:
                yield (
                    f"case '{name}': voxels of {edge:.3g} mm along {axis}, where the median is "
                    f"{usual:.3g} mm"
                )


def _other_levels(checked: Sequence[CheckedCase]) -> Iterator[str]:
    """Tell of cases whose channels are not in the order of brightness that nearly all others have.

    Where scanners differ there is no such order, and nothing is told.
    """
    channels = _channels(checked)
    whole = [case for case in checked if all(channel in case.seen for channel in channels)]
    orders = {
        case.id: tuple(sorted(channels, key=lambda channel: case.seen[channel].level))
        for case in whole
    }
    if len(channels) < 2 or len(orders) < FEWEST_TO_AGREE:
        return
    usual, number = Counter(orders.values()).most_common(1)[0]
    if number >= MOST_AGREE * len(orders):
        for name, order in orders.items():
            if order != usual:
                yield (
                    f"case '{name}': from dark to bright its channels are {', '.join(order)}, in "
                    f"{number} of {len(orders)} cases {', '.join(usual)}: are files mixed up?"
                )


def _channels(checked: Sequence[CheckedCase]) -> list[str]:
    names = dict.fromkeys(name for case in checked for name in case.seen)
    return [name for name in names if name != "reference"]
