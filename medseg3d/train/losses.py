"""What training minimises."""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from operator import mul

from jaxtyping import Float, Int64
from monai.losses import DiceCELoss
from torch import Tensor, nn
from torch.nn.functional import interpolate


class SegmentationLoss(nn.Module):
    """Dice plus cross-entropy (MONAI), over one output or several of falling resolution.

    Dice leaves the background out and is taken over the whole batch, as nnU-Net does. With deep
    supervision, fine to coarse, each output that is coarser than the one before counts half as much
    as that, and outputs of one size (UNet++) count the same; all is scaled to sum 1. Each is taken
    against the labels at its own resolution (nearest voxel).
    """

    def __init__(self) -> None:
        """Set up the terms."""
        super().__init__()
        self.dice_ce = DiceCELoss(
            softmax=True, to_onehot_y=True, include_background=False, batch=True
        )

    def forward(
        self,
        logits: Float[Tensor, "B L *spatial"] | Sequence[Tensor],
        channels: Int64[Tensor, "B *spatial"],
    ) -> Float[Tensor, ""]:
        """Give the loss of logits against the true output channel of each voxel."""
        outputs = [logits] if isinstance(logits, Tensor) else logits
        steps = [0.5 if a.shape != b.shape else 1.0 for a, b in pairwise(outputs)]
        weights = [*accumulate([1.0, *steps], mul)]
        target = channels[:, None].float()
        losses = [
            weight * self.dice_ce(output.float(), _at_size(target, output))
            for weight, output in zip(weights, outputs, strict=True)
        ]
        total: Tensor = sum(losses[1:], start=losses[0])
        return total / sum(weights)


def _at_size(target: Tensor, output: Tensor) -> Tensor:
    if target.shape[2:] == output.shape[2:]:
        return target
    return interpolate(target, size=output.shape[2:], mode="nearest-exact")
