"""Memory that labels of a huge image take, as one document of JSON.

    OMP_NUM_THREADS=1 python benchmarks/memory.py [full] > benchmarks/memory.json

512×512×1000 voxels of int16, 25 values, 128³ tiles, and a network that gives one buffer over and
over: each run in a process of its own, with the image in memory or memory-mapped, and with memory
allocated as it comes or kept (turns.py). `peak_gib` is all that lay in memory at once (VmHWM):
Python and torch, image, labels, and of a mapped image the pages read so far, which the system
drops when others need the room. `own_gib` is without those, looked at after each tile (RssAnon).

Peers would need more memory than many machines have. They get two smaller images (float32, as they
sum up in the image's dtype), and make labels by argmax; `extrapolated_gib` is where the straight
line through their two peaks comes to for 512×512×1000. `small` in place of `full` gives no figures,
but shows that all this runs. It takes a quarter of an hour.
"""

import json
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from inference import NearlyFree, label_by
from peers import PEERS, Job, describe_peers, find_peers
from turns import ALLOCATORS, describe_machine, fresh_process

from medseg3d.predict.sliding import predict_labels

CHANNELS = 25
STATUS = Path("/proc/self/status")

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Scale:
    """How large everything is."""

    huge: Shape
    peers: tuple[Shape, Shape]
    tile: Shape


SCALES = {
    "full": Scale((512, 512, 1000), ((192, 192, 250), (192, 192, 500)), (128,) * 3),
    "small": Scale((64, 64, 96), ((48, 48, 64), (48, 48, 128)), (32,) * 3),
}


def memory(size: str = "full") -> dict[str, Any]:
    """Measure ours, then the peers."""
    scale = SCALES[size]
    return {
        **describe_machine(),
        **describe_peers(),
        "shape": scale.huge,
        "medseg3d": measure_ours(scale),
        "peers": {name: extrapolate_peer(name, scale) for name in find_peers()},
    }


def measure_ours(scale: Scale) -> dict[str, dict[str, float]]:
    """Measure every place of the image with every allocator."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "image"
        draw_image(path, scale.huge)
        return {
            f"{place}, {allocator}": in_process(
                allocator, label_ours, path, scale, place == "memory-mapped"
            )
            for place in ("in memory", "memory-mapped")
            for allocator in ALLOCATORS
        }


def draw_image(path: Path, shape: Shape) -> None:
    """Write noise in int16."""
    rng = np.random.default_rng(0)
    with path.open("wb") as file:
        for _ in range(shape[0]):
            rng.integers(-1000, 1000, shape[1:], dtype=np.int16).tofile(file)


def in_process(allocator: str, act: Callable[..., Any], *arguments: Any) -> Any:
    """Do something in a process of its own, whose memory is nobody else's."""
    with fresh_process(allocator) as pool:
        return pool.submit(act, *arguments).result()


def label_ours(path: Path, scale: Scale, mapped: bool) -> dict[str, float]:
    """Label an image in a file; give memory and CPU-seconds."""
    if mapped:
        voxels = np.memmap(path, np.int16, "c", shape=scale.huge)
    else:
        voxels = np.fromfile(path, np.int16).reshape(scale.huge)
    net = NearlyFree(CHANNELS, scale.tile).eval()
    own = 0.0

    def look(done: int, total: int) -> None:
        nonlocal own
        del done, total
        own = max(own, read_gib("RssAnon:"))

    start = time.process_time()
    image = torch.from_numpy(voxels)[None]
    labels = predict_labels(net, image, tile_size=scale.tile, progress=look)
    cpu_s = time.process_time() - start
    return {
        "peak_gib": round(read_gib("VmHWM:"), 2),
        "own_gib": round(own, 2),
        "cpu_s": round(cpu_s, 1),
        "right": float((labels == CHANNELS - 1).float().mean()),
    }


def extrapolate_peer(name: str, scale: Scale) -> dict[str, float]:
    """Draw a line through a peer's peaks, as far as the huge image."""
    peaks = [
        in_process("as it comes", label_peer, name, shape, scale.tile) for shape in scale.peers
    ]
    (fewer, more), voxels = map(prod, scale.peers), prod(scale.huge)
    per_voxel = (peaks[1] - peaks[0]) / (more - fewer)
    return {
        "measured_gib": [round(peak, 2) for peak in peaks],
        "bytes_per_voxel_and_channel": round(per_voxel * 2**30 / CHANNELS, 2),
        "extrapolated_gib": round(peaks[1] + per_voxel * (voxels - more), 1),
    }


def label_peer(name: str, shape: Shape, tile: Shape) -> float:
    """Let a peer label an image; give the peak of memory."""
    warnings.simplefilter("ignore")  # the peers'
    net = NearlyFree(CHANNELS, tile, refill=PEERS[name].writes).eval()
    label_by(PEERS[name], Job(net, torch.rand(1, *shape), tile, CHANNELS))
    return read_gib("VmHWM:")


def read_gib(what: str) -> float:
    """Give what Linux counts of this process's memory."""
    words = STATUS.read_text().split()
    return int(words[words.index(what) + 1]) / 2**20


if __name__ == "__main__":
    print(json.dumps(memory(*sys.argv[1:]), indent=1))
