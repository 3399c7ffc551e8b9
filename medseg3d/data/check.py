"""Looking through a data set before hours are spent on it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from medseg3d.config.preprocess import PreprocessConfig
from medseg3d.data.cases import Case, read_images
from medseg3d.errors import MedSegError
from medseg3d.io.files import read_label_map
from medseg3d.labels import LabelScheme
from medseg3d.volume import Grid, require_one_grid


@dataclass(frozen=True, slots=True)
class CheckedCase:
    """What a case holds, and everything that is wrong with it."""

    id: str
    grid: Grid | None
    voxels: dict[str, int]
    """Voxels of each labelled value, by the value's name."""
    faults: tuple[str, ...]

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

    An image of one single value and a reference without any label count as faults: a network
    learns nothing from them; so does what `config` says to refuse.
    """
    for case in cases:
        yield _check_case(case, labels, config)


def _check_case(case: Case, labels: LabelScheme, config: PreprocessConfig) -> CheckedCase:
    faults: list[str] = []
    grids: dict[str, Grid] = {}
    voxels: dict[str, int] = {}
    for channel, path in case.images.items():
        try:
            volume = read_images([path], config)
        except MedSegError as error:
            faults.append(f"{channel}: {error}")
            continue
        grids[channel] = volume.grid
        if volume.array_CIJK.min() == volume.array_CIJK.max():
            faults.append(f"{channel}: every voxel is {volume.array_CIJK.flat[0]}")
    if case.reference is not None:
        try:
            reference = read_label_map(case.reference, labels)
        except MedSegError as error:
            faults.append(f"reference: {error}")
        else:
            grids["reference"] = reference.grid
            counts = np.bincount(reference.array_CIJK.ravel(), minlength=max(labels.values) + 1)
            voxels = {name: int(counts[value]) for value, name in labels.values.items()}
            if not any(voxels.values()):
                faults.append("reference: no voxel is labelled")
    try:
        require_one_grid([*grids.values()], [*grids])
    except MedSegError as error:
        faults.append(str(error))
    return CheckedCase(case.id, next(iter(grids.values()), None), voxels, tuple(faults))
