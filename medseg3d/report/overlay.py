"""Slices of a case: the image in grey, the reference as areas, the prediction as outlines."""

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from medseg3d.arrays import ArrayIJK, MaskIJK, TripleFloat, TripleInt
from medseg3d.geometry.crop import Box, nonzero_box
from medseg3d.geometry.orient import reorient_volume
from medseg3d.labels import LabelScheme, as_label_map, region_masks, require_values
from medseg3d.volume import Volume, require_one_grid

Side: TypeAlias = Literal["reference", "predicted"]

ORIENTATION: Final = "LPI"
"""How volumes are turned to be drawn: left of the patient to the right of the page (as seen from
the feet), front to the top or left, head to the top."""
ENDS: Final = (("R", "L"), ("A", "P"), ("S", "I"))
"""Letters at the first and last voxel of each axis after turning."""
PLANES: Final = ((0, 1), (0, 2), (1, 2))
"""Axes across and down the page: axial, coronal, sagittal."""
OPACITY: Final = 0.45
"""Of the areas: the image shows through, and an outline of the same colour stands out."""
SCALES_MM: Final = (100, 50, 20, 10, 5, 2, 1)
WIDTH_PX: Final = 1600
MOST_HEIGHT_PX: Final = 720
DPI: Final = 180
INK: Final = "0.8"
HALO: Final = (withStroke(linewidth=1.5, foreground="black"),)


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """One region on one side."""

    mask: MaskIJK
    color: str


@dataclass(frozen=True, slots=True, eq=False)
class _Scene:
    """What is drawn, turned to `ORIENTATION` and cut to where there is something.

    `telling` are the voxels of which a slice should show as many as it can.
    """

    grey: ArrayIJK
    window: tuple[float, float]
    telling: MaskIJK
    areas: tuple[_Part, ...]
    outlines: tuple[_Part, ...]
    spacing_mm: TripleFloat


def draw_overlay(
    image: Volume | None, label_maps: Mapping[Side, Volume], *, labels: LabelScheme
) -> bytes:
    """Draw an axial, a coronal and a sagittal slice side by side, as WebP.

    Each is the slice in which the sides differ in most voxels; where they do not, or there is but
    one, that with most labelled voxels, or else the middle one. Lengths are to scale within a
    slice; all slices are equally high. Without an image the ground is an even grey.

    Raises:
        GridError: the volumes do not lie on one grid.
        LabelError: a label map holds no integers, or values that `labels` does not know.
    """
    scene = _build_scene(image, label_maps, labels)
    shape = scene.grey.shape
    extent_mm = np.multiply(shape, scene.spacing_mm)
    planes = [plane for plane in PLANES if min(shape[plane[0]], shape[plane[1]]) > 1]
    widths = np.array([extent_mm[across] / extent_mm[down] for across, down in planes])
    height = min(MOST_HEIGHT_PX, WIDTH_PX / widths.sum())
    figure = Figure(figsize=(height * widths.sum() / DPI, height / DPI), dpi=DPI, facecolor="black")
    left = 0.0
    for (across, down), width in zip(planes, widths / widths.sum(), strict=True):
        axes = figure.add_axes((left, 0, width, 1), frame_on=False, xticks=(), yticks=())
        _draw_slice(axes, scene, across, down)
        left += width
    stream = io.BytesIO()
    figure.savefig(stream, format="webp", pil_kwargs={"quality": 90})
    return stream.getvalue()


def clearest_channel(images: Mapping[str, Volume], label_map: Volume) -> str:
    """Name the channel in which what is labelled differs most from the rest of the image.

    Raises:
        GridError: an image does not lie on the label map's grid.
    """
    volumes = (label_map, *images.values())
    require_one_grid([volume.grid for volume in volumes], ["label map", *images])
    labelled = label_map.array_CIJK[0] > 0

    def contrast(channel: str) -> float:
        grey = images[channel].array_CIJK[0].astype(np.float32)
        rest = grey[~labelled & (grey != grey.min())]
        if not (labelled.any() and rest.size):
            return 0.0
        return float(abs(np.median(grey[labelled]) - np.median(rest)) / (rest.std() + 1e-6))

    return max(images, key=contrast)


