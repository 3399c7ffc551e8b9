"""What a network is to see and say: axes, spacing, grey values, mirror images, outputs."""

from dataclasses import dataclass
from math import ceil, log10
from typing import Any, Final, Literal, TypeAlias

import numpy as np
from jaxtyping import Float64, Int64

from medseg3d.arrays import TripleFloat, TripleInt
from medseg3d.config.preprocess import FixedScale, Scale
from medseg3d.errors import ConfigError
from medseg3d.labels import LabelScheme
from medseg3d.preprocess.fingerprint import Channel, Fingerprint

Choices: TypeAlias = dict[str, tuple[Any, str]]
"""Knob's path -> its value, and why."""

ANISOTROPIC: Final = 3.0
"""Times the others from which an axis is coarse, and its number of voxels small."""


@dataclass(frozen=True, slots=True)
class Frame:
    """The axes that a network sees, and the median case on them."""

    spatial_dims: Literal[2, 3]
    axes: TripleInt
    """World axis of each."""
    spacing_mm: TripleFloat
    shape_IJK: TripleInt
    """Median number of voxels after resampling."""
    choices: Choices


def choose_frame(fingerprint: Fingerprint, spatial_dims: Literal[2, 3] | None = None) -> Frame:
    """Choose axes and spacing: the median, but finer where one axis is coarse and short.

    Images of one slice make a 2D network. It sees slices of the two finer axes; the coarsest is
    turned to be the last.
    """
    spacings, shapes = fingerprint.spacings_mm, fingerprint.shapes_IJK
    spacing_mm, why_spacing = _choose_spacing(spacings, shapes)
    flat = bool(np.median(shapes[:, 2]) == 1)
    dims: Literal[2, 3] = spatial_dims or (2 if flat else 3)
    why_dims = "asked for" if spatial_dims else "images are one slice" if flat else ""
    axes = [0, 1, 2]
    if dims == 2 and not flat:
        coarsest = int(np.argmax(np.round(spacing_mm, 3)[::-1]))  # of equals the last
        axes.append(axes.pop(2 - coarsest))
    resampled = np.median(shapes * spacings / spacing_mm, axis=0)
    i, j, k = axes
    edges = _round_up(spacing_mm[i]), _round_up(spacing_mm[j]), _round_up(spacing_mm[k])
    choices: Choices = {
        "preprocess.orientation": (
            "".join("RAS"[axis] for axis in axes),
            "the coarsest axis is the last, across which slices are cut" if axes[2] != 2 else "",
        ),
        "preprocess.spacing_mm": (edges, why_spacing),
        "spatial_dims": (dims, why_dims),
    }
    size_i, size_j, size_k = np.ceil(resampled[axes].round(3)).astype(int).tolist()
    return Frame(dims, (i, j, k), edges, (size_i, size_j, size_k), choices)


def _choose_spacing(
    spacings: Float64[np.ndarray, "N 3"], shapes: Int64[np.ndarray, "N 3"]
) -> tuple[Float64[np.ndarray, "3"], str]:
    target, sizes = np.median(spacings, axis=0), np.median(shapes, axis=0)
    low, high = spacings.min(axis=0), spacings.max(axis=0)
    why = (
        "every case has this spacing"
        if np.allclose(low, high, rtol=1e-3)
        else (f"median of the cases, from {_triple(low)} to {_triple(high)}")
    )
    coarse = int(np.argmax(target))
    others = np.delete(target, coarse).max()
    short = sizes[coarse] * ANISOTROPIC < np.delete(sizes, coarse).min()
    finer = max(float(np.percentile(spacings[:, coarse], 10)), float(others))
    if target[coarse] > max(ANISOTROPIC * others, finer) and short:
        why += (
            f"; along {'ijk'[coarse]} the 10th percentile instead of {target[coarse]:.4g}: over "
            "3 times coarser than the others and with over 3 times fewer voxels"
        )
        target[coarse] = finer
    return target, why


def choose_preprocess(fingerprint: Fingerprint) -> Choices:
    """Choose crop and grey scales."""
    zeros = float(np.median([case.zeros for case in fingerprint.cases]))
    stripped = fingerprint.skull_stripped
    share = f"{zeros:.0%} of the voxels of the median case are 0 in every channel"
    scales = {
        name: _choose_scale(channel, stripped) for name, channel in fingerprint.channels.items()
    }
    values = [scale for scale, _ in scales.values()]
    alike = all(scale == values[0] for scale in values)
    reasons = dict.fromkeys(why for _, why in scales.values())
    why = "; ".join(
        reason if len(reasons) == 1 else f"{name}: {reason}"
        for name, (_, reason) in scales.items()
        if len(reasons) > 1 or name == next(iter(scales))
    )
    return {
        "preprocess.crop": (
            "nonzero" if stripped else "none",
            f"{share}, as after skull stripping" if stripped else "",
        ),
        "preprocess.intensity": (values[0] if alike else tuple(values), why),
    }


def _choose_scale(channel: Channel, stripped: bool) -> tuple[Scale, str]:
    if channel.modality == "CT":
        seen = channel.foreground
        clip = float(f"{seen.low:.6g}"), float(f"{seen.high:.6g}")
        scale = FixedScale(
            clip=clip if clip[0] < clip[1] else None,
            mean=float(f"{seen.mean:.6g}"),
            deviation=float(f"{seen.deviation or 1:.6g}"),
        )
        return (
            scale,
            f"CT ({channel.reason}): percentiles 0.5 and 99.5, mean, deviation of labelled voxels",
        )
    if stripped:
        return "zscore_nonzero", f"no CT ({channel.reason}): each image by itself, without its air"
    return "zscore", f"no CT ({channel.reason}): each image by itself"


def choose_outputs(labels: LabelScheme) -> Choices:
    """Choose regions where they overlap and lie in one another, else values."""
    values = [value for region in labels.regions.values() for value in region]
    if len({*values}) == len(values):
        return {"outputs": ("values", "")}
    try:
        order = ", ".join(labels.painted)
    except ConfigError as error:
        return {"outputs": ("values", f"regions overlap, but cannot be the outputs: {error}")}
    return {"outputs": ("regions", f"regions overlap: {order}, painted in this order")}


def choose_mirrors(labels: LabelScheme, frame: Frame) -> Choices:
    """Choose the axes to mirror along: those whose ends no label's name tells apart."""
    told = labels.sides
    seen = frame.axes[: frame.spatial_dims]
    mirrored = tuple(place for place, axis in enumerate(seen) if axis not in told)
    why = " and ".join(what for axis, what in told.items() if axis in seen)
    return {
        "train.augment.mirror_axes": (
            mirrored,
            f"labels tell {why}" if why else "no label tells one side from the other",
        )
    }


def _triple(spacing_mm: Float64[np.ndarray, "3"]) -> str:
    return "×".join(f"{edge:.4g}" for edge in spacing_mm)


def _round_up(edge: float) -> float:
    """Give six digits, never less than the edge, so that no grid needs one more voxel for it."""
    digit = 10.0 ** (ceil(log10(edge)) - 6)
    near = float(f"{edge:.6g}")
    return near if near >= edge else float(f"{near + digit:.6g}")
