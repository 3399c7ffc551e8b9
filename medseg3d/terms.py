"""Coded terms: what a label means, in words that other systems understand.

A `Term` says what DICOM says of a segment: category and type, where needed with a side and a
place, each a `Code` of a coding scheme, mostly SNOMED CT (`SCT`). `TERMS` holds those that DICOM
PS3.16 has, mostly in CID 7150 to 7199, for what public models segment.
"""

import re
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, model_serializer, model_validator

NOTATION: Final = re.compile(
    r"(?:(?P<scheme>[A-Za-z0-9._-]+):)?(?P<value>[A-Za-z0-9._-]+) \|(?P<meaning>[^|]*)\|"
)
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
ORGAN: Final = Code(value="91772007", meaning="Organ")
PELVIS: Final = Code(value="816092008", meaning="Pelvis")
ANATOMY: Final = Code(value="91723000", meaning="Anatomical Structure")
ABNORMAL: Final = Code(value="49755003", meaning="Morphologically Abnormal Structure")
TISSUE: Final = Code(value="85756007", meaning="Tissue")
TARGET: Final = Code(value="130041", meaning="RT Target", scheme="DCM")

VERTEBRAE: Final = {
    "C1": "14806007", "C2": "39976000", "C3": "113205007", "C4": "5329002", "C5": "36978003",
    "C6": "36054005", "C7": "87391001",
    "T1": "64864005", "T2": "53733008", "T3": "1626008", "T4": "73071006", "T5": "56401006",
    "T6": "45296009", "T7": "62487009", "T8": "11068009", "T9": "82687006", "T10": "7610001",
    "T11": "12989004", "T12": "23215003",
    "L1": "66794005", "L2": "14293000", "L3": "36470004", "L4": "11994002", "L5": "49668003",
}  # fmt: skip


def _part(code: str, color: str | None = None, *, modifier: Code | None = None) -> Term:
    return Term(category=ANATOMY, type=Code.model_validate(code), modifier=modifier, color=color)


def _pair(name: str, code: str, color: str | None = None) -> dict[str, Term]:
    sides = {"left": LEFT, "right": RIGHT}
    return {f"{name}_{side}": _part(code, color, modifier=which) for side, which in sides.items()}


def _vertebra(level: str, code: str) -> Term:
    colors = {"C": "#ffffcf", "T": "#e2ca86", "L": "#d4bc66"}
    return _part(f"{code} |{level} vertebra|", colors[level[0]])


def _in_brain(code: str, *, modifier: Code | None = None) -> Term:
    lesion = Code.model_validate(code)
    return Term(category=ABNORMAL, type=lesion, modifier=modifier, region=BRAIN)


