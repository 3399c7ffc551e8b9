"""The file of a pretrained encoder: weights by their names in the network, and whence they come.

As in a bundle, the metadata holds one key with JSON and a SHA-256 over it and the weights.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from medseg3d.config.load import parse_section
from medseg3d.config.pretrain import EncoderRecipe
from medseg3d.errors import BundleError
from medseg3d.io.atomic import write_atomically
from medseg3d.nets.bundle import digest_of

FORMAT: Final = 1
KEY: Final = "medseg3d_encoder"


@dataclass(frozen=True, slots=True, eq=False)
class Encoder:
    """Pretrained weights, and what another training must know of them."""

    weights: dict[str, Tensor]
    recipe: EncoderRecipe
    version: str
    """The medseg3d version that made them."""


def save_encoder(encoder: Encoder, path: Path) -> None:
    """Write an encoder; the same weights and recipe give the same bytes."""
    weights = {name: t.detach().cpu().contiguous() for name, t in encoder.weights.items()}
    content = {
        "format": FORMAT,
        "version": encoder.version,
        "recipe": encoder.recipe.model_dump(mode="json"),
    }
    content["sha256"] = digest_of(content, weights)
    write_atomically(path, save(weights, metadata={KEY: json.dumps(content)}))


def load_encoder(path: Path) -> Encoder:
    """Read an encoder onto the CPU.

    Raises:
        BundleError: not a whole file of an encoder, damaged (its SHA-256 differs), or of a newer
            format.
    """
    try:
        with safe_open(path, framework="pt") as stream:
            content = json.loads(stream.metadata()[KEY])
            weights = {name: stream.get_tensor(name) for name in stream.keys()}
        _require_whole(content, weights)
        recipe = parse_section(EncoderRecipe, content["recipe"], source="its recipe")
        return Encoder(weights, recipe, str(content["version"]))
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise BundleError(
            f"'{path}' cannot be read as a pretrained encoder: {error}. Copy it again, or make "
            "one with `medseg3d pretrain`."
        ) from error


def _require_whole(content: dict[str, Any], weights: dict[str, Tensor]) -> None:
    if content["format"] > FORMAT:
        raise ValueError(
            f"it is of format {content['format']}, this medseg3d reads {FORMAT}: use medseg3d "
            f"{content['version']}"
        )
    if content.pop("sha256") != digest_of(content, weights):
        raise ValueError("its SHA-256 is not the one it was written with")


def holds_encoder(path: Path) -> bool:
    """Tell whether a file says that it holds an encoder, without looking at the weights."""
    try:
        with safe_open(path, framework="pt") as stream:
            return KEY in (stream.metadata() or {})
    except (SafetensorError, OSError):
        return False
