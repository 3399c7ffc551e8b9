"""Coded terms: what a label means, in words that other systems understand.

A `Term` says what DICOM says of a segment: category and type, where needed with a side and a
place, each a `Code` of a coding scheme, mostly SNOMED CT (`SCT`). `TERMS` holds those that DICOM
PS3.16 has in CID 7150 to 7199 for what public models segment, under the names models use.
"""

import re
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, model_serializer, model_validator

NOTATION: Final = re.compile(r"(?:(?P<scheme>[A-Za-z0-9._-]+):)?(?P<value>[A-Za-z0-9._-]+) \|(?P<meaning>[^|]*)\|")
"""SNOMED CT's own notation, `10200004 |Liver|`; other schemes stand before it, `DCM:130041 |…|`."""

Color = Annotated[str, Field(pattern="^#[0-9a-fA-F]{6}$")]


class Code(BaseModel):
    """A concept of a coding scheme, written as `10200004 |Liver|`."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    value: str = Field(pattern=r"^[A-Za-z0-9._-]{1,16}$")
    """Its code, at most 16 characters."""
    meaning: str = Field(pattern=r"^[^|\\\x00-\x1f]{1,64}$")
    """What it means, for people."""
    scheme: str = Field(default="SCT", pattern=r"^[A-Za-z0-9._-]{1,16}$")
    """The coding scheme by DICOM's name for it: SCT is SNOMED CT, DCM is DICOM's own."""

    @model_validator(mode="before")
    @classmethod
    def _parsed(cls, code: Any) -> Any:
        if not isinstance(code, str):
            return code
        if not (found := NOTATION.fullmatch(code.strip())):
            raise ValueError("a code is written as '10200004 |Liver|' or 'DCM:130041 |RT Target|'")
        return {name: text for name, text in found.groupdict().items() if text is not None}

    @model_serializer
    def __str__(self) -> str:
        prefix = "" if self.scheme == "SCT" else f"{self.scheme}:"
        return f"{prefix}{self.value} |{self.meaning}|"


class Term(BaseModel):
    """What a label means: DICOM PS3.3 C.8.20.4, Segment Description."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    category: Code
    """Kind of thing, one of CID 7150, such as `91723000 |Anatomical Structure|`."""
    type: Code
    """The thing itself, such as `64033007 |Kidney|`."""
    modifier: Code | None = None
    """What sets it apart from others of its type, such as `7771000 |Left|`."""
    region: Code | None = None
    """Where it lies, for what is no anatomy itself: a tumour of the `12738006 |Brain|`."""
    color: Color | None = None
    """Customary colour in viewers, as #rrggbb."""


LEFT: Final = Code(value="7771000", meaning="Left")
RIGHT: Final = Code(value="24028007", meaning="Right")
ANTERIOR: Final = Code(value="255549009", meaning="Anterior")
POSTERIOR: Final = Code(value="255551008", meaning="Posterior")
POSTOPERATIVE: Final = Code(value="262061000", meaning="Postoperative")
BRAIN: Final = Code(value="12738006", meaning="Brain")
PELVIS: Final = Code(value="816092008", meaning="Pelvis")
ANATOMY: Final = Code(value="91723000", meaning="Anatomical Structure")
LESION: Final = Code(value="49755003", meaning="Morphologically Abnormal Structure")
TISSUE: Final = Code(value="85756007", meaning="Tissue")


def _part(code: str, color: str | None = None, modifier: Code | None = None) -> Term:
    return Term(category=ANATOMY, type=Code.model_validate(code), modifier=modifier, color=color)


def _pair(name: str, code: str, color: str | None = None) -> dict[str, Term]:
    sides = {"left": LEFT, "right": RIGHT}
    return {f"{name}_{side}": _part(code, color, modifier) for side, modifier in sides.items()}


def _brain_lesion(code: str, color: str | None = None, modifier: Code | None = None) -> Term:
    lesion = Code.model_validate(code)
    return Term(category=LESION, type=lesion, modifier=modifier, region=BRAIN, color=color)


TERMS: Final[dict[str, Term]] = {
    "liver": _part("10200004 |Liver|"),
    "spleen": _part("78961009 |Spleen|"),
    **_pair("kidney", "64033007 |Kidney|"),
    "pancreas": _part("15776009 |Pancreas|"),
    "hippocampus": _part("5366008 |Hippocampus|"),
    **_pair("hippocampus", "5366008 |Hippocampus|"),
    "hippocampus_anterior": _part("5366008 |Hippocampus|", modifier=ANTERIOR),
    "hippocampus_posterior": _part("5366008 |Hippocampus|", modifier=POSTERIOR),
    "ET": _brain_lesion("NCIt:C113842 |Enhancing Lesion|"),
}
"""Name -> term; the names of organs are those of public models."""
