"""What every season of BraTS scores and with which parameters, as the challenges give them."""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

GLIOMA = {"WT": (1, 2, 3), "TC": (1, 3), "ET": (3,)}
TREATED = {**GLIOMA, "NETC": (1,), "SNFH": (2,), "RC": (4,)}
PEDIATRIC = {
    "WT": (1, 2, 3, 4), "TC": (1, 2, 3), "ET": (1,), "NETC": (2,), "CC": (3,), "ED": (4,),
}  # fmt: skip
TARGET = {"GTV": (1,)}


class Season(NamedTuple):
    """How one challenge scores: its rules, regions, then dilations, thresholds and penalty."""

    rules: str
    regions: dict[str, tuple[int, ...]]
    dilations: int = 0
    threshold: float = 0
    penalty: float | None = None
    """HD95 of what is missed; None: the volume's diagonal in voxels."""
    merges_predicted: bool = False
    """Part the prediction by dilation too, and drop its small lesions."""
    unites: Mapping[str, tuple[str, ...]] = MappingProxyType({})
    """Tissue -> the tissues whose lesions unite its lesions, one after the other."""
    treated: bool = False
    """NETC and RC are dilated 5 times, ET counts from 10 on."""
    small_in_mm3: bool = False
    false_positives_cost: bool = True
    nsd: bool = False

    def dilations_of(self, tissue: str) -> int:
        return 5 if self.treated and tissue in ("NETC", "RC") else self.dilations

    def threshold_of(self, tissue: str) -> float:
        return 10 if self.treated and tissue == "ET" else self.threshold

    def penalty_in(self, volume: np.ndarray) -> float:
        return math.hypot(*volume.shape) if self.penalty is None else self.penalty


def _merging(
    regions: dict[str, tuple[int, ...]], dilations: int, threshold: float, penalty: float | None
) -> Season:
    return Season("lesionwise", regions, dilations, threshold, penalty, True, nsd=True)


_WHOLE = Season("whole", GLIOMA)
_ET_BY_NETC = {"ET": ("NETC",)}
_TREATED_BY = {
    "NETC": ("ET", "RC"), "ET": ("NETC", "RC"), "RC": ("ET", "NETC"), "SNFH": ("ET", "RC", "NETC"),
}  # fmt: skip
_2023 = Season("lesionwise", GLIOMA, 3, 50, 374)
_2024 = {
    "gli": _merging(TREATED, 3, 20, 337)._replace(unites=_TREATED_BY, treated=True),
    "ssa": _merging(GLIOMA, 3, 50, 374)._replace(unites=_ET_BY_NETC),
    "met": _merging(GLIOMA, 1, 2, 374)._replace(unites=_ET_BY_NETC),
    "ped": _merging(PEDIATRIC, 5, 10, 374),
    "men": Season("lesionwise", GLIOMA, 1, 50, 374, nsd=True),
    "men-rt": _merging(TARGET, 1, 50, None)._replace(small_in_mm3=True, false_positives_cost=False),
}
_2025 = _2024 | {"met": _merging({**GLIOMA, "RC": (4,)}, 1, 2, None)._replace(unites=_ET_BY_NETC)}

SEASONS = {
    "brats2015": _WHOLE._replace(regions={"WT": (1, 2, 3, 4), "TC": (1, 3, 4), "ET": (4,)}),
    "brats2021": _WHOLE._replace(regions={"WT": (1, 2, 4), "TC": (1, 4), "ET": (4,)}),
    "brats2023": _2023,
    "brats2023-gli": _2023,
    "brats2023-ssa": _2023,
    "brats2023-ped": _2023,
    "brats2023-men": _2023._replace(dilations=1),
    "brats2023-met": _2023._replace(dilations=1, threshold=2),
    **{f"brats2024-{name}": season for name, season in _2024.items()},
    **{f"brats2025-{name}": season for name, season in _2025.items()},
    "brats2026-gli": Season("instances", TREATED),
    "brats2026-mets": Season("metastases", {**GLIOMA, "RC": (4,)}),
    "brats2026-ped": Season("instances", PEDIATRIC),
    "brats2026-goat": Season("instances", GLIOMA),
    "brats2026-menpre": Season("instances", GLIOMA),
    "brats2026-menrt": Season("instances", TARGET),
}
