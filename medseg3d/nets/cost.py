"""What a network is and takes."""

from collections.abc import Callable, MutableMapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from math import prod
from typing import Any, Final

import torch
from torch import Tensor, UntypedStorage, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode
from torch.utils.weak import WeakIdKeyDictionary

from medseg3d.config.network import MonaiConfig, NetworkConfig
from medseg3d.nets.presets import build_net

TILES: Final = {2: (512, 512), 3: (128, 128, 128)}
"""Number of spatial axes -> the tile that networks are described by."""


LARGEST_UNFOLDED: Final = 20480
"""Channels times voxels of a plane, up to which torch does without oneDNN (Convolution.cpp)."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What a network is and takes, per tile of one image."""

    parameters: int
    divisor: tuple[int, ...]
    tile: tuple[int, ...]
    tflops: float
    """Of prediction; multiplications and additions of convolutions and matrices count apart."""
    activations_gib: float
    """What a training step keeps for the gradients besides the weights, in 32 bits."""


def measure_cost(
    config: NetworkConfig,
    *,
    spatial_dims: int,
    in_channels: int = 1,
    out_channels: int = 2,
    tile: Sequence[int] | None = None,
) -> Cost:
    """Count what a network takes for a tile, from shapes alone: nothing is computed or allocated.

    A tile that the network cannot halve is enlarged to the next one that it can. Memory is the sum
    over all tensors that autograd saves, each storage once; at its peak a training step needs that,
    the largest few of them again as gradients, weights, and the optimiser's state.
    """
    with nullcontext() if isinstance(config, MonaiConfig) else torch.device("meta"):
        net = build_net(
            config, spatial_dims=spatial_dims, in_channels=in_channels, out_channels=out_channels
        ).to("meta")
    lengths = zip(tile or TILES[spatial_dims], net.divisor, strict=True)
    fitting = tuple(-(-length // divisor) * divisor for length, divisor in lengths)
    image = torch.empty(1, in_channels, *fitting, device="meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net.eval()(image)
    return Cost(
        parameters=sum(p.numel() for p in net.parameters()),
        divisor=net.divisor,
        tile=fitting,
        tflops=counter.get_total_flops() / 1e12,
        activations_gib=_count_kept(net.train(), image) / 2**30,
    )


@dataclass(frozen=True, slots=True)
class StepMemory:
    """Bytes that a training step takes at its peak."""

    weights: int
    """Weights, gradients and the optimiser's state, whatever the batch."""
    tensors: int
    """What grows with the voxels of a batch."""
    voxels: int
    """Of the batch that was counted."""

    def of(self, voxels: int) -> int:
        """Give what a batch of so many voxels takes."""
        return self.weights + self.tensors * voxels // self.voxels


def measure_step(
    config: NetworkConfig,
    *,
    in_channels: int,
    out_channels: int,
    batch: int,
    patch: Sequence[int],
    state_bytes: int = 8,
) -> StepMemory:
    """Count the memory of forward pass, loss and backward pass in 32 bits, from shapes alone.

    Whatever torch gives is followed until nothing refers to it, gradients too, and what
    convolutions set aside counts. The optimiser keeps `state_bytes` for each weight: 8 for AdamW,
    4 for SGD with momentum.
    """
    with nullcontext() if isinstance(config, MonaiConfig) else torch.device("meta"):
        net = build_net(
            config, spatial_dims=len(patch), in_channels=in_channels, out_channels=out_channels
        ).to("meta")
    image = torch.empty(batch, in_channels, *patch, device="meta")
    with _Living([]) as living:
        living.note(image)
        outputs = net.train()(image)
        losses = [
            _overlap_and_entropy(o) for o in (outputs if isinstance(outputs, list) else [outputs])
        ]
        torch.autograd.backward(losses)
    num_weights = sum(p.numel() for p in net.parameters())
    weights = (4 + 4 + state_bytes) * num_weights
    return StepMemory(weights, int(living.peak), voxels=batch * prod(patch))


def _overlap_and_entropy(logits: Tensor) -> Tensor:
    """Take what a loss of regions and voxels takes, which holds probabilities once."""
    channels = torch.zeros((len(logits), *logits.shape[2:]), dtype=torch.long, device=logits.device)
    return cross_entropy(logits, channels)


def _count_kept(net: nn.Module, image: Tensor) -> int:
    """Count the bytes that a pass keeps for the gradients, the image and the weights left out."""
    known = [tensor.untyped_storage() for tensor in (image, *net.parameters(), *net.buffers())]
    kept = {id(storage): 0 for storage in known}
    held: list[UntypedStorage] = []  # so that no id is given twice

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept.setdefault(id(storage), storage.nbytes())
        held.append(storage)
        return tensor

    with saved_tensors_hooks(note, lambda tensor: tensor):
        net(image)
    return sum(kept.values())


@torch.no_grad()
def measure_peak(
    run: Callable[[Tensor], object], image: Tensor, *, tile: Sequence[int] | None = None
) -> int:
    """Count the bytes of tensors alive at the peak of a pass; the image counts, weights do not.

    A small image will do: what it takes grows with it, here to the size of `tile`. What a
    convolution sets aside counts too. On the device `meta` nothing is computed, but torch imports
    its compiler for convolutions, which takes a second.
    """
    small = image.shape[2:] if tile else ()
    with _Living([n / m for n, m in zip(tile or (), small, strict=True)]) as living:
        living.note(image)
        run(image)
    return int(living.peak)


class _Living(TorchDispatchMode):  # type: ignore[no-untyped-call] # torch's
    """Follows storages from the operation that gives them until nothing refers to them."""

    def __init__(self, growth: Sequence[float]) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # torch's
        self.peak = 0.0
        self._growth = growth
        self._storages: MutableMapping[UntypedStorage, int] = WeakIdKeyDictionary()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # the way to skip it is to import it, which takes a second

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        given = [tensor for tensor in tree_leaves(result) if isinstance(tensor, Tensor)]
        aside = 0.0
        if func.overloadpacket is torch.ops.aten.convolution:
            aside = self._set_aside(args[0], args[1], given[0])
        if func.overloadpacket is torch.ops.aten.convolution_backward:
            aside = self._set_aside(args[1], args[2], args[0])
        self.note(*given, aside=aside)
        return result

    def note(self, *tensors: Tensor, aside: float = 0.0) -> None:
        """Follow tensors from now on; `aside` is what their making took for itself."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            self._storages[storage] = storage.nbytes()
        self.peak = max(self.peak, aside + sum(self._storages.values()) * prod(self._growth))

    def _set_aside(self, image: Tensor, weight: Tensor, result: Tensor) -> float:
        """Count the copies that a convolution works on, in the order of memory that suits it.

        On CPUs, torch unfolds small images of three axes: each kernel's voxels lie side by side.
        """
        plane = prod(image.shape[:4]) * prod(self._growth[:2])
        unfolds = image.ndim == 5 and len(image) == 1 and plane <= LARGEST_UNFOLDED
        if unfolds and image.dtype == torch.float32 and image.device.type == "cpu":
            copies = prod(weight.shape[1:]) * prod(result.shape[2:])
        else:
            in_blocks = (-(-tensor.shape[1] // 16) * 16 for tensor in (image, result))
            copies = sum(
                len(tensor) * channels * prod(tensor.shape[2:])
                for tensor, channels in zip((image, result), in_blocks, strict=True)
            )
        return float(copies * image.element_size() * prod(self._growth))
