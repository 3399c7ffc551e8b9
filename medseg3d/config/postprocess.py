"""What is put right in a label map, region by region."""

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from medseg3d.config.section import Section
from medseg3d.errors import ConfigError
from medseg3d.labels import LabelScheme

CubicMillimetres: TypeAlias = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class RegionRule(Section):
    """What is done to one region, in the order of these knobs.

    Voxels of a component share at least a corner (26 neighbours). A hole is background (joined by
    faces) with nothing but the region around it; what reaches the border of the volume is none.
    Of a region of several values, a component is taken away with all of them.
    """

    fill_holes: bool | str = False
    """Fill holes with the region's value; of several, with the one that is named here."""
    smallest_component_mm3: CubicMillimetres = 0.0
    """Components smaller than this are taken away."""
    keep: Literal["all", "largest"] = "all"
    """`largest` takes away all components but the largest; equally large ones all stay."""
    smallest_region_mm3: CubicMillimetres = 0.0
    """A region of which less than this is left is taken away as a whole."""
    becomes: str | None = None
    """Name of the value that takes the place of what is taken away; null is background."""


@dataclass(frozen=True, slots=True)
class Step:
    """A rule with the values it speaks of."""

    rule: RegionRule
    values: tuple[int, ...]
    fill: int | None
    becomes: int


def plan_steps(rules: Mapping[str, RegionRule], labels: LabelScheme) -> tuple[Step, ...]:
    """Look up the values that rules name; a name is a region's first, then a value's.

    Raises:
        ConfigError: lists every name that the labels do not have, and every rule that would fill
            with or relabel to a value on the wrong side of its region.
    """
    steps, faults = [], []
    for name, rule in rules.items():
        try:
            steps.append(_plan_step(name, rule, labels))
        except ConfigError as error:
            faults.append(f"predict.postprocess.{name}{error}")
    if faults:
        raise ConfigError("; ".join(faults))
    return tuple(steps)


def _plan_step(name: str, rule: RegionRule, labels: LabelScheme) -> Step:
    alone = {value_name: (value,) for value, value_name in labels.values.items()}
    values = _look_up(name, alone | labels.regions, ": no region or value")
    within = ", ".join(labels.values[value] for value in values)
    fill, becomes = None, 0
    if isinstance(rule.fill_holes, str):
        (fill,) = _look_up(rule.fill_holes, alone, f".fill_holes: no value '{rule.fill_holes}'")
        if fill not in values:
            raise ConfigError(
                f".fill_holes: '{rule.fill_holes}' is not in it; name one of {within}"
            )
    elif rule.fill_holes:
        if len(values) > 1:
            raise ConfigError(f".fill_holes: true names no value; name one of {within}")
        (fill,) = values
    if rule.becomes is not None:
        (becomes,) = _look_up(rule.becomes, alone, f".becomes: no value '{rule.becomes}'")
        if becomes in values:
            raise ConfigError(f".becomes: '{rule.becomes}' is in it; name a value outside {within}")
    return Step(rule, values, fill, becomes)


def _look_up(name: str, known: Mapping[str, tuple[int, ...]], fault: str) -> tuple[int, ...]:
    if name in known:
        return known[name]
    near = get_close_matches(name, known, n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"known are {', '.join(known)}"
    raise ConfigError(f"{fault}; {hint}")
