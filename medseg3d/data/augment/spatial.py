"""One resampling for all changes of place: image and labels move together."""

from itertools import product
from math import gcd

import numpy as np
import torch
from jaxtyping import Bool, Float32, Float64, Integer
from torch import Tensor
from torch.nn.functional import grid_sample

from medseg3d.arrays import TripleInt
from medseg3d.data.augment.plan import Plan, Warp


def move_patch(
    image_CIJK: Float32[Tensor, "C X Y Z"],
    channels_IJK: Integer[Tensor, "X Y Z"],
    plan: Plan,
    *,
    centre: Float64[np.ndarray, " 3"],
    size_IJK: TripleInt,
) -> tuple[Float32[Tensor, "C I J K"], Integer[Tensor, "I J K"]]:
    """Take a patch out of a box, warped and flipped; `centre` is the patch's place in the box.

    Images are interpolated linearly, and so is each label's map; the highest wins, so that no label
    is made up. Beyond the box its outermost voxels are repeated.
    """
    if plan.warp is None:
        axes = plan.mirrored
        return image_CIJK.flip([axis + 1 for axis in axes]), channels_IJK.flip(axes)
    offsets = [
        (np.arange(size) - (size - 1) / 2) * (-1 if axis in plan.mirrored else 1)
        for axis, size in enumerate(size_IJK)
    ]
    box = np.array(channels_IJK.shape)
    grid_IJK = source_grid(plan.warp, offsets, centre=centre, box=box, device=image_CIJK.device)
    return sample_linear(image_CIJK, grid_IJK), sample_labels(channels_IJK, grid_IJK)


def source_grid(
    warp: Warp,
    offsets: list[Float64[np.ndarray, " _"]],
    *,
    centre: Float64[np.ndarray, " 3"],
    box: Integer[np.ndarray, " 3"],
    device: torch.device,
) -> Float32[Tensor, "I J K 3"]:
    """Give from where in the box each voxel of a patch is taken, as `grid_sample` wants it.

    That is in half-widths of the box, from its middle, along the last axis first.
    """

    def on_device(array: np.ndarray) -> Tensor:
        return torch.from_numpy(array.astype(np.float32)).to(device, non_blocking=True)

    half = box / 2
    matrix, middle = warp.matrix / half[:, np.newaxis], (centre + 0.5) / half - 1
    i, j, k = (on_device(np.outer(matrix[::-1, a], offset)) for a, offset in enumerate(offsets))
    i += on_device(middle[::-1])[:, None]
    grid: Tensor = (i[:, :, None] + j[:, None])[..., None] + k[:, None, None]
    if warp.bend:
        heights = on_device((warp.bend.heights / half.reshape(3, 1, 1, 1))[::-1])
        weights = [on_device(warp.bend.weights(axis, o)) for axis, o in enumerate(offsets)]
        grid += torch.einsum("dpqr,ip,jq,kr->dijk", heights, *weights)
    return grid.permute(1, 2, 3, 0)


def sample_linear(
    image_CIJK: Float32[Tensor, "C X Y Z"], grid_IJK: Float32[Tensor, "I J K 3"]
) -> Float32[Tensor, "C I J K"]:
    """Interpolate between the eight voxels around each place."""
    # on a CPU, grid_sample gives the members of a batch to threads, not the voxels of one
    slabs = gcd(len(grid_IJK), torch.get_num_threads())
    sampled_SCIJK = grid_sample(
        image_CIJK.expand(slabs, -1, -1, -1, -1),
        grid_IJK.reshape(slabs, -1, *grid_IJK.shape[1:]),
        padding_mode="border",
        align_corners=False,
    )
    return sampled_SCIJK.transpose(0, 1).flatten(1, 2)


def sample_labels(
    channels_IJK: Integer[Tensor, "X Y Z"], grid_IJK: Float32[Tensor, "I J K 3"]
) -> Integer[Tensor, "I J K"]:
    """Take the label that weighs most among the eight voxels around each place.

    That is the one whose own map, interpolated linearly, is highest there. Most places lie among
    voxels that are all alike; only the others are looked at closely.
    """
    shape = channels_IJK.shape
    steps = shape[1] * shape[2], shape[2], 1
    places = [
        ((grid_IJK[..., 2 - axis] + (1 - 1 / size)) * (size / 2)).clamp_(0, size - 1).flatten()
        for axis, size in enumerate(shape)
    ]
    lows = [place.long() for place in places]
    index = (lows[0] * steps[0]).add_(lows[1] * steps[1]).add_(lows[2])
    labels = channels_IJK.take(index)
    unsure = _unlike_neighbours(channels_IJK).take(index).nonzero()[:, 0]
    sides = []  # along each axis, how far on the voxels before and after lie, and their weights
    for size, step, place, low in zip(shape, steps, places, lows, strict=True):
        first = low[unsure]
        share = place[unsure] - first
        sides.append([(first * 0, 1 - share), ((first < size - 1) * step, share)])
    corners = [*product(*sides)]
    start = index[unsure]
    around = torch.stack(
        [channels_IJK.take(start + i + j + k) for (i, _), (j, _), (k, _) in corners]
    )
    weights = torch.stack([i * j * k for (_, i), (_, j), (_, k) in corners])
    best, most = around[0], torch.zeros_like(weights[0])
    for label in around:
        votes = (weights * (around == label)).sum(0)
        best, most = torch.where(votes > most, label, best), most.maximum(votes)
    labels[unsure] = best
    return labels.view(grid_IJK.shape[:3])


def _unlike_neighbours(channels_IJK: Integer[Tensor, "X Y Z"]) -> Bool[Tensor, "X Y Z"]:
    """Tell which voxels are not like the seven after them."""
    least, most = channels_IJK.clone(), channels_IJK.clone()
    for axis, size in enumerate(channels_IJK.shape):
        for extreme, choose in ((least, torch.minimum), (most, torch.maximum)):
            here, after = extreme.narrow(axis, 0, size - 1), extreme.narrow(axis, 1, size - 1)
            here.copy_(choose(here, after))
    return least != most
