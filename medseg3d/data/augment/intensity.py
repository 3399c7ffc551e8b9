"""Random changes of grey values, each in place on one channel of one patch.

What they do is drawn before (`plan`), as plain numbers, so that nothing here waits for the device,
and one channel of a patch is enough work for it.
"""

from collections.abc import Callable, Iterable
from math import exp
from typing import Final, TypeAlias

import torch
from jaxtyping import Float32
from torch import Tensor
from torch.nn.functional import interpolate

from medseg3d.data.augment.plan import Change, Kind

Row: TypeAlias = Float32[Tensor, "*spatial"]

LINEAR: Final = {1: "linear", 2: "bilinear", 3: "trilinear"}

TINY: Final = torch.finfo(torch.float32).tiny


def change_image(image: Float32[Tensor, "C *spatial"], changes: Iterable[Change]) -> None:
    """Make the changes one after the other, in place."""
    for change in changes:
        CHANGES[change.kind](image[change.channel], change)


def add_noise(row: Row, change: Change) -> None:
    """Add Gaussian noise of the standard deviation given."""
    generator = torch.Generator(row.device).manual_seed(change.seed)
    noise = torch.randn(row.shape, generator=generator, device=row.device)
    row.add_(noise, alpha=change.amounts[0])


def blur(row: Row, change: Change) -> None:
    """Convolve with a Gaussian, up to three deviations away; the outermost voxels are repeated."""
    blurred = row
    for axis, (size, sigma) in enumerate(zip(row.shape, change.amounts, strict=False)):
        radius = int(3 * sigma + 0.5)
        weights = [exp(-((n / sigma) ** 2) / 2) for n in range(-radius, radius + 1)]
        places = torch.arange(-radius, size + radius, device=row.device).clamp_(0, size - 1)
        wider = blurred.index_select(axis, places)
        blurred = torch.zeros_like(row)
        for start, weight in enumerate(weights):
            blurred.add_(wider.narrow(axis, start, size), alpha=weight / sum(weights))
    row.copy_(blurred)


def change_brightness(row: Row, change: Change) -> None:
    """Multiply."""
    row.mul_(change.amounts[0])


def change_contrast(row: Row, change: Change) -> None:
    """Multiply the distance from the mean; what leaves the range is cut off."""
    low, high = row.aminmax()
    row.lerp_(row.mean(), 1 - change.amounts[0]).clamp_(low, high)


def lower_resolution(row: Row, change: Change) -> None:
    """Keep a share of the voxels along each axis, the nearest, and interpolate linearly back."""
    kept = [
        max(1, round(size * share)) for size, share in zip(row.shape, change.amounts, strict=False)
    ]
    coarse = interpolate(row[None, None], kept, mode="nearest-exact")
    row.copy_(interpolate(coarse, row.shape, mode=LINEAR[row.ndim], align_corners=False)[0, 0])


def bend_grey_scale(row: Row, change: Change) -> None:
    """Raise to a power, mapped onto 0 to 1; mean and standard deviation stay as they were."""
    low, high = row.aminmax()
    width = (high - low).clamp_min(TINY)
    row.sub_(low).div_(width)
    mean, deviation = row.mean(), row.std(correction=0)
    row.pow_(change.amounts[0])
    factor = deviation / row.std(correction=0).clamp_min(TINY)
    row.sub_(row.mean()).mul_(factor * width).add_(mean * width + low)


def bend_negative(row: Row, change: Change) -> None:
    """Bend the grey scale of the negative."""
    bend_grey_scale(row.neg_(), change)
    row.neg_()


def drop(row: Row, _change: Change) -> None:
    """Set to 0, the mean of a normalised image, as for a channel that is missing."""
    row.zero_()


CHANGES: Final[dict[Kind, Callable[[Row, Change], None]]] = {
    "noise": add_noise,
    "blur": blur,
    "brightness": change_brightness,
    "contrast": change_contrast,
    "low_resolution": lower_resolution,
    "gamma": bend_grey_scale,
    "inverted_gamma": bend_negative,
    "dropout": drop,
}
