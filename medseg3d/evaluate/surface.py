"""How far apart the surfaces of two masks lie, and how much of them is within a tolerance.

Hausdorff distance, three definitions that share the name:
  surfel        elements between voxels, each by its area; the greater of the two directed
                percentiles: google-deepmind/surface-distance, BraTS 2023 to 2025
  pooled        border voxels, which have a face to the outside; one percentile over both
                directions: medpy, panoptica, BraTS until 2022 and from 2026
  max_directed  border voxels; the greater of the two directed percentiles: MONAI, MetricsReloaded
Normalized surface Dice (NSD), likewise:
  surfel         share of the area of both surfaces: google-deepmind/surface-distance
  pooled_count   share of the border voxels of both: MONAI
  mean_fraction  mean of the two shares of border voxels: nnU-Net, panoptica, BraTS from 2024
Masks are 2D or 3D, with one spacing per axis; outside the array everything is background.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final, NamedTuple, TypeAlias, TypeVar

import numpy as np

from medseg3d.errors import ConfigError
from medseg3d.evaluate.distances import SURFACES, Pair, measure_surfaces
from medseg3d.evaluate.overlap import Mask

Found = TypeVar("Found")

Percentile: TypeAlias = Callable[[Pair, float], float]
"""From the distances in both directions, none of them empty, and per cent."""

Share: TypeAlias = Callable[[Pair, float], float]
"""From the distances in both directions and a tolerance in mm."""


class SurfaceScores(NamedTuple):
    """What is read from one search."""

    hausdorff_mm: float
    nsd: tuple[float, ...]
    """One for each tolerance."""


class AverageSurfaceDistance(NamedTuple):
    """The mean distance in mm from one surface to the other."""

    reference_to_predicted: float
    predicted_to_reference: float


class SurfaceOverlap(NamedTuple):
    """The share of each surface's area that lies within a tolerance of the other surface."""

    reference: float
    predicted: float


def hausdorff_mm(
    reference: Mask,
    predicted: Mask,
    spacing_mm: Sequence[float],
    *,
    percent: float = 95.0,
    definition: str = "surfel",
) -> float:
    """Measure the distance within which `percent` of the surfaces lie; 100 is the farthest point.

    Two empty masks are 0 apart and an empty one is infinitely far from any other; the number that
    a challenge puts there belongs to its scheme.

    Raises:
        GridError: the shapes differ, or they and the spacing are not both 2D or both 3D.
        LabelError: an array is no mask.
        ConfigError: no such definition, or no such percentile.
    """
    return surface_scores(
        reference, predicted, spacing_mm, definition=definition, percent=percent
    ).hausdorff_mm


def normalized_surface_dice(
    reference: Mask,
    predicted: Mask,
    spacing_mm: Sequence[float],
    *,
    tolerance_mm: float,
    definition: str = "surfel",
) -> float:
    """Measure the share of both surfaces that is at most `tolerance_mm` away from the other.

    Two empty masks have no surface to share: nan; as `mean_fraction` 1. An empty mask shares
    nothing with any other: 0.

    Raises:
        GridError: the shapes differ, or they and the spacing are not both 2D or both 3D.
        LabelError: an array is no mask.
        ConfigError: no such definition, or a negative tolerance.
    """
    surface, share = _find(NSD, definition, what="NSD")
    _require_tolerances([tolerance_mm])
    pair = measure_surfaces(
        reference, predicted, spacing_mm, surface=surface, percent=0.0, reach_mm=tolerance_mm
    )
    return share(pair, tolerance_mm)


def surface_scores(
    reference: Mask,
    predicted: Mask,
    spacing_mm: Sequence[float],
    *,
    definition: str = "surfel",
    percent: float = 95.0,
    nsd_definition: str = "surfel",
    tolerances_mm: Sequence[float] = (),
) -> SurfaceScores:
    """Measure a Hausdorff distance, and an NSD for each tolerance, with as few searches as can be.

    The numbers are those of `hausdorff_mm` and `normalized_surface_dice`, for empty masks too.

    Raises:
        GridError: the shapes differ, or they and the spacing are not both 2D or both 3D.
        LabelError: an array is no mask.
        ConfigError: no such definition or percentile, or a negative tolerance.
    """
    surface, hausdorff = _find(HAUSDORFF, definition, what="Hausdorff distance")
    nsd_surface, share = _find(NSD, nsd_definition, what="NSD")
    if not 0 <= percent <= 100:
        raise ConfigError(f"no {percent}th percentile; there are 0 to 100")
    _require_tolerances(tolerances_mm)
    reach_mm = max(tolerances_mm, default=0.0)
    measure = partial(measure_surfaces, reference, predicted, spacing_mm, reach_mm=reach_mm)
    pair = nsd_pair = measure(surface=surface, percent=percent if surface == "surfel" else 100.0)
    if tolerances_mm and nsd_surface != surface:
        nsd_pair = measure(surface=nsd_surface, percent=0.0)
    return SurfaceScores(
        _unless_empty(hausdorff, pair, percent),
        tuple(share(nsd_pair, tolerance) for tolerance in tolerances_mm),
    )


