"""The surface between voxels: one small patch per 2×2(×2) neighbourhood, and its area.

The corners of a neighbourhood that lie inside fall into pieces joined by edges. An edge that leaves
a piece is cut in the middle, and through these points runs the rim of the piece's patch. Inside and
outside may be exchanged, and the smaller side decides: corners that touch only across a face are
pieces of their own. So the 256 neighbourhoods of 3D are 14, up to symmetry (Lorensen and Cline,
Marching Cubes, SIGGRAPH 1987).
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from functools import cache, lru_cache
from itertools import product
from typing import Final, TypeAlias

import numpy as np
from jaxtyping import Float64, UInt8

Point: TypeAlias = tuple[float, ...]

MOST_FACETS: Final = 4
"""No patch needs more triangles (3D) or segments (2D)."""


def surfel_codes(
    mask: UInt8[np.ndarray, "places"], strides: Sequence[int]
) -> UInt8[np.ndarray, "places"]:
    """Number the neighbourhoods that the surface runs through; 0 elsewhere.

    `mask` is an array of 0 and 1 in one row, with a free voxel behind each axis; it is overwritten.
    `strides` lead to the next voxel along each axis. Neighbourhood n joins voxels n - 1 and n, and
    bits fall from the corner of lowest indices, last axis fastest.
    """
    for shift, stride in zip((2, 4, 16), reversed(strides), strict=False):
        mask[stride:] |= mask[:-stride] * np.uint8(shift)  # NumPy shifts bytes one by one
    mask *= mask != 2**2 ** len(strides) - 1
    return mask


def border_codes(
    mask: UInt8[np.ndarray, "places"], strides: Sequence[int]
) -> UInt8[np.ndarray, "places"]:
    """Mark the voxels of a mask, laid out as for `surfel_codes`, with a face to the outside: 1."""
    inner = mask.copy()
    for stride in strides:
        inner[stride:] &= mask[:-stride]
        inner[:-stride] &= mask[stride:]
        inner[:stride] = 0
    return mask ^ inner


@lru_cache(maxsize=32)
def surfel_areas(spacing_mm: tuple[float, ...]) -> Float64[np.ndarray, "codes"]:
    """Give the area in mm² of the surface in each neighbourhood; in 2D its length in mm."""
    faces_mm2 = [math.prod(spacing_mm[:a] + spacing_mm[a + 1 :]) for a in range(len(spacing_mm))]
    areas_mm2 = np.linalg.norm(_facets(len(spacing_mm)) * faces_mm2, axis=-1)
    return np.asarray(areas_mm2.sum(axis=-1))


@cache
def _facets(num_axes: int) -> Float64[np.ndarray, "codes facets axes"]:
    """Give the facets of each neighbourhood as vectors along the normal, as long as the area."""
    corners: list[Point] = [*product((1.0, 0.0), repeat=num_axes)]
    facets = np.zeros((2 ** len(corners), MOST_FACETS, num_axes))
    for code in range(len(facets)):
        inside = {corner for bit, corner in enumerate(corners) if code >> bit & 1}
        smaller = min(inside, {*corners} - inside, key=len)
        patches = [_patch(piece) for piece in _pieces(smaller)]
        if patches:
            normals = np.concatenate(patches)
            facets[code, : len(normals)] = normals
    return facets


def _pieces(corners: set[Point]) -> Iterator[frozenset[Point]]:
    """Part corners into sets joined by edges."""
    while corners:
        piece: set[Point] = set()
        grown = {min(corners)}
        while grown != piece:
            piece = grown
            grown = {c for c in corners if any(math.dist(c, p) <= 1 for p in piece)}
        corners = corners - piece
        yield frozenset(piece)


@cache
def _patch(piece: frozenset[Point]) -> Float64[np.ndarray, "facets axes"]:
    """Span the patch around a piece: of all fans of triangles the one of greatest area."""
    cuts = sorted(_cut_edges(piece))
    if len(cuts) == 2:
        return np.diff(cuts, axis=0)[:, ::-1]
    rim = np.array(_rim(cuts))
    fans = []
    for _ in rim:
        rim = np.roll(rim, 1, axis=0)
        fans.append(np.cross(rim[1:-1] - rim[0], rim[2:] - rim[0]) / 2)
    return max(fans, key=lambda normals: np.linalg.norm(normals, axis=1).sum())


def _rim(cuts: list[Point]) -> list[Point]:
    """Put cut edges in turn: each step goes across one face of the neighbourhood."""
    first, *ahead = cuts
    rim = [first]
    while ahead:
        step = next(p for p in ahead if any(a == b != 0.5 for a, b in zip(p, rim[-1], strict=True)))
        ahead.remove(step)
        rim.append(step)
    return rim


def _cut_edges(piece: frozenset[Point]) -> Iterable[Point]:
    """Give the middle of each edge that leaves the piece."""
    for corner in piece:
        for axis, place in enumerate(corner):
            before, after = corner[:axis], corner[axis + 1 :]
            if (*before, 1 - place, *after) not in piece:
                yield (*before, 0.5, *after)
