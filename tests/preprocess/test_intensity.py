"""Grey values brought to one scale, whatever scale they come from."""

import numpy as np
import pytest

from medseg3d.errors import FormatError
from medseg3d.preprocess.intensity import normalize_intensity


def draw_image(*, scale: float, offset: float = 0, dtype: str = "float32") -> np.ndarray:
    """Draw two channels of unlike spread, of any scale."""
    values = np.random.default_rng(0).gamma(2, size=(2, 9, 8, 7)) * [[[[1]]], [[[20]]]]
    return (values * scale + offset).astype(dtype)


@pytest.mark.parametrize("scale", [1e-3, 1, 1.7e6])
@pytest.mark.parametrize("offset", [0, -1000])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_each_channel_gets_mean_0_and_deviation_1(scale: float, offset: float, dtype: str):
    image = draw_image(scale=scale, offset=offset * scale, dtype=dtype)
    normalized = normalize_intensity(image, "zscore")
    assert normalized.dtype == np.float32
    for channel in normalized:
        assert channel.mean(dtype=np.float64) == pytest.approx(0, abs=1e-5)
        assert channel.std(dtype=np.float64) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32"])
def test_integers_do_not_overflow(dtype: str):
    image = np.zeros((1, 40, 40, 40), dtype=dtype)
    image[:, 20:] = np.iinfo(dtype).max
    normalized = normalize_intensity(image, "zscore")
    assert np.unique(normalized).tolist() == pytest.approx([-1, 1])


def test_the_scale_of_the_file_does_not_matter():
    small, large = (draw_image(scale=scale) for scale in (1, 1.7e6))
    np.testing.assert_allclose(
        normalize_intensity(small, "zscore"), normalize_intensity(large, "zscore"), atol=1e-5
    )


def test_what_is_0_stays_0_and_does_not_count_where_that_is_asked_for():
    image = draw_image(scale=1.7e6)
    brain = np.random.default_rng(1).random((2, 9, 8, 7)) < 0.4
    normalized = normalize_intensity(np.where(brain, image, 0), "zscore_nonzero")
    assert (normalized[~brain] == 0).all()
    for channel, inside in zip(normalized, brain, strict=True):
        assert channel[inside].mean(dtype=np.float64) == pytest.approx(0, abs=1e-5)
        assert channel[inside].std(dtype=np.float64) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("value", [0, 0.1, -3.5, 1.7e6, 1e-20])
@pytest.mark.parametrize("how", ["zscore", "zscore_nonzero"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_channel_of_one_value_becomes_0(value: float, how: str, dtype: str):
    image = np.full((1, 37, 41, 43), value, dtype=dtype)
    assert not normalize_intensity(image, how).any()


def test_a_brain_of_one_value_becomes_0():
    image = np.zeros((1, 4, 4, 4), dtype=np.float32)
    image[:, 2:] = 0.1
    assert not normalize_intensity(image, "zscore_nonzero").any()


def test_grey_values_can_be_left_as_they_are():
    image = draw_image(scale=100, dtype="int16")
    normalized = normalize_intensity(image, "none")
    assert normalized.dtype == np.float32
    np.testing.assert_array_equal(normalized, image)


def test_the_image_that_is_given_is_not_changed():
    image = draw_image(scale=1)
    before = image.copy()
    for how in ("none", "zscore", "zscore_nonzero"):
        normalize_intensity(image, how)[:] = 7
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("how", ["none", "zscore", "zscore_nonzero"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_refused(how: str, value: float):
    image = draw_image(scale=1)
    image[1, 2, 3, 4:6] = value
    with pytest.raises(FormatError) as refused:
        normalize_intensity(image, how)
    assert "holds 2 voxels of NaN or infinity" in str(refused.value)
    assert "--set preprocess.nonfinite=zero" in str(refused.value)
