"""Surface measures against published values, and against what four other libraries give."""

import math
from collections.abc import Callable, Iterator
from importlib import import_module
from types import ModuleType

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from medseg3d.arrays import MaskIJK
from medseg3d.evaluate.distances import measure_surfaces
from medseg3d.evaluate.overlap import dice
from medseg3d.evaluate.surface import (
    average_surface_distance_mm,
    average_symmetric_surface_distance_mm,
    hausdorff_mm,
    normalized_surface_dice,
    surface_overlap,
    surface_scores,
)

SPACINGS = {
    3: [(1.0, 1.0, 1.0), (0.7, 0.7, 5.0), (3.0, 0.9, 0.9), (0.5, 2.0, 1.25)],
    2: [(1.0, 1.0), (0.6, 2.5)],
}
TOLERANCES = (0.0, 0.5, 1.0, 1.8, 2.1, 3.0)
"""Some are distances on these grids: a share jumps there if a distance is rounded."""

Case = tuple[np.ndarray, np.ndarray, tuple[float, ...]]


def drawn(kind: str) -> Iterator[Case]:
    """Draw thirty cases of a kind; every other one lies in memory as NIfTI files do."""
    for seed in range(30):
        rng = np.random.default_rng([*kind.encode(), seed])
        axes = 2 if kind == "flat" else 3
        shape = tuple(int(n) for n in rng.integers(12, 22, axes))
        masks = [KINDS[kind](rng, shape) for _ in range(2)]
        if seed % 2:
            masks = [np.asfortranarray(mask) for mask in masks]
        yield *masks, SPACINGS[axes][seed % len(SPACINGS[axes])]


