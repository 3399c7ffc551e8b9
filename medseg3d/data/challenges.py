"""Data sets of the BraTS challenges, known by how their files are called, and their seasons."""

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Final

from medseg3d.data.filenames import Content
from medseg3d.data.patterns import match_pattern
from medseg3d.datasets import DATASETS
from medseg3d.errors import MedSegError
from medseg3d.io.files import read_label_map
from medseg3d.labels import count_values

log = logging.getLogger(__name__)

LABEL_MAPS_AT_ONCE: Final = 4
"""Label maps in memory at the same time, while values are looked for."""


@dataclass(frozen=True, slots=True)
class Layout:
    """A public data set's way to call its files."""

    images: Mapping[str, str]
    """Channel -> pattern; a data set may have some of them."""
    reference: str
    schemes: Mapping[str, Sequence[str]]
    """How case names begin -> schemes of `DATASETS`; the first that knows all values is taken.

    Cases called otherwise are another data set's, whose values mean something else.
    """
    patient: str | None = None
    """Regular expression whose group is the patient."""


LAYOUTS: Final[Mapping[str, Layout]] = {
    "BraTS since 2023": Layout(
        {name: f"{{case}}/{{case}}-{name}.nii.gz" for name in ("t1n", "t1c", "t2w", "t2f")},
        "{case}/{case}-seg.nii.gz",
        {
            "BraTS-GLI": ["brats2023-gli", "brats2024-gli"],
            "BraTS-SSA": ["brats2023-ssa"],
            "BraTS-MEN": ["brats2023-men"],
            "BraTS-MET": ["brats2023-met", "brats2025-met"],
            "BraTS-PED": ["brats2023-ped", "brats2024-ped"],
            "BraTS": ["brats2023", "brats2024-gli"],
        },
        r"(.+)-\d{3}$",
    ),
    "BraTS 2024 and 2025, radiotherapy": Layout(
        {"t1c": "{case}/{case}_t1c.nii.gz"},
        "{case}/{case}_gtv.nii.gz",
        {"": ["brats2024-men-rt"]},
        r"(.+)-\d$",
    ),
    "BraTS 2017 to 2021": Layout(
        {name: f"{{case}}/{{case}}_{name}.nii.gz" for name in ("flair", "t1", "t1ce", "t2")},
        "{case}/{case}_seg.nii.gz",
        {
            "BraTS2021": ["brats2021"],
            "BraTS20": ["brats2020"],
            "BraTS": ["brats2019"],
            "Brats": ["brats2019"],
        },
        r"([Bb]ra[Tt][Ss]1[789]_.+)_\d+$",
    ),
    "BRATS 2015, as with DeepMedic": Layout(
        {name.lower(): f"{{case}}/{name}_*.nii.gz" for name in ("Flair", "T1", "T1c", "T2")},
        "{case}/OTMultiClass.nii.gz",
        {"": ["brats2015"]},
        r"(.+_pat\d+)_\d+$",
    ),
}
"""Name -> data sets that are known by their files; they may lie one folder deeper (HGG, LGG)."""


def by_files(folder: Path) -> Content | None:
    """Look for the layouts of the table, in the folder and one deeper."""
    for deeper, layout in product(("", "*/"), LAYOUTS.values()):
        found = {
            channel: match_pattern(folder, deeper + pattern)
            for channel, pattern in layout.images.items()
        }
        images = {channel: deeper + layout.images[channel] for channel, at in found.items() if at}
        references = match_pattern(folder, deeper + layout.reference)
        if not images or not (references or len(images) > 1):
            continue
        names = sorted(set().union(*found.values()))
        content: Content = {"images": images}
        if schemes := _schemes_of(names, layout):
            content["labels"] = _scheme_among(schemes, references.values())
        if references:
            content["reference"] = deeper + layout.reference
        if layout.patient and all(re.search(layout.patient, name) for name in names):
            content["patient"] = layout.patient
        return content
    return None


def _schemes_of(names: Iterable[str], layout: Layout) -> Sequence[str]:
    """Give the schemes of cases called so; none of cases of other data sets, or of several."""
    starts = {next((s for s in layout.schemes if name.startswith(s)), None) for name in names}
    if len(starts) > 1:
        said = ", ".join(sorted(f"{start}…" for start in starts if start))
        log.warning("not all cases are called alike (%s), so that values get no meaning", said)
    start = starts.pop()
    return () if starts or start is None else layout.schemes[start]


def _scheme_among(schemes: Sequence[str], references: Iterable[Path]) -> str:
    """Choose the first scheme that knows all values, the last where none does; tell of a doubt."""
    if len(schemes) == 1:
        return schemes[0]
    values = {*find_values(references)}
    fitting = [name for name in schemes if values <= {*DATASETS[name].values}] or [schemes[-1]]
    first, *others = fitting
    if differing := [other for other in others if not _mean_the_same(values, first, other)]:
        log.warning(
            "values %s are taken for those of %s, and could be those of %s, where they mean "
            "something else: if they are, set data.labels",
            sorted(values), first, ", ".join(differing),
        )  # fmt: skip
    return first


def _mean_the_same(values: set[int], scheme: str, other: str) -> bool:
    """Tell whether values are in the same regions, of those that both schemes have."""
    own, others = DATASETS[scheme].regions, DATASETS[other].regions
    shared = own.keys() & others.keys()
    return all(values & {*own[region]} == values & {*others[region]} for region in shared)


def find_values(references: Iterable[Path]) -> list[int]:
    """Find the values but 0 in label maps, ascending; those that cannot be read are logged."""
    with ThreadPoolExecutor(LABEL_MAPS_AT_ONCE) as pool:
        found = pool.map(_values_of, references)
        return sorted({value for values in found for value in values} - {0})


def _values_of(path: Path) -> list[int]:
    try:
        return [*count_values(read_label_map(path).array_CIJK[0])]
    except MedSegError as error:
        log.warning("passed over while looking for values: %s", error)
        return []
