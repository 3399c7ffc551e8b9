"""What a network is and takes."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, UntypedStorage, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from medseg3d.config.network import MonaiConfig, NetworkConfig
from medseg3d.nets.presets import build_net

TILES: Final = {2: (512, 512), 3: (128, 128, 128)}
"""Number of spatial axes -> the tile that networks are described by."""


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
