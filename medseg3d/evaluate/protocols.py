"""By which rules regions are scored: one literal table, from the challenge of 2015 to that of 2026.

A `Protocol` scores each region as one whole and, where it has `lesions`, lesion by lesion too: as
`DilatedLesions` (BraTS 2023 to 2025) or as `MatchedInstances` (2026).
"""

from collections.abc import Mapping
from typing import Annotated, Final, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

Number: TypeAlias = int | float
Size: TypeAlias = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Diagonal: TypeAlias = Literal["diagonal", "diagonal_voxels"]
"""Of the whole volume, in the unit of the distances, or in voxels although they are in mm."""

COUNTS: Final = ("lesion_tp", "lesion_fp", "lesion_fn")


class Rules(BaseModel):
    """Knobs that do not change; an unknown one is refused."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True
    )


class DilatedLesions(Rules):
    """Lesions are what a dilated mask holds together, and are hit by what touches them dilated."""

    kind: Literal["dilated"] = "dilated"
    """Chooses these rules."""
    dilations: Annotated[int, Field(ge=1)] = 3
    """How often a mask grows by its 18-neighbourhood, to merge lesions and to look for hits."""
    dilations_of: dict[str, Annotated[int, Field(ge=1)]] = {}
    """Regions with another number of dilations."""
    threshold: Size = 50
    """Reference lesions of at most so many mm³ are ignored, hit or not."""
    threshold_of: dict[str, Size] = {}
    """Regions with another threshold."""
    merge_predicted: bool = False
    """Merge predicted lesions too, and drop those up to the threshold; else each component is one.
    """
    predicted_unit: Literal["mm3", "voxels"] = "voxels"
    """What the threshold counts in predicted lesions."""
    joins: dict[str, tuple[str, ...]] = {}
    """Region -> tissues, in turn: its lesions that touch the same lesion of a tissue become one."""
    penalty: Size | Diagonal = 374
    """HD95 of a lesion that was missed or made up; its Dice and NSD are 0."""
    tolerances_mm: tuple[Size, ...] = ()
    """A `lesion_nsd` for each, by definition 'mean_fraction'."""
    count_false_positives: bool = True
    """Let lesions that were made up lower the means."""

    def dilations_in(self, region: str) -> int:
        """Give a region's number of dilations."""
        return self.dilations_of.get(region, self.dilations)

    def threshold_in(self, region: str) -> float:
        """Give a region's threshold."""
        return self.threshold_of.get(region, self.threshold)

    @property
    def measures(self) -> tuple[str, ...]:
        """Names of the numbers of a region."""
        nsd = (f"lesion_nsd_{tolerance}" for tolerance in self.tolerances_mm)
        return ("lesion_dice", "lesion_hd95", *nsd, *COUNTS)

    @property
    def policy(self) -> str:
        """Say in words what the numbers mean."""
        sides = "both sides" if self.merge_predicted else "the reference"
        small = f"references of up to {_by_region(self.threshold, self.threshold_of)} mm³ ignored"
        if self.merge_predicted:
            unit = {"mm3": "mm³", "voxels": "voxels"}[self.predicted_unit]
            small += f", predicted ones of up to as many {unit} dropped"
        joins = ", ".join(f"{region} by {' then '.join(by)}" for region, by in self.joins.items())
        joined = f", joined where they touch one lesion of another tissue ({joins})"
        cost = f"has Dice 0 and HD95 {_worded(self.penalty)}"
        alone = f"missed or made up {cost}"
        if not self.count_false_positives:
            alone = f"missed {cost}, one made up is counted but costs nothing"
        return (
            f"lesions: {sides} merged by dilation × "
            f"{_by_region(self.dilations, self.dilations_of)}{joined if joins else ''}; {small}; "
            "every predicted lesion that touches a dilated reference counts for it; a lesion "
            f"{alone}; without any lesion Dice 1 and HD95 0"
        )


