"""From each element of one surface to the nearest of another, looked for in growing rings.

Two masks worth comparing lie close together, so most answers are a step or two away. Along one axis
every place first learns how near the goal is; then only the other axes have to be searched, in
rings of growing distance, until no later ring can hold anything nearer. What is farther away than
the widest ring, a lesion that was missed, is looked up in a KD-tree.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce
from itertools import pairwise
from typing import Final, TypeAlias

import numpy as np
import scipy
from jaxtyping import Bool, Float64, Int, Int64, UInt8
from scipy.spatial import cKDTree

Field: TypeAlias = UInt8[np.ndarray, "places"]
"""A box with margins in one row, as a `Lattice` lays it out."""

Elements: TypeAlias = Int64[np.ndarray, "N"]
Distances: TypeAlias = Float64[np.ndarray, "N"]

WIDEST: Final = {1: 48.0, 2: 14.0}
"""Axes that rings run over -> radius of the widest, in voxels of average size."""

ON_GOAL: Final = 255
"""How near a place on the goal is; one less for each voxel on the way, until 1: out of sight."""

MOST_STEPS: Final = 64
"""In a ring. After one as wide, surfaces that have found less than half are too far apart."""

LOOK_UP: Final = 2000
"""Voxels that a transform of the whole box gets through while a tree looks one far place up."""

BLOCK: Final = 2**16
"""Steps that are taken together: few enough to stay in the processor's cache."""


@dataclass(frozen=True, slots=True, eq=False)
class Ring:
    """Steps across the searched axes; each step of a later ring is at least `then_mm` long."""

    steps: Int64[np.ndarray, "steps axes"]
    then_mm: float


@dataclass(frozen=True, slots=True)
class Lattice:
    """How a box of voxels lies in memory while it is searched.

    The axis that is slowest in the masks' own memory comes first, so that nothing is transposed.
    Behind each axis one voxel is free, and behind the searched ones as many more as the widest ring
    reaches: a step over an edge ends in that margin, or in the one of the row before.
    """

    axes: tuple[int, ...]
    """The masks' axes in the order of memory."""
    shape: tuple[int, ...]
    """Voxels along those, with the margins."""
    spacing_mm: tuple[float, ...]
    """Along the masks' own axes."""

    @classmethod
    def around(cls, mask: Bool[np.ndarray, "..."], spacing_mm: Sequence[float]) -> "Lattice":
        """Lay out boxes that are shaped and stored as a mask is."""
        spacing = tuple(float(s) for s in spacing_mm)
        axes = axes_in_memory(mask)
        radius_mm = _radius_mm([spacing[axis] for axis in axes[1:]])
        margins = (0, *(int(radius_mm / spacing[axis]) for axis in axes[1:]))
        shape = (mask.shape[axis] + 1 + free for axis, free in zip(axes, margins, strict=True))
        return cls(axes, tuple(shape), spacing)

    @property
    def strides(self) -> tuple[int, ...]:
        """Places in a field from one voxel to the next, along the masks' own axes."""
        return tuple(math.prod(self.shape[self.axes.index(a) + 1 :]) for a in sorted(self.axes))

    def lay(self, mask: Bool[np.ndarray, "..."]) -> Field:
        """Copy a mask into a field of 0 and 1."""
        field = np.zeros(self.shape, dtype=np.uint8)
        turned = mask.transpose(self.axes)
        field[tuple(slice(size) for size in turned.shape)] = turned
        return field.reshape(-1)

    def indices(self, places: Elements) -> Int64[np.ndarray, "N axes"]:
        """Give the indices of places along the masks' own axes."""
        indices = np.unravel_index(places, self.shape)
        return np.stack([indices[self.axes.index(axis)] for axis in sorted(self.axes)], axis=-1)


def axes_in_memory(array: np.ndarray) -> tuple[int, ...]:
    """Sort an array's axes from the slowest to the fastest."""
    return tuple(sorted(range(array.ndim), key=lambda axis: -abs(array.strides[axis])))


def spread(goal: Field, lattice: Lattice) -> Field:
    """Overwrite a goal, the places that are not 0, with how near it is along the first axis."""
    np.multiply(goal != 0, np.uint8(ON_GOAL - 1), out=goal)
    goal += 1
    lines = goal.reshape(lattice.shape[0], -1)
    for planes in (lines, lines[::-1]):
        for before, plane in pairwise(planes):
            np.maximum(plane, before - 1, out=plane)
    return goal


