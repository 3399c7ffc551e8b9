"""The story of a case: images in, a label map on their own grid out."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from medseg3d.arrays import LabelMapIJK, MaskIJK, TripleInt
from medseg3d.config.recipe import Recipe
from medseg3d.data.cases import read_images
from medseg3d.data.inputs import spread_files
from medseg3d.errors import ConfigError
from medseg3d.geometry.crop import Box, nonzero_box
from medseg3d.labels import channels_to_values, regions_to_values
from medseg3d.nets.bundle import Bundle
from medseg3d.predict.budget import Budget, tile_size_of
from medseg3d.predict.compose import compose_engine
from medseg3d.predict.engine import Engine
from medseg3d.predict.focus import find_focus
from medseg3d.predict.memory import MemoryPlan, plan_after, plan_before
from medseg3d.predict.postprocess import postprocess_label_map
from medseg3d.predict.slab import Slab
from medseg3d.predict.sliding import Progress, stream_slabs
from medseg3d.preprocess.pipeline import Preprocessed, preprocess_volume
from medseg3d.volume import Volume


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A case ready for a network."""

    preprocessed: Preprocessed
    focus_IJK: MaskIJK | None
    """On the network's grid, where something may be; none is everywhere."""


@dataclass(frozen=True, slots=True, eq=False)
class Predicted:
    """What networks say of a case, on their own grid."""

    values_IJK: LabelMapIJK
    uncertainty_IJK: Float32[np.ndarray, "I J K"] | None = None
    """Disagreement in bits, of an engine that gives it."""
    probs_LIJK: Float32[np.ndarray, "L I J K"] | None = None
    """Probability of each output channel, where it was asked for."""

    def within(self, box: Box) -> "Predicted":
        """Give a view of a part."""
        maps, probs = self.uncertainty_IJK, self.probs_LIJK
        return Predicted(
            self.values_IJK[box.slices],
            None if maps is None else maps[box.slices],
            None if probs is None else probs[(slice(None), *box.slices)],
        )


def predict_case(
    bundles: Bundle | Sequence[Bundle],
    images: str | Path | Sequence[str | Path | None] | Volume,
    *,
    engine: Engine | None = None,
    budget: Budget | None = None,
    progress: Progress | None = None,
) -> Volume:
    """Segment one case: a Volume of one channel, on exactly the grid of the images.

    `images` are files, one per channel in the order of `bundle.recipe.images` (one for all of them
    where training had such files; None for one that is zeros), or a Volume with those channels.
    Several bundles are averaged. Runs on the device of each `bundle.net`, in the precision of its
    recipe; with a `budget` (see `plan_budget`) in the memory that it allows. For many cases,
    `compose_engine` prepares the networks once.

    Raises:
        ConfigError: not as many channels as the model takes, models that cannot be averaged, or
            more memory is needed than the budget allows.
        FormatError: a file is not what it claims to be, or holds NaN.
        GridError: the channels do not lie on one grid.
    """
    bundles = [bundles] if isinstance(bundles, Bundle) else bundles
    recipe = bundles[0].recipe
    engine = engine or compose_engine(bundles)
    plan = plan_before(budget, images) if budget else None
    prepared = prepare_case(images, recipe)
    if budget and plan is None:
        plan = plan_after(budget, prepared.preprocessed)
    predicted = predict_prepared(engine, prepared, recipe, plan=plan, progress=progress)
    return restore_label_map(predicted, prepared, recipe)


def prepare_case(
    images: str | Path | Sequence[str | Path | None] | Volume, recipe: Recipe
) -> Prepared:
    """Read and preprocess a case; else as `predict_case`."""
    if isinstance(images, str | Path):
        images = [images]
    volume = images if isinstance(images, Volume) else _read_channels(images, recipe)
    if volume.num_channels != len(recipe.images):
        raise ConfigError(
            f"the model takes {len(recipe.images)} channels ({', '.join(recipe.images)}), "
            f"got {volume.num_channels}"
        )
    preprocessed = preprocess_volume(volume, recipe.preprocess)
    focus = find_focus(volume, recipe.predict.focus)
    return Prepared(preprocessed, None if focus is None else preprocessed.follow(focus) != 0)


def predict_prepared(
    engine: Engine,
    prepared: Prepared,
    recipe: Recipe,
    *,
    plan: MemoryPlan | None = None,
    with_probs: bool = False,
    progress: Progress | None = None,
) -> Predicted:
    """Run an engine of `compose_engine` over the part of a case that something may be in."""
    return predict_image(
        engine,
        prepared.preprocessed.volume.array_CIJK,
        plan.apply(recipe) if plan else recipe,
        focus_IJK=prepared.focus_IJK,
        with_probs=with_probs,
        ring_device=plan.ring_device if plan else None,
        progress=progress,
    )


