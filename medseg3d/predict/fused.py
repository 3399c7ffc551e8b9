"""Instance norm, sum and activation in one pass over memory: Triton kernels for channels-last.

Apart, they read and write each feature eight times; here it is read twice and written once.
"""

from itertools import pairwise
from typing import Final

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor, nn

from medseg3d.nets.blocks import ResidualUnit
from medseg3d.nets.norms import SampleNorm

ELEMENTS: Final = tl.constexpr(4096)
"""What a program works on at a time: rows are voxels, columns channels."""
MOST_COLUMNS: Final = 64
PART_COLUMNS: Final = 4
MOST_PARTS: Final = 1024
"""Sums of one sample that are taken side by side; together with their columns ELEMENTS."""


class FusedNorm(nn.Module):
    """`activation(norm(x) + added)`; a leaky ReLU of slope 0 is a ReLU, of slope 1 none."""

    def __init__(self, norm: SampleNorm, *, slope: float = 1.0) -> None:
        super().__init__()
        affine = torch.stack([norm.weight, norm.bias]) if norm.affine else None
        self.register_buffer("affine", affine)
        self.eps, self.slope = norm.eps, slope

    def forward(
        self, x: Float[Tensor, "B C *spatial"], added: Float[Tensor, "B C *spatial"] | None = None
    ) -> Float[Tensor, "B C *spatial"]:
        """Normalise each channel of each sample; sums are float32, the result is channels-last."""
        last = torch.channels_last if x.ndim == 4 else torch.channels_last_3d
        x = x.contiguous(memory_format=last)
        added = None if added is None else added.contiguous(memory_format=last)
        samples, channels, voxels = *x.shape[:2], x[0, 0].numel()
        columns = min(MOST_COLUMNS, triton.next_power_of_2(channels))
        blocks = triton.cdiv(voxels, ELEMENTS.value // columns)
        parts, groups = min(MOST_PARTS, blocks), triton.cdiv(channels, columns)
        steps = triton.cdiv(blocks, parts)
        sums = x.new_empty((parts, samples, 2, channels), dtype=torch.float32)
        sum_parts[parts, groups, samples](x, sums, voxels, channels, steps, columns)
        settle[triton.cdiv(channels, PART_COLUMNS), samples](
            x, sums, self.affine, parts, voxels, channels, self.eps, PART_COLUMNS
        )
        result = torch.empty_like(x)
        normalise[blocks, groups, samples](
            x, added, result, sums, voxels, channels, self.slope, columns
        )
        return result


class FusedUnit(nn.Module):
    """A residual unit whose last norm, sum and activation are one."""

    def __init__(self, unit: ResidualUnit, norm: FusedNorm) -> None:
        super().__init__()
        self.body, self.shortcut, self.norm = unit.body, unit.shortcut, norm

    def forward(self, features: Float[Tensor, "B C *spatial"]) -> Float[Tensor, "B D *coarser"]:
        """Add what the body makes of the features to what the shortcut does."""
        return self.norm(self.body(features), self.shortcut(features))


def fuse_norms(module: nn.Module) -> nn.Module:
    """Fuse a network's sample norms with what follows them; in place, use what is returned."""
    if isinstance(module, ResidualUnit):
        module = _fuse_sum(module)
    if isinstance(module, nn.Sequential):
        for n, (norm, after) in enumerate(pairwise(module)):
            slope = slope_of(after)
            if isinstance(norm, SampleNorm) and slope is not None:
                module[n], module[n + 1] = FusedNorm(norm, slope=slope), nn.Identity()
    for name, child in module.named_children():
        setattr(module, name, fuse_norms(child))
    return FusedNorm(module) if isinstance(module, SampleNorm) else module


def _fuse_sum(unit: ResidualUnit) -> nn.Module:
    """Take the last norm out of a unit's body, if the sum comes next and can be fused with it."""
    last, slope = unit.body, slope_of(unit.activation)
    while isinstance(last, nn.Sequential) and isinstance(last[-1], nn.Sequential):
        last = last[-1]
    if slope is None or not (isinstance(last, nn.Sequential) and isinstance(last[-1], SampleNorm)):
        return unit
    norm, last[-1] = FusedNorm(last[-1], slope=slope), nn.Identity()
    return FusedUnit(unit, norm)


def slope_of(activation: nn.Module) -> float | None:
    """Give what a leaky ReLU multiplies negative numbers by; of other activations nothing."""
    match activation:
        case nn.LeakyReLU():
            return activation.negative_slope
        case nn.ReLU():
            return 0.0
        case nn.Identity():
            return 1.0
    return None


@triton.jit  # type: ignore[untyped-decorator]
def sum_parts(
    x: tl.tensor,
    sums: tl.tensor,
    voxels: tl.tensor,
    channels: tl.tensor,
    STEPS: tl.constexpr,
    COLUMNS: tl.constexpr,
) -> None:
    """Sum each part's distances from the first voxel, which lose few digits, and their squares."""
    ROWS: tl.constexpr = ELEMENTS // COLUMNS
    part, parts, sample = tl.program_id(0), tl.num_programs(0), tl.program_id(2).to(tl.int64)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = column < channels
    x += sample * voxels * channels + column[None, :]
    first = tl.load(x, mask=inside[None, :], other=0.0).to(tl.float32)
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    squares = tl.zeros((ROWS, COLUMNS), tl.float32)
    for step in range(STEPS):
        row = (part + step * parts) * ROWS + tl.arange(0, ROWS)[:, None].to(tl.int64)
        known = (row < voxels) & inside[None, :]
        value = tl.load(x + row * channels, mask=known, other=0.0).to(tl.float32)
        away = tl.where(known, value - first, 0.0)
        total += away
        squares += away * away
    sums += (part * tl.num_programs(2) + sample) * 2 * channels + column
    tl.store(sums, tl.sum(total, 0), mask=inside)
    tl.store(sums + channels, tl.sum(squares, 0), mask=inside)


@triton.jit  # type: ignore[untyped-decorator]
def settle(
    x: tl.tensor,
    sums: tl.tensor,
    affine: tl.tensor | None,
    parts: tl.tensor,
    voxels: tl.tensor,
    channels: tl.tensor,
    eps: tl.tensor,
    COLUMNS: tl.constexpr,
) -> None:
    """Put in the first part's place what channels are multiplied by, and what is added then."""
    sample, samples = tl.program_id(1).to(tl.int64), tl.num_programs(1)
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    inside = column < channels
    part = tl.arange(0, ELEMENTS // COLUMNS)[:, None]
    known = (part < parts) & inside[None, :]
    sums += sample * 2 * channels + column
    each = sums[None, :] + part * samples * 2 * channels
    away = tl.sum(tl.load(each, mask=known, other=0.0), 0) / voxels
    squares = tl.sum(tl.load(each + channels, mask=known, other=0.0), 0) / voxels
    first = tl.load(x + sample * voxels * channels + column, mask=inside, other=0.0).to(tl.float32)
    scale = 1.0 / tl.sqrt(tl.maximum(squares - away * away, 0.0) + eps)
    shift = -(first + away) * scale
    if affine is not None:
        weight = tl.load(affine + column, mask=inside, other=0.0).to(tl.float32)
        bias = tl.load(affine + channels + column, mask=inside, other=0.0).to(tl.float32)
        scale, shift = weight * scale, weight * shift + bias
    tl.store(sums, scale, mask=inside)
    tl.store(sums + channels, shift, mask=inside)


@triton.jit  # type: ignore[untyped-decorator]
def normalise(
    x: tl.tensor,
    added: tl.tensor | None,
    result: tl.tensor,
    lines: tl.tensor,
    voxels: tl.tensor,
    channels: tl.tensor,
    slope: tl.tensor,
    COLUMNS: tl.constexpr,
) -> None:
    """Multiply and shift a block of voxels, add to it, and multiply what is negative."""
    ROWS: tl.constexpr = ELEMENTS // COLUMNS
    sample = tl.program_id(2).to(tl.int64)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None].to(tl.int64)
    inside = column < channels
    known = inside & (row < voxels)
    lines += sample * 2 * channels + column
    scale = tl.load(lines, mask=inside, other=0.0)
    shift = tl.load(lines + channels, mask=inside, other=0.0)
    at = sample * voxels * channels + row * channels + column
    value = tl.load(x + at, mask=known, other=0.0).to(tl.float32) * scale + shift
    if added is not None:
        value += tl.load(added + at, mask=known, other=0.0).to(tl.float32)
    value = tl.where(value < 0, value * slope, value)
    tl.store(result + at, value.to(result.dtype.element_ty), mask=known)
