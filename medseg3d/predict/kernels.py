"""How a network's kernels are launched: one by one, or as a CUDA graph, fused before or not.

All but the first want batches of one size, so smaller ones are filled up.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Final, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import pad

from medseg3d.config.predict import Kernels
from medseg3d.errors import ConfigError

Run: TypeAlias = Callable[[Float[Tensor, "B C *tile"]], Float[Tensor, "B L *tile"]]

WARM_UPS: Final = 3
"""Runs before a graph is captured, in which libraries choose and compile their kernels."""


class FilledBatches:
    """Runs batches of the largest size seen; what smaller ones are filled up with is cut off."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._size = 0

    def __call__(self, tiles: Float[Tensor, "B C *tile"]) -> Float[Tensor, "B L *tile"]:
        """Give the logits of these tiles alone."""
        count = len(tiles)
        self._size = max(self._size, count)
        missing = [0, 0] * (tiles.ndim - 1) + [0, self._size - count]
        return self._run(pad(tiles, missing))[:count]


@dataclass(frozen=True, slots=True)
class Captured:
    """A graph, and where it reads and writes."""

    graph: torch.cuda.CUDAGraph
    tiles: Float[Tensor, "B C *tile"]
    logits: Float[Tensor, "B L *tile"]


class GraphRunner:
    """Replays a network's kernels, for each tile's shape those of the largest batch seen.

    What a smaller batch leaves of it is run for nothing. All graphs share their memory.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._captured: dict[torch.Size, Captured] = {}
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, tiles: Float[Tensor, "B C *tile"]) -> Float[Tensor, "B L *tile"]:
        """Give the logits, in memory of their own; the first batch of a size takes longer."""
        count, tile = len(tiles), tiles.shape[1:]
        captured = self._captured.get(tile)
        if captured is None or len(captured.tiles) < count:
            captured = self._captured[tile] = self._capture(tiles.clone())
        captured.tiles[:count].copy_(tiles)
        captured.graph.replay()
        return captured.logits[:count].clone()

    def _capture(self, tiles: Float[Tensor, "B C *tile"]) -> Captured:
        """Run the network a few times beside the stream in use, as CUDA demands, then record it."""
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UPS):
                self._run(tiles)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            logits = self._run(tiles)
        return Captured(graph, tiles, logits)


def launch(net: nn.Module, kernels: Kernels, *, device: torch.device) -> Run:
    """Give what runs a network that lies on a device; norms are fused in place.

    Raises:
        ConfigError: CUDA's ways on another device, or Triton is needed and not installed.
    """
    if kernels in ("graph", "fused") and device.type != "cuda":
        raise ConfigError(
            f"kernels '{kernels}' need device 'cuda', got '{device.type}'; "
            "set predict.kernels to 'eager' or 'inductor'"
        )
    if kernels in ("fused", "inductor") and device.type == "cuda" and not find_spec("triton"):
        raise ConfigError(
            f"kernels '{kernels}' need Triton, which comes with torch for CUDA on Linux only; "
            "set predict.kernels to 'graph' or 'eager'"
        )
    if kernels == "eager":
        return net
    run: Any = net
    if kernels == "inductor":
        run = torch.compile(net, dynamic=False)
    if kernels == "fused":
        from medseg3d.predict.fused import fuse_norms  # noqa: PLC0415  Triton is not everywhere

        run = fuse_norms(net)
    return GraphRunner(run) if device.type == "cuda" else FilledBatches(run)