def nearest_mm(
    places: Elements,
    near: Field,
    lattice: Lattice,
    enough: Callable[[Elements, float], bool] | None = None,
) -> Distances:
    """Measure from each place to the nearest of a goal that was `spread`; if none is, infinity.

    After each ring, `enough` is told the numbers of the places that are left, and the distance that
    none of them falls short of; if it is, they are put infinitely far away. Distances come from
    whole steps in float64, summed as SciPy's distance transform does: single precision moves them
    past tolerances.
    """
    squares = np.full(len(places), np.inf)
    if near.max() < ON_GOAL:
        return squares
    left = np.arange(len(places))
    in_sight_mm = (ON_GOAL - 1) * lattice.spacing_mm[lattice.axes[0]]
    for ring in build_rings(tuple(lattice.spacing_mm[axis] for axis in lattice.axes[1:])):
        squares[left] = np.minimum(squares[left], _squares(near, places[left], ring, lattice))
        settled_mm = min(ring.then_mm, in_sight_mm)
        left = left[squares[left] > settled_mm**2]
        if not left.size or (enough and enough(left, settled_mm)):
            squares[left] = np.inf
            return np.sqrt(squares)
        if len(ring.steps) >= MOST_STEPS and 2 * len(left) > len(places):
            break
    squares[left] = _far_squares(places[left], near, lattice)
    return np.sqrt(squares)


@lru_cache(maxsize=32)
def build_rings(spacing_mm: tuple[float, ...]) -> tuple[Ring, ...]:
    """Sort steps over one or two axes by their length, and part them into rings."""
    radius_mm = _radius_mm(spacing_mm)
    ranges = [np.arange(-int(radius_mm / s), int(radius_mm / s) + 1) for s in spacing_mm]
    steps = np.stack(np.meshgrid(*ranges, indexing="ij"), axis=-1).reshape(-1, len(ranges))
    lengths_mm = np.linalg.norm(steps * spacing_mm, axis=-1)
    order = [n for n in np.argsort(lengths_mm) if lengths_mm[n] <= radius_mm]
    steps, lengths_mm = steps[order], np.append(lengths_mm[order], radius_mm)
    # Most elements are settled by the first steps; a ring of many is soon too long for the rest.
    ends = [0, 1, 9, 25, 57, *range(57 + MOST_STEPS, len(steps), MOST_STEPS), len(steps)]
    return tuple(Ring(steps[a:b], float(lengths_mm[b])) for a, b in pairwise(ends))


def _radius_mm(spacing_mm: Sequence[float]) -> float:
    """Size the widest ring so that their steps are about as many whatever the spacing."""
    return WIDEST[len(spacing_mm)] * math.prod(spacing_mm) ** (1 / len(spacing_mm))


def _squares(near: Field, places: Elements, ring: Ring, lattice: Lattice) -> Distances:
    """Give the square of the least distance by way of a ring's steps."""
    first, *searched = lattice.axes
    away = (ON_GOAL - np.arange(256.0)) * lattice.spacing_mm[first]
    away[:2] = np.inf
    along = {first: away[np.newaxis]}
    for axis, steps in zip(searched, ring.steps.T, strict=True):
        along[axis] = (steps * lattice.spacing_mm[axis])[:, np.newaxis]
    table = reduce(np.add, [along[axis] ** 2 for axis in sorted(along)]).ravel()
    ways = (ring.steps @ [lattice.strides[axis] for axis in searched])[:, np.newaxis]
    rows = np.arange(0, table.size, 256)[:, np.newaxis]
    squares = np.empty(len(places))
    length = BLOCK // len(ways)
    for n in range(0, len(places), length):
        block = slice(n, n + length)
        squares[block] = table.take(rows + near.take(places[block] + ways)).min(axis=0)
    return squares


def _far_squares(places: Elements, near: Field, lattice: Lattice) -> Distances:
    """Look the nearest up in a tree; where too many are far, in a transform of the whole box."""
    here = lattice.indices(places)
    if len(places) * LOOK_UP > len(near):
        nearest = _transformed(near, lattice)[places]
    else:
        there = lattice.indices(np.flatnonzero(near == ON_GOAL))
        tree = cKDTree(there * lattice.spacing_mm, compact_nodes=False, balanced_tree=False)
        nearest = there[tree.query(here * lattice.spacing_mm)[1]]
    return (((nearest - here) * lattice.spacing_mm) ** 2).sum(axis=-1)


def _transformed(near: Field, lattice: Lattice) -> Int[np.ndarray, "places axes"]:
    """Give for each place of the box the indices of the nearest, along the masks' own axes."""
    indices = scipy.ndimage.distance_transform_edt(
        near.reshape(lattice.shape) != ON_GOAL,
        sampling=[lattice.spacing_mm[axis] for axis in lattice.axes],
        return_distances=False,
        return_indices=True,
    )
    in_memory = indices.reshape(len(lattice.axes), -1)
    return in_memory[[lattice.axes.index(axis) for axis in sorted(lattice.axes)]].T
