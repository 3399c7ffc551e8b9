"""How much memory a case takes, known before it is run, and what is done to make it fit."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
import torch

from medseg3d.arrays import TripleInt
from medseg3d.config.recipe import Recipe
from medseg3d.errors import ConfigError
from medseg3d.geometry.orient import plan_axes
from medseg3d.geometry.resample import spaced_grid
from medseg3d.io.nifti import NIFTI_SUFFIXES, scan_nifti
from medseg3d.nets.cost import measure_peak
from medseg3d.predict.budget import Budget, tile_size_of
from medseg3d.predict.limits import say_memory
from medseg3d.predict.ring import SlabRing
from medseg3d.predict.tiles import plan_tiles
from medseg3d.preprocess.pipeline import Preprocessed
from medseg3d.volume import Volume

log = logging.getLogger(__name__)

Parts: TypeAlias = dict[str, int]
"""What memory is for -> bytes."""

CODE: Final = 256 * 2**20
"""Bytes of libraries that are first touched, and of what kernels set aside, once a case runs."""

SURE: Final = 2.0
"""Plans are meant as upper bounds, and were at most this multiple of what was taken."""

KEPT: Final = 1.4
"""What a process that keeps its memory takes at most for tiles, as a multiple (`keep_memory`)."""

CPU: Final = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class CaseSize:
    """What of a case its memory depends on."""

    source_IJK: TripleInt
    """Voxels of the images."""
    network_IJK: TripleInt
    """Voxels that the network sees."""
    voxel_bytes: int
    """Of one voxel of all channels as they are read; 0 where they are read already."""


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """How a case is run, and the memory it then takes at its peak, bytes for each purpose."""

    tile_batch: int
    ring_device: torch.device
    """Where tiles are summed."""
    waiting: int
    """Other cases that may be read ahead and wait to be written."""
    host: Parts
    on_device: Parts

    def apply(self, recipe: Recipe) -> Recipe:
        """Give a recipe the plan's tile batch."""
        predict = recipe.predict.model_copy(update={"tile_batch": self.tile_batch})
        return recipe.model_copy(update={"predict": predict})

    def __str__(self) -> str:
        host = f"{_say(self.host)} on the host"
        there = f" and {_say(self.on_device)} on the GPU" if self.on_device else ""
        return f"{host}{there}, with predict.tile_batch={self.tile_batch}"


def plan_memory(budget: Budget, size: CaseSize) -> MemoryPlan:
    """Choose the quickest way to run a case that fits.

    First the tile batch is halved, then tiles are summed on the host instead of the GPU, then
    fewer cases are read ahead. Results do not depend on it. Of free memory, only what surely is
    more is refused; a plan that may be more is told of.

    Raises:
        ConfigError: no way fits; says what the smallest one takes, and for what.
    """
    rings = [budget.device] if budget.device.type == "cpu" else [budget.device, CPU]
    ways = product(range(budget.waiting, -1, -1), rings, _halvings(budget))
    plans = (
        _plan(budget, size, tile_batch=tile_batch, ring=ring, waiting=waiting)
        for waiting, ring, tile_batch in ways
    )
    for plan in plans:  # the last is the smallest
        if _fits(plan, budget, sure=1.0):
            return plan
    if budget.asked is None and _fits(plan, budget, sure=SURE):
        log.warning("memory may not suffice: the case takes up to %s, %s", plan, _say_free(budget))
        return plan
    need = max(_total(plan.host), _total(plan.on_device))
    raise ConfigError(
        f"the case takes {plan}, {_say_free(budget)}; give --memory {say_memory(need)} if there is "
        "as much, or set a smaller predict.tile_size or a predict.focus"
    )


def plan_before(
    budget: Budget, images: str | Path | Sequence[str | Path | None] | Volume
) -> MemoryPlan | None:
    """Plan a case by the headers of its files; None where they do not tell its size.

    That is a case that is read already, is no NIfTI, or is going to be cropped.

    Raises:
        ConfigError: as `plan_memory`.
        FormatError: a header cannot be read.
    """
    if isinstance(images, Volume):
        return None
    paths = [images] if isinstance(images, str | Path) else images
    size = _scan_case([Path(path) for path in paths if path is not None], budget.recipe)
    return plan_memory(budget, size) if size else None


def plan_after(budget: Budget, preprocessed: Preprocessed) -> MemoryPlan:
    """Plan what is left to do of a case; else as `plan_memory`."""
    volume = preprocessed.volume
    return plan_memory(budget, CaseSize(preprocessed.source.shape_IJK, volume.shape_IJK, 0))


def _scan_case(paths: Sequence[Path], recipe: Recipe) -> CaseSize | None:
    if recipe.preprocess.crop != "none":
        return None
    if not all(path.name.lower().endswith(NIFTI_SUFFIXES) for path in paths):
        return None
    scanned = [scan_nifti(path) for path in paths]
    grid, spacing_mm = scanned[0][0], recipe.preprocess.spacing_mm
    turned = plan_axes(grid.affine, recipe.preprocess.orientation or grid.orientation)
    network = turned.apply_grid(grid)
    if spacing_mm:
        network = spaced_grid(network, spacing_mm)
    dtype = np.result_type(*(dtype for _, dtype in scanned))
    return CaseSize(grid.shape_IJK, network.shape_IJK, dtype.itemsize * len(recipe.images))


