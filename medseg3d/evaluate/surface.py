"""How far apart the surfaces of two masks lie, in the three definitions that share a name.

surfel        elements between voxels, each by its area; the greater of the two directed percentiles
pooled        voxels that touch the outside with a face; one percentile over both directions
max_directed  the same voxels; the greater of the two directed percentiles

google-deepmind/surface-distance and BraTS 2023 to 2025 mean `surfel`, medpy and BraTS until 2022
`pooled`, MONAI and MetricsReloaded `max_directed`. Outside the array everything is background.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import scipy
from jaxtyping import Bool, Float64, UInt8

from medseg3d.errors import ConfigError, GridError
from medseg3d.evaluate.overlap import Mask, paired_masks
from medseg3d.evaluate.surfels import surfel_areas, surfel_codes


@dataclass(frozen=True, slots=True, eq=False)
class Directed:
    """From each element of one surface the distance to the other, and the element's weight."""

    distances_mm: Float64[np.ndarray, "N"]
    weights: Float64[np.ndarray, "N"]


def hausdorff_mm(
    reference: Mask,
    predicted: Mask,
    spacing_mm: Sequence[float],
    *,
    percent: float = 95.0,
    definition: str = "surfel",
) -> float:
    """Measure the distance within which `percent` of the surfaces lie; 100 is the farthest point.

    2D or 3D, one spacing per axis. Two empty masks are 0 apart and an empty one is infinitely far
    from any other; the number that a challenge puts there belongs to its scheme.

    Raises:
        GridError: the shapes differ, or they and the spacing are not both 2D or both 3D.
        LabelError: an array is no mask.
        ConfigError: no such definition, or no such percentile.
    """
    if definition not in PERCENTILES or not 0 <= percent <= 100:
        raise ConfigError(
            f"no {percent}th percentile by definition '{definition}'; there are 0 to 100 of "
            f"{', '.join(PERCENTILES)}"
        )
    reference, predicted = paired_masks(reference, predicted)
    if not (reference.any() and predicted.any()):
        return float("inf") if reference.any() or predicted.any() else 0.0
    directed = surface_distances(reference, predicted, spacing_mm, definition=definition)
    return PERCENTILES[definition](*directed, percent)


def surface_distances(
    reference: Mask, predicted: Mask, spacing_mm: Sequence[float], *, definition: str
) -> tuple[Directed, Directed]:
    """Measure from the reference's surface to the predicted one, and back; neither mask is empty.

    `definition` is a key of `SURFACES`.

    Raises:
        GridError: the shapes differ, or they and the spacing are not both 2D or both 3D.
        LabelError: an array is no mask.
    """
    reference, predicted = paired_masks(reference, predicted)
    spacing = np.array(spacing_mm, dtype=np.float64)
    axes = reference.ndim
    if axes not in (2, 3) or spacing.shape != (axes,) or not (spacing > 0).all():
        raise GridError(
            f"masks of shape {reference.shape} with spacing {tuple(spacing_mm)}: a surface needs "
            "two or three axes and one positive spacing for each"
        )
    box = _joint_box(reference | predicted)
    there, back = (SURFACES[definition](mask[box]) for mask in (reference, predicted))
    areas = surfel_areas(spacing) if definition == "surfel" else np.ones(2)
    return _directed(there, back, spacing, areas), _directed(back, there, spacing, areas)


def _directed(
    start: UInt8[np.ndarray, "..."],
    goal: UInt8[np.ndarray, "..."],
    spacing_mm: Float64[np.ndarray, "axes"],
    areas: Float64[np.ndarray, "codes"],
) -> Directed:
    """Measure from the elements of one surface; both are arrays of codes, 0 off the surface.

    Distances come from whole index steps in float64: single precision moves them past tolerances.
    """
    nearest = scipy.ndimage.distance_transform_edt(
        goal == 0, sampling=spacing_mm, return_distances=False, return_indices=True
    )
    elements = np.nonzero(start)
    steps = np.stack([n[elements] - e for n, e in zip(nearest, elements, strict=True)], axis=-1)
    return Directed(np.sqrt(((steps * spacing_mm) ** 2).sum(axis=-1)), areas[start[elements]])


def _border_voxels(mask: Bool[np.ndarray, "..."]) -> UInt8[np.ndarray, "..."]:
    """Mark the voxels of a mask that have a face in common with the outside."""
    return (mask & ~scipy.ndimage.binary_erosion(mask)).astype(np.uint8)


def _joint_box(mask: Bool[np.ndarray, "..."]) -> tuple[slice, ...]:
    """Find the smallest box around a mask that is not empty."""
    axes = {*range(mask.ndim)}
    hits = [np.flatnonzero(mask.any(axis=tuple(axes - {axis}))) for axis in axes]
    return tuple(slice(int(hit[0]), int(hit[-1]) + 1) for hit in hits)


def _greater_by_area(there: Directed, back: Directed, percent: float) -> float:
    return max(_percentile_by_area(there, percent), _percentile_by_area(back, percent))


def _percentile_by_area(directed: Directed, percent: float) -> float:
    """Give the first distance up to which the share of area is reached; nothing is interpolated."""
    order = np.lexsort((directed.weights, directed.distances_mm))
    areas = directed.weights[order]
    rank = int(np.searchsorted(np.cumsum(areas) / np.sum(areas), percent / 100))
    return float(directed.distances_mm[order[min(rank, len(order) - 1)]])


def _pooled(there: Directed, back: Directed, percent: float) -> float:
    return float(np.percentile(np.concatenate([there.distances_mm, back.distances_mm]), percent))


def _greater(there: Directed, back: Directed, percent: float) -> float:
    return float(max(np.percentile(d.distances_mm, percent) for d in (there, back)))


SURFACES: Final[dict[str, Callable[[Bool[np.ndarray, "..."]], UInt8[np.ndarray, "..."]]]] = {
    "surfel": surfel_codes,
    "pooled": _border_voxels,
    "max_directed": _border_voxels,
}
"""Definition -> codes of the surface's elements in place, 0 elsewhere."""

PERCENTILES: Final[dict[str, Callable[[Directed, Directed, float], float]]] = {
    "surfel": _greater_by_area,
    "pooled": _pooled,
    "max_directed": _greater,
}
"""Definition -> one number from both directions."""
