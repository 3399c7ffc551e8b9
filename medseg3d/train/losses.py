"""What training minimises: a term that compares regions plus one that compares voxels.

Written here because MONAI's losses leave no voxel out, know nothing of other processes, and take
one softmax over regions that overlap.
"""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from operator import mul
from typing import Any, Final

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, distributed, nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn.functional import binary_cross_entropy_with_logits, interpolate, pad

from medseg3d.config.loss import LossConfig
from medseg3d.config.run import Outputs
from medseg3d.labels import IGNORED, LabelScheme

SMOOTHING: Final = 5e-6
"""Makes nothing agree with nothing. Dice counts what is shared twice, so there it is 1e-5."""

SURE: Final = 1e4
"""A logit at which softmax and sigmoid are 0 and 1 to the last bit, in 64 bits too."""


def build_loss(config: LossConfig, labels: LabelScheme, *, outputs: Outputs) -> "SegmentationLoss":
    """Build the loss of a network whose channels are the values or the regions of `labels`."""
    table_RL = None
    if outputs == "regions":
        rows = [[v in values for v in labels.channel_values] for values in labels.regions.values()]
        table_RL = torch.tensor(rows)
    return SegmentationLoss(config, table_RL=table_RL, ignores=labels.ignore is not None)


class SegmentationLoss(nn.Module):
    """Region and voxel term, over one output or several of falling resolution.

    Of values, the softmax is compared, and the background is no region; of regions, which may
    overlap, a sigmoid each. Ignored voxels count nowhere, and sums have 32 bits at least.

    With deep supervision, fine to coarse, each output that is coarser than the one before counts
    half as much as that, and outputs of one size (UNet++) count the same; all is scaled to sum 1.
    Each is taken against the labels at its own resolution (nearest voxel).

    Processes that train together have as many patches each. Each gives the loss of the batch that
    is theirs together; the mean over processes of the gradients is that batch's gradient.
    """

    table_RL: Tensor | None

    def __init__(
        self, config: LossConfig, *, table_RL: Bool[Tensor, "R L"] | None, ignores: bool
    ) -> None:
        """Compare regions, of which `table_RL` tells the channels, or the channels themselves."""
        super().__init__()
        self.config = config
        self.ignores = ignores
        self.register_buffer("table_RL", table_RL, persistent=False)

    def forward(
        self,
        logits: Float[Tensor, "B L *spatial"] | Sequence[Tensor],
        channels: Int64[Tensor, "B *spatial"],
    ) -> Float[Tensor, ""]:
        """Give the loss of logits against each voxel's channel of values, or `IGNORED`."""
        outputs = [logits] if isinstance(logits, Tensor) else logits
        steps = [0.5 if a.shape != b.shape else 1.0 for a, b in pairwise(outputs)]
        weights = [*accumulate([1.0, *steps], mul)]
        channels_at = {size: _at_size(channels, size) for size in {o.shape[2:] for o in outputs}}
        losses = [
            weight * self._compare(output, channels_at[output.shape[2:]].flatten(1))
            for weight, output in zip(weights, outputs, strict=True)
        ]
        total: Tensor = sum(losses[1:], start=losses[0])
        return total / sum(weights)

    def _compare(
        self, logits: Float[Tensor, "B L *spatial"], channels_BN: Int64[Tensor, "B N"]
    ) -> Float[Tensor, ""]:
        precision = torch.promote_types(logits.dtype, torch.float32)  # 16 bits overflow
        logits_BLN = logits.to(precision, memory_format=torch.contiguous_format).flatten(2)
        num_counted = logits_BLN.new_full((), channels_BN.numel())
        if self.ignores:
            counted_BN = channels_BN != IGNORED
            channels_BN = channels_BN.where(counted_BN, 0)
            logits_BLN = logits_BLN.where(counted_BN[:, None], self._background(logits_BLN))
            num_counted = counted_BN.sum().to(precision)
        if self.table_RL is None:
            sums_3BR, log_probs = _CompareValues.apply(  # type: ignore[no-untyped-call]
                logits_BLN, channels_BN
            )
        else:
            truth_BRN = self.table_RL[:, channels_BN].movedim(0, 1).to(precision)
            sums_3BR, log_probs = _compare_regions(logits_BLN, truth_BRN)
            num_counted = num_counted * len(self.table_RL)
        config = self.config
        loss = logits_BLN.new_zeros(())
        if config.region_term != "none":
            loss = loss + config.region_weight * self._region_term(sums_3BR)
        if config.voxel_term != "none":
            loss = loss + config.voxel_weight * self._voxel_term(log_probs, num_counted)
        return loss

    def _background(self, logits_BLN: Float[Tensor, "B L N"]) -> Float[Tensor, "1 L 1"]:
        """Give the logits that say so for sure: right of an ignored voxel, and no region's."""
        logits_1L1 = logits_BLN.new_full((1, logits_BLN.shape[1], 1), -SURE)
        if self.table_RL is None:
            logits_1L1[:, 0] = SURE
        return logits_1L1

    def _region_term(self, sums_3BR: Float[Tensor, "3 B R"]) -> Float[Tensor, ""]:
        """Give 1 - the mean Tversky index (Salehi et al. 2017), of which Dice is the even one."""
        config = self.config
        if config.per_batch:
            sums_3BR = _sum_over_processes(sums_3BR.sum(1, keepdim=True))
        shared, predicted, reference = sums_3BR
        positives, negatives = 0.5, 0.5
        if config.region_term == "tversky":
            positives, negatives = config.tversky_false_positives, config.tversky_false_negatives
        wrong = positives * (predicted - shared) + negatives * (reference - shared)
        overlap = (shared + SMOOTHING) / (shared + wrong + SMOOTHING)
        return _mean((1 - overlap).sum(), overlap.new_full((), overlap.numel()))

    def _voxel_term(
        self, log_probs: Float[Tensor, "B *RN"], num_counted: Float[Tensor, ""]
    ) -> Float[Tensor, ""]:
        """Give the mean -log p of the truth, for focal (Lin et al. 2017) times (1 - p)^gamma."""
        if self.config.voxel_term == "focal":
            log_probs = log_probs * (-torch.expm1(log_probs)) ** self.config.focal_gamma
        return _mean(-log_probs.sum(), num_counted)


