"""The state from which a killed run goes on; safetensors, no pickle.

What is a function of the step is not in it: the order of patches, what dropout draws, the learning
rate.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn, optim

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
        BundleError: the file is damaged.
    """
    try:
        with safe_open(path, framework="pt") as stream:
            metadata = stream.metadata()
            facts = json.loads(metadata["facts"])
            tensors = {name: stream.get_tensor(name) for name in stream.keys()}
        _require_digest(metadata["sha256"], facts, tensors)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise _not_resumable(path, error) from error
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        part, _, rest = name.partition(".")
        parts.setdefault(part, {})[rest] = tensor
    return Checkpoint(parts, facts)


def parts_of(net: nn.Module, optimizer: optim.Optimizer) -> dict[str, Tensors]:
    """Give the tensors of a network and its optimiser."""
    states = optimizer.state_dict()["state"]
    return {
        "net": net.state_dict(),
        "optimizer": {f"{n}.{name}": t for n, state in states.items() for name, t in state.items()},
    }


@contextmanager
def resuming(path: Path) -> Iterator[Checkpoint]:
    """Read a state, to take from it what is needed.

    Raises:
        BundleError: the file is damaged, or lacks something: it is of another medseg3d.
    """
    saved = load_checkpoint(path)
    try:
        yield saved
    except (RuntimeError, KeyError, TypeError, ValueError) as error:
        raise _not_resumable(path, f"it is of another medseg3d ({error!r:.200})") from error


def restore(saved: Checkpoint, net: nn.Module, optimizer: optim.Optimizer) -> None:
    """Put what `parts_of` gave back, onto the devices where they are now.

    Raises:
        KeyError, RuntimeError: it was made by another network.
    """
    net.load_state_dict(saved.parts["net"])
    states: dict[int, dict[str, Tensor]] = {}
    for name, tensor in saved.parts.get("optimizer", {}).items():
        number, _, key = name.partition(".")
        states.setdefault(int(number), {})[key] = tensor
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": states, "param_groups": groups})


def _not_resumable(path: Path, error: Exception | str) -> BundleError:
    return BundleError(
        f"checkpoint '{path}' cannot be resumed from: {error}. Delete it to start again."
    )


def _require_digest(sha256: str, facts: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    if digest_of(facts, tensors) != sha256:
        raise ValueError("its SHA-256 is not the one it was written with")
