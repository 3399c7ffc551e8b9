"""What all cases of a run have in common: how much their networks take, and the memory there is."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from medseg3d.arrays import TripleInt
from medseg3d.config.recipe import Recipe
from medseg3d.nets.bundle import Bundle
from medseg3d.nets.cost import measure_peak
from medseg3d.predict.compose import compose_engine
from medseg3d.predict.engine import place_of
from medseg3d.predict.limits import available_bytes, resident_bytes


@dataclass(frozen=True, slots=True, eq=False)
class Budget:
    """What all cases have in common: their networks, and the memory there is."""

    recipe: Recipe
    device: torch.device
    passes: tuple[int, int]
    """Bytes of a forward pass of a tile alone, and of each in a batch, tiles and logits too."""
    num_maps: int
    with_probs: bool
    waiting: int
    """Other cases that are read ahead, and as many that wait to be written."""
    base: int
    """Bytes of host memory taken already, weights and libraries."""
    host: int | None
    """Bytes of host memory that may be taken, `base` too; None is no limit."""
    on_device: int
    """Bytes of a GPU that may be taken besides the weights."""
    asked: int | None
    """Bytes that the user allows."""
    one_batch: bool
    """Whether smaller batches of tiles are filled up, and so take as much."""


def plan_budget(
    bundles: Sequence[Bundle],
    *,
    memory: int | None = None,
    uncertainty: bool = False,
    with_probs: bool = False,
    waiting: int = 0,
) -> Budget:
    """Find what networks take and what there is, once the engine is built and before any case.

    `memory` is the most that may be taken of the host and, where there is one, of the GPU; None
    takes what is free. What networks take is counted in a pass of a small tile: it grows with it.
    """
    recipe, device = bundles[0].recipe, place_of(bundles[0].net)
    passes, num_maps = _measure_passes(bundles, uncertainty=uncertainty)
    base, available = resident_bytes(), available_bytes()
    free = base + available if available is not None else None
    return Budget(
        recipe=recipe,
        device=device,
        passes=passes,
        num_maps=num_maps,
        with_probs=with_probs,
        waiting=waiting,
        base=base,
        host=free if memory is None else memory,
        on_device=_free_on(device, memory) if device.type == "cuda" else 0,
        asked=memory,
        one_batch=recipe.predict.kernels != "eager" or recipe.predict.backend != "torch",
    )


def tile_size_of(recipe: Recipe) -> TripleInt:
    """Give the tile in three axes, of which the third is 1 for 2D networks."""
    i, j, k = (*(recipe.predict.tile_size or ()), 1)[:3]
    return i, j, k


def _free_on(device: torch.device, memory: int | None) -> int:
    """Count what may be taken of a GPU; what torch keeps for later is free."""
    free, _ = torch.cuda.mem_get_info(device)
    taken = torch.cuda.memory_allocated(device)
    free += torch.cuda.memory_reserved(device) - taken
    return free if memory is None else min(free, memory - taken)


def _measure_passes(bundles: Sequence[Bundle], *, uncertainty: bool) -> tuple[tuple[int, int], int]:
    """Count what a tile takes, alone and in a batch, and the maps that follow its logits.

    Of all opinions that are averaged two are asked, one after the other, as the others would be.
    What OpenVINO takes is not seen from here: it is less than what torch takes. Nor are kernels
    launched otherwise, which would be compiled or recorded for this one pass.
    """
    engine = compose_engine([_in_torch(bundle) for bundle in bundles[:2]], uncertainty=uncertainty)
    tile = tile_size_of(bundles[0].recipe)
    first, *others = engine.divisor or tile
    small = [min(n, t) for n, t in zip((2 * first, *others), tile, strict=True)]
    images = torch.zeros(2, len(bundles[0].recipe.images), *small, device=engine.device)
    alone, both = (measure_peak(engine, images[:n], tile=tile) for n in (1, 2))
    return (alone, both // 2), engine.num_maps


def _in_torch(bundle: Bundle) -> Bundle:
    predict = bundle.recipe.predict
    changed = {"backend": "torch", "kernels": "eager", "mirror": predict.mirror[:1]}
    recipe = bundle.recipe.model_copy(update={"predict": predict.model_copy(update=changed)})
    return Bundle(bundle.net, recipe, bundle.version)
