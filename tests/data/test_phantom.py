"""Phantoms: repeatable, in the layout of BraTS 2023, and worth learning from."""

from pathlib import Path

import numpy as np
import pytest

from medseg3d.data.phantom import PhantomCase, draw_phantom, write_phantoms
from medseg3d.errors import ConfigError
from medseg3d.io.files import read_volume

NECROSIS, OEDEMA, RIM = 1, 2, 3
COARSE = {"shape_IJK": (40, 48, 36), "spacing_mm": (4.0, 4.0, 4.0)}


@pytest.fixture(scope="module")
def case() -> PhantomCase:
    return draw_phantom(np.random.default_rng(7))


@pytest.fixture(scope="module")
def coarse_cases() -> list[PhantomCase]:
    return [draw_phantom(np.random.default_rng(seed), **COARSE) for seed in range(12)]


def test_a_case_has_four_channels_and_a_reference_on_one_lps_grid(case: PhantomCase) -> None:
    assert [*case.images] == ["t1n", "t1c", "t2w", "t2f"]
    for image in case.images.values():
        assert image.array_CIJK.dtype == np.int16
        assert image.array_CIJK.shape == (1, 80, 96, 72)
        np.testing.assert_array_equal(image.affine, case.reference.affine)
    assert case.reference.array_CIJK.dtype == np.uint8
    assert case.reference.array_CIJK.shape == (1, 80, 96, 72)
    assert case.reference.orientation == "LPS"
    assert case.reference.spacing_mm == (2.0, 2.0, 2.0)


def test_background_is_exactly_zero_and_common_to_all_channels(case: PhantomCase) -> None:
    brains = [image.array_CIJK > 0 for image in case.images.values()]
    assert all(np.array_equal(brain, brains[0]) for brain in brains)
    assert 0.2 < brains[0].mean() < 0.6
    assert min(image.array_CIJK.min() for image in case.images.values()) == 0
    border = np.ones(brains[0].shape, dtype=bool)
    border[:, 1:-1, 1:-1, 1:] = False  # the brainstem leaves through the bottom
    border[..., 0] = False
    assert not (brains[0] & border).any()


def test_the_tumour_lies_inside_the_brain(case: PhantomCase) -> None:
    assert (case.images["t1n"].array_CIJK[case.reference.array_CIJK > 0] > 0).all()


def test_every_region_has_voxels(coarse_cases: list[PhantomCase]) -> None:
    for case in coarse_cases:
        values = np.bincount(case.reference.array_CIJK.ravel(), minlength=4)
        assert len(values) == 4
        assert values[RIM] > 0
        assert values[OEDEMA] > 0


def test_tumours_differ_widely_in_size(coarse_cases: list[PhantomCase]) -> None:
    sizes = [int((case.reference.array_CIJK > 0).sum()) for case in coarse_cases]
    assert max(sizes) > 5 * min(sizes)


def test_contrast_is_that_of_real_sequences(case: PhantomCase) -> None:
    label_map = case.reference.array_CIJK
    levels = {
        channel: [np.median(image.array_CIJK[label_map == value]) for value in range(4)]
        / np.median(image.array_CIJK[(label_map == 0) & (image.array_CIJK > 0)])
        for channel, image in case.images.items()
    }
    assert levels["t2f"][OEDEMA] > max(1.2, levels["t2f"][NECROSIS])
    assert levels["t1c"][RIM] > 1.2 > levels["t1c"][OEDEMA] > levels["t1c"][NECROSIS]
    assert levels["t1n"][RIM] < 1.0
    assert levels["t2w"][NECROSIS] > levels["t2w"][RIM] > 1.0


def test_no_threshold_on_flair_finds_the_tumours(coarse_cases: list[PhantomCase]) -> None:
    best = 0.0
    for level in np.linspace(1.0, 2.0, 21):
        dice = []
        for case in coarse_cases:
            flair, tumour = case.images["t2f"].array_CIJK, case.reference.array_CIJK > 0
            bright = flair > level * np.median(flair[flair > 0])
            dice.append(2 * np.sum(bright & tumour) / (bright.sum() + tumour.sum()))
        best = max(best, float(np.mean(dice)))
    assert 0.5 < best < 0.82


def test_each_image_has_a_grey_scale_of_its_own(coarse_cases: list[PhantomCase]) -> None:
    brightest = [
        np.percentile(image.array_CIJK, 99)
        for case in coarse_cases
        for image in case.images.values()
    ]
    assert max(brightest) > 5 * min(brightest)


def test_noise_is_a_knob() -> None:
    roughness = []
    for noise in (0.0, 0.1):
        image = draw_phantom(np.random.default_rng(3), **COARSE, noise=noise).images["t1n"]
        roughness.append(np.abs(np.diff(image.array_CIJK.astype(float), axis=1)).mean())
    assert roughness[1] > 1.2 * roughness[0]


def test_the_anatomy_is_the_same_at_every_spacing(case: PhantomCase) -> None:
    coarse = draw_phantom(np.random.default_rng(7), **COARSE)
    volumes = [
        np.sum(phantom.reference.array_CIJK > 0) * phantom.reference.grid.voxel_mm3
        for phantom in (case, coarse)
    ]
    assert volumes[0] == pytest.approx(volumes[1], rel=0.15)


def test_case_n_depends_on_the_seed_and_n_only(tmp_path: Path) -> None:
    few = write_phantoms(tmp_path / "few", num_cases=1, seed=5, **COARSE)
    more = write_phantoms(tmp_path / "more", num_cases=2, seed=5, **COARSE)
    other = write_phantoms(tmp_path / "other", num_cases=1, seed=6, **COARSE)
    assert few == other == more[:1] == ["BraTS-PHANTOM-00001-000"]

    def files(folder: str, case: str) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (tmp_path / folder / case).iterdir()}

    assert files("few", few[0]) == files("more", few[0])
    assert files("few", few[0]) != files("other", few[0])
    first, second = (files("more", case) for case in more)
    assert not {*first.values()} & {*second.values()}


def test_files_are_named_and_typed_as_in_brats_2023(tmp_path: Path) -> None:
    (case,) = write_phantoms(tmp_path, num_cases=1, **COARSE)
    names = sorted(path.name for path in (tmp_path / case).iterdir())
    assert names == [f"{case}-{s}.nii.gz" for s in ("seg", "t1c", "t1n", "t2f", "t2w")]
    drawn = draw_phantom(np.random.default_rng((0, 1)), **COARSE)
    for suffix, volume in {**drawn.images, "seg": drawn.reference}.items():
        stored = read_volume(tmp_path / case / f"{case}-{suffix}.nii.gz")
        assert stored.array_CIJK.dtype == volume.array_CIJK.dtype
        np.testing.assert_array_equal(stored.array_CIJK, volume.array_CIJK)
        np.testing.assert_allclose(stored.affine, volume.affine)


def test_a_grid_smaller_than_a_head_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"spans 128 × 128 × 128 mm; a head needs at least 144"):
        draw_phantom(np.random.default_rng(0), shape_IJK=(64, 64, 64), spacing_mm=(2.0, 2.0, 2.0))
