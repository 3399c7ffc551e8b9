"""Dice plus cross-entropy, computed by hand."""

import pytest
import torch

from medseg3d.train.losses import SegmentationLoss


def by_hand(logits: torch.Tensor, channels: torch.Tensor) -> float:
    """Give 1 - mean soft Dice of the labels over the whole batch, plus cross-entropy."""
    probs = logits.double().softmax(1)
    cross_entropy = -probs.gather(1, channels[:, None]).log().mean()
    dice = []
    for label in range(1, logits.shape[1]):
        share, truth = probs[:, label], (channels == label).double()
        dice.append((2 * (share * truth).sum() + 1e-5) / (share.sum() + truth.sum() + 1e-5))
    return float(1 - sum(dice) / len(dice) + cross_entropy)


@pytest.fixture
def logits() -> torch.Tensor:
    return torch.randn(2, 3, 8, 6, 4, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def channels() -> torch.Tensor:
    return torch.randint(0, 3, (2, 8, 6, 4), generator=torch.Generator().manual_seed(1))


def test_one_output_costs_dice_plus_cross_entropy(
    logits: torch.Tensor, channels: torch.Tensor
) -> None:
    loss = SegmentationLoss()(logits, channels)

    assert float(loss) == pytest.approx(by_hand(logits, channels), rel=1e-5)


def test_deep_outputs_count_half_as_much_each_against_labels_of_their_size(
    logits: torch.Tensor, channels: torch.Tensor
) -> None:
    coarse = logits[:, :, 1::2, 1::2, 1::2].contiguous()

    loss = SegmentationLoss()([logits, coarse], channels)

    fine = by_hand(logits, channels)
    expected = (fine + 0.5 * by_hand(coarse, channels[:, 1::2, 1::2, 1::2])) / 1.5
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_a_sure_and_right_answer_costs_nothing(channels: torch.Tensor) -> None:
    sure = 50.0 * torch.nn.functional.one_hot(channels, 3).movedim(-1, 1).float()

    assert float(SegmentationLoss()(sure, channels)) == pytest.approx(0, abs=1e-5)


def test_deep_outputs_of_one_size_count_the_same(
    logits: torch.Tensor, channels: torch.Tensor
) -> None:
    other, coarse = -logits, logits[:, :, 1::2, 1::2, 1::2].contiguous()

    loss = SegmentationLoss()([logits, other, coarse], channels)

    fine = by_hand(logits, channels) + by_hand(other, channels)
    expected = (fine + 0.5 * by_hand(coarse, channels[:, 1::2, 1::2, 1::2])) / 2.5
    assert float(loss) == pytest.approx(expected, rel=1e-5)
