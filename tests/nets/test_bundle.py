"""A bundle is the model that was saved, or a BundleError; never another model."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from medseg3d.config.network import UNetConfig
from medseg3d.errors import BundleError
from medseg3d.labels import LabelScheme
from medseg3d.nets.bundle import (
    KEY,
    Bundle,
    build_recipe_net,
    digest_of,
    load_bundle,
    read_recipe,
    save_bundle,
)
from medseg3d.terms import TERMS

BuildBundle = Callable[..., Bundle]


@pytest.fixture
def bundle(build_bundle: BuildBundle) -> Bundle:
    """Give a small bundle whose normalisation has statistics that are not fresh."""
    bundle = build_bundle("t1", "flair", spatial_dims=2, tile=8)
    network = UNetConfig(channels=(2, 3), encoder_blocks=1, decoder_blocks=1)
    recipe = bundle.recipe.model_copy(update={"network": network})
    with torch.random.fork_rng():
        torch.manual_seed(5)
        net = build_recipe_net(recipe).train()
        net(torch.randn(2, 2, 8, 8))
    return Bundle(net.eval(), recipe, "0.0.test")


@pytest.fixture
def path(bundle: Bundle, tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    save_bundle(bundle, path)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(BundleError) as refused:
        load_bundle(path)
    assert str(path) in str(refused.value)
    return str(refused.value)


def read_metadata(path: Path) -> dict[str, str]:
    data = path.read_bytes()
    return json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]


def rewrite(
    path: Path, change: Callable[[dict[str, Any]], object], *, honestly: bool = False
) -> None:
    """Save a bundle's weights with changed content; honestly is with the SHA-256 of that."""
    content, weights = json.loads(read_metadata(path)[KEY]), load_file(path)
    change(content)
    if honestly:
        del content["sha256"]
        content["sha256"] = digest_of(content, weights)
    save_file(weights, path, metadata={KEY: json.dumps(content)})


