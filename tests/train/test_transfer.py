"""Fine-tuning: what fits is taken, what means the same is found, and nothing happens unsaid."""

import copy
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from medseg3d.config.network import (
    MobileResUNetConfig,
    MonaiConfig,
    NetworkConfig,
    UNetConfig,
)
from medseg3d.config.pretrain import EncoderRecipe, PretrainConfig
from medseg3d.config.recipe import Recipe
from medseg3d.errors import BundleError, ConfigError
from medseg3d.labels import LabelScheme
from medseg3d.nets.bundle import Bundle, build_recipe_net, save_bundle
from medseg3d.nets.presets import NETS
from medseg3d.train.encoder import Encoder, load_encoder, save_encoder
from medseg3d.train.transfer import freeze, start_from

Build = Callable[..., Bundle]
NARROW = {"channels": (4, 6, 8), "encoder_blocks": 1, "decoder_blocks": 1}


@pytest.fixture
def source(build_bundle: Build, tmp_path: Path) -> tuple[Bundle, Path]:
    """Give a bundle of two channels and the labels `one` and `four`, and its file."""
    return saved(build_bundle("t1", "t2"), tmp_path)


def saved(bundle: Bundle, folder: Path) -> tuple[Bundle, Path]:
    path = folder / "source.safetensors"
    save_bundle(bundle, path)
    return bundle, path


def changed(recipe: Recipe, **sections: object) -> Recipe:
    return Recipe.model_validate(recipe.model_dump() | sections)


def fresh(recipe: Recipe, seed: int = 1) -> nn.Module:
    torch.manual_seed(seed)
    return build_recipe_net(recipe).eval()


def with_network(bundle: Bundle, network: NetworkConfig) -> Bundle:
    recipe = bundle.recipe.model_copy(update={"network": network})
    return Bundle(fresh(recipe, seed=0), recipe, "0")


def test_a_network_of_the_same_task_becomes_the_source(
    source: tuple[Bundle, Path], caplog: pytest.LogCaptureFixture
) -> None:
    bundle, path = source
    net = fresh(bundle.recipe)

    with caplog.at_level(logging.INFO, "medseg3d"):
        became = start_from(net, bundle.recipe, path)

    for name, weight in bundle.net.state_dict().items():
        assert torch.equal(net.state_dict()[name], weight)
    assert set(became.taken) == set(bundle.net.state_dict())
    assert not became.adapted + became.fresh
    [said] = caplog.records
    assert said.levelno == logging.INFO
    assert "100 % of the encoder: taken: 9 of encoder.0" in said.message


@pytest.mark.parametrize("preset", NETS)
@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_channels_in_another_order_are_found_by_name_in_every_network(
    preset: str, spatial_dims: int, build_bundle: Build, tmp_path: Path
) -> None:
    config = NETS[preset].model_copy(update=NARROW)
    bundle = with_network(build_bundle("t1", "t2", "flair", spatial_dims=spatial_dims), config)
    _, path = saved(bundle, tmp_path)
    images = {name: bundle.recipe.images[name] for name in ("flair", "t1", "t2")}
    net = fresh(recipe := changed(bundle.recipe, images=images))
    image = torch.randn(1, 3, *(8,) * spatial_dims)

    became = start_from(net, recipe, path)

    assert became.adapted
    assert not became.fresh
    with torch.no_grad():
        assert torch.allclose(net(image[:, [2, 0, 1]]), bundle.net(image), atol=1e-5)


@pytest.mark.slow
def test_a_channel_more_changes_nothing_at_first(
    source: tuple[Bundle, Path], build_bundle: Build
) -> None:
    bundle, path = source
    recipe = build_bundle("t1", "dwi", "t2").recipe
    net = fresh(recipe)
    image = torch.randn(1, 3, 8, 8, 8)

    became = start_from(net, recipe, path)

    assert set(became.adapted) == {
        "encoder.0.0.body.0.0.weight",
        "encoder.0.0.shortcut.0.weight",
    }
    with torch.no_grad():
        assert torch.allclose(net(image), bundle.net(image[:, [0, 2]]), atol=1e-5)


