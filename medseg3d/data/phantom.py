"""Made-up cases of a brain tumour: four MR channels and their reference, all from one seed.

A head and a tumour are drawn as depths; depths turn into the share of a voxel that a tissue fills,
and shares turn into grey values by the table `BRIGHTNESS`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
from jaxtyping import Float32, Int16
from numpy.random import Generator
from scipy import ndimage

from medseg3d.arrays import TripleFloat, TripleInt
from medseg3d.data.anatomy import (
    CEREBRUM,
    Brain,
    Canvas,
    FieldIJK,
    PointsXIJK,
    both,
    draw_brain,
    draw_points,
    either,
    head_grid,
)
from medseg3d.io.atomic import prepare_folder
from medseg3d.io.files import write_volume
from medseg3d.volume import Volume

SharesTIJK: TypeAlias = Float32[np.ndarray, "7 I J K"]

SHAPE_IJK: Final = (80, 96, 72)
SPACING_MM: Final = (2.0, 2.0, 2.0)
NOISE: Final = 0.03

BRIGHTNESS: Final = {
    "t1n": (0.20, 0.56, 0.86, 0.60, 0.62, 0.58, 0.40),
    "t1c": (0.20, 0.58, 0.86, 1.20, 0.62, 1.40, 0.36),
    "t2w": (1.30, 0.78, 0.52, 0.35, 0.98, 0.86, 1.12),
    "t2f": (0.18, 0.72, 0.58, 0.40, 1.08, 0.92, 0.66),
}
"""Channel -> grey value of liquor, grey matter, white matter, vessel, oedema, rim, necrosis."""


@dataclass(frozen=True, slots=True, eq=False)
class PhantomCase:
    """One made-up exam on one grid: an int16 image per channel, and the uint8 reference."""

    images: dict[str, Volume]
    reference: Volume


@dataclass(frozen=True, slots=True, eq=False)
class _Core:
    """Where the solid part of a tumour sits; shaped to be taken from points."""

    centre_mm: Float32[np.ndarray, "3 1 1 1"]
    radius_mm: float


@dataclass(frozen=True, slots=True, eq=False)
class _Tumour:
    """Depths: in everything, in the core without oedema, in the necrosis within the core."""

    whole: FieldIJK
    core: FieldIJK
    necrosis: FieldIJK


def write_phantoms(
    folder: Path,
    *,
    num_cases: int,
    seed: int = 0,
    shape_IJK: TripleInt = SHAPE_IJK,
    spacing_mm: TripleFloat = SPACING_MM,
    noise: float = NOISE,
) -> list[str]:
    """Write made-up cases in the folder layout of BraTS 2023 and give their ids.

    Case n depends on the seed and n only: more cases never change the first ones. The other knobs
    are those of `draw_phantom`.

    Raises:
        ConfigError: the grid is smaller than a head, or the folder cannot be written to.
    """
    cases = [f"BraTS-PHANTOM-{number:05d}-000" for number in range(1, num_cases + 1)]
    for number, case in enumerate(cases, start=1):
        rng = np.random.default_rng((seed, number))
        phantom = draw_phantom(rng, shape_IJK=shape_IJK, spacing_mm=spacing_mm, noise=noise)
        prepare_folder(folder / case)
        for suffix, volume in {**phantom.images, "seg": phantom.reference}.items():
            write_volume(volume, folder / case / f"{case}-{suffix}.nii.gz")
    return cases


def draw_phantom(
    rng: Generator,
    *,
    shape_IJK: TripleInt = SHAPE_IJK,
    spacing_mm: TripleFloat = SPACING_MM,
    noise: float = NOISE,
) -> PhantomCase:
    """Draw a skull-stripped head with one or two gliomas, channels and values as in BraTS 2023.

    The reference holds 1 necrosis, 2 oedema, 3 enhancing rim; only necrosis may be missing. The
    grid is LPS, the background exactly 0, and the grey scale another one in each image, as between
    scanners. The anatomy is the same at every spacing. `noise` is the deviation of the Rician
    noise on the scale of `BRIGHTNESS`.

    Raises:
        ConfigError: the grid is smaller than a head.
    """
    canvas = Canvas(rng, head_grid(shape_IJK, spacing_mm))
    points = draw_points(canvas)
    cores = _draw_cores(rng)
    brain = draw_brain(canvas, points, pushed=_pushed(points, cores))
    tumour = _draw_tumour(canvas, points, cores, brain)
    shares = _draw_shares(canvas, brain, tumour)
    images = {
        channel: _draw_image(canvas, levels, shares, noise) * (brain.hull > 0)
        for channel, levels in BRIGHTNESS.items()
    }
    reference = np.zeros(shape_IJK, dtype=np.uint8)
    for value, depth in ((2, tumour.whole), (3, tumour.core), (1, tumour.necrosis)):
        reference[depth > 0] = value
    affine = canvas.grid.affine
    return PhantomCase(
        {channel: Volume(image[np.newaxis], affine) for channel, image in images.items()},
        Volume(reference[np.newaxis], affine),
    )


def _draw_cores(rng: Generator) -> list[_Core]:
    """Draw one core, or a large and a small one, in the white matter of the cerebrum."""
    radius = float(np.exp(rng.uniform(np.log(9), np.log(22))))
    radii = (radius, max(0.4 * radius, 6.0)) if rng.random() < 0.3 else (radius,)
    cores = []
    for radius_mm in radii:
        turn, up = rng.uniform(0, 2 * np.pi), rng.uniform(-0.1, 0.7)
        level = np.sqrt(1 - up**2)
        direction = np.array((level * np.cos(turn), level * np.sin(turn), up))
        centre = CEREBRUM[0] + rng.uniform(0.45, 0.62) * direction * CEREBRUM[1]
        off_middle = max(abs(centre[0]), 18 + radius_mm / 2)
        centre[0] = np.copysign(off_middle, centre[0])
        cores.append(_Core(centre.astype(np.float32).reshape(3, 1, 1, 1), radius_mm))
    return cores


def _pushed(points: PointsXIJK, cores: list[_Core]) -> PointsXIJK:
    """Move points towards the cores: what would lie there comes to lie around them."""
    for core in cores:
        away = points - core.centre_mm
        points = points - 0.5 * away * np.exp(-(away**2).sum(axis=0) / (1.7 * core.radius_mm) ** 2)
    return points


def _draw_tumour(canvas: Canvas, points: PointsXIJK, cores: list[_Core], brain: Brain) -> _Tumour:
    """Draw knobbly cores, hollow where they are thick, in oedema that runs along white matter."""
    rng = canvas.rng
    blobs = []
    for blob in cores:
        stretch = np.exp(rng.normal(0, 0.15, (3, 1, 1, 1))).astype(np.float32)
        away_mm = np.linalg.norm(stretch * (points - blob.centre_mm), axis=0)
        uneven = np.exp(0.25 * canvas.noise(max(blob.radius_mm, 7.0))) + 0.12 * canvas.noise(7.0)
        blobs.append(blob.radius_mm * uneven - away_mm)
    core = both(either(*blobs), brain.hull - 1.5)
    rim = (rng.uniform(3.5, 5.5) * (1 + 0.5 * canvas.noise(9.0))).clip(1)
    smooth = 2 / np.array(canvas.grid.spacing_mm)
    path = ndimage.gaussian_filter((brain.white / 2).clip(0, 1), smooth)
    reach = rng.uniform(5, 18) * (0.2 + 0.8 * path) * np.exp(0.4 * canvas.noise(12.0))
    whole = either(core, both(core + reach, brain.hull, brain.tissue, -brain.ventricle))
    parts, _ = ndimage.label(whole > 0)
    around_core = np.isin(parts, np.unique(parts[core > 0]))
    return _Tumour(np.where(around_core, whole, -1), core, core - rim)


def _draw_shares(canvas: Canvas, brain: Brain, tumour: _Tumour) -> SharesTIJK:
    """Give how much of each voxel each tissue fills, in the order of `BRIGHTNESS`."""
    edge_mm = float(np.mean(canvas.grid.spacing_mm))

    def share(depth: FieldIJK) -> FieldIJK:
        return (0.5 + depth / edge_mm).clip(0, 1)

    liquor = np.maximum(share(-brain.tissue), share(brain.ventricle))
    white = share(brain.white) * (1 - liquor)
    vessel = share(brain.vessel) * liquor
    # Oedema thins out towards its border, and a halo around the ventricles looks just like it.
    halo = canvas.rng.uniform(0, 0.6) * white * (1 + brain.ventricle / 4).clip(0, 1)
    oedema = np.maximum(halo, share(tumour.whole) * (0.45 + tumour.whole / 8).clip(0, 1))
    core = share(tumour.core)
    necrosis = core * share(tumour.necrosis)
    healthy = np.stack((liquor - vessel, 1 - liquor - white, white, vessel)) * (1 - oedema)
    return np.stack((*(1 - core) * healthy, (1 - core) * oedema, core - necrosis, necrosis))


def _draw_image(
    canvas: Canvas, levels: tuple[float, ...], shares: SharesTIJK, noise: float
) -> Int16[np.ndarray, "I J K"]:
    """Image the tissues: texture, blur, bias field, Rician noise, and the scanner's own scale."""
    rng = canvas.rng
    levels_T = np.array(levels * rng.normal(1, 0.05, len(levels)), dtype=np.float32)
    image = np.tensordot(levels_T, shares, 1) * (1 + 0.03 * canvas.noise(5.0))
    image = ndimage.gaussian_filter(image, 0.45) * np.exp(0.08 * canvas.noise(60.0))
    real, imaginary = noise * rng.standard_normal((2, *image.shape), dtype=np.float32)
    scale = np.exp(rng.uniform(np.log(200), np.log(2500)))
    scanned: Int16[np.ndarray, "I J K"] = (
        (scale * np.hypot(image + real, imaginary)).clip(1, 32767).astype(np.int16)
    )
    return scanned
