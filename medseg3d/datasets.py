"""What the label maps of public data sets mean: ready-made label schemes, coded for DICOM.

BraTS renumbered its values in 2023 and renamed them in 2024, so every season has its own scheme.
"""

from collections.abc import Mapping
from typing import Final

from medseg3d.labels import LabelScheme
from medseg3d.terms import TERMS


def _coded(values: Mapping[int, str], regions: Mapping[str, tuple[int, ...]]) -> LabelScheme:
    """Make a scheme of names that are names of terms, too."""
    codes = {name: TERMS[name] for name in (*regions, *values.values())}
    return LabelScheme(values=dict(values), regions=dict(regions), codes=codes)


def _organs(names: str) -> LabelScheme:
    """Make a scheme of organs, counted from 1."""
    return _coded(dict(enumerate(names.split(), start=1)), {})


ADULT: Final = _coded({1: "NCR", 2: "ED", 3: "ET"}, {"WT": (1, 2, 3), "TC": (1, 3), "ET": (3,)})
"""Tumours before treatment, since 2023."""

UNTREATED: Final = _coded({1: "NETC", 2: "SNFH", 3: "ET"}, ADULT.regions)
"""The same since 2024, by its names of then."""

METASTASES: Final = _coded(
    {1: "NETC", 2: "SNFH", 3: "ET", 4: "RC"},
    {"WT": (1, 2, 3), "TC": (1, 3), "ET": (3,), "RC": (4,)},
)
"""Metastases since 2025, with a resection cavity."""

TREATED: Final = _coded(
    METASTASES.values,
    {"WT": (1, 2, 3), "TC": (1, 3), "NETC": (1,), "SNFH": (2,), "ET": (3,), "RC": (4,)},
)
"""Gliomas after treatment, since 2024."""

CHILDREN: Final = _coded(
    {1: "ET", 2: "NETC", 3: "CC", 4: "ED"},
    {"WT": (1, 2, 3, 4), "TC": (1, 2, 3), "ET": (1,), "NETC": (2,), "CC": (3,), "ED": (4,)},
)
"""Tumours of children, since 2024."""

TARGET: Final = _coded({1: "GTV"}, {})
"""What is to be irradiated of a meningioma."""

UNTIL_2022: Final = _coded(
    {1: "NCR", 2: "ED", 4: "ET"}, {"WT": (1, 2, 4), "TC": (1, 4), "ET": (4,)}
)
"""Gliomas from 2017 to 2022, where no voxel is 3."""

DATASETS: Final[dict[str, LabelScheme]] = {
    name: labels.model_copy(update={"name": name})
    for name, labels in {
        "brats2015": _coded(
            {1: "NCR", 2: "ED", 3: "NET", 4: "ET"},
            {"WT": (1, 2, 3, 4), "TC": (1, 3, 4), "ET": (4,)},
        ),
        **{f"brats{year}": UNTIL_2022 for year in range(2017, 2023)},
        "brats2023": ADULT,
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
        "hippocampus": LabelScheme(
            values={1: "anterior", 2: "posterior"},
            codes={
                "anterior": TERMS["hippocampus_anterior"],
                "posterior": TERMS["hippocampus_posterior"],
            },
        ),
        "btcv": _organs(
            "spleen kidney_right kidney_left gallbladder esophagus liver stomach aorta "
            "inferior_vena_cava portal_and_splenic_vein pancreas adrenal_gland_right "
            "adrenal_gland_left"
        ),
        "amos": _organs(
            "spleen kidney_right kidney_left gallbladder esophagus liver stomach aorta "
            "inferior_vena_cava pancreas adrenal_gland_right adrenal_gland_left duodenum "
            "urinary_bladder prostate_or_uterus"
        ),
        "flare22": _organs(
            "liver kidney_right spleen pancreas aorta inferior_vena_cava adrenal_gland_right "
            "adrenal_gland_left gallbladder esophagus stomach duodenum kidney_left"
        ),
    }.items()
}
"""Name -> what its label maps hold: BraTS by season and challenge, MSD's hippocampus, organs."""