def blob(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Fill a ball with a bumpy surface, never empty."""
    center = np.reshape(
        np.divide(shape, 2) + rng.uniform(-1, 1, len(shape)), (-1, *[1] * len(shape))
    )
    away = np.linalg.norm((np.indices(shape) - center).T, axis=-1).T
    return away < 4 + 3 * gaussian_filter(rng.standard_normal(shape), 1.5)


def speckles(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Set voxels at random: nearly every neighbourhood occurs, and many tiny lesions."""
    mask = rng.random(shape) < rng.choice([0.01, 0.1, 0.5, 0.9])
    mask[tuple(n // 2 for n in shape)] = True
    return mask


def voxel(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    mask = np.zeros(shape, dtype=bool)
    mask[tuple(rng.integers(0, shape))] = True
    return mask


def corner(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Fill a box in a corner of the array, up to the whole of it."""
    mask = np.zeros(shape, dtype=bool)
    box = tuple(slice(0, int(rng.integers(1, n + 1))) for n in shape)
    mask[box] = True
    return np.flip(mask, axis=np.flatnonzero(rng.random(len(shape)) < 0.5).tolist())


def distant(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Put a blob at an end of a long array: too far from the other for any ring."""
    mask = blob(rng, shape)
    room = int(rng.integers(20, 60)), int(rng.integers(20, 60))
    return np.pad(mask, [(0, 0), (room[0], 80 - room[0]), (80 - room[1], room[1])])


KINDS: dict[str, Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]] = {
    "blob": blob,
    "flat": lambda rng, shape: rng.choice([blob, speckles, corner])(rng, shape),
    "speckles": speckles,
    "voxel": voxel,
    "corner": corner,
    "distant": distant,
    "full": lambda rng, shape: blob(rng, shape) | (rng.random() < 0.5),
}


def peer(name: str) -> ModuleType:
    pytest.importorskip(name.partition(".")[0], reason=f"{name} belongs to the dev extra")
    return import_module(name)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
class TestPeers:
    """Seven kinds of thirty cases, equal to less than any peer's own rounding."""

    @pytest.mark.filterwarnings("ignore:Please import:DeprecationWarning")
    def test_surface_distance(self, kind):
        peer_distance = peer("surface_distance")
        for *masks, spacing in drawn(kind):
            found = peer_distance.compute_surface_distances(*masks, spacing)
            scores = surface_scores(*masks, spacing, tolerances_mm=TOLERANCES)
            assert scores.hausdorff_mm == peer_distance.compute_robust_hausdorff(found, 95)
            assert scores.nsd == pytest.approx(
                [peer_distance.compute_surface_dice_at_tolerance(found, t) for t in TOLERANCES],
                abs=1e-12,
            )
            for percent in (50.0, 100.0):
                expected = peer_distance.compute_robust_hausdorff(found, percent)
                assert hausdorff_mm(*masks, spacing, percent=percent) == expected
            assert average_surface_distance_mm(*masks, spacing)[:2] == pytest.approx(
                peer_distance.compute_average_surface_distance(found), abs=1e-12
            )
            assert surface_overlap(*masks, spacing, tolerance_mm=1.0) == pytest.approx(
                peer_distance.compute_surface_overlap_at_tolerance(found, 1.0), abs=1e-12
            )

    def test_medpy(self, kind):
        binary = peer("medpy.metric.binary")
        for *masks, spacing in drawn(kind):
            assert hausdorff_mm(*masks, spacing, definition="pooled") == pytest.approx(
                binary.hd95(*masks, spacing), abs=1e-12
            )
            average = average_symmetric_surface_distance_mm(*masks, spacing, definition="border")
            assert average == pytest.approx(binary.assd(*masks, spacing), abs=1e-12)

    def test_panoptica(self, kind):
        surfaces = peer("panoptica.metrics._surface_distances")
        for *masks, spacing in drawn(kind):
            found = surfaces._surface_distance_pair(*masks, spacing)
            scores = surface_scores(
                *masks,
                spacing,
                definition="pooled",
                nsd_definition="mean_fraction",
                tolerances_mm=TOLERANCES[2:],
            )
            assert scores.hausdorff_mm == pytest.approx(surfaces._hd95_from_pair(*found), abs=1e-12)
            assert scores.nsd == pytest.approx(
                [surfaces._nsd_from_pair(*found, threshold=t) for t in TOLERANCES[2:]], abs=1e-8
            )
            average = average_surface_distance_mm(*masks, spacing, definition="border")
            assert np.mean(average) == pytest.approx(surfaces._assd_from_pair(*found), abs=1e-12)

    @pytest.mark.filterwarnings("ignore:.*get_mask_edges:FutureWarning")
    def test_monai(self, kind):
        metrics, torch = peer("monai.metrics"), peer("torch")
        for *masks, spacing in drawn(kind):
            pair = [torch.from_numpy(mask[np.newaxis, np.newaxis].copy()) for mask in masks]
            options = {"include_background": True, "spacing": spacing}
            farthest = metrics.compute_hausdorff_distance(*pair, percentile=95, **options)
            share = metrics.compute_surface_dice(*pair, class_thresholds=[1.37], **options)
            average = metrics.compute_average_surface_distance(*pair, symmetric=True, **options)
            scores = surface_scores(
                *masks,
                spacing,
                definition="max_directed",
                nsd_definition="pooled_count",
                tolerances_mm=[1.37],
            )
            # MONAI's answers are single precision
            assert scores.hausdorff_mm == pytest.approx(farthest.item(), rel=1e-6)
            assert scores.nsd == pytest.approx([share.item()], rel=1e-6)
            found = average_symmetric_surface_distance_mm(*masks, spacing, definition="border")
            assert found == pytest.approx(average.item(), rel=1e-6, abs=1e-12)


SPECKLED = [
    # shape, spacing, the two steps, then: the first mask's area and HD95 by surface-distance 0.1,
    # HD95 by medpy 0.5.2, and by MONAI 1.5
    ((12, 14, 11), (1.0, 1.0, 1.0), (3, 4), 1119.539293168, 1.0, 1.414213562, 2.0),
    ((12, 14, 11), (0.7, 1.3, 5.0), (2, 5), 2722.412710006, 1.4, 1.476482306, 1.476482306),
    ((9, 16, 16), (3.0, 0.9, 0.9), (6, 3), 2577.252994302, 6.0, 6.0, 6.067124525),
    ((15, 18), (1.0, 1.0), (3, 5), 166.249783362, 2.0, 2.0, 2.236067977),
    ((15, 18), (0.6, 2.5), (2, 3), 322.893091014, 1.2, 1.2, 1.35),
]


def half_space(stop: int) -> MaskIJK:
    """Fill the first slices of a cube of 100."""
    mask = np.zeros((100, 100, 100), dtype=bool)
    mask[:stop] = True
    return mask


def single_voxel(place: tuple[int, int, int]) -> MaskIJK:
    mask = np.zeros((100, 100, 100), dtype=bool)
    mask[place] = True
    return mask


def speckled(shape: tuple[int, ...], *, step: int) -> np.ndarray:
    """Fill an ellipsoid and punch holes into it: nearly every neighbourhood of voxels occurs."""
    indices = np.indices(shape)
    noise = indices.prod(axis=0) + sum(n * i for n, i in zip((5, 7, 11), indices, strict=False))
    center = (np.array(shape).reshape(-1, *[1] * len(shape)) - 1) / 2
    inside = (((indices - center) / (center + 0.5)) ** 2).sum(axis=0) < 1
    return inside & (noise % step != 0)


def test_half_spaces_of_surface_distance():
    masks, spacing = (half_space(50), half_space(51)), (2.0, 1.0, 1.0)
    average = average_surface_distance_mm(*masks, spacing)
    assert average == pytest.approx((0.322, 0.339), abs=5e-4)
    assert surface_overlap(*masks, spacing, tolerance_mm=1.0) == pytest.approx(
        (0.842, 0.830), abs=5e-4
    )
    scores = surface_scores(*masks, spacing, tolerances_mm=[1.0])
    assert scores.nsd == pytest.approx([0.836], abs=5e-4)
    assert scores.hausdorff_mm == 2
    assert hausdorff_mm(*masks, spacing, percent=100.0) == 2
    assert dice(*masks) == pytest.approx(0.990, abs=5e-4)


def test_single_voxels_of_surface_distance():
    masks, spacing = (single_voxel((5, 6, 7)), single_voxel((5, 6, 9))), (3.0, 2.0, 1.0)
    average = average_surface_distance_mm(*masks, spacing)
    assert average == pytest.approx((1.5, 1.5))
    assert normalized_surface_dice(*masks, spacing, tolerance_mm=1.0) == pytest.approx(0.5)
    assert hausdorff_mm(*masks, spacing) == hausdorff_mm(*masks, spacing, percent=100.0) == 2


def test_opposite_corners_of_a_brats_volume():
    """Along the slowest axis and across the others that is too far for the rings."""
    masks = [np.zeros((240, 240, 155), dtype=bool, order="F") for _ in range(2)]
    masks[0][0, 0, 0] = masks[1][239, 239, 154] = True
    for definition in ("surfel", "pooled", "max_directed"):
        apart = hausdorff_mm(*masks, (1.0, 1.0, 1.0), percent=100.0, definition=definition)
        assert apart == math.hypot(239, 239, 154)


@pytest.mark.parametrize(
    ("shape", "spacing", "steps", "area", "surfel", "pooled", "max_directed"), SPECKLED
)
def test_speckled_masks_as_other_libraries_measure_them(
    shape, spacing, steps, area, surfel, pooled, max_directed
):
    reference = speckled(shape, step=steps[0])
    predicted = np.roll(speckled(shape, step=steps[1]), 2, axis=0)
    predicted[-3:] = False
    expected = {"surfel": surfel, "pooled": pooled, "max_directed": max_directed}
    assert {
        definition: hausdorff_mm(reference, predicted, spacing, definition=definition)
        for definition in expected
    } == pytest.approx(expected, abs=1e-8)
    there, _ = measure_surfaces(reference, predicted, spacing, surface="surfel")
    assert there.weights.sum() == pytest.approx(area, abs=1e-8)


def test_surface_of_one_voxel_is_an_octahedron() -> None:
    voxel = single_voxel((5, 6, 7))
    there, _ = measure_surfaces(voxel, voxel, (1.0, 1.0, 1.0), surface="surfel")
    assert len(there.weights) == 8
    assert there.weights.sum() == pytest.approx(math.sqrt(3))
