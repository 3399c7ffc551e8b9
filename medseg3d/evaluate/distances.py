"""From every element of one mask's surface the distance to the other's, and what is read from it.

A surface is made of patches between voxels, each with its area (`surfel`), or of the voxels that
have a face to the outside (`border`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeAlias

import numpy as np
from jaxtyping import Bool, Float64

from medseg3d.errors import GridError
from medseg3d.evaluate.overlap import Mask, paired_masks
from medseg3d.evaluate.rings import (
    Distances,
    Elements,
    Field,
    Lattice,
    axes_in_memory,
    nearest_mm,
    spread,
)
from medseg3d.evaluate.surfels import border_codes, surfel_areas, surfel_codes

MaskArray: TypeAlias = Bool[np.ndarray, "..."]

ROUNDING: Final = 1e-9
"""Shares and distances that are relatively closer differ only by how they were added up."""

SURFACES: Final[dict[str, Callable[[Field, Sequence[int]], Field]]] = {
    "surfel": surfel_codes,
    "border": border_codes,
}
"""Surface -> codes of its elements in place, 0 elsewhere."""


@dataclass(frozen=True, slots=True, eq=False)
class _Surface:
    """Where the elements are, the weight of each, and how near they are to any place."""

    places: Elements
    weights: Float64[np.ndarray, "N"]
    near: Field


@dataclass(frozen=True, slots=True, eq=False)
class Directed:
    """From each element of one surface the distance to the other, and the element's weight.

    The weight is an area in mm² (2D: a length in mm), or 1 for a border voxel. Distances are
    infinite to an empty mask, and where they are greater than what was asked for.
    """

    distances_mm: Distances
    weights: Float64[np.ndarray, "N"]
    measure_all: Callable[[], Distances]
    """Measures also the distances that nobody asked for."""

    @property
    def weight(self) -> float:
        """The sum of the weights."""
        return float(self.weights.sum())

    def weight_within(self, tolerance_mm: float) -> float:
        """Sum the weights of the elements that are no farther away."""
        return float(self.weights[self.distances_mm <= tolerance_mm].sum())

    def weighted_mm(self) -> float:
        """Sum the distances, each times its weight."""
        return float((self.distances_mm * self.weights).sum())

    def percentile_mm(self, percent: float) -> float:
        """Give the first distance up to which so much of the weight lies; not interpolated."""
        order = np.argsort(self.distances_mm)
        shares = np.cumsum(self.weights[order]) / self.weight
        ranks = np.searchsorted(shares, [percent / 100 - ROUNDING, percent / 100 + ROUNDING])
        low, high = self.distances_mm[order[np.minimum(ranks, len(order) - 1)]]
        return float(low) if low == high else self._percentile_on_a_step_mm(percent)

    def _percentile_on_a_step_mm(self, percent: float) -> float:
        """Add the areas up in the order of surface-distance, which decides here."""
        distances = self.measure_all()
        order = np.lexsort((self.weights, distances))
        areas = self.weights[order]
        rank = int(np.searchsorted(np.cumsum(areas) / np.sum(areas), percent / 100))
        return float(distances[order[min(rank, len(order) - 1)]])


Pair: TypeAlias = tuple[Directed, Directed]
"""From the reference to the predicted surface, and back."""


def measure_surfaces(
    reference: Mask,
    predicted: Mask,
    spacing_mm: Sequence[float],
    *,
    surface: str,
    percent: float = 100.0,
    reach_mm: float = np.inf,
) -> Pair:
    """Measure the distances up to `reach_mm` and up to the given percentile, at the least.

    `surface` is a key of `SURFACES`.

    Raises:
        GridError: the shapes differ, or they and the spacing are not both 2D or both 3D.
        LabelError: an array is no mask.
    """
    masks = _cut_pair(reference, predicted)
    axes = reference.ndim
    if axes not in (2, 3) or len(spacing_mm) != axes or not all(0 < s < np.inf for s in spacing_mm):
        raise GridError(
            f"masks of shape {reference.shape} with spacing {tuple(spacing_mm)}: a surface needs "
            "two or three axes and one positive spacing for each"
        )
    lattice = Lattice.around(masks[0], spacing_mm)
    there, back = (_find_surface(mask, lattice, surface) for mask in masks)
    measure = partial(_measure, lattice=lattice, share=percent / 100, reach_mm=reach_mm)
    return measure(there, back), measure(back, there)


def _cut_pair(reference: Mask, predicted: Mask) -> tuple[MaskArray, MaskArray]:
    """Cut both to the smallest box that holds both, before anything else is copied."""
    if reference.shape == predicted.shape:
        box = _joint_box(reference, predicted)
        reference, predicted = reference[box], predicted[box]
    return paired_masks(reference, predicted)


def _joint_box(reference: Mask, predicted: Mask) -> tuple[slice, ...]:
    """Find the box from the slowest axis in memory to the fastest, in the shadow that is left."""
    axes = axes_in_memory(reference)
    box = [slice(0)] * len(axes)
    shadows = [mask.transpose(axes) for mask in (reference, predicted)]
    for axis in axes:
        filled = [shadow.any(axis=tuple(range(1, shadow.ndim))) for shadow in shadows]
        hits = np.flatnonzero(filled[0] | filled[1])
        if hits.size:
            box[axis] = slice(int(hits[0]), int(hits[-1]) + 1)
        shadows = [np.asarray(shadow[box[axis]].any(axis=0)) for shadow in shadows]
    return tuple(box)


def _find_surface(mask: MaskArray, lattice: Lattice, kind: str) -> _Surface:
    codes = SURFACES[kind](lattice.lay(mask), lattice.strides)
    places = np.flatnonzero(codes != 0)  # of booleans, which is eight times as fast
    areas = surfel_areas(lattice.spacing_mm) if kind == "surfel" else np.ones(2)
    return _Surface(places, areas[codes[places]], spread(codes, lattice))


def _measure(
    start: _Surface, goal: _Surface, *, lattice: Lattice, share: float, reach_mm: float
) -> Directed:
    spare = (1 - share - ROUNDING) * float(start.weights.sum())

    def enough(left: Elements, least_mm: float) -> bool:
        return least_mm > reach_mm * (1 + ROUNDING) and bool(start.weights[left].sum() <= spare)

    measure = partial(nearest_mm, start.places, goal.near, lattice)
    return Directed(measure(enough), start.weights, measure)
