"""Grey values brought to one scale, whatever scale they come from."""

import numpy as np
import pytest

from medseg3d.config.preprocess import FixedScale
from medseg3d.errors import ConfigError, FormatError
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


CT = FixedScale(clip=(-160, 240), mean=40, deviation=100)


def test_a_fixed_scale_clips_shifts_and_divides_whatever_the_image_holds():
    image = np.array([-1024, -160, 40, 90, 240, 3000], dtype=np.int16).reshape(1, 2, 3, 1)
    scaled = normalize_intensity(image, CT)
    assert scaled.dtype == np.float32
    assert scaled.ravel().tolist() == [-2, -2, 0, 0.5, 2, 2]
    assert normalize_intensity(image[..., :1, :], CT).ravel().tolist() == [-2, 0.5]


def test_a_fixed_scale_need_not_clip():
    image = np.array([[[[-1024.0, 3000.0]]]], dtype=np.float32)
    scaled = normalize_intensity(image, FixedScale(mean=40, deviation=100))
    assert scaled.ravel().tolist() == pytest.approx([-10.64, 29.6])


def test_a_channel_of_one_value_is_no_image_and_becomes_0_on_a_fixed_scale_too():
    lacking = np.zeros((1, 2, 2, 1), dtype=np.float32)
    assert not normalize_intensity(lacking, CT).any()


def test_each_channel_may_have_a_scale_of_its_own():
    image = np.array([[-1000, 40, 140, 240], [0, 10, 20, 30], [0, 7, 9, 2]], dtype=np.int16)
    scaled = normalize_intensity(image[..., None, None], [CT, "zscore_nonzero", "none"])
    apart = np.sqrt(1.5)
    assert scaled[0].ravel().tolist() == [-2, 0, 1, 2]
    assert scaled[1].ravel().tolist() == pytest.approx([0, -apart, 0, apart])
    assert scaled[2].ravel().tolist() == [0, 7, 9, 2]


def test_scales_for_another_number_of_channels_are_refused():
    with pytest.raises(ConfigError, match=r"intensity has 3 entries, the image 2 channels; give o"):
        normalize_intensity(draw_image(scale=1), ["none"] * 3)