class MatchedInstances(Rules):
    """Lesions are 26-connected components, matched one to one by the greatest sum of Dice."""

    kind: Literal["matched"] = "matched"
    """Chooses these rules."""
    penalty: Size = 373
    """HD95 where there are lesions and none is matched; Dice and NSD are 0 there."""
    large_mm3: Size | None = None
    """Only references from this size make the means, in which every one that was missed or made up
    has Dice and NSD 0 and HD95 the penalty; None takes the pairs that matched, of any size."""
    detection_dice: Annotated[float, Field(ge=0, le=1)] = 0.2
    """With `large_mm3`: the Dice from which a lesion, large or small, counts as found."""
    reversed_spacing: bool = False
    """Take the spacing in reverse order, as the official tool does when it reads files."""

    @property
    def measures(self) -> tuple[str, ...]:
        """Names of the numbers of a region."""
        sizes = ("lesion_f1_large", "lesion_f1_small") if self.large_mm3 is not None else ()
        return ("lesion_dice", "lesion_hd95", "lesion_nsd", *COUNTS, "lesion_f1", *sizes)

    @property
    def policy(self) -> str:
        """Say in words what the numbers mean."""
        means = (
            "means over the matched pairs; where there are lesions and none is matched Dice and "
            f"NSD 0 and HD95 {_worded(self.penalty)}"
        )
        if self.large_mm3 is not None:
            means = (
                f"where there is a reference from {self.large_mm3:g} mm³, and only there, means "
                "over those references and all false positives, a lesion "
                f"missed or made up with Dice and NSD 0 and HD95 {_worded(self.penalty)}; a lesion "
                f"is found, large or small, from Dice {self.detection_dice:g}"
            )
        return (
            "lesions: components matched one to one by the greatest sum of Dice; HD95 by definition"
            f" 'pooled' in mm, NSD within the smallest spacing; {means}; undefined without lesions"
        )


class Protocol(Rules):
    """How a region is scored. Specificity is over the whole volume, volumes are in mm³."""

    hausdorff: Literal["surfel", "pooled", "max_directed"] = "surfel"
    """Definition of HD95 (`evaluate.surface`)."""
    in_voxels: bool = False
    """Count distances in voxels, as some challenges do, instead of mm."""
    assd: bool = False
    """Give `assd`, the average symmetric surface distance."""
    sensitivity: bool = True
    """Give `sensitivity` and `specificity` of voxels."""
    nsd: Literal["surfel", "pooled_count", "mean_fraction"] = "surfel"
    """Definition of the normalized surface Dice (`evaluate.surface`)."""
    tolerances: tuple[Size, ...] = ()
    """An `nsd` for each, in the unit of the distances."""
    one_empty: Size | Diagonal | Literal["nan"] = "diagonal"
    """Distances where one side is empty: a penalty, a diagonal, or undefined. Dice and NSD are 0.
    """
    both_empty: Size | Literal["nan"] = 0.0
    """Distances where both sides are empty."""
    both_empty_dice: Annotated[float, Field(ge=0, le=1)] | Literal["nan"] = 1.0
    """Dice and NSD where both sides are empty."""
    apart: Size | None = None
    """HD95 of two masks without a common voxel, whose NSD is then 0; None measures them."""
    empty: Literal["penalty", "nan", "skip"] = "penalty"
    """What becomes of empty sides: the numbers above; undefined distances and NSD, and Dice where
    both are empty; or no numbers at all for a region that the reference does not have."""
    lesions: Annotated[DilatedLesions | MatchedInstances, Field(discriminator="kind")] | None = None
    """How lesions are scored, each by itself."""

    @property
    def measures(self) -> tuple[str, ...]:
        """Names of the numbers of a region, in the order of tables."""
        return (
            "dice",
            "hd95",
            *(("assd",) if self.assd else ()),
            *(("sensitivity", "specificity") if self.sensitivity else ()),
            *(f"nsd_{tolerance}" for tolerance in self.tolerances),
            *(self.lesions.measures if self.lesions else ()),
        )

    @property
    def policy(self) -> str:
        """Say in words what the numbers mean."""
        unit = "voxels" if self.in_voxels else "mm"
        nsd = f", NSD by definition '{self.nsd}'" if self.tolerances else ""
        said = [f"HD95 by definition '{self.hausdorff}'{nsd}, in {unit}", self._said_of_empty]
        if self.apart is not None:
            said.append(f"HD95 {self.apart:g} and NSD 0 where the sides share no voxel")
        if self.lesions:
            said.append(self.lesions.policy)
        return "; ".join(said)

    @property
    def _said_of_empty(self) -> str:
        shares = "Dice and NSD" if self.tolerances else "Dice"
        one = f"distances {_worded(self.one_empty)}, {shares} 0 where"
        if self.empty == "skip":
            return f"{one} the prediction is empty; what the reference does not have is left out"
        if self.empty == "nan":
            return "whole regions undefined where a side is empty (Dice: both), lesions penalised"
        return (
            f"{one} one side is empty; "
            f"distances {_worded(self.both_empty)}, {shares} {_worded(self.both_empty_dice)} where "
            "both are empty"
        )


