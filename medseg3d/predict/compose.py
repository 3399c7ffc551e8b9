"""Engines made of engines: flipped, averaged, or led slice by slice through a volume."""

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from itertools import chain, combinations, starmap
from math import lcm, log

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from medseg3d.config.recipe import Recipe
from medseg3d.config.run import Outputs
from medseg3d.errors import ConfigError
from medseg3d.nets.bundle import Bundle
from medseg3d.predict.engine import Engine, bundle_engine


def compose_engine(bundles: Sequence[Bundle], *, uncertainty: bool = False) -> Engine:
    """Make one engine of all bundles, flipped along the axes that `predict.mirror` names.

    The first bundle's recipe holds. Logits are averaged; all weights stay where they are. With
    `uncertainty` one map follows the logits (see `averaged`). Tiles have three axes, also those of
    2D networks: the third has length 1.

    Raises:
        ConfigError: bundles that cannot be averaged, uncertainty of a single opinion, or as
            `bundle_engine`.
    """
    recipe = bundles[0].recipe
    require_alike(bundles)
    engines = [bundle_engine(_led_by(recipe, bundle)) for bundle in bundles]
    flips = [["ijk".index(axis) for axis in some] for some in _subsets(recipe.predict.mirror)]
    if uncertainty and len(engines) * len(flips) == 1:
        raise ConfigError(
            "uncertainty is where several opinions disagree, and here is one: give more models, "
            "or --set predict.mirror=[i]"
        )
    if len(engines) * len(flips) > 1:
        outputs = recipe.outputs if uncertainty else None
        engines = [averaged(engines, flips=flips, disagreement=outputs)]
    return slicewise(engines[0]) if recipe.spatial_dims == 2 else engines[0]


def require_alike(bundles: Sequence[Bundle]) -> None:
    """Check that what networks say can be averaged: same images, same tiles, same outputs.

    Raises:
        ConfigError: they differ, says in what; or the first one's knobs do not fit another.
    """
    first = bundles[0].recipe
    for number, bundle in enumerate(bundles[1:], start=2):
        other = bundle.recipe
        pairs = {
            "channels": ([*first.images], [*other.images]),
            "label values": (first.labels.values, other.labels.values),
            "outputs": (first.outputs, other.outputs),
            "dimensions": (first.spatial_dims, other.spatial_dims),
            "tile size": (first.predict.tile_size, other.predict.tile_size),
        }
        for knob, value in first.preprocess:
            pairs[f"preprocess.{knob}"] = (value, getattr(other.preprocess, knob))
        if first.outputs == "regions":  # their order is that of the channels
            pairs["regions"] = ([*first.labels.regions.items()], [*other.labels.regions.items()])
        if differing := {what: pair for what, pair in pairs.items() if pair[0] != pair[1]}:
            said = "; ".join(f"{what}: {a} and {b}" for what, (a, b) in differing.items())
            raise ConfigError(f"models 1 and {number} cannot be averaged, they differ in {said}")
        try:
            other.require_fitting(first.predict)
        except ValueError as error:
            raise ConfigError(f"model {number} cannot be run as model 1 says: {error}") from error


def averaged(
    engines: Sequence[Engine],
    *,
    flips: Sequence[Sequence[int]] = ((),),
    disagreement: Outputs | None = None,
) -> Engine:
    """Average the logits of engines over flips, each the list of spatial axes that are flipped.

    With `disagreement`, which says what the channels are, a map follows the logits: the mutual
    information in bits of the answer and of who gives it, 0 where all agree (Depeweg et al. 2018,
    "Decomposition of uncertainty"); summed over regions.
    """
    device = engines[0].device
    opinions = [(engine, [axis + 2 for axis in flip]) for engine in engines for flip in flips]

    def run(tiles: Shaped[Tensor, "B C *tile"]) -> Float[Tensor, "B L *tile"]:
        told = (
            engine(tiles.flip(axes)).to(device, torch.float32).flip(axes)
            for engine, axes in opinions
        )
        if not disagreement:
            return reduce(Tensor.add_, told) / len(opinions)
        parts = (_said(logits, disagreement) for logits in told)
        sums = reduce(
            lambda some, more: [a.add_(b) for a, b in zip(some, more, strict=True)], parts
        )
        logits, probs, entropy = (part / len(opinions) for part in sums)
        bits = (_entropy(probs) - entropy).clamp_min(0) / log(2)
        return torch.cat([logits, bits], dim=1)

    divisors = [engine.divisor for engine in engines if engine.divisor]
    divisor = tuple(starmap(lcm, zip(*divisors, strict=True))) or None
    return Engine(run, device, divisor=divisor, num_maps=1 if disagreement else 0)


def slicewise(engine: Engine) -> Engine:
    """Let a 2D engine run the slices of a volume, as tiles whose third axis has length 1."""

    def run(tiles: Shaped[Tensor, "B C I J 1"]) -> Float[Tensor, "B L I J 1"]:
        return engine(tiles[..., 0])[..., None]

    divisor = (*engine.divisor, 1) if engine.divisor else None
    return Engine(run, engine.device, divisor=divisor, num_maps=engine.num_maps)


def _led_by(recipe: Recipe, bundle: Bundle) -> Bundle:
    """Let a bundle predict as another's recipe says: one precision, backend and batch for all."""
    led = bundle.recipe.model_copy(update={"predict": recipe.predict})
    return replace(bundle, recipe=led)


def _said(logits: Float[Tensor, "B L *tile"], outputs: Outputs) -> list[Float[Tensor, "B _ *tile"]]:
    """Give logits, all probabilities, and their entropy; a region is there or not: two each."""
    if outputs == "values":
        probs = logits.softmax(1)
    else:
        probs = torch.cat([logits.sigmoid(), (-logits).sigmoid()], dim=1)
    return [logits, probs, _entropy(probs)]


def _entropy(probs: Float[Tensor, "B _ *tile"]) -> Float[Tensor, "B 1 *tile"]:
    return torch.special.entr(probs).sum(1, keepdim=True)


def _subsets(axes: Sequence[str]) -> list[tuple[str, ...]]:
    """Give all sets of axes, the empty one first."""
    return [*chain.from_iterable(combinations(axes, n) for n in range(len(axes) + 1))]
