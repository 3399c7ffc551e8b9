"""What training minimises, against definitions by hand and MONAI, alone and in two processes."""

import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from safetensors.torch import load_file
from torch.nn.functional import interpolate

from medseg3d.config.loss import LossConfig
from medseg3d.labels import IGNORED, LabelScheme
from medseg3d.train.losses import SegmentationLoss, _at_size, build_loss

BALLS = LabelScheme(values={1: "shell", 5: "core"})
BRATS = LabelScheme(
    values={1: "necrosis", 2: "oedema", 4: "enhancing"},
    regions={"ET": (4,), "WT": (1, 2, 4), "TC": (1, 4)},
)
MASKS_OF_CHANNEL = [(0, 0, 0), (0, 1, 1), (0, 1, 0), (1, 1, 1)]
"""Output channel of a value of BRATS -> whether it is in ET, WT and TC."""


def build(
    labels: LabelScheme = BALLS, outputs: str = "values", ignore: int | None = None, **knobs: object
) -> SegmentationLoss:
    labels = labels.model_copy(update={"ignore": ignore})
    return build_loss(LossConfig(**knobs), labels, outputs=outputs)


def by_hand(logits: torch.Tensor, channels: torch.Tensor) -> float:
    """Give 1 - mean soft Dice of the labels over the whole batch, plus cross-entropy."""
    probs = logits.double().softmax(1)
    cross_entropy = -probs.gather(1, channels[:, None]).log().mean()
    dice = []
    for label in range(1, logits.shape[1]):
        share, truth = probs[:, label], (channels == label).double()
        dice.append((2 * (share * truth).sum() + 1e-5) / (share.sum() + truth.sum() + 1e-5))
    return float(1 - sum(dice) / len(dice) + cross_entropy)


def masks_of(channels: torch.Tensor) -> torch.Tensor:
    return torch.tensor(MASKS_OF_CHANNEL)[channels].movedim(-1, 1).float()


def gradient(loss: torch.nn.Module, logits: torch.Tensor, *truth: torch.Tensor) -> torch.Tensor:
    leaf = logits.clone().requires_grad_()
    loss(leaf, *truth).backward()
    assert leaf.grad is not None
    return leaf.grad


