"""What training minimises."""

import pytest
import torch
from torch import Tensor

from medseg3d.train.losses import SegmentationLoss


def draw(*lengths: int) -> list[Tensor]:
    """Draw one output of three channels for each length."""
    return [torch.randn(2, 3, length, length) for length in lengths]


@pytest.mark.parametrize(
    ("lengths", "weights"),
    [((16,), [1]), ((16, 8, 4), [4 / 7, 2 / 7, 1 / 7]), ((16, 16, 16, 16), [1 / 4] * 4)],
)
def test_coarser_outputs_count_half_and_equal_ones_the_same(lengths, weights):
    torch.manual_seed(0)
    channels = torch.randint(0, 3, (2, 16, 16))
    outputs, loss = draw(*lengths), SegmentationLoss()
    alone = [
        loss(output, channels[:, :: 16 // n, :: 16 // n])
        for output, n in zip(outputs, lengths, strict=True)
    ]
    expected = sum(weight * one for weight, one in zip(weights, alone, strict=True))
    torch.testing.assert_close(loss(outputs, channels), expected)
