"""A made-up, skull-stripped head, drawn as depths.

A depth says how many millimetres a point lies inside a structure; outside it is negative. Depths
combine by `both` and `either`. Nothing here stems from a patient.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from jaxtyping import Float32
from numpy.random import Generator
from scipy import ndimage
from scipy.spatial.transform import Rotation

from medseg3d.arrays import TripleFloat, TripleInt
from medseg3d.errors import ConfigError
from medseg3d.volume import Grid

FieldIJK: TypeAlias = Float32[np.ndarray, "I J K"]
PointsXIJK: TypeAlias = Float32[np.ndarray, "3 I J K"]
Ellipsoid: TypeAlias = tuple[TripleInt, TripleInt]
Capsule: TypeAlias = tuple[TripleInt, TripleInt, float]

FIELD_OF_VIEW_MM: Final = (144, 180, 136)
"""Least extent of a grid: left to right, back to front, bottom to top."""
NOISE_EXTENT_MM: Final = 260
"""Noise covers this much around the head's middle; a head is 180 long."""
SPLINE_DEVIATION: Final = 0.6924
"""Deviation of a cubic B-spline with coefficients of deviation 1, per axis: √(151/315)."""

# The right half of a head, mirrored to the left. An ellipsoid is its centre and half-axes, a
# capsule its ends and radius, in millimetres right, to the front and up from the head's middle.
CEREBRUM: Final[Ellipsoid] = ((0, -4, 10), (64, 80, 56))
LOBES: Final[tuple[Ellipsoid, ...]] = (
    CEREBRUM,
    ((12, 36, 10), (46, 44, 40)),
    ((36, 8, -22), (27, 44, 23)),
    ((12, -50, 8), (46, 38, 38)),
)
CEREBELLUM: Final[Ellipsoid] = ((0, -52, -40), (50, 34, 24))
CALLOSUM: Final[Ellipsoid] = ((0, -4, 4), (999, 46, 26))
BRAINSTEM: Final[Capsule] = ((0, -20, -8), (0, -32, -72), 12.0)
VENTRICLES: Final[tuple[Capsule, ...]] = (
    ((7, 32, 8), (9, 10, 20), 4.5),
    ((9, 10, 20), (14, -26, 20), 5.0),
    ((14, -26, 20), (25, -48, 8), 5.5),
    ((14, -26, 20), (30, -22, -6), 4.0),
    ((30, -22, -6), (31, 2, -16), 2.0),
    ((0, 10, 2), (0, -12, 4), 2.2),
    ((0, -36, -34), (0, -38, -44), 4.0),
)
NUCLEI: Final[tuple[Ellipsoid, ...]] = (
    ((11, -12, 6), (8, 13, 8)),
    ((25, 4, 2), (6, 17, 10)),
    ((14, 20, 9), (4, 11, 9)),
)


@dataclass(frozen=True, slots=True, eq=False)
class Canvas:
    """An LPS grid around the head's middle to draw on, and the dice."""

    rng: Generator
    grid: Grid

    def axes_mm(self) -> list[Float32[np.ndarray, " _"]]:
        """Give the world coordinate of each voxel along each axis."""
        step_mm, first_mm = np.diag(self.grid.affine), self.grid.affine[:, 3]
        return [
            (first_mm[axis] + step_mm[axis] * np.arange(length)).astype(np.float32)
            for axis, length in enumerate(self.grid.shape_IJK)
        ]

    def noise(self, knot_mm: float) -> FieldIJK:
        """Draw a smooth field of mean 0 and deviation 1, the same at every spacing.

        It is a cubic B-spline whose coefficients are random, one every `knot_mm`.
        """
        count = int(NOISE_EXTENT_MM / knot_mm) + 4
        knots = np.arange(count, dtype=np.float32) - count / 2
        field = self.rng.standard_normal((count, count, count), dtype=np.float32)
        for axis_mm in self.axes_mm():
            away = np.abs(axis_mm[:, np.newaxis] / knot_mm - knots)
            near, far = 2 / 3 - away**2 * (1 - away / 2), (2 - away).clip(0) ** 3 / 6
            spline = np.where(away < 1, near, far) / SPLINE_DEVIATION
            field = np.tensordot(field, spline.astype(np.float32), (0, 1))
        return field


@dataclass(frozen=True, slots=True, eq=False)
class Brain:
    """Depths: below the stripped surface, in tissue, white matter, ventricles, vessels."""

    hull: FieldIJK
    tissue: FieldIJK
    white: FieldIJK
    ventricle: FieldIJK
    vessel: FieldIJK


def head_grid(shape_IJK: TripleInt, spacing_mm: TripleFloat) -> Grid:
    """Lay an LPS grid, as BraTS has it, around the middle of a head.

    Raises:
        ConfigError: the grid is smaller than a head.
    """
    extent_mm = np.multiply(shape_IJK, spacing_mm)
    if (extent_mm < FIELD_OF_VIEW_MM).any():
        raise ConfigError(
            f"a grid of {shape_IJK} voxels of {spacing_mm} mm spans "
            f"{' × '.join(f'{mm:g}' for mm in extent_mm)} mm; a head needs at least "
            f"{' × '.join(map(str, FIELD_OF_VIEW_MM))} mm. Take more voxels or larger ones."
        )
    affine = np.diag((-spacing_mm[0], -spacing_mm[1], spacing_mm[2], 1.0))
    affine[:3, 3] = -affine[:3, :3] @ (np.array(shape_IJK) - 1) / 2
    return Grid(shape_IJK, affine)


def both(*depths: FieldIJK) -> FieldIJK:
    """Give the depth in what lies inside all of them."""
    depth: FieldIJK = np.minimum.reduce(depths)
    return depth


