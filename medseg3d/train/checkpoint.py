"""The state from which a killed run goes on; safetensors, no pickle.

What is a function of the step is not in it: the order of patches, what dropout draws, the learning
rate.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from medseg3d.errors import BundleError
from medseg3d.io.atomic import write_atomically
from medseg3d.nets.bundle import digest_of

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """Tensors by part (`net`, `optimizer`, …) and name, and plain facts."""

    parts: Mapping[str, Tensors]
    facts: Mapping[str, Any]


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a state, whole or not at all."""
    tensors = {
        f"{part}.{name}": tensor.detach().cpu().contiguous()
        for part, named in checkpoint.parts.items()
        for name, tensor in named.items()
    }
    facts = dict(checkpoint.facts)
    metadata = {"facts": json.dumps(facts), "sha256": digest_of(facts, tensors)}
    write_atomically(path, save(tensors, metadata=metadata))


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a state.

    Raises:
        BundleError: the file is damaged, or of an older medseg3d.
    """
    try:
        with safe_open(path, framework="pt") as stream:
            metadata = stream.metadata()
            facts = json.loads(metadata["facts"])
            tensors = {name: stream.get_tensor(name) for name in stream.keys()}
        _require_digest(metadata["sha256"], facts, tensors)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise not_resumable(path, error) from error
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        part, _, rest = name.partition(".")
        parts.setdefault(part, {})[rest] = tensor
    return Checkpoint(parts, facts)


def not_resumable(path: Path, error: Exception) -> BundleError:
    """Say that a checkpoint is of no use, and why."""
    return BundleError(
        f"checkpoint '{path}' cannot be resumed from: {error}. Delete it to start again."
    )


def flatten_states(states: Mapping[int, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Name the tensors of an optimiser's state `number.name`."""
    return {f"{n}.{name}": tensor for n, state in states.items() for name, tensor in state.items()}


def unflatten_states(tensors: Tensors) -> dict[int, dict[str, Tensor]]:
    """Undo `flatten_states`."""
    states: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        number, _, key = name.partition(".")
        states.setdefault(int(number), {})[key] = tensor
    return states


def _require_digest(sha256: str, facts: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    if digest_of(facts, tensors) != sha256:
        raise ValueError("its SHA-256 is not the one it was written with")