@torch.inference_mode()
def predict_image(
    engine: Engine,
    image_CIJK: Float32[np.ndarray, "C I J K"],
    recipe: Recipe,
    *,
    focus_IJK: MaskIJK | None = None,
    with_probs: bool = False,
    ring_device: torch.device | None = None,
    progress: Progress | None = None,
) -> Predicted:
    """Run an engine of `compose_engine` over a preprocessed image.

    Only tiles that hold a voxel of `focus_IJK` are run, within the box around it; elsewhere is
    background.

    Raises:
        ConfigError: the network gives NaN.
    """
    predict = recipe.predict
    tile_size = tile_size_of(recipe)
    box = Box((0, 0, 0), image_CIJK.shape[1:])
    if focus_IJK is not None:
        box = _box_around(focus_IJK, at_least=tile_size)
    slabs = stream_slabs(
        engine,
        _tensor(image_CIJK[(slice(None), *box.slices)]),
        tile_size=tile_size,
        overlap=predict.overlap,
        tile_batch=predict.tile_batch,
        progress=progress,
        wanted=None if focus_IJK is None else _tensor(focus_IJK[box.slices]),
        ring_device=ring_device,
    )
    predicted = _background(image_CIJK.shape[1:], recipe, engine, with_probs=with_probs)
    for slab in slabs:
        _fill(predicted.within(box), slab, recipe)
    return predicted


def _box_around(mask_IJK: MaskIJK, *, at_least: Sequence[int]) -> Box:
    """Find the box of a mask, or of a tile where it is smaller and the image goes on."""
    box = nonzero_box([mask_IJK])
    sides = zip(box.start, box.stop, at_least, mask_IJK.shape, strict=True)
    (a, i), (b, j), (c, k) = (_widened(*side) for side in sides)
    return Box((a, b, c), (i, j, k))


def _widened(start: int, stop: int, least: int, length: int) -> tuple[int, int]:
    missing = max(min(least, length) - (stop - start), 0)
    first = min(max(start - missing // 2, 0), length - missing - (stop - start))
    return first, first + missing + stop - start


def _background(
    shape_IJK: TripleInt, recipe: Recipe, engine: Engine, *, with_probs: bool
) -> Predicted:
    """Give what holds where no tile is run."""
    dtype = np.min_scalar_type(max(recipe.labels.channel_values))
    values_IJK = np.zeros(shape_IJK, dtype=dtype)
    uncertainty_IJK = np.zeros(shape_IJK, dtype=np.float32) if engine.num_maps else None
    if not with_probs:
        return Predicted(values_IJK, uncertainty_IJK)
    probs_LIJK = np.zeros((recipe.num_outputs, *shape_IJK), dtype=np.float32)
    if recipe.outputs == "values":
        probs_LIJK[0] = 1
    return Predicted(values_IJK, uncertainty_IJK, probs_LIJK)


def _fill(predicted: Predicted, slab: Slab, recipe: Recipe) -> None:
    predicted.values_IJK[slab.box] = _decide(slab, recipe)
    if predicted.uncertainty_IJK is not None:
        predicted.uncertainty_IJK[slab.box] = slab.maps()[0].cpu().numpy()
    if predicted.probs_LIJK is not None:
        predicted.probs_LIJK[(slice(None), *slab.box)] = slab.probs(recipe.outputs).cpu().numpy()


def _decide(slab: Slab, recipe: Recipe) -> LabelMapIJK:
    scheme, thresholds = recipe.labels, recipe.predict.thresholds
    if recipe.outputs == "values":
        return channels_to_values(slab.labels().cpu().numpy(), scheme)
    masks_RIJK = slab.regions([thresholds.get(region, 0.5) for region in scheme.regions])
    return regions_to_values(masks_RIJK.cpu().numpy(), scheme)


def _tensor(array: np.ndarray) -> Tensor:
    """Give an array to torch, uncopied where it may be written to: torch knows no other."""
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def restore_label_map(predicted: Predicted, prepared: Prepared, recipe: Recipe) -> Volume:
    """Bring what was predicted onto the grid of the images, and put it right by the rules."""
    restored = prepared.preprocessed.restore(predicted.values_IJK)
    return postprocess_label_map(restored, recipe.labels, recipe.predict.postprocess)


def choose_device(name: str) -> torch.device:
    """Give the device a knob names; `auto` is a GPU where there is one.

    Raises:
        ConfigError: `cuda` is asked for and there is none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "device 'cuda' was asked for, but torch finds no GPU; set device to 'cpu'"
        )
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def _read_channels(images: Sequence[str | Path | None], recipe: Recipe) -> Volume:
    files = [None if image is None else Path(image) for image in images]
    if None in files and recipe.missing != "zeros":
        raise ConfigError(
            "a channel is None, which this model was not trained for: it needs "
            f"{', '.join(recipe.images)}. Give a file for each; data.missing=zeros trains others."
        )
    return read_images([*spread_files(files, recipe.images).values()], recipe.preprocess)
