"""Whole images through a network that sees one tile at a time, a slab of the result at a time."""

from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from jaxtyping import Bool, Float, Float32, Integer, Shaped
from torch import Tensor, nn
from torch.nn.functional import pad

from medseg3d.errors import GridError
from medseg3d.predict.engine import Engine, build_engine
from medseg3d.predict.ring import SlabRing
from medseg3d.predict.slab import Slab
from medseg3d.predict.tiles import Box, Column, plan_tiles, require_divisible

Progress = Callable[[int, int], None]
"""Called after each batch of tiles with the number done and the number in all."""


@torch.inference_mode()
def predict_logits(
    net: nn.Module | Engine,
    image: Shaped[Tensor, "C *spatial"],
    *,
    tile_size: Sequence[int],
    overlap: float = 0.5,
    tile_batch: int = 1,
    progress: Progress | None = None,
    out: Float32[Tensor, "L *spatial"] | None = None,
) -> Float32[Tensor, "L *spatial"]:
    """Predict an image of any size, 2D or 3D, tile by tile.

    Where the image is smaller than a tile its outermost voxels are repeated on both sides and the
    result is cropped again. Tiles are blended by a Gaussian in float32; the result does not depend
    on `tile_batch`. A network must be in eval mode and is run as it is, an Engine as it was built;
    the result lies where it runs, or in `out`, which may be larger than memory: a tensor on a file
    (`torch.from_file`, or `torch.from_numpy` of a `np.memmap`) is written slab by slab. The image
    may be of any dtype; it is not changed.

    Raises:
        ConfigError: `net` is in training mode.
        GridError: `tile_size` has not one number per spatial axis, or is no multiple of the
            network's divisor, or `out` has another shape than the logits.
    """
    slabs = stream_slabs(
        net, image, tile_size=tile_size, overlap=overlap, tile_batch=tile_batch, progress=progress
    )
    return _joined(((slab.box, slab.logits()) for slab in slabs), image.shape[1:], out=out)


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
    wanted: Bool[Tensor, "*spatial"] | None = None,
    ring_device: torch.device | None = None,
) -> Iterator[Slab]:
    """Give an image's logits in slabs, along the axes on which the least has to be held.

    Tiles without a voxel that is `wanted` are left out, so that elsewhere fewer tiles are blended.
    Where no tile lies logits are 0, or there is no slab. Tiles are summed on `ring_device`, or
    where the network runs.

    Raises:
        ConfigError, GridError: as `predict_logits`.
    """
    engine = net if isinstance(net, Engine) else build_engine(net)
    tile_size = _checked_tile(engine, image, tile_size)
    margins = [_margin(n, t) for n, t in zip(image.shape[1:], tile_size, strict=True)]
    padded = _replicate(image.to(engine.device), margins)
    grid = plan_tiles(padded.shape[1:], tile_size, overlap=overlap)
    inside = tuple(slice(a, a + n) for (a, _), n in zip(margins, image.shape[1:], strict=True))
    columns = [*grid.columns()]
    if wanted is not None:
        columns = _holding(wanted, columns)
    boxes = [box for column in columns for box in column.tiles]
    counted = len(boxes) < grid.num_tiles
    logits = _run(engine, padded, boxes, tile_batch, progress)
    ring: SlabRing | None = None
    for column in columns:
        for box, tile in zip(column.tiles, logits):  # noqa: B905 # as many as the column has
            tile = tile.to(ring_device or tile.device)  # noqa: PLW2901
            ring = ring or SlabRing(tile, grid, num_maps=engine.num_maps, counted=counted)
            ring.add(box, tile)
        for slab in ring.finish(column) if ring else ():
            if seen := slab.within(inside):
                yield seen


def _holding(wanted: Bool[Tensor, "*spatial"], columns: Sequence[Column]) -> list[Column]:
    """Leave out the tiles that hold no voxel of a mask."""
    return [
        Column([box for box in column.tiles if wanted[box].any()], column.complete)
        for column in columns
    ]


def _run(
    engine: Engine,
    image: Shaped[Tensor, "C *spatial"],
    boxes: Sequence[Box],
    tile_batch: int,
    progress: Progress | None,
) -> Iterator[Float[Tensor, "L *tile"]]:
    """Give the logits of tiles, one after the other; they are computed in batches."""
    for start in range(0, len(boxes), tile_batch):
        batch = boxes[start : start + tile_batch]
        logits = engine(_gathered(image, batch))
        if progress:
            progress(start + len(batch), len(boxes))
        yield from logits


def _joined(
    parts: Iterable[tuple[Box, Tensor]], shape: Sequence[int], *, out: Tensor | None = None
) -> Tensor:
    """Put parts into their places of a whole, whose other axes and dtype are theirs."""
    for box, part in parts:
        before = part.ndim - len(shape)
        whole_shape = (*part.shape[:before], *shape)
        if out is None:
            out = part.new_empty(whole_shape)
        if out.shape != whole_shape:
            raise GridError(f"the result has shape {whole_shape}, got out of {tuple(out.shape)}")
        out[(*[slice(None)] * before, *box)] = part
    return torch.empty(0) if out is None else out


def _gathered(
    image: Shaped[Tensor, "C *spatial"], boxes: Sequence[Box]
) -> Shaped[Tensor, "B C *tile"]:
    """Copy tiles out of an image: a network may write into what it is given."""
    return torch.stack([image[(slice(None), *box)] for box in boxes])


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
