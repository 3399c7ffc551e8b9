"""Whole images through a network that sees one tile at a time."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Float32, Integer
from torch import Tensor, nn
from torch.nn.functional import pad

from medseg3d.errors import ConfigError, GridError
from medseg3d.predict.tiles import gaussian_weight, plan_tiles, require_divisible

Progress = Callable[[int, int], None]
"""Called after each batch of tiles with the number done and the number in all."""


@torch.inference_mode()
def predict_logits(
    net: nn.Module,
    image: Float[Tensor, "C *spatial"],
    *,
    tile_size: Sequence[int],
    overlap: float = 0.5,
    tile_batch: int = 1,
    progress: Progress | None = None,
) -> Float32[Tensor, "L *spatial"]:
    """Predict an image of any size, 2D or 3D, tile by tile.

    Where the image is smaller than a tile its outermost voxels are repeated on both sides and the
    result is cropped again. Tiles are blended by a Gaussian in float32; the result does not depend
    on `tile_batch`. `net` must be in eval mode; it runs where its weights are, and the sum is kept
    there. The image is not changed.

    Raises:
        ConfigError: `net` is in training mode.
        GridError: `tile_size` has not one number per spatial axis, or is no multiple of the
            network's divisor.
    """
    if net.training:
        raise ConfigError("the network is in training mode, expected eval mode; call net.eval()")
    tile_size = _checked_tile(net, image, tile_size)
    device = next((p.device for p in net.parameters()), image.device)
    margins = [_margin(n, t) for n, t in zip(image.shape[1:], tile_size, strict=True)]
    padded = _replicate(image.to(device), margins)
    tiles = [*plan_tiles(padded.shape[1:], tile_size, overlap=overlap)]
    weight = _tile_weight(tile_size).to(device)
    total = torch.zeros(padded.shape[1:], device=device)
    for box in tiles:
        total[box] += weight
    logits = torch.empty(0)
    for first in range(0, len(tiles), tile_batch):
        boxes = tiles[first : first + tile_batch]
        predicted = net(torch.stack([padded[(slice(None), *box)] for box in boxes]))
        if logits.numel() == 0:
            logits = torch.zeros((predicted.shape[1], *padded.shape[1:]), device=device)
        for box, tile in zip(boxes, predicted, strict=True):
            logits[(slice(None), *box)] += tile.float() * weight
        if progress:
            progress(first + len(boxes), len(tiles))
    inside = [slice(a, a + n) for (a, _), n in zip(margins, image.shape[1:], strict=True)]
    logits /= total
    return logits[(slice(None), *inside)]


def predict_labels(
    net: nn.Module,
    image: Float[Tensor, "C *spatial"],
    *,
    tile_size: Sequence[int],
    overlap: float = 0.5,
    tile_batch: int = 1,
    progress: Progress | None = None,
) -> Integer[Tensor, "*spatial"]:
    """Give each voxel the output channel with the largest logit; else as `predict_logits`."""
    logits = predict_logits(
        net, image, tile_size=tile_size, overlap=overlap, tile_batch=tile_batch, progress=progress
    )
    return logits.argmax(0).to(torch.uint8 if len(logits) <= 256 else torch.int32)


def _checked_tile(net: nn.Module, image: Tensor, tile_size: Sequence[int]) -> tuple[int, ...]:
    dims = image.ndim - 1
    if len(tile_size) != dims:
        raise GridError(
            f"the image has {dims} spatial axes, tile_size {tuple(tile_size)} has {len(tile_size)}"
        )
    require_divisible(tile_size, getattr(net, "divisor", (1,) * dims), name="tile_size")
    return tuple(tile_size)


def _margin(length: int, tile: int) -> tuple[int, int]:
    missing = max(tile - length, 0)
    return missing // 2, missing - missing // 2


def _replicate(image: Tensor, margins: Sequence[tuple[int, int]]) -> Tensor:
    if not any(map(any, margins)):
        return image
    flat = [n for margin in reversed(margins) for n in margin]
    return pad(image[None], flat, mode="replicate")[0]


def _tile_weight(tile_size: Sequence[int]) -> Tensor:
    weight = torch.ones(())
    for length in tile_size:
        weight = weight[..., None] * torch.from_numpy(gaussian_weight(length))
    return weight
