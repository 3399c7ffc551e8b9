"""Changes of grey values, held against formulas in NumPy and SciPy."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch.nn.functional import interpolate

from medseg3d.data.augment.intensity import CHANGES, change_image
from medseg3d.data.augment.plan import Change, Kind


def draw_row(*shape: int, seed: int = 0) -> torch.Tensor:
    row = np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)
    return torch.from_numpy(row * 2 + 1)


def changed(row: torch.Tensor, kind: Kind, *amounts: float, seed: int = 0) -> np.ndarray:
    image = row[None].clone()
    change_image(image, [Change(kind, 0, amounts, seed)])
    return image[0].numpy()


def test_noise_has_the_deviation_asked_for_and_its_seed_decides():
    row = torch.full((40, 40, 40), 3.0)
    noisy = changed(row, "noise", 0.5, seed=4)
    assert noisy.mean() == pytest.approx(3, abs=0.01)
    assert noisy.std() == pytest.approx(0.5, rel=0.01)
    np.testing.assert_array_equal(noisy, changed(row, "noise", 0.5, seed=4))
    assert not np.array_equal(noisy, changed(row, "noise", 0.5, seed=5))


@pytest.mark.parametrize("shape", [(9, 8, 7), (12, 10), (2, 2, 2)])
def test_blur_is_scipys(shape: tuple[int, ...]):
    row, sigmas = draw_row(*shape), (0.5, 1.0, 0.8)
    theirs = gaussian_filter(row.numpy(), sigmas[: row.ndim], mode="nearest", truncate=3.0)
    np.testing.assert_allclose(changed(row, "blur", *sigmas), theirs, atol=1e-5)


def test_brightness_multiplies():
    row = draw_row(5, 6, 7)
    np.testing.assert_allclose(changed(row, "brightness", 1.2), row.numpy() * 1.2, rtol=1e-6)


@pytest.mark.parametrize("factor", [0.7, 1.3])
def test_contrast_moves_values_from_the_mean_within_the_range(factor: float):
    row = draw_row(5, 6, 7)
    values = row.numpy().astype(float)
    expected = (values - values.mean()) * factor + values.mean()
    expected = expected.clip(values.min(), values.max())
    np.testing.assert_allclose(changed(row, "contrast", factor), expected, atol=1e-5)


def test_low_resolution_keeps_every_other_voxel_and_interpolates():
    row = torch.arange(8.0)[:, None, None].expand(8, 4, 4).contiguous()
    coarse = changed(row, "low_resolution", 0.5, 1.0, 1.0)
    # nearest to 0.5, 2.5, 4.5, 6.5 (upwards), lines between, flat beyond
    expected = [1, 1.5, 2.5, 3.5, 4.5, 5.5, 6.5, 7]
    np.testing.assert_allclose(coarse[:, 2, 2], expected, atol=1e-6)
    assert (coarse == coarse[:, :1, :1]).all()


def test_low_resolution_of_slices_and_of_few_voxels():
    row = draw_row(6, 5)
    small = interpolate(row[None, None], (3, 2), mode="nearest-exact")
    expected = interpolate(small, (6, 5), mode="bilinear")[0, 0]
    np.testing.assert_allclose(changed(row, "low_resolution", 0.5, 0.5, 0.5), expected, atol=1e-6)
    assert np.isfinite(changed(draw_row(1, 2, 1), "low_resolution", 0.2, 0.2, 0.2)).all()


@pytest.mark.parametrize(("kind", "sign"), [("gamma", 1), ("inverted_gamma", -1)])
@pytest.mark.parametrize("exponent", [0.7, 1.5])
def test_gamma_bends_and_keeps_mean_and_deviation(kind: Kind, sign: int, exponent: float):
    row = draw_row(9, 8, 7)
    values = sign * row.numpy().astype(float)
    low, width = values.min(), np.ptp(values)
    bent = ((values - low) / width) ** exponent
    expected = (bent - bent.mean()) / bent.std() * values.std() + values.mean()
    np.testing.assert_allclose(changed(row, kind, exponent), sign * expected, atol=2e-5)


@pytest.mark.parametrize("kind", [kind for kind in CHANGES if kind not in ("noise", "dropout")])
def test_a_constant_channel_stays_but_for_its_brightness(kind: Kind):
    row = torch.full((4, 5, 6), -2.5)
    after = changed(row, kind, 0.5, 0.5, 0.5)
    np.testing.assert_allclose(after, -1.25 if kind == "brightness" else -2.5, atol=1e-5)


def test_changes_are_made_in_order_each_in_its_channel():
    image = torch.ones(3, 4, 4)
    changes = [
        Change("brightness", 1, (2.0,)),
        Change("brightness", 1, (3.0,)),
        Change("dropout", 2),
    ]
    change_image(image, changes)
    assert image.flatten(1).mean(1).tolist() == [1, 6, 0]
