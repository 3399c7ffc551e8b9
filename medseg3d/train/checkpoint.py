"""The state from which a killed run goes on: weights, optimiser, step; safetensors, no pickle."""

from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn, optim

from medseg3d.errors import BundleError
from medseg3d.io.atomic import write_atomically
from medseg3d.nets.bundle import digest_of


def save_checkpoint(path: Path, net: nn.Module, optimizer: optim.Optimizer, *, step: int) -> None:
    """Write the state after `step` steps, whole or not at all."""
    tensors = {f"net.{name}": tensor for name, tensor in net.state_dict().items()}
    for number, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{number}.{name}": tensor for name, tensor in state.items()}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    sha256 = digest_of({"step": step}, tensors)
    write_atomically(path, save(tensors, metadata={"step": str(step), "sha256": sha256}))


def load_checkpoint(path: Path, net: nn.Module, optimizer: optim.Optimizer) -> int:
    """Put a saved state into a network and its optimiser; give the number of steps done.

    Raises:
        BundleError: the file is damaged or was made by another network.
    """
    try:
        with safe_open(path, framework="pt") as stream:
            metadata = stream.metadata()
            step = int(metadata["step"])
            tensors = {name: stream.get_tensor(name) for name in stream.keys()}
        _require_digest(metadata["sha256"], step, tensors)
        weights, states = _split(tensors)
        net.load_state_dict(weights)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise BundleError(
            f"checkpoint '{path}' cannot be resumed from: {error}. Delete it to start again."
        ) from error
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": states, "param_groups": groups})
    return step


def _require_digest(sha256: str, step: int, tensors: dict[str, Tensor]) -> None:
    if digest_of({"step": step}, tensors) != sha256:
        raise ValueError("its SHA-256 is not the one it was written with")


def _split(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[int, dict[str, Any]]]:
    weights: dict[str, Tensor] = {}
    states: dict[int, dict[str, Any]] = {}
    for name, tensor in tensors.items():
        part, _, rest = name.partition(".")
        if part == "net":
            weights[rest] = tensor
        else:
            number, _, key = rest.partition(".")
            states.setdefault(int(number), {})[key] = tensor
    return weights, states