def _plan(
    budget: Budget, size: CaseSize, *, tile_batch: int, ring: torch.device, waiting: int
) -> MemoryPlan:
    tiles = _tile_parts(budget, size, tile_batch)
    sums = {name: tiles.pop(name) for name in ("sums", "slab")}
    on_gpu = budget.device.type != "cpu"
    there = tiles | _image(size, budget) | (sums if ring != CPU else {}) if on_gpu else {}
    here = ({} if on_gpu else tiles) | (sums if ring == CPU else {})
    recipe = budget.recipe
    before = max(_reading(size), _preparing(size, recipe), key=_total)
    during = _computing(size, budget) | here
    after = _restoring(size, budget)
    peak = max(before, during, after, key=_total)
    if waiting:
        others = waiting * (_total(before) + _total(after))
        peak = during | {f"{2 * waiting} cases before and after": others}
    return MemoryPlan(tile_batch, ring, waiting, {"program": budget.base + CODE} | peak, there)


def _tile_parts(budget: Budget, size: CaseSize, tile_batch: int) -> Parts:
    """Count what lies where tiles are run, and what lies where they are summed."""
    recipe, tile = budget.recipe, tile_size_of(budget.recipe)
    padded = [max(n, t) for n, t in zip(size.network_IJK, tile, strict=True)]
    grid = plan_tiles(padded, tile, overlap=recipe.predict.overlap)
    counted = recipe.predict.focus != "all"
    channels = recipe.num_outputs + budget.num_maps
    sums = measure_peak(
        lambda logits: SlabRing(logits, grid, num_maps=budget.num_maps, counted=counted),
        torch.empty(channels, *tile, device="meta"),
    )
    each_pass = budget.passes[tile_batch > 1]
    if budget.device.type == "cpu" and recipe.predict.keep_memory:
        each_pass = round(each_pass * KEPT)
    outer, inner, _ = grid.axes
    window = [*grid.shape]
    window[outer], window[inner] = tile[outer], tile[inner]
    each = (
        16 * channels if budget.with_probs else 10 * channels if recipe.outputs == "regions" else 8
    )
    return {
        "network": tile_batch * (each_pass + channels * prod(tile) * 4),
        "sums": sums,
        "slab": (each + 4 * budget.num_maps) * prod(window),
    }


def _reading(size: CaseSize) -> Parts:
    """Count channels and what they are stacked into."""
    return {"images as read": 2 * size.voxel_bytes * prod(size.source_IJK)}


def _preparing(size: CaseSize, recipe: Recipe) -> Parts:
    """Count the images as they are read, scaled and resampled; one channel is scaled in float64."""
    num, source, network = len(recipe.images), prod(size.source_IJK), prod(size.network_IJK)
    if not size.voxel_bytes:
        return {}
    parts = {"images as read": size.voxel_bytes * source, "images": 4 * num * source}
    if not recipe.preprocess.spacing_mm:
        return parts | {"preprocessing": (9 + size.voxel_bytes // num) * source}
    return parts | {
        "images resampled": 4 * num * network,
        "preprocessing": max(8 * source + 8 * network, num * (source + 5 * network)),
    }


def _computing(size: CaseSize, budget: Budget) -> Parts:
    return _image(size, budget) | _predicted(size, budget)


def _image(size: CaseSize, budget: Budget) -> Parts:
    """Count the images that a network sees, also where they are padded to a tile."""
    network, tile = prod(size.network_IJK), tile_size_of(budget.recipe)
    padded = prod(max(n, t) for n, t in zip(size.network_IJK, tile, strict=True))
    return {"images": 4 * len(budget.recipe.images) * (network + padded * (padded > network))}


def _predicted(size: CaseSize, budget: Budget) -> Parts:
    voxels, recipe = prod(size.network_IJK), budget.recipe
    focus = recipe.predict.focus != "all"
    parts = {"labels": (_label_bytes(recipe) + 4 * budget.num_maps + 2 * focus) * voxels}
    if budget.with_probs:
        parts["probabilities"] = 4 * recipe.num_outputs * voxels
    return parts


def _restoring(size: CaseSize, budget: Budget) -> Parts:
    """Count labels that go back: the largest share and the sum of shares, one label resampled.

    Maps go back one file after the other: as numbers, as the file's bytes, and packed in parts.
    """
    recipe, source, network = budget.recipe, prod(size.source_IJK), prod(size.network_IJK)
    each = _label_bytes(recipe)
    num_probs = recipe.num_outputs if budget.with_probs else 0
    resampling = 17 * source + 9 * network if recipe.preprocess.spacing_mm else 0
    return {
        "images": 4 * len(recipe.images) * network,
        **_predicted(size, budget),
        "restoring": 3 * each * source + resampling,
        "maps restored": 4 * 4 * source * max(num_probs, budget.num_maps),
    }


def _fits(plan: MemoryPlan, budget: Budget, *, sure: float) -> bool:
    beyond = _total(plan.host) - budget.base
    if budget.host is not None and budget.base + beyond / sure > budget.host:
        return False
    return _total(plan.on_device) / sure <= budget.on_device


def _label_bytes(recipe: Recipe) -> int:
    return np.min_scalar_type(max(recipe.labels.channel_values)).itemsize


def _halvings(budget: Budget) -> Iterator[int]:
    """Give the wished tile batch, and smaller ones where the engine is not built for one."""
    batch = budget.recipe.predict.tile_batch
    yield batch
    while batch > 1 and not budget.one_batch:
        batch //= 2
        yield batch


def _total(parts: Parts) -> int:
    return sum(parts.values())


def _say(parts: Parts) -> str:
    total = _total(parts)
    large = sorted(
        ((size, name) for name, size in parts.items() if size > total / 100), reverse=True
    )
    return f"{say_memory(total)} ({', '.join(f'{n} {say_memory(s)}' for s, n in large)})"


def _say_free(budget: Budget) -> str:
    if budget.asked is not None:
        return f"--memory is {say_memory(budget.asked)}"
    there = f" and {say_memory(budget.on_device)} of the GPU" if budget.device.type != "cpu" else ""
    here = "any" if budget.host is None else say_memory(budget.host)
    return f"{here} of the host{there} can be had"