class TestRoundTrip:
    def test_what_is_loaded_gives_the_same_logits(self, bundle: Bundle, path: Path):
        loaded = load_bundle(path)
        image = torch.randn(1, 2, 16, 8, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            assert torch.equal(loaded.net(image), bundle.net(image))
        assert not loaded.net.training

    def test_what_is_loaded_has_the_same_recipe_and_version(self, bundle: Bundle, path: Path):
        loaded = load_bundle(path)
        assert loaded.recipe == bundle.recipe
        assert [*loaded.recipe.images] == ["t1", "flair"]  # the order is the network's
        assert loaded.version == "0.0.test"
        assert read_recipe(path) == (bundle.recipe, "0.0.test")

    def test_it_keeps_the_codes_of_its_labels(self, bundle: Bundle, path: Path):
        labels = LabelScheme(
            values={1: "one", 4: "four"}, codes={"one": TERMS["liver"], "four": TERMS["RC"]}
        )
        recipe = bundle.recipe.model_copy(update={"labels": labels})
        save_bundle(Bundle(bundle.net, recipe, "0.0.test"), path)
        assert load_bundle(path).recipe.labels == labels

    @pytest.mark.parametrize(("knob", "default"), [("codes", {}), ("ignore", None)])
    def test_one_from_before_a_knob_of_labels_is_read(self, path: Path, knob: str, default: Any):
        weights, metadata = load_file(path), read_metadata(path)
        content = json.loads(metadata[KEY])
        del content["recipe"]["labels"][knob]
        content.pop("sha256")
        content["sha256"] = digest_of(content, weights)
        save_file(weights, path, metadata={KEY: json.dumps(content)})
        assert getattr(load_bundle(path).recipe.labels, knob) == default

    def test_the_same_bundle_gives_the_same_bytes(self, bundle: Bundle, path: Path, tmp_path: Path):
        for again in (bundle, load_bundle(path)):
            save_bundle(again, str(tmp_path / "again.safetensors"))
            assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()

    def test_saving_leaves_the_network_as_it_is(self, bundle: Bundle, tmp_path: Path):
        bundle.net.train()
        before = {name: tensor.clone() for name, tensor in bundle.net.state_dict().items()}
        save_bundle(bundle, tmp_path / "a.safetensors")
        assert bundle.net.training
        assert all(torch.equal(t, before[n]) for n, t in bundle.net.state_dict().items())

    def test_loading_leaves_the_global_generator_as_it_is(self, path: Path):
        before = torch.random.get_rng_state()
        load_bundle(path)
        assert torch.equal(torch.random.get_rng_state(), before)


class TestDamage:
    def test_a_file_cut_at_any_length_is_refused(self, path: Path):
        whole = path.read_bytes()
        for length in {*np.linspace(0, len(whole) - 1, 60, dtype=int), 7, 8, 9, len(whole) - 1}:
            path.write_bytes(whole[:length])
            assert "no whole .safetensors file" in refusal(path)

    def test_a_single_flipped_bit_anywhere_is_refused(self, path: Path):
        whole = path.read_bytes()
        rng = np.random.default_rng(0)
        header = 8 + int.from_bytes(whole[:8], "little")
        version = whole.index(b"0.0.test")
        places = [
            *range(8),
            *range(version, version + 8),
            *rng.choice(header, 140, replace=False),
            *rng.choice(np.arange(header, len(whole)), 60, replace=False),
        ]
        for place in places:
            damaged = bytearray(whole)
            damaged[place] ^= 1 << rng.integers(8)
            path.write_bytes(damaged)
            refusal(path)

    def test_what_follows_the_weights_is_refused(self, path: Path):
        path.write_bytes(path.read_bytes() + b"\0")
        assert "no whole .safetensors file" in refusal(path)

    @pytest.mark.parametrize(
        "change",
        [
            lambda c: c["recipe"]["preprocess"].update(intensity="none"),
            lambda c: c["recipe"].update(images=dict(reversed(c["recipe"]["images"].items()))),
            lambda c: c["recipe"].pop("labels"),
            lambda c: c.update(version="9"),
            lambda c: c.pop("sha256"),
        ],
    )
    def test_whatever_else_was_changed_is_told_as_damage(
        self, path: Path, change: Callable[[dict[str, Any]], object]
    ):
        rewrite(path, change)
        assert "is damaged: the SHA-256" in refusal(path)

    def test_other_weights_under_the_same_recipe_are_told_as_damage(self, path: Path):
        metadata, weights = read_metadata(path), load_file(path)
        name = next(name for name in weights if name.endswith("weight"))
        save_file({**weights, name: -weights[name]}, path, metadata=metadata)
        assert "is damaged: the SHA-256" in refusal(path)


class TestForeign:
    def test_a_missing_file_is_told_with_where_bundles_come_from(self, tmp_path: Path):
        said = refusal(tmp_path / "none.safetensors")
        assert said.startswith("no model file '")
        assert "RUN/model.safetensors" in said

    def test_a_folder_is_no_model(self, tmp_path: Path):
        assert "no model file" in refusal(tmp_path)

    def test_weights_of_others_are_told_apart_from_damage(self, path: Path):
        for metadata in (None, {"format": "pt"}, {KEY: "text"}, {KEY: "[]"}, {KEY: "{}"}):
            save_file({"weight": torch.ones(3)}, path, metadata=metadata)
            said = refusal(path)
            assert "is a .safetensors file but no medseg3d bundle" in said
            assert "medseg3d.save_bundle" in said

    @pytest.mark.parametrize("content", [b"", b"text, not weights\n" * 99, pickle.dumps({"a": 1})])
    def test_files_of_other_kinds_are_refused(self, path: Path, content: bytes):
        path.write_bytes(content)
        assert "no whole .safetensors file" in refusal(path)

    def test_a_pickled_model_is_refused_unread(self, path: Path):
        torch.save({"weight": torch.ones(3)}, path)
        assert "no whole .safetensors file" in refusal(path)

    @pytest.mark.parametrize("written", [2, "1"])
    def test_another_format_is_told_with_the_version_that_reads_it(self, path: Path, written: Any):
        rewrite(path, lambda content: content.update(format=written, version="7.2"))
        said = refusal(path)
        assert f"has bundle format {written}, this medseg3d reads 1: use medseg3d 7.2" in said

    def test_a_recipe_this_version_does_not_know_is_told_by_its_keys(self, path: Path):
        def renew(content: dict[str, Any]) -> None:
            content["version"] = "7.2"
            content["recipe"]["preprocess"]["sharpen"] = True
            content["recipe"]["network"]["depths"] = 2

        rewrite(path, renew, honestly=True)
        said = refusal(path)
        for part in ("written by medseg3d 7.2", "preprocess.sharpen: unknown", "network.depths"):
            assert part in said
        with pytest.raises(BundleError, match=r"preprocess\.sharpen: unknown"):
            read_recipe(path)

    def test_weights_that_do_not_fit_the_recipe_are_refused(self, bundle: Bundle, path: Path):
        wider = UNetConfig(channels=(2, 5), encoder_blocks=1, decoder_blocks=1)
        recipe = bundle.recipe.model_copy(update={"network": wider})
        save_bundle(Bundle(bundle.net, recipe, "0.0.test"), path)
        said = refusal(path)
        assert "weights do not fit the recipe's network" in said
        assert "size mismatch" in said