def average_surface_distance_mm(
    reference: Mask,
    predicted: Mask,
    spacing_mm: Sequence[float],
    *,
    definition: str = "surfel",
) -> AverageSurfaceDistance:
    """Average the distances from each surface to the other.

    `definition` is that of the surface, a key of `SURFACES`: by area over a `surfel` surface, or
    over the voxels of a `border`. To an empty mask it is infinitely far, and from one nan.

    Raises:
        GridError: the shapes differ, or they and the spacing are not both 2D or both 3D.
        LabelError: an array is no mask.
        ConfigError: no such definition.
    """
    there, back = _measure_all(reference, predicted, spacing_mm, definition)
    return AverageSurfaceDistance(
        _ratio(there.weighted_mm(), there.weight), _ratio(back.weighted_mm(), back.weight)
    )


def average_symmetric_surface_distance_mm(
    reference: Mask,
    predicted: Mask,
    spacing_mm: Sequence[float],
    *,
    definition: str = "surfel",
) -> float:
    """Average the distances from both surfaces to the other in one mean (ASSD).

    `definition` as in `average_surface_distance_mm`; over a `border` it is that of medpy and MONAI.
    (panoptica takes the mean of the two directions instead.) To an empty mask it is infinitely far;
    between two nan.

    Raises:
        GridError: the shapes differ, or they and the spacing are not both 2D or both 3D.
        LabelError: an array is no mask.
        ConfigError: no such definition.
    """
    there, back = _measure_all(reference, predicted, spacing_mm, definition)
    return _ratio(there.weighted_mm() + back.weighted_mm(), there.weight + back.weight)


def surface_overlap(
    reference: Mask, predicted: Mask, spacing_mm: Sequence[float], *, tolerance_mm: float
) -> SurfaceOverlap:
    """Measure how much of each surface's area is at most `tolerance_mm` away from the other.

    Of an empty mask it is nan, and 0 of any other that is compared with an empty one.

    Raises:
        GridError: the shapes differ, or they and the spacing are not both 2D or both 3D.
        LabelError: an array is no mask.
        ConfigError: the tolerance is negative.
    """
    _require_tolerances([tolerance_mm])
    pair = measure_surfaces(
        reference, predicted, spacing_mm, surface="surfel", percent=0.0, reach_mm=tolerance_mm
    )
    return SurfaceOverlap(*(_ratio(d.weight_within(tolerance_mm), d.weight) for d in pair))


def _measure_all(
    reference: Mask, predicted: Mask, spacing_mm: Sequence[float], definition: str
) -> Pair:
    _find(SURFACES, definition, what="surface")
    return measure_surfaces(reference, predicted, spacing_mm, surface=definition)


def _unless_empty(percentile: Percentile, pair: Pair, percent: float) -> float:
    filled = [directed.weights.size > 0 for directed in pair]
    if not all(filled):
        return math.inf if any(filled) else 0.0
    return percentile(pair, percent)


def _greater(pair: Pair, percent: float) -> float:
    return max(directed.percentile_mm(percent) for directed in pair)


def _pooled_interpolated(pair: Pair, percent: float) -> float:
    return float(np.percentile(np.concatenate([d.distances_mm for d in pair]), percent))


def _greater_interpolated(pair: Pair, percent: float) -> float:
    return max(float(np.percentile(directed.distances_mm, percent)) for directed in pair)


def _share_of_both(pair: Pair, tolerance_mm: float) -> float:
    there, back = pair
    within = there.weight_within(tolerance_mm) + back.weight_within(tolerance_mm)
    return _ratio(within, there.weight + back.weight)


def _mean_of_shares(pair: Pair, tolerance_mm: float) -> float:
    """Average the shares as nnU-Net does, whose 1e-8 leaves equal masks a hair below 1."""
    filled = [directed.weights.size > 0 for directed in pair]
    if not all(filled):
        return 0.0 if any(filled) else 1.0
    there, back = (d.weight_within(tolerance_mm) / d.weight for d in pair)
    return (there + back) / (2 + 1e-8)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


HAUSDORFF: Final[dict[str, tuple[str, Percentile]]] = {
    "surfel": ("surfel", _greater),
    "pooled": ("border", _pooled_interpolated),
    "max_directed": ("border", _greater_interpolated),
}
"""Definition -> the surface that is measured, and what is read from the distances."""

NSD: Final[dict[str, tuple[str, Share]]] = {
    "surfel": ("surfel", _share_of_both),
    "pooled_count": ("border", _share_of_both),
    "mean_fraction": ("border", _mean_of_shares),
}
"""Definition -> the surface that is measured, and what is read from the distances."""


def _find(table: Mapping[str, Found], name: str, *, what: str) -> Found:
    if name not in table:
        raise ConfigError(f"no {what} by definition '{name}'; there are {', '.join(table)}")
    return table[name]


def _require_tolerances(tolerances_mm: Sequence[float]) -> None:
    for tolerance in tolerances_mm:
        if not tolerance >= 0:
            raise ConfigError(f"a tolerance of {tolerance} mm; it is 0 mm or more")