TERMS: Final[dict[str, Term]] = {
    "liver": _part("10200004 |Liver|", "#dd8265"),
    "spleen": _part("78961009 |Spleen|", "#9d6ca2"),
    **_pair("kidney", "64033007 |Kidney|", "#b96653"),
    "pancreas": _part("15776009 |Pancreas|", "#f9b46f"),
    "gallbladder": _part("28231008 |Gallbladder|", "#8b9662"),
    "esophagus": _part("32849002 |Esophagus|", "#d3ab8f"),
    "stomach": _part("69695003 |Stomach|", "#d88469"),
    "duodenum": _part("38848004 |Duodenum|", "#fffde5"),
    "small_bowel": _part("30315005 |Small intestine|", "#cda78e"),
    "colon": _part("71854001 |Colon|", "#cca88f"),
    "rectum": _part("34402009 |Rectum|"),
    **_pair("adrenal_gland", "23451007 |Adrenal gland|", "#f9ba96"),
    "urinary_bladder": _part("89837001 |Bladder|", "#de9a84"),
    "prostate": _part("41216001 |Prostate|", "#e69e8c"),
    "seminal_vesicles": _part("64739004 |Seminal Vesicle|", "#f5ac93"),
    "uterus": _part("35039007 |Uterus|", "#ffb59e"),
    # one label for either organ, without a code of its own
    "prostate_or_uterus": Term(category=TISSUE, type=ORGAN, region=PELVIS, color="#e69e8c"),
    "aorta": _part("15825003 |Aorta|", "#e0614c"),
    "inferior_vena_cava": _part("64131007 |Inferior vena cava|", "#0097ce"),
    "superior_vena_cava": _part("48345005 |Superior vena cava|", "#0097ce"),
    "portal_and_splenic_vein": _part("110765007 |Portal vein and splenic vein|", "#0097ce"),
    "portal_vein": _part("32764006 |Portal vein|", "#0097ce"),
    "splenic_vein": _part("35819009 |Splenic vein|", "#0097ce"),
    "pulmonary_artery": _part("81040000 |Pulmonary artery|", "#007aab"),
    "pulmonary_vein": _part("122972007 |Pulmonary vein|", "#ba4d40"),
    **_pair("common_iliac_artery", "73634005 |Common iliac artery|", "#d96651"),
    **_pair("common_iliac_vein", "46027005 |Common iliac vein|", "#0093ca"),
    **_pair("common_carotid_artery", "32062004 |Common carotid artery|", "#d96651"),
    **_pair("subclavian_artery", "36765005 |Subclavian artery|", "#d96651"),
    "brachiocephalic_trunk": _part("12691009 |Innominate artery|", "#d96651"),
    **_pair("brachiocephalic_vein", "8887007 |Innominate vein|", "#0093ca"),
    **_pair("lung", "39607008 |Lung|", "#c5a591"),
    **_pair("lung_upper_lobe", "45653009 |Upper lobe of lung|", "#ac8a73"),
    "lung_middle_lobe_right": _part("72481006 |Middle lobe of right lung|", "#caa48c"),
    **_pair("lung_lower_lobe", "90572001 |Lower lobe of lung|", "#e0baa2"),
    "trachea": _part("44567001 |Trachea|", "#b6e4ff"),
    "heart": _part("80891009 |Heart|", "#ce6e54"),
    "myocardium": _part("74281007 |Myocardium|"),
    "heart_atrium_left": _part("82471001 |Left atrium|", "#cb6c51"),
    "heart_atrium_right": _part("73829009 |Right atrium|", "#d27359"),
    "heart_ventricle_left": _part("87878005 |Left ventricle|", "#98370d"),
    "heart_ventricle_right": _part("53085002 |Right ventricle|", "#b55539"),
    "thyroid": _part("69748006 |Thyroid|", "#3ea272"),
    **_pair("parotid_gland", "45289007 |Parotid gland|", "#46a375"),
    **_pair("submandibular_gland", "54019009 |Submandibular gland|", "#46a375"),
    **_pair("eyeball", "79652003 |Eyeball|", "#c28e00"),
    "skull": _part("89546000 |Skull|", "#f1d590"),
    "mandible": _part("91609006 |Mandible|", "#dec665"),
    **{f"vertebra_{level}": _vertebra(level, code) for level, code in VERTEBRAE.items()},
    "sacrum": _part("54735007 |Sacrum|", "#d9c683"),
    **_pair("hip", "29836001 |Hip|", "#ffeeaa"),
    **_pair("femur", "71341001 |Femur|", "#ffeeaa"),
    **_pair("humerus", "85050009 |Humerus|", "#c6af7d"),
    **_pair("scapula", "79601000 |Scapula|", "#c6af7d"),
    **_pair("clavicle", "51299004 |Clavicle|", "#cdb36c"),
    **_pair("ribs", "113197003 |Rib|", "#fde89e"),
    "sternum": _part("56873002 |Sternum|", "#f4d99a"),
    "spinal_cord": _part("2748008 |Spinal cord|", "#f4d631"),
    "brain": _part("12738006 |Brain|", "#fafae1"),
    "brain_stem": _part("119238007 |Brain Stem|", "#915c6d"),
    "cerebellum": _part("113305005 |Cerebellum|", "#c2c3a4"),
    **_pair("cerebral_white_matter", "68523003 |Cerebral White Matter|", "#fafae1"),
    **_pair("cerebral_cortex", "40146001 |Cerebral cortex|", "#80ae80"),
    "hippocampus": _part("5366008 |Hippocampus|"),
    **_pair("hippocampus", "5366008 |Hippocampus|"),
    "hippocampus_anterior": _part("5366008 |Hippocampus|", modifier=ANTERIOR),
    "hippocampus_posterior": _part("5366008 |Hippocampus|", modifier=POSTERIOR),
    **_pair("amygdala", "4958002 |Amygdala|", "#629970"),
    **_pair("thalamus", "42695009 |Thalamus|", "#7a6526"),
    **_pair("caudate_nucleus", "11000004 |Caudate Nucleus|", "#1e6f55"),
    **_pair("putamen", "89278009 |Putamen|", "#d29da6"),
    **_pair("pallidum", "14738005 |Globus Pallidus|", "#30817e"),
    **_pair("nucleus_accumbens", "427667007 |Nucleus Accumbens|"),
    **_pair("lateral_ventricle", "66720007 |Lateral Ventricle|", "#586ad7"),
    "third_ventricle": _part("49841001 |Third ventricle|", "#586ad7"),
    "fourth_ventricle": _part("35918002 |Fourth Ventricle|", "#586ad7"),
    "pituitary": _part("56329008 |Pituitary|", "#399d6e"),
    "optic_chiasm": _part("244453006 |Optic chiasm|", "#636a18"),
    # Tumours of the brain by BraTS' names, without customary colours: the palette tells them apart.
    # Not every tissue has a concept of its own; the nearest true one stands for it, and the
    # segment's label says the rest.
    "WT": _in_brain("52988006 |Lesion|"),  # with its oedema, so more than the neoplasm
    "TC": _in_brain("108369006 |Neoplasm|"),
    "ET": _in_brain("NCIt:C113842 |Enhancing Lesion|"),
    "NCR": _in_brain("6574001 |Necrosis|"),
    "NET": _in_brain("NCIt:C81175 |Non-Enhancing Lesion|"),
    "NETC": _in_brain("NCIt:C81175 |Non-Enhancing Lesion|"),  # solid or necrotic
    "ED": _in_brain("79654002 |Edema|"),
    "SNFH": _in_brain("79654002 |Edema|"),  # and tumour that seeps into it
    "CC": _in_brain("367643001 |Cyst|"),
    "RC": _in_brain("52988006 |Lesion|", modifier=POSTOPERATIVE),  # a cavity has no concept
    "GTV": Term(category=TARGET, type=Code(value="228791009", meaning="GTV")),
}
"""Name -> term; sides stand last, `kidney_left`. Colours follow 3D Slicer's anatomy table."""