def _worded(rule: float | str) -> str:
    words = {
        "diagonal": "the volume's diagonal",
        "diagonal_voxels": "the volume's diagonal in voxels",
        "nan": "undefined",
    }
    return words[rule] if isinstance(rule, str) else f"{rule:g}"


def _by_region(rule: Number, others: Mapping[str, Number]) -> str:
    exceptions = ", ".join(f"{region} {other:g}" for region, other in others.items())
    return f"{rule:g} ({exceptions})" if exceptions else f"{rule:g}"


BRATS2021: Final = Protocol(hausdorff="pooled", in_voxels=True)

NSD: Final = (0.5, 1.0)
"""Tolerances in mm of 2024 and 2025."""

MET_2024: Final = DilatedLesions(
    dilations=1, threshold=2, merge_predicted=True, joins={"ET": ("NETC",)}, tolerances_mm=NSD
)


def _lesionwise(lesions: DilatedLesions) -> Protocol:
    return Protocol(
        nsd="mean_fraction",
        tolerances=lesions.tolerances_mm,
        one_empty=lesions.penalty,
        lesions=lesions,
    )


SEASON_2024: Final = {
    "gli": _lesionwise(
        DilatedLesions(
            dilations_of={"NETC": 5, "RC": 5},  # SNFH was meant too, but the script misspells it
            threshold=20,
            threshold_of={"ET": 10},
            merge_predicted=True,
            joins={
                "NETC": ("ET", "RC"),
                "ET": ("NETC", "RC"),
                "RC": ("ET", "NETC"),
                "SNFH": ("ET", "RC", "NETC"),
            },
            penalty=337,
            tolerances_mm=NSD,
        )
    ),
    "ssa": _lesionwise(
        DilatedLesions(merge_predicted=True, joins={"ET": ("NETC",)}, tolerances_mm=NSD)
    ),
    "met": _lesionwise(MET_2024),
    "ped": _lesionwise(
        DilatedLesions(dilations=5, threshold=10, merge_predicted=True, tolerances_mm=NSD)
    ),
    "men": _lesionwise(DilatedLesions(dilations=1, tolerances_mm=NSD)),
    "men-rt": _lesionwise(
        DilatedLesions(
            dilations=1,
            merge_predicted=True,
            predicted_unit="mm3",
            penalty="diagonal_voxels",
            tolerances_mm=NSD,
            count_false_positives=False,
        )
    ),
}
"""Challenge -> rules of 2024, and of 2025 but for metastases."""

BRATS2026: Final = Protocol(
    hausdorff="pooled",
    in_voxels=True,
    sensitivity=False,
    nsd="mean_fraction",
    tolerances=(0.5,),
    one_empty=373,
    both_empty="nan",
    both_empty_dice="nan",
    apart=373,
    lesions=MatchedInstances(),
)

PROTOCOLS: Final[dict[str, Protocol]] = {
    "whole": Protocol(assd=True, tolerances=(1.0,)),
    "brats2015": BRATS2021,
    "brats2021": BRATS2021,
    "brats2023-gli": _lesionwise(DilatedLesions(dilations=3, threshold=50)),
    "brats2023-ssa": _lesionwise(DilatedLesions(dilations=3, threshold=50)),
    "brats2023-men": _lesionwise(DilatedLesions(dilations=1, threshold=50)),
    "brats2023-ped": _lesionwise(DilatedLesions(dilations=3, threshold=50)),
    "brats2023-met": _lesionwise(DilatedLesions(dilations=1, threshold=2)),
    **{f"brats2024-{challenge}": rules for challenge, rules in SEASON_2024.items()},
    **{f"brats2025-{challenge}": rules for challenge, rules in SEASON_2024.items()},
    "brats2025-met": _lesionwise(MET_2024.model_copy(update={"penalty": "diagonal_voxels"})),
    **{f"brats2026-{track}": BRATS2026 for track in ("gli", "ped", "goat", "menpre", "menrt")},
    "brats2026-mets": BRATS2026.model_copy(update={"lesions": MatchedInstances(large_mm3=27)}),
}
"""Name -> rules. `whole` is any task's default; the others are a season and a challenge."""
