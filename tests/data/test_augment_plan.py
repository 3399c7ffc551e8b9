"""What is drawn: as often as configured, within the ranges, from the generator alone."""

from collections import Counter

import numpy as np
import pytest

from medseg3d.config.augment import PRESETS, AugmentConfig
from medseg3d.config.load import load_config, override_section
from medseg3d.config.train import TrainConfig
from medseg3d.data.augment.plan import Plan, draw_plan
from medseg3d.errors import ConfigError

PROBABILITIES = [name for name in AugmentConfig.model_fields if name.endswith("_probability")]


def draw(config: AugmentConfig, seed: int, size: tuple = (8, 8, 8), channels: int = 4) -> Plan:
    rng = np.random.default_rng(seed)
    return draw_plan(rng, config, size_IJK=size, spacing_mm=(1.0, 1.0, 1.0), num_channels=channels)


def only(**knobs: object) -> AugmentConfig:
    return AugmentConfig.model_validate({"preset": "none", **knobs})


class TestPresets:
    def test_none_does_nothing(self):
        config = AugmentConfig(preset="none")
        assert not any(getattr(config, name) for name in PROBABILITIES)
        for seed in range(20):
            plan = draw(config, seed)
            assert plan.mirrored == ()
            assert plan.warp is None
            assert plan.changes == ()

    def test_light_is_what_is_there_by_default(self):
        assert AugmentConfig() == AugmentConfig(preset="light")
        assert TrainConfig().augment.preset == "light"

    def test_nnunet_has_nnunets_numbers(self):
        config = TrainConfig.model_validate({"augment": "nnunet"}).augment
        assert {name: getattr(config, name) for name in PROBABILITIES} == {
            "rotation_probability": 0.2,
            "scale_probability": 0.2,
            "elastic_probability": 0,
            "noise_probability": 0.1,
            "blur_probability": 0.2,
            "brightness_probability": 0.15,
            "contrast_probability": 0.15,
            "low_resolution_probability": 0.25,
            "gamma_probability": 0.3,
            "inverted_gamma_probability": 0.1,
            "channel_dropout_probability": 0,
        }
        assert (config.rotation_degrees, config.rotation_degrees_2d) == (30, 180)
        assert (config.scale, config.gamma) == ((0.7, 1.4), (0.7, 1.5))
        assert config.brightness == config.contrast == (0.75, 1.25)
        assert config.blur_sigma == config.low_resolution == (0.5, 1.0)
        assert config.blur_channel_share == config.low_resolution_channel_share == 0.5
        assert config.noise_deviation == 0.1
        assert config.mirror_axes == (0, 1, 2)

    def test_founding_turns_bends_and_changes_contrast_and_nothing_else(self):
        config = AugmentConfig(preset="founding")
        drawn = {name for name in PROBABILITIES if getattr(config, name)}
        assert drawn == {"rotation_probability", "elastic_probability", "contrast_probability"}
        assert (config.rotation_degrees, config.contrast) == (15, (0.8, 1.2))
        assert (config.elastic_sigma, config.elastic_alpha) == (10, 30)

    @pytest.mark.parametrize("preset", PRESETS)
    def test_no_preset_but_nnunet_flips(self, preset: str):
        config = AugmentConfig.model_validate(preset)
        assert bool(config.mirror_axes) == (preset == "nnunet")
        assert not AugmentConfig.model_validate({"preset": preset, "mirror_axes": []}).mirror_axes

    @pytest.mark.parametrize("preset", PRESETS)
    def test_what_is_dumped_loads_to_the_same(self, preset: str):
        config = AugmentConfig.model_validate({"preset": preset, "rotation_degrees": 7})
        assert config.rotation_degrees == 7
        assert AugmentConfig.model_validate(config.model_dump(mode="json")) == config

    def test_what_is_given_beside_a_preset_wins(self, tmp_path):
        path = tmp_path / "run.yaml"
        path.write_text(
            "data: {folder: d, images: {t1: '{case}.nii.gz'}, labels: {values: {1: a}}}\n"
            "network: {kind: resunet}\n"
            "train: {augment: {preset: founding, noise_probability: 0.7}}\n"
        )
        config = load_config(path, ["train.augment.preset=nnunet", "train.augment.gamma=[1, 2]"])
        assert config.train.augment.preset == "nnunet"
        assert config.train.augment.noise_probability == 0.7
        assert config.train.augment.gamma == (1, 2)
        assert config.train.augment.scale == (0.7, 1.4)
        assert config.flipped == ("i", "j", "k")

    def test_a_knob_beside_a_mere_name_is_refused_and_not_the_preset_dropped(self, tmp_path):
        path = tmp_path / "run.yaml"
        path.write_text("train: {augment: nnunet}")
        with pytest.raises(
            ConfigError, match=r"augment is only the name 'nnunet' so far.*preset: "
        ):
            load_config(path, ["train.augment.noise_probability=1"])

    def test_an_unknown_preset_is_refused_with_those_there_are(self):
        with pytest.raises(ValueError, match=r"'none', 'light', 'founding' or 'nnunet'"):
            override_section(TrainConfig(), ["augment=nnU-Net"])

    @pytest.mark.parametrize("knob", [*PROBABILITIES, "blur_channel_share"])
    def test_probabilities_lie_between_0_and_1(self, knob: str):
        with pytest.raises(ValueError, match="less than or equal to 1"):
            only(**{knob: 1.1})