def test_channels_of_no_known_name_share_what_the_others_summed_to(
    source: tuple[Bundle, Path], build_bundle: Build
) -> None:
    bundle, path = source
    recipe = build_bundle("ct", "pet", "dose").recipe
    net = fresh(recipe)
    same = torch.randn(1, 1, 8, 8, 8)

    start_from(net, recipe, path)

    with torch.no_grad():  # where all channels show one image, it is seen as before
        expected = bundle.net(same.expand(1, 2, 8, 8, 8))
        assert torch.allclose(net(same.expand(1, 3, 8, 8, 8)), expected, atol=1e-5)
    weight = net.state_dict()["encoder.0.0.body.0.0.weight"]
    assert torch.equal(weight[:, 0], weight[:, 1])


def test_one_channel_stays_the_one_whatever_its_name(build_bundle: Build, tmp_path: Path) -> None:
    bundle, path = saved(build_bundle("t1"), tmp_path)
    recipe = build_bundle("mprage").recipe

    became = start_from(fresh(recipe), recipe, path)

    assert set(became.taken) == set(bundle.net.state_dict())


def test_heads_keep_the_labels_that_both_know(source: tuple[Bundle, Path]) -> None:
    bundle, path = source
    labels = LabelScheme(values={1: "four", 2: "new"})  # one and four there
    recipe = changed(bundle.recipe, labels=labels.model_dump())
    net, before = fresh(recipe), fresh(recipe)

    became = start_from(net, recipe, path)

    theirs, ours, drawn = (n.state_dict()["heads.0.weight"] for n in (bundle.net, net, before))
    assert set(became.adapted) == {"heads.0.weight", "heads.0.bias"}
    assert torch.equal(ours[[0, 1]], theirs[[0, 2]])
    assert torch.equal(ours[2], drawn[2])


@pytest.mark.parametrize(
    "sections",
    [
        {"outputs": "regions", "labels": {"values": {1: "one", 4: "four"}}},
        {"outputs": "regions", "labels": {"values": {1: "a", 2: "b", 3: "c"}}},
    ],
)
def test_heads_of_other_outputs_stay_fresh_even_where_their_size_fits(
    sections: dict[str, object], source: tuple[Bundle, Path]
) -> None:
    bundle, path = source
    recipe = changed(bundle.recipe, **sections)
    net, before = fresh(recipe), fresh(recipe)

    became = start_from(net, recipe, path)

    assert set(became.fresh) == {"heads.0.weight", "heads.0.bias"}
    for name in became.fresh:
        assert torch.equal(net.state_dict()[name], before.state_dict()[name])


def test_a_deeper_network_takes_the_levels_that_fit_and_says_so(
    source: tuple[Bundle, Path], build_bundle: Build, caplog: pytest.LogCaptureFixture
) -> None:
    bundle, path = source
    network = bundle.recipe.network.model_copy(update={"channels": (4, 8, 6)})
    recipe = changed(bundle.recipe, network=network.model_dump())
    net = fresh(recipe)

    became = start_from(net, recipe, path)

    assert {name[:9] for name in became.taken} >= {"encoder.0", "encoder.1"}
    assert {name[:9] for name in became.fresh} >= {"encoder.2"}
    [said] = caplog.records
    assert said.levelno == logging.WARNING
    assert "fresh: 9 of encoder.2" in said.message
    weight = "encoder.1.1.body.0.0.weight"
    assert torch.equal(net.state_dict()[weight], bundle.net.state_dict()[weight])


def test_a_start_that_takes_next_to_nothing_is_refused(source: tuple[Bundle, Path]) -> None:
    bundle, path = source
    network = bundle.recipe.network.model_copy(update={"channels": (6, 12)})
    recipe = changed(bundle.recipe, network=network.model_dump())
    net = fresh(recipe)

    with pytest.raises(ConfigError) as refusal:
        start_from(net, recipe, path)

    said = str(refusal.value)
    assert "source.safetensors' fits 0% of the weights of this run's encoder, at least 50%" in said
    assert "channels (4, 8) there, (6, 12) here" in said
    assert "train.start_from=null" in said
    assert torch.equal(
        net.state_dict()["heads.0.weight"], fresh(recipe).state_dict()["heads.0.weight"]
    )


