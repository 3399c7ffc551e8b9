"""Which regions are scored, and by which rules: one literal table, or a YAML file for any task."""

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, ConfigDict, model_validator

from medseg3d.config.load import parse_section, read_yaml
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


ADULT: Final = LabelScheme(
    values={1: "NCR", 2: "ED", 3: "ET"}, regions={"WT": (1, 2, 3), "TC": (1, 3), "ET": (3,)}
)
"""Tumours before treatment, since 2023."""

UNTREATED: Final = ADULT.model_copy(update={"values": {1: "NETC", 2: "SNFH", 3: "ET"}})
"""The same since 2024, by its names of then."""

METASTASES: Final = LabelScheme(
    values={1: "NETC", 2: "SNFH", 3: "ET", 4: "RC"},
    regions={"WT": (1, 2, 3), "TC": (1, 3), "ET": (3,), "RC": (4,)},
)
"""Metastases since 2025, with a resection cavity."""

TREATED: Final = LabelScheme(
    values={1: "NETC", 2: "SNFH", 3: "ET", 4: "RC"},
    regions={
        "WT": (1, 2, 3),
        "TC": (1, 3),
        "NETC": (1,),
        "SNFH": (2,),
        "ET": (3,),
        "RC": (4,),
    },
)
"""Gliomas after treatment, since 2024."""

CHILDREN: Final = LabelScheme(
    values={1: "ET", 2: "NETC", 3: "CC", 4: "ED"},
    regions={
        "WT": (1, 2, 3, 4),
        "TC": (1, 2, 3),
        "ET": (1,),
        "NETC": (2,),
        "CC": (3,),
        "ED": (4,),
    },
)
"""Tumours of children, since 2024."""

TARGET: Final = LabelScheme(values={1: "GTV"})
"""What is to be irradiated of a meningioma."""

CHALLENGES: Final[dict[str, LabelScheme]] = {
    "brats2015": LabelScheme(
        values={1: "NCR", 2: "ED", 3: "NET", 4: "ET"},
        regions={"WT": (1, 2, 3, 4), "TC": (1, 3, 4), "ET": (4,)},
    ),
    "brats2021": LabelScheme(
        values={1: "NCR", 2: "ED", 4: "ET"}, regions={"WT": (1, 2, 4), "TC": (1, 4), "ET": (4,)}
    ),
    "brats2023-gli": ADULT,
    "brats2023-ssa": ADULT,
    "brats2023-men": ADULT,
    "brats2023-ped": ADULT,
    "brats2023-met": ADULT,
    "brats2024-gli": TREATED,
    "brats2024-ssa": UNTREATED,
    "brats2024-met": UNTREATED,
    "brats2024-ped": CHILDREN,
    "brats2024-men": UNTREATED,
    "brats2024-men-rt": TARGET,
    "brats2025-gli": TREATED,
    "brats2025-ssa": UNTREATED,
    "brats2025-met": METASTASES,
    "brats2025-ped": CHILDREN,
    "brats2025-men": UNTREATED,
    "brats2025-men-rt": TARGET,
    "brats2026-gli": TREATED,
    "brats2026-mets": METASTASES,
    "brats2026-ped": CHILDREN,
    "brats2026-goat": UNTREATED,
    "brats2026-menpre": UNTREATED,
    "brats2026-menrt": TARGET,
}
"""Season and challenge -> what its label maps hold; its rules have the same name."""


def _scheme(labels: LabelScheme, *, name: str, protocol: str) -> Scheme:
    return Scheme(**labels.model_dump(exclude={"name"}), name=name, protocol=PROTOCOLS[protocol])


SCHEMES: Final[dict[str, Scheme]] = {
    **{name: _scheme(labels, name=name, protocol=name) for name, labels in CHALLENGES.items()},
    **{
        f"brats{year}": _scheme(CHALLENGES["brats2021"], name=f"brats{year}", protocol="brats2021")
        for year in (2017, 2018, 2019, 2020, 2022)
    },
    "brats2023": _scheme(ADULT, name="brats2023", protocol="brats2023-gli"),
    "hippocampus": Scheme(name="hippocampus", values={1: "anterior", 2: "posterior"}),
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
