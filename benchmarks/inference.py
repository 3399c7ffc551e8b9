"""Whole cases and stitching alone, beside MONAI, nnU-Net and TorchIO, as one document of JSON.

    OMP_NUM_THREADS=1 python benchmarks/inference.py [full [ROUNDS]] > benchmarks/inference.json

`case`: 4 channels and 128×128×96 voxels, air around a head that fills as much of them as in BraTS,
go through the preset `resunet` with random weights in 64³ tiles that overlap by half: 18, at the
same places for everyone. `box` means cropped to where the image is not zero, which takes 8 tiles.
Results are held against MONAI's in fp32, blended without a floor under the Gaussian: MONAI's own
floor (1e-3 of the peak) counts where corners of tiles meet, nnU-Net sums up in fp16, and TorchIO
blends by a Hann window. OpenVINO's conversion is not timed.

`stitching`: 240×240×155 voxels in 128³ tiles to labels, with a network that gives one buffer over
and over. Peers make labels by argmax. MONAI and nnU-Net write into the buffer, so for them it is
filled anew for each tile; `refilling_cpu_s` is what that adds.

`startup`: CPU-seconds of `medseg3d predict --help`, and of a `predict` that has imported all and
then misses its model, beyond those of `import torch`.

turns.py tells how all take turns, peers.py how to install the peers; who cannot be imported is
left out. Medians of ROUNDS (5). `small` in place of `full` gives no figures, but shows that all
this runs. It takes half an hour.
"""

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import torch
from peers import (
    OVERLAP,
    Job,
    Peer,
    by_monai_autocast,
    by_monai_unfloored,
    describe_peers,
    find_peers,
)
from torch import Tensor, nn
from turns import OURS, Trial, describe_machine, take_turns

from medseg3d.nets.presets import build_net
from medseg3d.predict.engine import Engine, build_engine, native_precision
from medseg3d.predict.openvino import openvino_engine
from medseg3d.predict.sliding import predict_labels, predict_logits
from medseg3d.predict.tiles import plan_tiles

Way = Callable[[], Tensor]

CPU = torch.device("cpu")
HEAD = (0.57, 0.7, 0.9)
"""Share of each axis that a head takes in BraTS."""


@dataclass(frozen=True)
class Scale:
    """How large everything is."""

    case: tuple[int, int, int]
    case_tile: int
    stitched: tuple[int, int, int]
    stitched_tile: int
    channels: tuple[int, ...]


SCALES = {
    "full": Scale((128, 128, 96), 64, (240, 240, 155), 128, (4, 25)),
    "small": Scale((48, 48, 32), 32, (48, 40, 32), 32, (25,)),
}


def inference(size: str = "full", rounds: str = "5") -> dict[str, Any]:
    """Measure everything."""
    scale, num = SCALES[size], int(rounds)
    return {
        **describe_machine(),
        "openvino": version("openvino") if find_spec("openvino") else "not installed",
        **describe_peers(),
        "rounds": num,
        "case": take_turns(prepare_case, num, scale),
        **{
            f"stitching, {channels} channels": take_turns(prepare_stitching, num, scale, channels)
            | {"refilling_cpu_s": time_refilling(scale, channels)}
            for channels in scale.channels
        },
        "startup": measure_startup(num),
    }


def prepare_case(scale: Scale) -> Trial:
    """Draw a case and a network, and make engines of it."""
    torch.manual_seed(0)
    net = build_net("resunet", spatial_dims=3, in_channels=4, out_channels=4).eval()
    job = Job(net, draw_head(scale.case), (scale.case_tile,) * 3, channels=4)
    exact = by_monai_unfloored(job).softmax(0)
    ways: dict[str, Way] = {}
    for name, engine in build_engines(net, job.tile).items():
        ways[f"{OURS} {name}"] = partial(predict_logits, engine, job.image, tile_size=job.tile)
        ways[f"{OURS} {name}, box"] = partial(predict_box, engine, job)
    ways["MONAI bf16 autocast"] = partial(by_monai_autocast, job)
    for name, peer in find_peers().items():
        ways[name] = partial(peer.window, job)

    def judge(logits: Tensor) -> dict[str, float]:
        if logits.shape != exact.shape:
            return {}  # a box's tiles lie elsewhere, where random weights give something else
        return {
            "probability_difference": float((logits.float().softmax(0) - exact).abs().max()),
            "equal_labels": float((logits.argmax(0) == exact.argmax(0)).float().mean()),
        }

    return Trial(ways, judge)