class _CompareValues(torch.autograd.Function):
    """The sums of a softmax, and log p of the truth, with its probabilities held but once.

    The sums are what is shared, predicted and in the reference, per patch and channel but the
    background's. No voxel's p counts as less than 32 bits can tell, about 1e-38.
    """

    @staticmethod
    def forward(
        ctx: FunctionCtx, logits_BLN: Tensor, channels_BN: Tensor
    ) -> tuple[Float[Tensor, "3 B R"], Float[Tensor, "B N"]]:
        probs_BLN = logits_BLN.softmax(1)
        right_BN = probs_BLN.gather(1, channels_BN[:, None])[:, 0]
        ctx.save_for_backward(probs_BLN, channels_BN, right_BN)
        masks = [channels_BN == channel for channel in range(1, logits_BLN.shape[1])]
        shared = torch.stack([(right_BN * mask).sum(-1) for mask in masks], -1)
        reference = torch.stack([mask.sum(-1) for mask in masks], -1)
        sums_3BR = torch.stack([shared, probs_BLN.sum(-1)[:, 1:], reference])
        return sums_3BR, right_BN.clamp(min=torch.finfo(right_BN.dtype).tiny).log()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, to_sums_3BR: Tensor, to_log_BN: Tensor) -> tuple[Tensor, None]:
        probs_BLN, channels_BN, right_BN = ctx.saved_tensors
        to_shared_BL, to_predicted_BL, _ = pad(to_sums_3BR, (1, 0))
        to_truth_BN = to_log_BN + to_shared_BL.gather(1, channels_BN) * right_BN
        gradient_BLN = probs_BLN * to_predicted_BL[..., None]
        mean_BN = gradient_BLN.sum(1) + to_truth_BN
        gradient_BLN.addcmul_(probs_BLN, mean_BN[:, None], value=-1)
        return gradient_BLN.scatter_add_(1, channels_BN[:, None], to_truth_BN[:, None]), None


def _compare_regions(
    logits_BRN: Float[Tensor, "B R N"], truth_BRN: Float[Tensor, "B R N"]
) -> tuple[Float[Tensor, "3 B R"], Float[Tensor, "B R N"]]:
    """Give the like of regions that may overlap: a sigmoid each."""
    probs_BRN = logits_BRN.sigmoid()
    shared = (probs_BRN * truth_BRN).sum(-1)
    sums_3BR = torch.stack([shared, probs_BRN.sum(-1), truth_BRN.sum(-1)])
    return sums_3BR, -binary_cross_entropy_with_logits(logits_BRN, truth_BRN, reduction="none")


class _SumOverProcesses(torch.autograd.Function):
    """A sum that each process's loss is made of; as gradients are averaged, each counts for all."""

    @staticmethod
    def forward(_ctx: FunctionCtx, part: Tensor) -> Tensor:
        whole = part.clone()
        distributed.all_reduce(whole)
        return whole

    @staticmethod
    @once_differentiable
    def backward(_ctx: FunctionCtx, gradient: Tensor) -> Tensor:
        return gradient * distributed.get_world_size()


def _sum_over_processes(part: Tensor) -> Tensor:
    if not (distributed.is_available() and distributed.is_initialized()):
        return part
    return _SumOverProcesses.apply(part)  # type: ignore[no-untyped-call]


def _mean(total: Float[Tensor, ""], count: Float[Tensor, ""]) -> Float[Tensor, ""]:
    """Divide the total of all processes by their count; of nothing the mean is 0."""
    total, count = _sum_over_processes(torch.stack([total, count]))
    return total / count.clamp(min=1)


def _at_size(channels: Int64[Tensor, "B *spatial"], size: torch.Size) -> Int64[Tensor, "B *small"]:
    if channels.shape[1:] == size:
        return channels
    small = interpolate(channels[:, None].byte(), size=size, mode="nearest-exact")
    return small[:, 0].long()
