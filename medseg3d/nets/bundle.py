"""The model as people ship it: one .safetensors file with weights and the whole recipe.

The file's metadata holds one key, `medseg3d`: JSON with the format's number, the version that
wrote it, the recipe, and a SHA-256 over all of these and the weights. No pickle anywhere.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from medseg3d.config.load import parse_section
from medseg3d.config.recipe import Recipe
from medseg3d.errors import BundleError, ConfigError
from medseg3d.io.atomic import write_atomically
from medseg3d.nets.presets import build_net

FORMAT: Final = 1
KEY: Final = "medseg3d"


@dataclass(frozen=True, slots=True, eq=False)
class Bundle:
    """A trained network in eval mode, and what it takes to use it."""

    net: nn.Module
    recipe: Recipe
    version: str
    """The medseg3d version that trained it."""


def build_recipe_net(recipe: Recipe) -> nn.Module:
    """Build a recipe's network, without trained weights."""
    return build_net(
        recipe.network,
        spatial_dims=recipe.spatial_dims,
        in_channels=len(recipe.images),
        out_channels=recipe.num_outputs,
    )


def reuse_weights(bundle: Bundle, recipe: Recipe) -> Bundle:
    """Give a bundle's weights a changed recipe, whose network must have the same ones."""
    with torch.device("meta"):
        net = build_recipe_net(recipe)
    net.load_state_dict(bundle.net.state_dict(), assign=True)
    return Bundle(net.eval(), recipe, bundle.version)


def save_bundle(bundle: Bundle, path: str | Path) -> None:
    """Write a bundle; the same weights and recipe give the same bytes."""
    weights = _stored_weights(bundle)
    content = {
        "format": FORMAT,
        "version": bundle.version,
        "recipe": bundle.recipe.model_dump(mode="json"),
    }
    content["sha256"] = digest_of(content, weights)
    write_atomically(Path(path), save(weights, metadata={KEY: json.dumps(content)}))


def load_bundle(path: str | Path) -> Bundle:
    """Read a bundle onto the CPU.

    Raises:
        BundleError: no such file, not safetensors, not a bundle, of a newer format, damaged
            (its SHA-256 differs), or weights that do not fit the recipe's network.
    """
    content, weights = _read(Path(path), with_weights=True)
    if content.pop("sha256", None) != digest_of(content, weights):
        raise BundleError(
            f"'{path}' is damaged: the SHA-256 of its weights and recipe is not the one it was "
            "written with. Copy it again from where it came from."
        )
    recipe = _parse_recipe(content, path)
    with torch.device("meta"):  # no weights are drawn only to be replaced
        net = build_recipe_net(recipe)
    try:
        net.load_state_dict(weights, assign=True)
    except RuntimeError as error:
        raise BundleError(f"'{path}': weights do not fit the recipe's network: {error}") from error
    return Bundle(net.eval(), recipe, str(content["version"]))


def read_recipe(path: str | Path) -> tuple[Recipe, str]:
    """Read a bundle's recipe and version without its weights.

    Raises:
        BundleError: as `load_bundle`, but for damaged weights, which are not looked at.
    """
    content, _ = _read(Path(path), with_weights=False)
    return _parse_recipe(content, path), str(content["version"])


def _read(path: Path, *, with_weights: bool) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if not path.is_file():
        raise BundleError(f"no model file '{path}'. `medseg3d train` writes RUN/model.safetensors.")
    try:
        with safe_open(path, framework="pt") as stream:
            metadata = stream.metadata() or {}
            names = stream.keys() if with_weights else ()
            weights = {name: stream.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise BundleError(
            f"'{path}' is no whole .safetensors file: {error}. Copy it again, or name another."
        ) from error
    try:
        content: dict[str, Any] = json.loads(metadata[KEY])
        written = content["format"]
        content["version"], content["recipe"]
    except (KeyError, ValueError, TypeError) as error:
        raise BundleError(
            f"'{path}' is a .safetensors file but no medseg3d bundle: its metadata lacks a whole "
            f"'{KEY}'. Make one with `medseg3d train` or medseg3d.save_bundle."
        ) from error
    if not isinstance(written, int) or written > FORMAT:
        raise BundleError(
            f"'{path}' has bundle format {written}, this medseg3d reads {FORMAT}: "
            f"use medseg3d {content['version']}"
        )
    return content, weights


def _parse_recipe(content: dict[str, Any], path: str | Path) -> Recipe:
    try:
        return parse_section(Recipe, content["recipe"], source="its recipe")
    except ConfigError as error:
        raise BundleError(f"'{path}', written by medseg3d {content['version']}: {error}") from error


def bundle_digest(bundle: Bundle) -> str:
    """Give what tells a bundle's network, weights and structure, from any other."""
    return digest_of(bundle.recipe.network.model_dump(mode="json"), _stored_weights(bundle))


def _stored_weights(bundle: Bundle) -> dict[str, Tensor]:
    return {name: t.detach().cpu().contiguous() for name, t in bundle.net.state_dict().items()}


def digest_of(content: dict[str, Any], weights: dict[str, Tensor]) -> str:
    """Give the SHA-256 of plain data and of named tensors, their types and shapes included."""
    digest = hashlib.sha256(json.dumps(content).encode())
    for name in sorted(weights):
        tensor = weights[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