def predict_box(engine: Engine, job: Job) -> Tensor:
    """Give the logits of the box alone; to become the knob `predict.focus`."""
    inside = (slice(None), *find_box(job.image))
    return predict_logits(engine, job.image[inside], tile_size=job.tile)


def build_engines(net: nn.Module, tile: tuple[int, ...]) -> dict[str, Engine]:
    """Make a network ready in fp32, in this processor's precision, and by OpenVINO."""
    native = native_precision(CPU)
    engines = {"fp32": build_engine(net), native: build_engine(net, precision=native)}
    if find_spec("openvino"):
        threads = torch.get_num_threads()
        run = openvino_engine(net, tile=(1, 4, *tile), threads=threads, cache=None, key="")
        engines["OpenVINO bf16"] = Engine(run, CPU)
    return engines


def draw_head(shape: tuple[int, int, int]) -> Tensor:
    """Draw noise in a head, and zeros around it."""
    axes = [torch.linspace(-1, 1, n) / share for n, share in zip(shape, HEAD, strict=True)]
    away = sum(grid**2 for grid in torch.meshgrid(*axes, indexing="ij"))
    return torch.rand(4, *shape) * (away < 1)


def find_box(image: Tensor) -> tuple[slice, ...]:
    """Give the smallest box outside of which all is zero."""
    filled = image.any(0)
    places = [filled.any(2).any(1), filled.any(2).any(0), filled.any(0).any(0)]
    ends = [place.nonzero()[[0, -1], 0].tolist() for place in places]
    return tuple(slice(first, last + 1) for first, last in ends)


class NearlyFree(nn.Module):
    """A network whose logits are the channel's number, in one buffer, for one tile at a time."""

    def __init__(self, channels: int, tile: tuple[int, ...], *, refill: bool = False) -> None:
        super().__init__()
        self.numbers = torch.arange(float(channels)).view(1, -1, 1, 1, 1)
        self.logits = self.numbers.expand(1, -1, *tile).contiguous()
        self.refill = refill

    def forward(self, tiles: Tensor) -> Tensor:
        """Give the buffer, filled anew where the last who got it wrote into it."""
        del tiles
        return self.logits.copy_(self.numbers) if self.refill else self.logits


def prepare_stitching(scale: Scale, channels: int) -> Trial:
    """Make all but the network of a case: tiles to labels."""
    tile = (scale.stitched_tile,) * 3
    job = Job(NearlyFree(channels, tile).eval(), torch.rand(1, *scale.stitched), tile, channels)
    written = replace(job, net=NearlyFree(channels, tile, refill=True).eval())
    ways: dict[str, Way] = {OURS: partial(predict_labels, job.net, job.image, tile_size=tile)}
    for name, peer in find_peers().items():
        ways[name] = partial(label_by, peer, written if peer.writes else job)
    return Trial(ways, lambda labels: {"right": float((labels == channels - 1).float().mean())})


def label_by(peer: Peer, job: Job) -> Tensor:
    """Make labels of all logits at once."""
    return peer.window(job).argmax(0)


def time_refilling(scale: Scale, channels: int) -> float:
    """Give the CPU-seconds of filling the buffer for as many tiles as there are."""
    tile = (scale.stitched_tile,) * 3
    net, image = NearlyFree(channels, tile, refill=True), torch.empty(0)
    net(image)
    start = time.process_time()
    for _ in range(plan_tiles(scale.stitched, tile, overlap=OVERLAP).num_tiles):
        net(image)
    return round(time.process_time() - start, 3)


def measure_startup(rounds: int) -> dict[str, float]:
    """Measure how soon `predict` starts, beyond what torch takes to be imported."""
    with tempfile.TemporaryDirectory() as folder:
        predict = ["-m", "medseg3d", "predict"]
        commands = {
            "import torch": ["-c", "import torch"],
            "predict --help": [*predict, "--help"],
            "predict": [*predict, f"{folder}/none.safetensors", folder, "--out", f"{folder}/out"],
        }
        spent: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(rounds):
            for name, command in commands.items():
                spent[name].append(run(command))
    cpu_s = {name: round(statistics.median(times), 3) for name, times in spent.items()}
    return {
        **cpu_s,
        "predict beyond import torch": round(cpu_s["predict"] - cpu_s["import torch"], 3),
    }


def run(command: list[str]) -> float:
    """Run Python; give its CPU-seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *command], capture_output=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    print(json.dumps(inference(*sys.argv[1:]), indent=1))