def _build_scene(
    image: Volume | None, label_maps: Mapping[Side, Volume], labels: LabelScheme
) -> _Scene:
    volumes: dict[str, Volume] = dict(label_maps.items())
    if image:
        volumes["image"] = image
    require_one_grid([volume.grid for volume in volumes.values()], [*volumes])
    turned = {name: reorient_volume(volume, ORIENTATION) for name, volume in volumes.items()}
    maps = {side: as_label_map(turned[side].array_CIJK[0], source=side) for side in label_maps}
    for side, label_map in maps.items():
        require_values(label_map, labels, source=side, reference=side == "reference")
    labelled = np.any([label_map > 0 for label_map in maps.values()], axis=0)
    differs = np.ptp([*maps.values()], axis=0) > 0
    grey = turned["image"].array_CIJK[0] if image else np.zeros(labelled.shape)
    inside = grey != grey.min()
    box = _with_margin(nonzero_box((inside | labelled)[np.newaxis]), grey.shape)
    low, high = np.percentile(grey[inside], (0.5, 99.8)) if inside.any() else (-1, 3)
    if low == high:
        low = low - 1
    parts = {
        side: tuple(
            _Part(mask, labels.region_color(region))
            for region, mask in region_masks(label_map[box], labels)
        )
        for side, label_map in maps.items()
    }
    return _Scene(
        grey[box],
        (float(low), float(high)),
        (differs if differs.any() else labelled)[box],
        parts.get("reference", ()),
        parts.get("predicted", ()),
        next(iter(turned.values())).spacing_mm,
    )


def _with_margin(box: Box, shape_IJK: TripleInt) -> tuple[slice, slice, slice]:
    """Index the box and a border around it of 4 % of its longest edge, as far as there is one."""
    margin = math.ceil(0.04 * max(box.shape_IJK))
    i, j, k = (
        slice(max(start - margin, 0), min(stop + margin, size))
        for start, stop, size in zip(box.start, box.stop, shape_IJK, strict=True)
    )
    return i, j, k


def _draw_slice(axes: Axes, scene: _Scene, across: int, down: int) -> None:
    (through,) = {0, 1, 2} - {across, down}
    index = _most_telling(scene, through)
    dx, dy = scene.spacing_mm[across], scene.spacing_mm[down]
    slice_JI = scene.grey.take(index, axis=through).T
    rows, columns = slice_JI.shape
    width_mm, height_mm = columns * dx, rows * dy
    low, high = scene.window
    axes.imshow(
        slice_JI,
        "gray",
        vmin=low,
        vmax=high,
        aspect="auto",
        interpolation="bilinear",
        extent=(0, width_mm, height_mm, 0),
    )
    areas = _paint(scene.areas, index, through)
    axes.imshow(areas, aspect="auto", interpolation="nearest", extent=(0, width_mm, height_mm, 0))
    x_mm, y_mm = (np.arange(-1, columns + 1) + 0.5) * dx, (np.arange(-1, rows + 1) + 0.5) * dy
    for outline in reversed(scene.outlines):  # what schemes name first encloses what follows
        mask_JI = np.pad(outline.mask.take(index, axis=through).T, 1)
        if mask_JI.any():
            axes.contour(
                x_mm,
                y_mm,
                mask_JI,
                levels=[0.5],
                colors=outline.color,
                linewidths=1.1,
            ).set_path_effects([*HALO])
    axes.set(xlim=(0, width_mm), ylim=(height_mm, 0))
    _letter(axes, across, down)
    _draw_scale(axes, width_mm)


def _paint(areas: Sequence[_Part], index: int, through: int) -> NDArray[np.float64]:
    """Colour a slice, rows by columns by RGBA; no colours mix where regions overlap."""
    painted = np.zeros((1, 1, 4))
    for area in areas:  # what schemes name first encloses what follows
        mask_JI = area.mask.take(index, axis=through).T[..., np.newaxis]
        painted = np.where(mask_JI, (*to_rgb(area.color), OPACITY), painted)
    return painted


def _most_telling(scene: _Scene, through: int) -> int:
    """Give the index of the slice with most telling voxels, or else of the middle one."""
    counts = np.count_nonzero(scene.telling, axis=tuple({0, 1, 2} - {through}))
    return int(counts.argmax() if counts.any() else len(counts) // 2)


def _letter(axes: Axes, across: int, down: int) -> None:
    """Say which way the patient lies."""
    (left, right), (top, bottom) = ENDS[across], ENDS[down]
    for letter, x, y, ha, va in (
        (left, 0.02, 0.5, "left", "center"),
        (right, 0.98, 0.5, "right", "center"),
        (top, 0.5, 0.98, "center", "top"),
        (bottom, 0.5, 0.02, "center", "bottom"),
    ):
        axes.text(
            x,
            y,
            letter,
            transform=axes.transAxes,
            ha=ha,
            va=va,
            color=INK,
            fontsize=7,
            path_effects=HALO,
        )


def _draw_scale(axes: Axes, width_mm: float) -> None:
    """Draw a bar of a round length."""
    length_mm = next((mm for mm in SCALES_MM if mm < 0.3 * width_mm), SCALES_MM[-1])
    right, left = 0.97, 0.97 - length_mm / width_mm
    axes.plot(
        (left, right),
        (0.035, 0.035),
        transform=axes.transAxes,
        color=INK,
        linewidth=1.2,
        solid_capstyle="butt",
        path_effects=HALO,
    )
    axes.text(
        (left + right) / 2,
        0.045,
        f"{length_mm} mm",
        transform=axes.transAxes,
        ha="center",
        va="bottom",
        color=INK,
        fontsize=6,
        path_effects=HALO,
    )
