"""What shall happen to a patch, drawn before any of its voxels is read."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import ceil, cos, pi, radians, sin, sqrt
from typing import Final, Literal, TypeAlias

import numpy as np
from jaxtyping import Float64

from medseg3d.arrays import TripleFloat, TripleInt
from medseg3d.config.augment import AugmentConfig

Kind: TypeAlias = Literal[
    "noise",
    "blur",
    "brightness",
    "contrast",
    "low_resolution",
    "gamma",
    "inverted_gamma",
    "dropout",
]

MARGIN: Final = 3
"""Bumps beyond a patch on each side; further ones weigh less than 1 % there."""

MISSED: Final = 0.06
"""Share by which a field is larger somewhere than at places half a radius apart (0.05)."""


@dataclass(frozen=True, slots=True, eq=False)
class Bend:
    """A smooth random field of shifts: Gaussian bumps on a coarse grid, one `radius` apart.

    A sum of such bumps of random heights is what smoothing noise gives, with the same covariance.
    """

    heights: Float64[np.ndarray, "3 P Q R"]
    """In voxels along each axis; one bump along an axis means that all planes are shifted alike."""
    radius_IJK: TripleFloat
    """Standard deviation of the bumps, in voxels."""

    def weights(self, axis: int, offsets: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, "n m"]:
        """Give how much each bump along an axis weighs at offsets from the patch's centre.

        Squares of the weights sum to 1, so that shifts deviate as heights do.
        """
        count = self.heights.shape[axis + 1]
        if count == 1:
            return np.ones((len(offsets), 1))
        places = np.arange(count) - (count - 1) / 2
        distance = offsets[:, np.newaxis] / self.radius_IJK[axis] - places
        return np.exp(-(distance**2) / 2) / pi**0.25


@dataclass(frozen=True, slots=True, eq=False)
class Warp:
    """From where each voxel of a patch is taken: `matrix @ offset + bend(offset)`.

    Offsets are from the patch's centre, in voxels, both of the patch and of the case.
    """

    matrix: Float64[np.ndarray, "3 3"]
    bend: Bend | None

    def reach(self, size_IJK: TripleInt) -> Float64[np.ndarray, "2 3"]:
        """Give the least and the greatest offset along each axis from which a voxel is taken."""
        # where lines stay straight the corners are furthest; bumps are looked at every half radius
        steps = [r / 2 for r in self.bend.radius_IJK] if self.bend else size_IJK
        offsets = [
            np.linspace((1 - size) / 2, (size - 1) / 2, 2 + int(size / step))
            for size, step in zip(size_IJK, steps, strict=True)
        ]
        corner = np.stack(np.meshgrid(*offsets, indexing="ij"))
        places = np.einsum("da,aijk->dijk", self.matrix, corner)
        spare: np.ndarray = np.zeros(3)
        if self.bend:
            weights = [self.bend.weights(axis, offset) for axis, offset in enumerate(offsets)]
            shifts = np.einsum("dpqr,ip,jq,kr->dijk", self.bend.heights, *weights, optimize=True)
            places, spare = places + shifts, MISSED * np.abs(shifts).max((1, 2, 3))
        return np.stack([places.min((1, 2, 3)) - spare, places.max((1, 2, 3)) + spare])


@dataclass(frozen=True, slots=True)
class Change:
    """One change of the grey values of one channel."""

    kind: Kind
    channel: int
    amounts: tuple[float, ...] = ()
    seed: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """All that happens to one patch: first where voxels come from, then their grey values."""

    mirrored: tuple[int, ...]
    """Axes along which the patch is flipped, after the warp."""
    warp: Warp | None
    changes: tuple[Change, ...]
    """In the order in which they are made."""


def draw_plan(
    rng: np.random.Generator,
    config: AugmentConfig,
    *,
    size_IJK: TripleInt,
    spacing_mm: TripleFloat,
    num_channels: int,
) -> Plan:
    """Draw all that happens to a patch; slices (K = 1) are moved within their plane only."""
    thick_axis = 2 if size_IJK[2] == 1 else config.thick_axis
    axes = [axis for axis in range(3) if axis != thick_axis]
    mirrored = [axis for axis in config.mirror_axes if size_IJK[axis] > 1 and rng.random() < 0.5]
    matrix = _draw_matrix(rng, config, axes, spacing_mm)
    bend = None
    if rng.random() < config.elastic_probability:
        bend = _draw_bend(rng, config, axes, size_IJK=size_IJK, spacing_mm=spacing_mm)
    moved = matrix is not None or bend is not None
    warp = Warp(np.eye(3) if matrix is None else matrix, bend) if moved else None
    changes = tuple(_draw_changes(rng, config, axes, num_channels))
    return Plan(tuple(mirrored), warp, changes)


def _draw_matrix(
    rng: np.random.Generator, config: AugmentConfig, axes: Sequence[int], spacing_mm: TripleFloat
) -> Float64[np.ndarray, "3 3"] | None:
    """Draw a rotation in millimetres over a zoom, or nothing."""
    turned, zoomed = rng.random(2) < (config.rotation_probability, config.scale_probability)
    matrix = np.eye(3)
    if turned:
        largest = config.rotation_degrees if len(axes) == 3 else config.rotation_degrees_2d
        for pair in combinations(axes, 2):
            matrix = matrix @ rotation(pair, rng.uniform(-largest, largest))
    if zoomed:
        factors = rng.uniform(*config.scale, size=len(axes) if config.scale_per_axis else 1)
        matrix[:, axes] /= factors
    edges = np.array(spacing_mm)
    return matrix * edges / edges[:, np.newaxis] if turned or zoomed else None


def rotation(pair: tuple[int, int], degrees: float) -> Float64[np.ndarray, "3 3"]:
    """Give the matrix that turns the first of two axes towards the second."""
    matrix = np.eye(3)
    matrix[np.ix_(pair, pair)] = [
        [cos(radians(degrees)), -sin(radians(degrees))],
        [sin(radians(degrees)), cos(radians(degrees))],
    ]
    return matrix


def _draw_bend(
    rng: np.random.Generator,
    config: AugmentConfig,
    axes: Sequence[int],
    *,
    size_IJK: TripleInt,
    spacing_mm: TripleFloat,
) -> Bend:
    """Draw a field as noise from -1 to 1, smoothed in a plane and times alpha, would be."""
    edge_mm = min(spacing_mm[axis] for axis in axes)
    sigma, alpha = config.elastic_sigma, config.elastic_alpha
    deviation_mm = edge_mm * alpha / sqrt(3) / (2 * sqrt(pi) * sigma)
    radius = [sigma * edge_mm / spacing for spacing in spacing_mm]
    counts = [
        ceil((size - 1) / r) + 1 + 2 * MARGIN if axis in axes else 1
        for axis, (size, r) in enumerate(zip(size_IJK, radius, strict=True))
    ]
    heights = rng.standard_normal((3, *counts))
    deviations = [deviation_mm / spacing_mm[axis] if axis in axes else 0 for axis in range(3)]
    heights *= np.reshape(deviations, (3, 1, 1, 1))
    return Bend(heights, (radius[0], radius[1], radius[2]))


def _draw_changes(
    rng: np.random.Generator, config: AugmentConfig, axes: Sequence[int], num_channels: int
) -> Iterator[Change]:
    """Draw changes of grey values in nnU-Net's order, missing channels last."""
    deviation = rng.uniform(0, config.noise_deviation)
    for channel in _channels(rng, config.noise_probability, num_channels):
        yield Change("noise", channel, (deviation,), seed=int(rng.integers(2**63)))
    for channel in _channels(rng, config.blur_probability, num_channels, config.blur_channel_share):
        yield Change("blur", channel, tuple(rng.uniform(*config.blur_sigma, size=3).tolist()))
    for channel in _channels(rng, config.brightness_probability, num_channels):
        yield Change("brightness", channel, _draw_factor(rng, config.brightness))
    for channel in _channels(rng, config.contrast_probability, num_channels):
        yield Change("contrast", channel, _draw_factor(rng, config.contrast))
    for channel in _channels(
        rng, config.low_resolution_probability, num_channels, config.low_resolution_channel_share
    ):
        kept = rng.uniform(*config.low_resolution)
        yield Change("low_resolution", channel, tuple(kept if a in axes else 1.0 for a in range(3)))
    for channel in _channels(rng, config.inverted_gamma_probability, num_channels):
        yield Change("inverted_gamma", channel, _draw_factor(rng, config.gamma))
    for channel in _channels(rng, config.gamma_probability, num_channels):
        yield Change("gamma", channel, _draw_factor(rng, config.gamma))
    missing = rng.random(num_channels) < config.channel_dropout_probability
    missing[rng.integers(num_channels)] &= not missing.all()
    for channel in np.flatnonzero(missing).tolist():
        yield Change("dropout", channel)


def _channels(
    rng: np.random.Generator, probability: float, num_channels: int, share: float = 1.0
) -> list[int]:
    """Draw whether a change is made, and then in which channels."""
    if rng.random() >= probability:
        return []
    return [channel for channel in range(num_channels) if rng.random() < share]


def _draw_factor(rng: np.random.Generator, span: tuple[float, float]) -> tuple[float]:
    """Draw as often from what is below 1 as from what is above, where the span holds both."""
    low, high = span
    if low < 1 < high:
        low, high = (low, 1) if rng.random() < 0.5 else (1, high)
    return (float(rng.uniform(low, high)),)