def either(*depths: FieldIJK) -> FieldIJK:
    """Give the depth in what lies inside any of them."""
    depth: FieldIJK = np.maximum.reduce(depths)
    return depth


def draw_points(canvas: Canvas) -> PointsXIJK:
    """Give each voxel its place in a head that is turned, sized and bent at random."""
    points = np.stack(np.meshgrid(*canvas.axes_mm(), indexing="ij"))
    turn = Rotation.from_euler("xyz", canvas.rng.normal(0, 3, 3), degrees=True).as_matrix()
    size = canvas.rng.uniform(0.94, 1.04, (3, 1))
    points = np.tensordot((turn / size).astype(np.float32), points, 1)
    return points + 1.6 * np.stack([canvas.noise(30.0) for _ in points])


def draw_brain(canvas: Canvas, points: PointsXIJK, *, pushed: PointsXIJK) -> Brain:
    """Draw a brain whose surface lies at `points` and whose inside lies at `pushed`."""
    right, inner = _mirrored(points), _mirrored(pushed)
    cerebrum = 3 * np.logaddexp.reduce([_ellipsoid(right, lobe) / 3 for lobe in LOBES])
    cerebellum = both(_ellipsoid(points, CEREBELLUM), -1.5 - cerebrum)
    brainstem = _capsule(points, BRAINSTEM)
    cortex = _draw_cortex(canvas, pushed, cerebrum)
    folia = _folia(points, cerebellum)
    nuclei = either(*(_ellipsoid(inner, nucleus) for nucleus in NUCLEI))
    ventricle = either(*(_capsule(inner, part) for part in VENTRICLES))
    ribbon = 4.2 + 0.5 * canvas.noise(12.0)
    return Brain(
        hull=either(cerebrum, cerebellum, brainstem) + 0.5 * canvas.noise(8.0),
        tissue=either(cortex, folia, brainstem),
        white=either(both(cortex - ribbon, -nuclei), folia - 3, brainstem),
        ventricle=ventricle + canvas.rng.uniform(-1, 2) + 0.8 * canvas.noise(12.0),
        vessel=1.2 - 12 * np.hypot(canvas.noise(12.0), canvas.noise(12.0)),
    )


def _draw_cortex(canvas: Canvas, points: PointsXIJK, cerebrum: FieldIJK) -> FieldIJK:
    """Cut fissures and sulci into the cerebrum; give the depth below the nearest of them."""
    x, y, z = right = _mirrored(points)
    atrophy = canvas.rng.uniform(0, 0.8)
    between_hemispheres = either(x - 0.8, _ellipsoid(right, CALLOSUM))
    sylvian = either(np.abs(z + 5 - 0.3 * y) - 0.5, 34 - x, np.abs(y) - 30)
    below_sulci = (cerebrum - 16 - 5 * canvas.noise(15.0)).clip(0)
    sulci = _draw_sulci(canvas, points) - 0.1 - atrophy + below_sulci
    return both(cerebrum - 0.5 - atrophy, between_hemispheres, sylvian, sulci)


def _draw_sulci(canvas: Canvas, points: PointsXIJK) -> FieldIJK:
    """Give the distance from the nearest of many winding sheets that stand on the surface.

    The sheets are where a noise is 0, looked up on the surface above each point.
    """
    centre, half_axes = _columns(CEREBRUM)
    away = (points - centre) / half_axes
    above = centre + half_axes * away / np.linalg.norm(away, axis=0).clip(0.3) ** 0.85
    first_mm, step_mm = canvas.grid.affine[:3, 3], np.diag(canvas.grid.affine)
    voxels = [(a - f) / s for a, f, s in zip(above, first_mm, step_mm[:3], strict=True)]
    waves = ndimage.map_coordinates(
        canvas.noise(7.0) - 0.6 * canvas.noise(14.0), voxels, order=1, mode="nearest"
    )
    slope = np.linalg.norm(np.gradient(waves, *canvas.grid.spacing_mm), axis=0)
    distance: FieldIJK = np.abs(waves) / slope.clip(0.05)
    return distance


def _folia(points: PointsXIJK, cerebellum: FieldIJK) -> FieldIJK:
    """Cut the cerebellum into leaves that fan out from the brainstem."""
    _, y, z = points
    leaves = 3 * np.abs(np.sin(14 * np.arctan2(z + 38, y + 28))) - 0.3
    return both(cerebellum, leaves + (cerebellum - 7).clip(0))


def _mirrored(points: PointsXIJK) -> PointsXIJK:
    """Fold the left half onto the right."""
    x, y, z = points
    return np.stack((np.abs(x), y, z))


def _ellipsoid(points: PointsXIJK, shape: Ellipsoid) -> FieldIJK:
    """Give the depth in an ellipsoid: its equation over its slope, exact at the surface."""
    centre, half_axes = _columns(shape)
    away = (points - centre) / half_axes + np.float32(1e-6)
    share = np.linalg.norm(away, axis=0)
    depth: FieldIJK = share * (1 - share) / np.linalg.norm(away / half_axes, axis=0)
    return depth


def _capsule(points: PointsXIJK, shape: Capsule) -> FieldIJK:
    """Give the depth in a rod with round ends."""
    *ends, radius = shape
    start, end = _columns(ends)
    along, away = end - start, points - start
    share = ((away * along).sum(axis=0) / (along**2).sum()).clip(0, 1)
    distance: FieldIJK = np.linalg.norm(away - share * along, axis=0)
    return radius - distance


def _columns(triples: Sequence[TripleInt]) -> Float32[np.ndarray, "n 3 1 1 1"]:
    """Shape triples so that they can be taken from points."""
    return np.array(triples, dtype=np.float32)[..., np.newaxis, np.newaxis, np.newaxis]
