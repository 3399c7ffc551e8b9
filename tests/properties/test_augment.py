"""Laws of augmentation: every preset, any patch, any place gives patches, and the same again."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medseg3d.config.augment import PRESETS, AugmentConfig
from medseg3d.data.augment.compose import augment_batch, read_sample
from medseg3d.data.store import StoredCase

settings.register_profile("augment", deadline=None, max_examples=8, derandomize=True)
laws = settings.get_profile("augment")

sizes = st.lists(st.integers(1, 12), min_size=2, max_size=3).map(tuple)
starts = st.tuples(*[st.integers(-3, 9)] * 3)
spacings = st.tuples(*[st.floats(0.5, 5)] * 3)
ALWAYS = {name: 1 for name in AugmentConfig.model_fields if name.endswith("_probability")}


@pytest.mark.parametrize("always", [{}, ALWAYS | {"channel_dropout_probability": 0.5}])
@pytest.mark.parametrize("preset", PRESETS)
@laws
@given(seed=st.integers(0, 2**32), size=sizes, start=starts, spacing_mm=spacings)
def test_any_patch_comes_out_finite_with_known_labels_and_the_same_again(
    preset: str, always: dict[str, float], seed: int, size: tuple, start: tuple, spacing_mm: tuple
):
    rng = np.random.default_rng(seed)
    image_CIJK = rng.standard_normal((2, 11, 10, 9), dtype=np.float32)
    labels = rng.choice(np.uint8([0, 1, 4]), size=(11, 10, 9))
    case = StoredCase.of_arrays("p1", image_CIJK, channels_IJK=labels, spacing_mm=spacing_mm)
    config = AugmentConfig.model_validate({"preset": preset, **always})

    def augment() -> tuple[torch.Tensor, torch.Tensor]:
        sample = read_sample(np.random.default_rng(seed), case, start, size=size, config=config)
        return augment_batch([sample], torch.device("cpu"))

    image, channels = augment()
    assert image.shape == (1, 2, *size)
    assert channels.shape == (1, *size)
    assert image.dtype == torch.float32
    assert channels.dtype == torch.int64
    assert image.isfinite().all()
    assert set(channels.unique().tolist()) <= {0, 1, 4}
    assert all(map(torch.equal, (image, channels), augment()))
