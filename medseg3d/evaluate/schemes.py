"""Which regions are scored, and by which rules: one literal table, or a YAML file for any task."""

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, ConfigDict, model_validator

from medseg3d.config.load import parse_section, read_yaml
from medseg3d.datasets import DATASETS
from medseg3d.errors import ConfigError
from medseg3d.evaluate.protocols import PROTOCOLS, DilatedLesions, Protocol
from medseg3d.labels import LabelScheme


def _by_name(protocol: Any) -> Any:
    if not isinstance(protocol, str):
        return protocol
    if protocol not in PROTOCOLS:
        raise ValueError(f"no protocol '{protocol}'; known are {', '.join(PROTOCOLS)}")
    return PROTOCOLS[protocol]


class Scheme(LabelScheme):
    """A LabelScheme that also says how its regions are scored."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    protocol: Annotated[Protocol, BeforeValidator(_by_name)] = PROTOCOLS["whole"]
    """The rules: those of a challenge by its name, such as `brats2023-met`, or each by itself."""

    @model_validator(mode="after")
    def _rules_name_regions(self) -> "Scheme":
        """Refuse exceptions for regions that do not exist; a challenge's rules may know more."""
        lesions = self.protocol.lesions
        challenges = [protocol.lesions for protocol in PROTOCOLS.values()]
        if isinstance(lesions, DilatedLesions) and lesions not in challenges:
            joining = {tissue for by in lesions.joins.values() for tissue in by}
            named = {*lesions.dilations_of, *lesions.threshold_of, *lesions.joins, *joining}
            if unknown := sorted(named - {*self.regions, *self.values.values()}):
                raise ValueError(
                    f"protocol.lesions names {unknown}, regions are {[*self.regions]} and values "
                    f"{[*self.values.values()]}"
                )
        return self

    @property
    def policy(self) -> str:
        """Say in words what the numbers mean."""
        return self.protocol.policy


SAME_RULES: Final = {
    **{f"brats{year}": "brats2021" for year in (2017, 2018, 2019, 2020, 2022)},
    "brats2023": "brats2023-gli",
    **dict.fromkeys(("hippocampus", "btcv", "amos", "flare22"), "whole"),
}
"""Scheme -> the protocol it is scored by, where that has another name."""

SCHEMES: Final[dict[str, Scheme]] = {
    name: Scheme(**labels.model_dump(), protocol=PROTOCOLS[SAME_RULES.get(name, name)])
    for name, labels in DATASETS.items()
}
"""Name -> scheme: labels and the protocol they are scored by."""


def find_scheme(scheme: str | Path | LabelScheme) -> Scheme:
    """Give a scheme by its name, from a YAML file with the fields of `Scheme`, or as it is.

    A plain LabelScheme is scored by the protocol `whole`.

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
    if tracks := [name for name in SCHEMES if name.startswith(f"{scheme}-")]:
        raise ConfigError(f"'{scheme}' has several tracks; name one of {', '.join(tracks)}")
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
