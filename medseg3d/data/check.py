"""Looking through a data set before hours are spent on it: each case for itself.

What only shows among all cases is told by `medseg3d.data.doubts`.
"""

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from medseg3d.arrays import ArrayIJK
from medseg3d.config.preprocess import PreprocessConfig
from medseg3d.data.cases import Case, read_images
from medseg3d.errors import MedSegError
from medseg3d.io.files import read_label_map
from medseg3d.labels import LabelScheme, count_values
from medseg3d.volume import Grid, require_one_grid

READERS_AT_ONCE: Final = 4
"""Cases in memory at the same time."""

MOST_LABELS: Final = 32
"""An image of no more different integers than these looks like a label map."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What is kept of a file's voxels."""

    digest: str
    """Of the values in float32 and the shape, whatever dtype and compression the file has."""
    level: float
    """Mean of what is not 0."""
    is_even: bool
    """Whether all voxels are the same."""
    is_label_like: bool
    """Whether there are but a few different values, all of them integers."""


@dataclass(frozen=True, slots=True)
class CheckedCase:
    """What a case holds, and everything that is wrong with it."""

    id: str
    grid: Grid | None
    voxels: dict[str, int]
    """Voxels of each labelled value, by the value's name."""
    faults: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    seen: dict[str, Seen] = field(default_factory=dict)
    """What was seen of each channel that can be read, and of the `reference`."""

    def row(self, names: Sequence[str]) -> tuple[str | int, ...]:
        """Give name, shape, spacing, axes, and the voxels of each named value; "" if unknown."""
        shape, spacing, axes = "", "", ""
        if self.grid:
            shape = "×".join(map(str, self.grid.shape_IJK))
            spacing = "×".join(f"{s:.3g}" for s in self.grid.spacing_mm)
            axes = self.grid.orientation
        return self.id, shape, spacing, axes, *(self.voxels.get(name, "") for name in names)


def check_cases(
    cases: Sequence[Case], labels: LabelScheme, *, config: PreprocessConfig
) -> Iterator[CheckedCase]:
    """Read every file of every case: damaged files, grids that differ, values out of the scheme.

    An image of one single value is a fault, and what `config` says to refuse; a reference without
    any label is a warning. A few cases are read at once; they come in their order.
    """

    def check(case: Case) -> CheckedCase:
        return _check_case(case, labels, config)

    with ThreadPoolExecutor(READERS_AT_ONCE) as pool:
        yield from pool.map(check, cases)


def _check_case(case: Case, labels: LabelScheme, config: PreprocessConfig) -> CheckedCase:
    checked = _check_images(case, config)
    if case.reference is None:
        return checked
    try:
        reference = read_label_map(case.reference, labels)
    except MedSegError as error:
        return replace(checked, faults=(*checked.faults, f"reference: {error}"))
    counts = count_values(reference.array_CIJK[0])
    voxels = {name: counts.get(value, 0) for value, name in labels.values.items()}
    empty = () if any(voxels.values()) else ("reference: no voxel is labelled",)
    grids = [checked.grid or reference.grid, reference.grid]
    return replace(
        checked,
        grid=grids[0],
        voxels=voxels,
        faults=(
            *checked.faults,
            *_grid_faults(grids, [next(iter(checked.seen), "reference"), "reference"]),
        ),
        warnings=empty,
        seen=checked.seen | {"reference": _look(reference.array_CIJK[0])},
    )


def _check_images(case: Case, config: PreprocessConfig) -> CheckedCase:
    """Read each file once, whatever number of channels is in it."""
    faults: list[str] = []
    grids: dict[str, Grid] = {}
    seen: dict[str, Seen] = {}
    for path in dict.fromkeys(case.images.values()):
        channels = [channel for channel, own in case.images.items() if own == path]
        try:
            volume = read_images([path] * len(channels), config)
        except MedSegError as error:
            faults.append(f"{', '.join(channels)}: {error}")
            continue
        grids[channels[0]] = volume.grid
        for channel, values in zip(channels, volume.array_CIJK, strict=True):
            seen[channel] = _look(values)
            if seen[channel].is_even:
                faults.append(f"{channel}: every voxel is {values.flat[0]}")
    faults += _grid_faults([*grids.values()], [*grids])
    return CheckedCase(case.id, next(iter(grids.values()), None), {}, tuple(faults), seen=seen)


def _grid_faults(grids: Sequence[Grid], names: Sequence[str]) -> list[str]:
    try:
        require_one_grid(grids, names)
    except MedSegError as error:
        return [str(error)]
    return []


def _look(values_IJK: ArrayIJK) -> Seen:
    """Take down what comparing needs; a plane at a time, to spare memory."""
    digest = hashlib.blake2b(str(values_IJK.shape).encode(), digest_size=16)
    total, count = 0.0, 0
    few: set[float] | None = set()
    for plane in np.moveaxis(values_IJK, -1, 0):
        grey = np.ascontiguousarray(plane.T, dtype=np.float32)
        digest.update(grey.tobytes())
        total += float(grey.sum(dtype=np.float64))
        count += int(np.count_nonzero(grey))
        if few is not None:
            few |= {*np.unique(grey).tolist()}
            few = few if len(few) <= MOST_LABELS else None
    return Seen(
        digest.hexdigest(),
        level=total / max(count, 1),
        is_even=few is not None and len(few) == 1,
        is_label_like=few is not None and all(value.is_integer() for value in few),
    )
