"""Overlap and distances of two masks, straight from their definitions."""

from functools import cache
from itertools import permutations, product

import numpy as np
from scipy.ndimage import binary_erosion, generate_binary_structure
from scipy.spatial import KDTree

CROSS = generate_binary_structure(3, 1)

Spacing = tuple[float, float, float]


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * (a & b).sum() / (a.sum() + b.sum()) if a.any() or b.any() else 1.0


def sensitivity(a: np.ndarray, reference: np.ndarray) -> float:
    if not reference.any():
        return 0.0 if a.any() else 1.0
    return (a & reference).sum() / reference.sum()


def specificity(a: np.ndarray, reference: np.ndarray) -> float:
    return 0.0 if reference.all() else (~a & ~reference).sum() / (~reference).sum()


def border(mask: np.ndarray) -> np.ndarray:
    """Give the places of voxels with a neighbour across a face, or the image's end, outside."""
    return np.argwhere(mask & ~binary_erosion(mask, CROSS))


def to_nearest(places: np.ndarray, others: np.ndarray, spacing: Spacing) -> np.ndarray:
    nearest = others[KDTree(others * spacing).query(places * np.array(spacing))[1]]
    return np.sqrt((((places - nearest) * np.array(spacing)) ** 2).sum(axis=1))


def border_distances(
    a: np.ndarray, b: np.ndarray, spacing: Spacing
) -> tuple[np.ndarray, np.ndarray]:
    return (
        to_nearest(border(a), border(b), spacing),
        to_nearest(border(b), border(a), spacing),
    )


def pooled_hd95(a: np.ndarray, b: np.ndarray, spacing: Spacing) -> float:
    return float(np.percentile(np.concatenate(border_distances(a, b, spacing)), 95))


def mean_fraction_nsd(a: np.ndarray, b: np.ndarray, spacing: Spacing, tolerance: float) -> float:
    if not a.any() or not b.any():
        return float(a.any() == b.any())
    from_a, from_b = border_distances(a, b, spacing)
    near = (from_a <= tolerance).mean() + (from_b <= tolerance).mean()
    far = (from_a > tolerance).mean() + (from_b > tolerance).mean()
    return near / (near + far + 1e-8)


TRIANGLES = {
    # corners of a 2×2×2 neighbourhood inside the mask, as bits 4i+2j+k -> marching cubes'
    # triangles there, as normals of the length of their area for cubes of one unit
    0b1: [(1, 1, 1)],
    0b11: [(2, 2, 0)] * 2,
    0b110: [(1, 1, 1)] * 2,
    0b111: [(4, 0, 0), (2, 2, 2), (1, 1, 1)],
    0b1111: [(4, 0, 0)] * 2,
    0b10110: [(1, 1, 1)] * 3,
    0b10111: [(1, 1, 1)] * 2 + [(2, 2, 2)] * 2,
    0b11000: [(1, 1, 1)] * 2,
    0b11001: [(0, 2, 2)] * 2 + [(1, 1, 1)],
    0b11011: [(1, 1, 1), (3, 3, 3), (0, 2, 2), (2, 0, 2)],
    0b11110: [(4, 0, 0), (1, 1, 1), (2, 2, 2), (1, 1, 1)],
    0b111100: [(2, 2, 0)] * 4,
    0b1101001: [(1, 1, 1)] * 4,
}  # in eighths; every other neighbourhood is one of these, turned, mirrored or inverted


@cache
def surfel_areas(spacing: Spacing) -> np.ndarray:
    """Give the area of surface in each of the 256 neighbourhoods of 2×2×2 voxels."""
    areas = np.zeros(256)
    face = np.prod(spacing) / np.array(spacing)
    corners = [*product((0, 1), repeat=3)]
    for code, triangles in TRIANGLES.items():
        for axes, flips in product(permutations(range(3)), corners):
            turned = 0
            for corner in corners:
                i, j, k = (corner[axis] ^ flip for axis, flip in zip(axes, flips, strict=True))
                if code >> (4 * corner[0] + 2 * corner[1] + corner[2]) & 1:
                    turned |= 1 << (4 * i + 2 * j + k)
            normals = np.array(triangles)[:, axes] / 8 * face
            areas[[turned, 255 - turned]] = np.sqrt((normals**2).sum(axis=1)).sum()
    return areas


def surfels(mask: np.ndarray, spacing: Spacing) -> tuple[np.ndarray, np.ndarray]:
    """Give places on the dual grid where the neighbourhood is mixed, and the area there."""
    around = np.pad(mask, 1).astype(int)
    n, m, o = (size + 1 for size in mask.shape)
    codes = np.zeros((n, m, o), dtype=int)
    for i, j, k in product((0, 1), repeat=3):
        codes += around[i : i + n, j : j + m, k : k + o] << (4 * i + 2 * j + k)
    mixed = (codes > 0) & (codes < 255)
    return np.argwhere(mixed), surfel_areas(spacing)[codes[mixed]]


def surfel_hd95(a: np.ndarray, b: np.ndarray, spacing: Spacing) -> float:
    if not a.any() or not b.any():
        return 0.0 if a.any() == b.any() else np.inf
    places, areas = zip(surfels(a, spacing), surfels(b, spacing), strict=True)
    directed = []
    for here, there in ((0, 1), (1, 0)):
        distances = to_nearest(places[here], places[there], spacing)
        order = np.lexsort((areas[here], distances))
        share = np.cumsum(areas[here][order]) / areas[here].sum()
        directed.append(distances[order][min(np.searchsorted(share, 0.95), len(share) - 1)])
    return float(max(directed))