def test_a_2d_network_is_no_start_for_a_3d_one(source: tuple[Bundle, Path]) -> None:
    bundle, path = source
    predict = bundle.recipe.predict.model_copy(update={"tile_size": (32, 32)}).model_dump()
    recipe = changed(bundle.recipe, spatial_dims=2, predict=predict)

    with pytest.raises(ConfigError, match=r"holds a 3D network, this run's is 2D.*spatial_dims=3"):
        start_from(fresh(recipe), recipe, path)


def test_a_depthwise_convolution_cannot_take_other_channels(
    build_bundle: Build, tmp_path: Path
) -> None:
    network = MobileResUNetConfig(channels=(4, 8), stem=False, norm="instance")
    _, path = saved(with_network(build_bundle("t1", "t2"), network), tmp_path)
    recipe = with_network(build_bundle("t2", "t1"), network).recipe

    became = start_from(fresh(recipe), recipe, path)

    assert became.fresh == ("encoder.0.0.body.0.0.weight",)
    assert "encoder.0.0.shortcut.0.weight" in became.adapted


def test_a_network_of_monais_goes_on_from_one(build_bundle: Build, tmp_path: Path) -> None:
    network = MonaiConfig(name="BasicUNet", arguments={"features": [4, 4, 4, 4, 4, 4]})
    bundle, path = saved(with_network(build_bundle("t1"), network), tmp_path)

    became = start_from(net := fresh(bundle.recipe), bundle.recipe, path)

    assert not became.fresh
    assert all(torch.equal(net.state_dict()[n], w) for n, w in bundle.net.state_dict().items())


