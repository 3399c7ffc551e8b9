"""Plan, read, resample, recolour: the first two where files are read, the others on the device."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64, Integer
from torch import Tensor

from medseg3d.arrays import TripleInt
from medseg3d.config.augment import AugmentConfig
from medseg3d.data.augment.intensity import change_image
from medseg3d.data.augment.plan import Plan, draw_plan
from medseg3d.data.augment.spatial import move_patch
from medseg3d.data.store import StoredCase


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """The part of a case that a patch is made of, and how."""

    image_CIJK: Float32[Tensor, "C X Y Z"]
    channels_IJK: Integer[Tensor, "X Y Z"]
    centre: Float64[np.ndarray, " 3"]
    """Of the patch, in voxels of that part."""
    size: tuple[int, ...]
    """Of the patch; two numbers make it a slice."""
    plan: Plan

    def pin_memory(self) -> "Sample":
        """Copy voxels to where a GPU fetches them from by itself; `DataLoader` asks for it."""
        return replace(
            self,
            image_CIJK=self.image_CIJK.pin_memory(),
            channels_IJK=self.channels_IJK.pin_memory(),
        )


def read_sample(
    rng: np.random.Generator,
    case: StoredCase,
    start_IJK: TripleInt,
    *,
    size: tuple[int, ...],
    config: AugmentConfig,
) -> Sample:
    """Draw what shall happen to the patch that begins at `start_IJK`, and read what that takes.

    A patch that is not warped is read as it is, with the case's outermost voxels repeated; of one
    that is, the box it comes from, as far as the case goes.
    """
    size_IJK = whole_size(size)
    plan = draw_plan(
        rng,
        config,
        size_IJK=size_IJK,
        spacing_mm=case.spacing_mm,
        num_channels=case.num_channels,
    )
    first, last = np.array(start_IJK), np.array(start_IJK) + size_IJK - 1
    middle = (first + last) / 2
    if plan.warp:
        low, high = middle + plan.warp.reach(size_IJK)
        end = np.array(case.shape_IJK) - 1
        first, last = np.clip(np.floor(low), 0, end), np.clip(np.ceil(high), 0, end)
    patch = case.read(_triple(first), _triple(last - first + 1))
    image, channels = torch.from_numpy(patch.image_CIJK), torch.from_numpy(patch.channels_IJK)
    return Sample(image, channels, middle - first, size, plan)


def augment_batch(
    samples: Sequence[Sample], device: torch.device
) -> tuple[Float32[Tensor, "B C *spatial"], Int64[Tensor, "B *spatial"]]:
    """Make patches of what was read, on a device: image and output channels."""
    moved = [
        move_patch(
            sample.image_CIJK.to(device, non_blocking=True),
            sample.channels_IJK.to(device, non_blocking=True),
            sample.plan,
            centre=sample.centre,
            size_IJK=whole_size(sample.size),
        )
        for sample in samples
    ]
    image = torch.stack([image for image, _ in moved])
    channels = torch.stack([channels for _, channels in moved]).long()
    if len(samples[0].size) == 2:
        image, channels = image[..., 0], channels[..., 0]
    for patch, sample in zip(image, samples, strict=True):
        change_image(patch, sample.plan.changes)
    return image, channels


def whole_size(size: tuple[int, ...]) -> TripleInt:
    """Give a patch's size along all three axes."""
    size_i, size_j, *size_k = size
    return size_i, size_j, size_k[0] if size_k else 1


def _triple(array: np.ndarray) -> TripleInt:
    i, j, k = array.astype(int).tolist()
    return i, j, k
