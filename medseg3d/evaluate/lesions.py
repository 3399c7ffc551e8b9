"""What a lesion is, how it is measured, and what a region's lesions give together."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from medseg3d.evaluate.blobs import Blob, joint_box, unite
from medseg3d.evaluate.overlap import dice
from medseg3d.evaluate.surface import surface_scores

Status: TypeAlias = Literal["tp", "fn", "fp", "ignored"]
"""Found, missed, made up, or too small to count."""


@dataclass(frozen=True, slots=True)
class Lesion:
    """One lesion of the reference with all that was predicted for it, or one that was made up.

    `center_IJK` is the middle of the reference's box, or else of the predicted one's, in voxels of
    the masks given. `nsd` has a number for each tolerance, under the measure's name.
    """

    status: Status
    reference_mm3: float
    predicted_mm3: float
    center_IJK: tuple[float, ...]
    dice: float
    hd95: float
    nsd: dict[str, float]


@dataclass(frozen=True, slots=True)
class LesionScores:
    """A region's lesions, those of the reference first, and the measures made of them."""

    measures: dict[str, float]
    lesions: tuple[Lesion, ...]


@dataclass(frozen=True, slots=True)
class Ruler:
    """How lesions are measured; `penalty` is the HD95 of one without counterpart."""

    spacing_mm: tuple[float, ...]
    voxel_mm3: float
    definition: Literal["surfel", "pooled"]
    tolerances_mm: dict[str, float]
    penalty: float

    def measure(
        self, reference: Blob | None, predicted: Sequence[Blob], *, status: Status
    ) -> Lesion:
        """Score all that was predicted for a lesion as one; one alone has the penalties."""
        start, stop = joint_box([reference] if reference else predicted)
        scores = (0.0, self.penalty, dict.fromkeys(self.tolerances_mm, 0.0))
        if reference and predicted:
            scores = self._compare(reference, unite(predicted))
        return Lesion(
            status,
            (reference.voxels if reference else 0) * self.voxel_mm3,
            sum(blob.voxels for blob in predicted) * self.voxel_mm3,
            tuple((a + b - 1) / 2 for a, b in zip(start, stop, strict=True)),
            *scores,
        )

    def _compare(self, reference: Blob, predicted: Blob) -> tuple[float, float, dict[str, float]]:
        start, stop = joint_box([reference, predicted])
        masks = reference.within(start, stop), predicted.within(start, stop)
        found = surface_scores(
            *masks,
            self.spacing_mm,
            definition=self.definition,
            nsd_definition="mean_fraction",
            tolerances_mm=[*self.tolerances_mm.values()],
        )
        nsd = dict(zip(self.tolerances_mm, found.nsd, strict=True))
        return dice(*masks), found.hausdorff_mm, nsd


def diagonal(rule: float | str, shape: Sequence[int], spacing_mm: Sequence[float]) -> float:
    """Give a penalty as a number: itself, or the diagonal of the whole volume."""
    if rule == "diagonal":
        return math.hypot(*np.multiply(shape[: len(spacing_mm)], spacing_mm))
    return math.hypot(*shape) if rule == "diagonal_voxels" else float(rule)


def mean(values: Sequence[float], *, of_nothing: float = math.nan) -> float:
    """Average numbers."""
    return sum(values) / len(values) if values else of_nothing