def test_channels_that_monais_networks_take_in_another_order_are_told(
    build_bundle: Build, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    network = MonaiConfig(name="BasicUNet", arguments={"features": [4, 4, 4, 4, 4, 4]})
    bundle, path = saved(with_network(build_bundle("t1", "t2"), network), tmp_path)
    turned = with_network(build_bundle("t2", "t1"), network).recipe

    start_from(fresh(bundle.recipe), bundle.recipe, path)
    assert not caplog.records
    start_from(fresh(turned), turned, path)

    [said] = [record.message for record in caplog.records]
    assert "in their order, those of t1, t2, one, four for t2, t1, one, four" in said


def test_other_preprocessing_than_the_sources_is_named(
    source: tuple[Bundle, Path], caplog: pytest.LogCaptureFixture
) -> None:
    bundle, path = source
    preprocess = {"spacing_mm": (1.0, 1.0, 2.0), "nonfinite": "zero", "intensity": "none"}
    recipe = changed(bundle.recipe, preprocess=preprocess)

    start_from(fresh(recipe), recipe, path)

    [said] = [record.message for record in caplog.records]
    assert "preprocessed in another way: spacing_mm None there, (1.0, 1.0, 2.0) here" in said
    assert "intensity zscore there, none here" in said
    assert "nonfinite" not in said


def test_what_is_no_model_is_refused(build_bundle: Build, tmp_path: Path) -> None:
    recipe = build_bundle("t1").recipe
    (tmp_path / "notes.txt").write_text("no weights")

    with pytest.raises(BundleError, match="no model file"):
        start_from(fresh(recipe), recipe, tmp_path / "absent.safetensors")
    with pytest.raises(BundleError, match="no whole"):
        start_from(fresh(recipe), recipe, tmp_path / "notes.txt")


class TestEncoderFile:
    @pytest.fixture
    def encoder(self, build_bundle: Build, tmp_path: Path) -> tuple[Encoder, Path]:
        """Give an encoder of one channel, and its file."""
        bundle = build_bundle("t1")
        recipe = EncoderRecipe(
            **bundle.recipe.model_dump(include={*EncoderRecipe.model_fields}),
            pretrain=PretrainConfig(),
        )
        weights = {
            name: weight
            for name, weight in bundle.net.state_dict().items()
            if name.startswith("encoder.")
        }
        encoder = Encoder(weights, recipe, "0.0.test")
        save_encoder(encoder, tmp_path / "encoder.safetensors")
        return encoder, tmp_path / "encoder.safetensors"

    def test_it_reads_as_written(self, encoder: tuple[Encoder, Path]) -> None:
        written, path = encoder
        read = load_encoder(path)
        assert read.recipe == written.recipe
        assert read.version == "0.0.test"
        assert all(torch.equal(read.weights[name], w) for name, w in written.weights.items())

    def test_a_network_starts_from_it(
        self, encoder: tuple[Encoder, Path], build_bundle: Build
    ) -> None:
        written, path = encoder
        recipe = build_bundle("t1").recipe
        net = fresh(recipe)

        became = start_from(net, recipe, path)

        assert set(became.taken) == set(written.weights)
        assert {name.split(".")[0] for name in became.fresh} == {"decoder", "heads"}
        assert all(torch.equal(net.state_dict()[name], w) for name, w in written.weights.items())

    def test_a_flipped_bit_is_noticed(self, encoder: tuple[Encoder, Path]) -> None:
        _, path = encoder
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
        with pytest.raises(BundleError, match=r"its SHA-256 is not.*medseg3d pretrain"):
            load_encoder(path)

    def test_a_newer_format_is_refused(
        self, encoder: tuple[Encoder, Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        written, path = encoder
        monkeypatch.setattr("medseg3d.train.encoder.FORMAT", 2)
        save_encoder(written, path)
        monkeypatch.undo()
        with pytest.raises(BundleError, match=r"of format 2, this medseg3d reads 1: use medseg3d"):
            load_encoder(path)


def batch_norms(net: nn.Module) -> list[nn.Module]:
    return [module for module in net.modules() if isinstance(module, nn.BatchNorm3d)]


class TestFreezing:
    @pytest.fixture
    def net(self, build_bundle: Build) -> nn.Module:
        """Give a network with batch norms."""
        config = UNetConfig(channels=(4, 6))
        return with_network(build_bundle("t1"), config).net

    def test_frozen_parts_stay_and_the_others_learn(self, net: nn.Module) -> None:
        freeze(net, ["encoder.0", "heads"])
        before = {name: value.clone() for name, value in net.state_dict().items()}
        optimizer = torch.optim.AdamW(net.parameters(), lr=0.1)

        for _ in range(2):
            net.train()
            net(torch.randn(2, 1, 8, 8, 8)).square().mean().backward()
            optimizer.step()

        after = net.state_dict()
        same = {name for name in before if torch.equal(before[name], after[name])}
        assert same == {name for name in before if name.startswith(("encoder.0.", "heads."))}

    def test_a_copy_stays_frozen_without_holding_on_to_the_original(self, net: nn.Module) -> None:
        freeze(net, ["encoder"])
        twin = copy.deepcopy(net)

        twin.train()

        frozen = batch_norms(twin.encoder)
        assert frozen
        assert all(norm.train() is norm and not norm.training for norm in frozen)
        assert all(norm.training for norm in batch_norms(twin.decoder))

    @pytest.mark.parametrize(("part", "hint"), [("encodr", "'encoder'"), ("encoder.9", "encoder.")])
    def test_an_unknown_part_is_told_the_nearest(
        self, net: nn.Module, part: str, hint: str
    ) -> None:
        with pytest.raises(ConfigError, match=f"no part '{part}'; did you mean .*{hint}"):
            freeze(net, [part])

    def test_a_part_like_no_other_is_told_all(self, net: nn.Module) -> None:
        with pytest.raises(ConfigError, match="'xyz'; parts are encoder, decoder, heads"):
            freeze(net, ["xyz"])

    def test_something_must_be_left_to_learn(self, net: nn.Module) -> None:
        with pytest.raises(ConfigError, match="encoder, decoder, heads are the whole network"):
            freeze(net, ["encoder", "decoder", "heads"])