@pytest.mark.parametrize(
    ("knob", "share"),
    [("noise", 1), ("blur", 0.5), ("brightness", 1), ("contrast", 1), ("low_resolution", 0.5),
     ("gamma", 1), ("inverted_gamma", 1)],
)  # fmt: skip
def test_each_change_happens_as_often_as_configured(knob: str, share: float):
    config = only(**{f"{knob}_probability": 0.3})
    plans = [draw(config, seed, channels=2) for seed in range(1500)]
    kinds = Counter(change.kind for plan in plans for change in plan.changes)
    assert set(kinds) == {knob}
    assert 0.25 < sum(bool(plan.changes) for plan in plans) / 1500 / (1 - (1 - share) ** 2) < 0.35
    assert kinds[knob] / 3000 == pytest.approx(0.3 * share, abs=0.04)


def test_factors_are_as_often_below_1_as_above():
    config = only(gamma_probability=1, gamma=(0.7, 1.5))
    drawn = [c.amounts[0] for seed in range(500) for c in draw(config, seed).changes]
    assert 0.45 < np.mean(np.array(drawn) < 1) < 0.55
    assert 0.7 <= min(drawn) < 0.72
    assert 1.48 < max(drawn) <= 1.5


@pytest.mark.parametrize(
    ("kind", "knob", "least", "most"),
    [
        ("noise", "noise_deviation", 0, 0.1),
        ("blur", "blur_sigma", 0.5, 1),
        ("brightness", "brightness", 0.6, 1.8),
        ("contrast", "contrast", 0.6, 1.8),
        ("low_resolution", "low_resolution", 0.4, 0.9),
        ("gamma", "gamma", 0.6, 1.8),
        ("inverted_gamma", "gamma", 0.6, 1.8),
    ],
)
def test_amounts_fill_the_range_and_channels_have_their_own(
    kind: str, knob: str, least: float, most: float
):
    span = most if kind == "noise" else (least, most)
    plans = [draw(only(**{f"{kind}_probability": 1, knob: span}), seed) for seed in range(300)]
    amounts = [amount for plan in plans for c in plan.changes for amount in c.amounts]
    edge = 0.05 * (most - least)
    assert least <= min(amounts) < least + edge
    assert most - edge < max(amounts) <= most
    once = [{c.amounts for c in plan.changes} for plan in plans if len(plan.changes) == 4]
    assert {len(drawn) for drawn in once} == {1 if kind == "noise" else 4}


def test_along_the_thick_axis_no_resolution_is_lost():
    knobs = {"low_resolution_probability": 1, "low_resolution_channel_share": 1}
    thick = draw(only(**knobs, thick_axis=1), 0).changes[0].amounts
    assert thick[1] == 1 > thick[0] == thick[2]
    assert draw(only(**knobs), 0, (8, 8, 1)).changes[0].amounts[2] == 1


def test_warps_happen_as_often_as_configured():
    config = only(rotation_probability=0.2, scale_probability=0.2, mirror_axes=(1,))
    plans = [draw(config, seed) for seed in range(1500)]
    assert np.mean([plan.warp is not None for plan in plans]) == pytest.approx(0.36, abs=0.04)
    assert np.mean([plan.mirrored == (1,) for plan in plans]) == pytest.approx(0.5, abs=0.04)
    assert {plan.mirrored for plan in plans} == {(), (1,)}


@pytest.mark.parametrize(("size", "largest"), [((8, 8, 8), 25), ((8, 8, 1), 70)])
def test_no_angle_is_larger_than_the_largest(size: tuple, largest: float):
    config = only(rotation_probability=1, rotation_degrees=25, rotation_degrees_2d=70)
    angles = []
    for seed in range(200):
        warp = draw(config, seed, size).warp
        assert warp
        np.testing.assert_allclose(warp.matrix @ warp.matrix.T, np.eye(3), atol=1e-12)
        if size[2] == 1:
            angles.append(abs(np.degrees(np.arctan2(warp.matrix[1, 0], warp.matrix[0, 0]))))
    assert not angles or 0.95 * largest < max(angles) <= largest


def test_a_channel_always_stays():
    config = only(channel_dropout_probability=0.9)
    counts = Counter(len(draw(config, seed, channels=3).changes) for seed in range(300))
    assert set(counts) <= {0, 1, 2}
    assert counts[2] > 200
    dropped = Counter(
        c.channel for seed in range(300) for c in draw(config, seed, channels=3).changes
    )
    assert len(dropped) == 3
    assert not draw(only(channel_dropout_probability=1), 0, channels=1).changes


def test_what_is_missing_is_so_after_all_other_changes():
    config = AugmentConfig.model_validate(
        {"preset": "nnunet", "channel_dropout_probability": 0.5, "noise_probability": 1}
    )
    for seed in range(30):
        kinds = [change.kind for change in draw(config, seed).changes]
        assert "noise" not in kinds[kinds.index("dropout") :] if "dropout" in kinds else True


def test_the_generator_alone_decides():
    config = AugmentConfig(preset="nnunet", noise_probability=1)
    first, again, other = draw(config, 1), draw(config, 1), draw(config, 2)
    assert first.changes == again.changes
    assert first.changes != other.changes