@pytest.fixture
def logits() -> torch.Tensor:
    return torch.randn(2, 3, 8, 6, 4, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def channels() -> torch.Tensor:
    return torch.randint(0, 3, (2, 8, 6, 4), generator=torch.Generator().manual_seed(1))


def test_one_output_costs_dice_plus_cross_entropy(
    logits: torch.Tensor, channels: torch.Tensor
) -> None:
    assert float(build()(logits, channels)) == pytest.approx(by_hand(logits, channels), rel=1e-5)


def test_deep_outputs_count_half_as_much_each_against_labels_of_their_size(
    logits: torch.Tensor, channels: torch.Tensor
) -> None:
    coarse = logits[:, :, 1::2, 1::2, 1::2].contiguous()

    loss = build()([logits, coarse], channels)

    fine = by_hand(logits, channels)
    expected = (fine + 0.5 * by_hand(coarse, channels[:, 1::2, 1::2, 1::2])) / 1.5
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_deep_outputs_of_one_size_count_the_same(
    logits: torch.Tensor, channels: torch.Tensor
) -> None:
    other, coarse = -logits, logits[:, :, 1::2, 1::2, 1::2].contiguous()

    loss = build()([logits, other, coarse], channels)

    fine = by_hand(logits, channels) + by_hand(other, channels)
    expected = (fine + 0.5 * by_hand(coarse, channels[:, 1::2, 1::2, 1::2])) / 2.5
    assert float(loss) == pytest.approx(expected, rel=1e-5)


@settings(deadline=None, max_examples=20)
@given(size=st.tuples(*[st.integers(1, 9)] * 3))
def test_labels_shrink_to_the_nearest_voxel_ignored_ones_too(size: tuple[int, int, int]) -> None:
    channels = torch.randint(0, 256, (2, 9, 8, 7))

    small = _at_size(channels, torch.Size(size))

    exact = interpolate(channels[:, None].double(), size=size, mode="nearest-exact")[:, 0]
    assert torch.equal(small, exact.long())


def test_regions_overlap_and_have_a_sigmoid_each() -> None:
    logits = torch.tensor([0.0, 2.0, -1.0, 1.0]).reshape(1, 1, 4).repeat(1, 3, 1)
    logits[0, 2] = 0  # TC is not sure of anything
    channels = torch.tensor([[0, 3, 2, 1]])  # nothing; all three; WT; WT and TC
    p = [0.5, 0.880797, 0.268941, 0.731059]
    et = 2 * p[1] / (sum(p) + 1)
    wt = 2 * (p[1] + p[2] + p[3]) / (sum(p) + 3)
    tc = 2 * (0.5 + 0.5) / (2 + 2)
    half = 0.693147
    log_et = half + 0.126928 + 0.313262 + 1.313262  # only the second voxel is in it
    log_wt = half + 0.126928 + 1.313262 + 0.313262  # all but the first are

    dice = build(BRATS, "regions", voxel_term="none")(logits, channels)
    cross_entropy = build(BRATS, "regions", region_term="none")(logits, channels)

    assert float(dice) == pytest.approx(1 - (et + wt + tc) / 3, abs=1e-5)
    assert float(cross_entropy) == pytest.approx((log_et + log_wt + 4 * half) / 12, abs=1e-5)


def test_a_sure_and_right_answer_costs_nothing(channels: torch.Tensor) -> None:
    sure = 50.0 * torch.nn.functional.one_hot(channels, 3).movedim(-1, 1).float()
    of_regions = 100.0 * masks_of(channels) - 50

    assert float(build()(sure, channels)) == pytest.approx(0, abs=1e-5)
    assert float(build(BRATS, "regions")(of_regions, channels)) == pytest.approx(0, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("per_batch", [True, False])
class TestAgainstMonai:
    @pytest.fixture
    def monai(self) -> ModuleType:
        return import_module("monai.losses")  # takes seconds

    def assert_same(
        self, own: torch.nn.Module, other: torch.nn.Module, *, logits: torch.Tensor, truth: object
    ) -> None:
        channels, masks = truth
        assert float(own(logits, channels)) == pytest.approx(float(other(logits, masks)), abs=1e-6)
        difference = gradient(own, logits, channels) - gradient(other, logits, masks)
        assert difference.abs().max() < 1e-6

    def test_dice_and_cross_entropy_of_values(
        self, monai: ModuleType, logits: torch.Tensor, channels: torch.Tensor, per_batch: bool
    ) -> None:
        other = monai.DiceCELoss(
            softmax=True,
            to_onehot_y=True,
            include_background=False,
            batch=per_batch,
            lambda_dice=0.7,
            lambda_ce=1.3,
        )
        own = build(per_batch=per_batch, region_weight=0.7, voxel_weight=1.3)
        self.assert_same(own, other, logits=logits, truth=(channels, channels[:, None].float()))

    def test_dice_and_focal_of_values(
        self, monai: ModuleType, logits: torch.Tensor, channels: torch.Tensor, per_batch: bool
    ) -> None:
        kind = {"to_onehot_y": True}
        dice = monai.DiceLoss(softmax=True, include_background=False, batch=per_batch, **kind)
        focal = monai.FocalLoss(use_softmax=True, gamma=2.0, **kind)
        own = build(per_batch=per_batch, voxel_term="focal")

        def other(given: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
            return dice(given, truth) + 3 * focal(given, truth)  # MONAI's mean is over channels too

        self.assert_same(own, other, logits=logits, truth=(channels, channels[:, None].float()))

    def test_dice_and_focal_of_regions(
        self, monai: ModuleType, logits: torch.Tensor, channels: torch.Tensor, per_batch: bool
    ) -> None:
        own = build(BRATS, "regions", per_batch=per_batch, voxel_term="focal")
        other = monai.DiceFocalLoss(sigmoid=True, batch=per_batch, gamma=2.0)
        self.assert_same(own, other, logits=logits, truth=(channels, masks_of(channels)))

    def test_tversky(
        self, monai: ModuleType, logits: torch.Tensor, channels: torch.Tensor, per_batch: bool
    ) -> None:
        knobs = {"region_term": "tversky", "voxel_term": "none", "per_batch": per_batch}
        kind = {"alpha": 0.3, "beta": 0.7, "batch": per_batch, "smooth_nr": 5e-6, "smooth_dr": 5e-6}
        values = monai.TverskyLoss(softmax=True, to_onehot_y=True, include_background=False, **kind)
        truth = channels, channels[:, None].float()
        self.assert_same(build(**knobs), values, logits=logits, truth=truth)
        regions = monai.TverskyLoss(sigmoid=True, **kind)
        own = build(BRATS, "regions", **knobs)
        self.assert_same(own, regions, logits=logits, truth=(channels, masks_of(channels)))


def test_the_mean_of_regions_is_that_of_binary_cross_entropy(
    logits: torch.Tensor, channels: torch.Tensor
) -> None:
    own = build(BRATS, "regions", region_term="none")
    other = torch.nn.BCEWithLogitsLoss()
    masks = masks_of(channels)

    assert float(own(logits, channels)) == pytest.approx(float(other(logits, masks)), abs=1e-6)
    difference = gradient(own, logits, channels) - gradient(other, logits, masks)
    assert difference.abs().max() < 1e-6


@pytest.mark.parametrize("outputs", ["values", "regions"])
@pytest.mark.parametrize("terms", [("dice", "cross_entropy"), ("tversky", "focal")])
def test_gradients_are_those_of_finite_differences(outputs: str, terms: tuple[str, str]) -> None:
    labels = BRATS if outputs == "regions" else BALLS
    loss = build(labels, outputs, 9, region_term=terms[0], voxel_term=terms[1], per_batch=False)
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 3, 2, dtype=torch.float64, requires_grad=True)
    channels = torch.tensor([[[0, 1], [2, IGNORED], [1, 1]], [[0, 0], [0, 0], [2, 1]]])

    assert torch.autograd.gradcheck(lambda x: loss([x, -x[:, :, 1:2]], channels), logits)


@pytest.mark.parametrize("outputs", ["values", "regions"])
@pytest.mark.parametrize("voxel_term", ["cross_entropy", "focal"])
class TestIgnoredVoxels:
    def test_they_count_as_if_they_were_cut_away(
        self, logits: torch.Tensor, channels: torch.Tensor, outputs: str, voxel_term: str
    ) -> None:
        labels = BRATS if outputs == "regions" else BALLS
        partly = channels.clone()
        partly[:, 5:] = IGNORED
        loss = build(labels, outputs, 9, voxel_term=voxel_term)

        found = loss(logits, partly)

        expected = build(labels, outputs, voxel_term=voxel_term)(logits[:, :, :5], channels[:, :5])
        assert float(found) == pytest.approx(float(expected), rel=1e-6)
        slope = gradient(loss, logits, partly)
        assert slope[:, :, :5].abs().min() > 0
        assert not slope[:, :, 5:].any()

    def test_whatever_the_network_says_there(
        self, logits: torch.Tensor, channels: torch.Tensor, outputs: str, voxel_term: str
    ) -> None:
        channels[0, 0] = IGNORED
        loss = build(BRATS if outputs == "regions" else BALLS, outputs, 9, voxel_term=voxel_term)
        before = loss(logits, channels)
        logits[0, :, 0] = float("inf")

        assert torch.equal(loss(logits, channels), before)
        assert gradient(loss, logits, channels).isfinite().all()

    def test_a_batch_of_nothing_else_costs_nothing(
        self, logits: torch.Tensor, outputs: str, voxel_term: str
    ) -> None:
        loss = build(BRATS if outputs == "regions" else BALLS, outputs, 9, voxel_term=voxel_term)
        nothing = torch.full((2, 8, 6, 4), IGNORED)

        assert float(loss(logits, nothing)) == 0
        assert not gradient(loss, logits, nothing).any()


def test_half_precision_neither_overflows_nor_rounds_sums() -> None:
    logits = torch.randn(1, 3, 48, 48, 48).half()
    channels = torch.randint(0, 3, (1, 48, 48, 48))
    far = logits.clone()
    far[:, 0] += 60_000  # cross-entropy of 16 bits would be infinite, its sum as well

    for each in (logits, far):
        loss = build()(each, channels)
        assert loss.dtype == torch.float32
        assert loss.isfinite()
    assert float(build()(logits, channels)) == pytest.approx(by_hand(logits, channels), rel=1e-5)
    assert gradient(build(), far, channels).dtype == torch.float16


def test_memory_order_of_logits_does_not_matter(
    logits: torch.Tensor, channels: torch.Tensor
) -> None:
    last = logits.to(memory_format=torch.channels_last_3d)

    assert torch.equal(build()(last, channels), build()(logits, channels))


def test_a_loss_without_terms_is_refused() -> None:
    for knobs in ({"region_term": "none", "voxel_term": "none"}, {"voxel_weight": 0}):
        with pytest.raises(ValidationError, match="nothing is minimised: region_term or"):
            LossConfig(**{"region_term": "none", **knobs})


@pytest.mark.slow
def test_two_processes_give_loss_and_gradient_of_the_doubled_batch(tmp_path: Path) -> None:
    script = Path(__file__).with_name("half_a_batch.py")
    processes = [
        subprocess.Popen([sys.executable, script, tmp_path, str(rank)], stderr=subprocess.PIPE)
        for rank in (0, 1, -1)
    ]
    said = [process.communicate(timeout=120)[1].decode() for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], said

    first, second, whole = (load_file(tmp_path / f"{rank}.safetensors") for rank in (0, 1, -1))

    assert len(whole) == 4 * 2 * 2 * 2 * 5
    for name, expected in whole.items():
        for half in (first, second):
            assert torch.allclose(half[name], expected, rtol=0, atol=1e-6), name
