"""The largest patch and batch, and the network that goes with them, that fit a memory."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Final

from medseg3d.config.load import parse_section
from medseg3d.config.network import PerLevel, UShaped
from medseg3d.errors import ConfigError
from medseg3d.nets.cost import StepMemory, measure_step
from medseg3d.plan.topology import Topology, largest_topology, smaller_topology
from medseg3d.predict.limits import say_memory

PROGRAM: Final = 650 * 2**20
"""Bytes of libraries, and of what they set aside, before the first step."""

SURE: Final = 1.4
"""What a process takes for tensors at most, as a multiple of those that live."""

LEAST_BATCH: Final = 2
"""Patches of the smallest batch."""

SEEN: Final = 0.05
"""Share of a data set's voxels that a batch holds at most."""


@dataclass(frozen=True, slots=True)
class Images:
    """What the network is to see: a median case after preprocessing, and how many there are."""

    shape: tuple[int, ...]
    spacing_mm: tuple[float, ...]
    num_cases: int
    in_channels: int
    out_channels: int


@dataclass(frozen=True, slots=True)
class Fit:
    """A network, its patch and batch, and what a training step with them takes."""

    network: UShaped
    topology: Topology
    batch_size: int
    memory: int
    """Bytes, the program's with it."""
    enough: int
    """Batch that holds the largest share of the data set that is worth while."""
    whole: bool
    """Whether the patch was not shrunk for the memory."""


def fit_patch(
    preset: UShaped, images: Images, *, memory: int, half: bool = False, narrow: bool = False
) -> Fit:
    """Shrink the patch until two of them fit, then enlarge the batch.

    `half` counts tensors of 16 bits, `narrow` halves the channels.

    Raises:
        ConfigError: not even two of the smallest patches fit.
    """
    largest = topology = largest_topology(images.shape, images.spacing_mm)
    measured: dict[UShaped, StepMemory] = {}
    while True:
        network = fit_network(preset, topology, narrow=narrow)
        if network not in measured:  # of one network, what grows does so with the patch
            measured[network] = _measure(network, images, topology.patch)
        step = measured[network]
        if _need(step, LEAST_BATCH * topology.voxels, half) <= memory:
            break
        smaller = smaller_topology(topology, images.shape, images.spacing_mm)
        if smaller is None:
            raise ConfigError(
                f"two patches of {'×'.join(map(str, topology.patch))} voxels take "
                f"{say_memory(_need(step, LEAST_BATCH * topology.voxels, half))} in training, "
                f"there are {say_memory(memory)}; give more --memory or a smaller --net"
            )
        topology = smaller
    enough = round(SEEN * images.num_cases * prod(images.shape) / topology.voxels)
    allowed = LEAST_BATCH
    while allowed < enough and _need(step, (allowed + 1) * topology.voxels, half) <= memory:
        allowed += 1
    return Fit(
        network,
        topology,
        batch_size=allowed,
        memory=_need(step, allowed * topology.voxels, half),
        enough=enough,
        whole=topology == largest,
    )


def fit_network(preset: UShaped, topology: Topology, *, narrow: bool = False) -> UShaped:
    """Give a preset as many levels as a patch can be halved, and norms that suit small batches.

    Levels beyond the preset's are like its deepest one. Raises nothing that a preset can cause.
    """
    levels = len(topology.kernels)
    widths = [width // (2 if narrow else 1) for width in preset.channels]
    knobs: dict[str, Any] = {
        "channels": _spread(tuple(widths), levels),
        "encoder_blocks": _spread(preset.encoder_blocks, levels),
        "decoder_blocks": _spread(preset.decoder_blocks, levels - 1),
        "strides": _alike(topology.strides, 2),
        "kernel_sizes": _alike(topology.kernels, 3),
        "deep_supervision": preset.deep_supervision and levels > 2,
    }
    if preset.norm == "batch":
        knobs["norm"] = "instance"
    if preset.activation == "relu":
        knobs["activation"] = "leaky_relu"
    return parse_section(type(preset), {"kind": preset.kind, **knobs}, source="plan")


def _measure(network: UShaped, images: Images, patch: Sequence[int]) -> StepMemory:
    return measure_step(
        network,
        in_channels=images.in_channels,
        out_channels=images.out_channels,
        batch=LEAST_BATCH,
        patch=patch,
    )


def _need(step: StepMemory, voxels: int, half: bool) -> int:
    tensors = step.of(voxels) - step.weights
    return PROGRAM + step.weights + round(SURE * tensors / (2 if half else 1))


def _spread(knob: PerLevel, levels: int) -> PerLevel:
    """Cut a knob of each level to fewer levels, or repeat its last for more."""
    if isinstance(knob, int):
        return knob
    return tuple(knob[min(level, len(knob) - 1)] for level in range(levels))


def _alike(entries: Sequence[tuple[int, ...]], usual: int) -> int | tuple[tuple[int, ...], ...]:
    """Give one number where every entry is it."""
    return usual if all({*entry} == {usual} for entry in entries) else tuple(entries)
