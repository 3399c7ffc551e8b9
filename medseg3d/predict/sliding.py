"""Whole images through a network that sees one tile at a time, a slab of the result at a time."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise

import torch
from jaxtyping import Float32, Integer, Shaped
from torch import Tensor, nn
from torch.nn.functional import pad

from medseg3d.errors import ConfigError, GridError
from medseg3d.predict.engine import Engine, build_engine
from medseg3d.predict.ring import SlabRing
from medseg3d.predict.tiles import TileGrid, gaussian_weight, plan_tiles, require_divisible

Progress = Callable[[int, int], None]
"""Called after each batch of tiles with the number done and the number in all."""


@dataclass(frozen=True, slots=True)
class Slab:
    """Planes of an image to which no tile adds any more."""

    box: tuple[slice, ...]
    """Where it lies in the image."""
    sums: Float32[Tensor, "L *slab"]
    """Logits times weights; a view that is overwritten once the next slab is asked for."""
    weights: tuple[Float32[Tensor, "_"], ...]
    """Factors, one per axis, of the sum of weights at a voxel."""

    def logits(self) -> Float32[Tensor, "L *slab"]:
        """Divide by the weights."""
        logits = self.sums
        for axis, weight in enumerate(self.weights):
            shape = [1] * self.sums.ndim
            shape[axis + 1] = -1
            logits = logits / weight.view(shape)
        return logits

    def labels(self) -> Integer[Tensor, "*slab"]:
        """Give each voxel the channel with the largest logit, of equals the first.

        Raises:
            ConfigError: a logit is NaN.
        """
        best = self.sums[0].clone()
        labels = torch.zeros(best.shape, dtype=label_dtype(len(self.sums)), device=best.device)
        for channel, sums in enumerate(self.sums[1:], start=1):
            labels.masked_fill_(sums > best, channel)
            torch.maximum(best, sums, out=best)
        if best.isnan().any():
            raise ConfigError(
                "the network gives NaN: its weights are damaged, or numbers overflow in half "
                "precision; try --set predict.precision=fp32"
            )
        return labels


@torch.inference_mode()
def predict_logits(
    net: nn.Module | Engine,
    image: Shaped[Tensor, "C *spatial"],
    *,
    tile_size: Sequence[int],
    overlap: float = 0.5,
    tile_batch: int = 1,
    progress: Progress | None = None,
) -> Float32[Tensor, "L *spatial"]:
    """Predict an image of any size, 2D or 3D, tile by tile.

    Where the image is smaller than a tile its outermost voxels are repeated on both sides and the
    result is cropped again. Tiles are blended by a Gaussian in float32; the result does not depend
    on `tile_batch`. A network must be in eval mode and is run as it is, an Engine as it was built;
    the result lies where it runs. The image may be of any dtype; it is not changed.

    Raises:
        ConfigError: `net` is in training mode.
        GridError: `tile_size` has not one number per spatial axis, or is no multiple of the
            network's divisor.
    """
    slabs = stream_slabs(
        net, image, tile_size=tile_size, overlap=overlap, tile_batch=tile_batch, progress=progress
    )
    return _joined(((slab.box, slab.logits()) for slab in slabs), image.shape[1:])


@torch.inference_mode()
def predict_labels(
    net: nn.Module | Engine,
    image: Shaped[Tensor, "C *spatial"],
    *,
    tile_size: Sequence[int],
    overlap: float = 0.5,
    tile_batch: int = 1,
    progress: Progress | None = None,
) -> Integer[Tensor, "*spatial"]:
    """Give each voxel the output channel with the largest logit; else as `predict_logits`.

    The logits of the whole image are never held: labels leave slab by slab.

    Raises:
        ConfigError: a logit is NaN; else as `predict_logits`.
    """
    slabs = stream_slabs(
        net, image, tile_size=tile_size, overlap=overlap, tile_batch=tile_batch, progress=progress
    )
    return _joined(((slab.box, slab.labels()) for slab in slabs), image.shape[1:])


@torch.inference_mode()
def stream_slabs(
    net: nn.Module | Engine,
    image: Shaped[Tensor, "C *spatial"],
    *,
    tile_size: Sequence[int],
    overlap: float = 0.5,
    tile_batch: int = 1,
    progress: Progress | None = None,
) -> Iterator[Slab]:
    """Give an image's logits in slabs, along the axis on which the least has to be held.

    Raises:
        ConfigError, GridError: as `predict_logits`.
    """
    engine = net if isinstance(net, Engine) else build_engine(net)
    tile_size = _checked_tile(engine, image, tile_size)
    margins = [_margin(n, t) for n, t in zip(image.shape[1:], tile_size, strict=True)]
    padded = _replicate(image, margins)
    grid = plan_tiles(padded.shape[1:], tile_size, overlap=overlap)
    inside = [slice(a, a + n) for (a, _), n in zip(margins, image.shape[1:], strict=True)]
    for planes, sums in _rows(engine, padded, grid, tile_batch, progress):
        if slab := _slab(grid, planes, sums, inside):
            yield slab


def _rows(
    engine: Engine,
    image: Shaped[Tensor, "C *spatial"],
    grid: TileGrid,
    tile_batch: int,
    progress: Progress | None,
) -> Iterator[tuple[slice, Float32[Tensor, "L *slab"]]]:
    """Run tiles row by row along the longest axis; give planes and sums once they are complete."""
    axis, done = grid.longest_axis, 0
    weight = _tile_weight(grid.tile_size).to(engine.device)
    ring: SlabRing | None = None
    starts = [*grid.starts[axis], grid.shape[axis]]
    for start, following in pairwise(starts):
        boxes = grid.row(axis, start)
        while batch := [*islice(boxes, tile_batch)]:
            logits = engine(_gathered(image, batch))
            if ring is None:
                length = grid.tile_size[axis]
                ring = SlabRing(logits.shape[1], grid.shape, axis, length, logits.device)
            for box, tile in zip(batch, logits, strict=True):
                ring.add(box, tile, weight)
            done += len(batch)
            if progress:
                progress(done, grid.num_tiles)
        if ring is not None:
            yield from ring.take(start, following)


def _joined(parts: Iterable[tuple[tuple[slice, ...], Tensor]], shape: Sequence[int]) -> Tensor:
    """Put parts into their places of a whole, whose other axes and dtype are theirs."""
    whole = torch.empty(0)
    for box, part in parts:
        if not whole.numel():
            whole = part.new_empty((*part.shape[: part.ndim - len(shape)], *shape))
        whole[(*[slice(None)] * (part.ndim - len(shape)), *box)] = part
    return whole


def _gathered(
    image: Shaped[Tensor, "C *spatial"], boxes: Sequence[tuple[slice, ...]]
) -> Shaped[Tensor, "B C *tile"]:
    """Cut tiles out of an image; a single one is a view of it."""
    if len(boxes) == 1:
        return image[(None, slice(None), *boxes[0])]
    return torch.stack([image[(slice(None), *box)] for box in boxes])


def _slab(
    grid: TileGrid, planes: slice, sums: Float32[Tensor, "L *slab"], inside: Sequence[slice]
) -> Slab | None:
    """Cut planes to the part that lies inside the image, in its own coordinates."""
    reach = [planes if n == grid.longest_axis else part for n, part in enumerate(inside)]
    kept = [
        slice(max(a.start, b.start), min(a.stop, b.stop))
        for a, b in zip(reach, inside, strict=True)
    ]
    if any(part.start >= part.stop for part in kept):
        return None
    own = list(kept)
    own[grid.longest_axis] = slice(
        kept[grid.longest_axis].start - planes.start, kept[grid.longest_axis].stop - planes.start
    )
    weights = [
        torch.from_numpy(grid.weight_sums(n)[part]).to(sums.device) for n, part in enumerate(kept)
    ]
    box = [slice(k.start - i.start, k.stop - i.start) for k, i in zip(kept, inside, strict=True)]
    return Slab(tuple(box), sums[(slice(None), *own)], tuple(weights))


def label_dtype(num_channels: int) -> torch.dtype:
    """Give the dtype of labels that are indices of channels."""
    return torch.uint8 if num_channels <= 256 else torch.int32


def _checked_tile(engine: Engine, image: Tensor, tile_size: Sequence[int]) -> tuple[int, ...]:
    dims = image.ndim - 1
    if len(tile_size) != dims:
        raise GridError(
            f"the image has {dims} spatial axes, tile_size {tuple(tile_size)} has {len(tile_size)}"
        )
    require_divisible(tile_size, engine.divisor or (1,) * dims, name="tile_size")
    return tuple(tile_size)


def _margin(length: int, tile: int) -> tuple[int, int]:
    missing = max(tile - length, 0)
    return missing // 2, missing - missing // 2


def _replicate(image: Tensor, margins: Sequence[tuple[int, int]]) -> Tensor:
    if not any(map(any, margins)):
        return image
    flat = [n for margin in reversed(margins) for n in margin]
    return pad(image[None].float(), flat, mode="replicate")[0]


def _tile_weight(tile_size: Sequence[int]) -> Tensor:
    weight = torch.ones(())
    for length in tile_size:
        weight = weight[..., None] * torch.from_numpy(gaussian_weight(length))
    return weight
