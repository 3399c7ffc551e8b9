"""Patch, strides and kernels: how far a network can halve what it sees (nnU-Net, 2021).

Rules are those of Isensee et al., Nature Methods 18 (2021), supplementary note 2: axes of much
coarser spacing are halved later and convolved later.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Final, TypeAlias

import numpy as np

from medseg3d.errors import ConfigError

PerAxis: TypeAlias = tuple[int, ...]

MIN_EDGE: Final = 4
"""Voxels that the deepest level keeps along each axis that was halved."""

COARSE: Final = 2.0
"""Times the finest spacing from which an axis is not halved or convolved yet."""

LARGEST: Final = {2: 2048**2, 3: 256**3}
"""Number of axes -> voxels of the largest patch."""


@dataclass(frozen=True, slots=True)
class Topology:
    """A patch, and what is done to it from level to level, fine to coarse."""

    patch: PerAxis
    strides: tuple[PerAxis, ...]
    """Of each step between levels."""
    kernels: tuple[PerAxis, ...]
    """Of each level, one more than there are strides."""

    @property
    def voxels(self) -> int:
        """Number of voxels of the patch."""
        return prod(self.patch)


def plan_topology(size: Sequence[int], spacing_mm: Sequence[float]) -> Topology:
    """Halve axes as long as they are long and fine enough; the patch is `size`, made divisible.

    An axis is halved while it has at least 8 voxels and its spacing is less than twice the finest
    of those that can be; its kernel is 1 until its spacing has been less than twice the finest of
    all, and 3 from then on and in the deepest level.

    Raises:
        ConfigError: no axis is long enough to be halved.
    """
    lengths, edges, kernel = [*size], [*spacing_mm], [1] * len(size)
    strides: list[PerAxis] = []
    kernels: list[PerAxis] = []
    while halved := _halved_axes(lengths, edges):
        finest = min(edges)
        kernel = [3 if edge < COARSE * finest else k for k, edge in zip(kernel, edges, strict=True)]
        kernels.append(tuple(kernel))
        strides.append(tuple(2 if axis in halved else 1 for axis in range(len(size))))
        for axis in halved:
            lengths[axis], edges[axis] = -(-lengths[axis] // 2), edges[axis] * 2
    if not strides:
        raise ConfigError(
            f"patches of {'×'.join(map(str, size))} voxels are too small for a U-shaped network, "
            f"which halves axes of {2 * MIN_EDGE} voxels or more"
        )
    divisors = [prod(steps) for steps in zip(*strides, strict=True)]
    patch = tuple(-(-n // by) * by for n, by in zip(size, divisors, strict=True))
    return Topology(patch, tuple(strides), (*kernels, (3,) * len(size)))


def _halved_axes(lengths: Sequence[int], edges: Sequence[float]) -> list[int]:
    """Choose the axes that the next step halves."""
    long = [axis for axis, length in enumerate(lengths) if length >= 2 * MIN_EDGE]
    finest = min((edges[axis] for axis in long), default=0.0)
    halved = [axis for axis in long if edges[axis] < COARSE * finest]
    if len(halved) == 1 and lengths[halved[0]] < 3 * MIN_EDGE:
        return []
    return halved


def largest_topology(shape: Sequence[int], spacing_mm: Sequence[float]) -> Topology:
    """Give the largest patch worth having: as many mm along each axis, as far as images reach."""
    per_mm = 1 / np.asarray(spacing_mm)
    cube = per_mm * (LARGEST[len(shape)] / per_mm.prod()) ** (1 / len(shape))
    size = [min(round(n), length) for n, length in zip(cube.tolist(), shape, strict=True)]
    return plan_topology(size, spacing_mm)


def smaller_topology(
    topology: Topology, shape: Sequence[int], spacing_mm: Sequence[float]
) -> Topology | None:
    """Shrink the patch along the axis that is largest relative to the images; None if it cannot be.

    By one step of what the network divides by there, which grows smaller with the patch.
    """
    order = np.argsort(np.divide(topology.patch, shape), kind="stable")[::-1].tolist()
    for axis in order:
        size = [*topology.patch]
        while size[axis] > 2 * MIN_EDGE:
            size[axis] -= 1
            try:
                smaller = plan_topology(size, spacing_mm)
            except ConfigError:
                break
            if smaller.voxels < topology.voxels:
                return smaller
    return None
