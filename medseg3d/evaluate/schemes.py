"""Which regions are scored, and by which rules: one literal table, or a YAML file for any task."""

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Final, Literal, TypeAlias

from pydantic import ConfigDict, Field

from medseg3d.config.load import parse_section, read_yaml
from medseg3d.errors import ConfigError
from medseg3d.labels import LabelScheme

Distance: TypeAlias = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Scheme(LabelScheme):
    """A LabelScheme that also says how its regions are scored, each as one whole.

    Dice needs no rule: it is 1 where both sides are empty and 0 where one is.
    """

    model_config = ConfigDict(use_attribute_docstrings=True)

    hausdorff: Literal["surfel", "pooled", "max_directed"] = "surfel"
    """Definition of HD95 (`evaluate.surface`)."""
    in_voxels: bool = False
    """Count distances in voxels, as some challenges do, instead of mm."""
    one_empty: Distance | Literal["diagonal", "nan"] = "diagonal"
    """HD95 where one side is empty: a penalty, the volume's diagonal, or undefined."""
    both_empty: Distance | Literal["nan"] = 0.0
    """HD95 where both sides are empty."""

    @property
    def policy(self) -> str:
        """Say in words what the numbers mean."""
        unit = "voxels" if self.in_voxels else "mm"
        one, both = (
            {"diagonal": "the volume's diagonal", "nan": "undefined"}.get(str(rule)) or f"{rule:g}"
            for rule in (self.one_empty, self.both_empty)
        )
        return (
            f"HD95 by definition '{self.hausdorff}' in {unit}; {one} where one side is empty, "
            f"{both} where both are; Dice 0 where one side is empty, 1 where both are"
        )


BRATS2023: Final = Scheme(
    name="brats2023",
    values={1: "NCR", 2: "ED", 3: "ET"},
    regions={"WT": (1, 2, 3), "TC": (1, 3), "ET": (3,)},
    one_empty=374,
)
"""Whole regions, as the scripts of 2023 give them beside the lesion-wise scores."""

SCHEMES: Final[dict[str, Scheme]] = {
    "brats2015": Scheme(
        name="brats2015",
        values={1: "NCR", 2: "ED", 3: "NET", 4: "ET"},
        regions={"WT": (1, 2, 3, 4), "TC": (1, 3, 4), "ET": (4,)},
        hausdorff="pooled",
        in_voxels=True,
    ),
    "brats2021": Scheme(
        name="brats2021",
        values={1: "NCR", 2: "ED", 4: "ET"},
        regions={"WT": (1, 2, 4), "TC": (1, 4), "ET": (4,)},
        hausdorff="pooled",
        in_voxels=True,
    ),
    "brats2023": BRATS2023,
    "brats2023-gli": BRATS2023.model_copy(update={"name": "brats2023-gli"}),
    "hippocampus": Scheme(name="hippocampus", values={1: "anterior", 2: "posterior"}),
}
"""Name -> scheme. BraTS names are a season (and task) and mean its rules too."""


def find_scheme(scheme: str | Path | LabelScheme) -> Scheme:
    """Give a scheme by its name, from a YAML file with the fields of `Scheme`, or as it is.

    A plain LabelScheme is scored by the default rules.

    Raises:
        ConfigError: no such name, or a file with faults; lists the names, or every fault.
    """
    if isinstance(scheme, Scheme):
        return scheme
    if isinstance(scheme, LabelScheme):
        return Scheme(**scheme.model_dump())
    if str(scheme) in SCHEMES:
        return SCHEMES[str(scheme)]
    if Path(scheme).suffix.lower() in (".yaml", ".yml"):
        return _read_scheme(Path(scheme))
    near = difflib.get_close_matches(str(scheme).lower(), SCHEMES, n=1)
    raise ConfigError(
        f"unknown scheme '{scheme}'{f', did you mean {near[0]!r}?' if near else ';'} "
        f"known are {', '.join(SCHEMES)}, and YAML files with values, names and regions"
    )


def scheme_of_values(values: Iterable[int]) -> Scheme:
    """Make a scheme in which every value is a region of its own, `label_1`, `label_2` and so on.

    0 is background. Where there is no other value, 1 stands for the label that nobody has found.
    """
    labels = {int(value): f"label_{value}" for value in sorted({*values} - {0})}
    return Scheme(name="values", values=labels or {1: "label_1"})


def _read_scheme(path: Path) -> Scheme:
    return parse_section(Scheme, {"name": path.stem, **read_yaml(path)}, source=str(path))
