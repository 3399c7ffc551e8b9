"""CPU-seconds of whole cases and of stitching alone, beside MONAI, printed as one JSON document.

    OMP_NUM_THREADS=1 python benchmarks/inference.py [ROUNDS] > benchmarks/inference.json

A case of 4 channels and 128×128×96 voxels goes through the preset `resunet` with random weights in
64³ tiles that overlap by half, 18 of them at the same places for everyone; in one process, all
take turns: medseg3d in fp32 and in the precision of this processor, MONAI's
sliding_window_inference as it comes and with bf16 autocast, on one network object. Stitching is
measured with a network that costs next to nothing, on 240×240×155 with 128³ tiles and 4 or 25
channels, labels included. Medians of ROUNDS (5); the largest difference of probabilities, and the
share of equal labels, against MONAI in fp32. It takes five minutes.
"""

import json
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import monai
import torch
from monai.inferers import sliding_window_inference
from torch import Tensor, nn

from medseg3d.nets.presets import build_net
from medseg3d.predict.engine import build_engine, native_precision
from medseg3d.predict.sliding import predict_labels, predict_logits

Action = Callable[[], Tensor]


class Ones(nn.Module):
    """Ones for logits: nearly free, in memory of their own."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, tiles: Tensor) -> Tensor:
        """Give ones."""
        return tiles.new_ones((len(tiles), self.channels, *tiles.shape[2:]))


def inference(rounds: str = "5") -> dict[str, Any]:
    """Measure a case, and stitching."""
    precision = native_precision(torch.device("cpu"))
    return {
        "monai": monai.__version__,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "precision": precision,
        "case": measure_case(int(rounds), precision),
        "stitching, 4 channels": measure_stitching(int(rounds), 4),
        "stitching, 25 channels": measure_stitching(int(rounds), 25),
    }


def measure_case(rounds: int, precision: Any) -> dict[str, Any]:
    """Time whole cases, and compare probabilities and labels."""
    torch.manual_seed(0)
    net = build_net("resunet", spatial_dims=3, in_channels=4, out_channels=4).eval()
    image, tile = torch.rand(4, 128, 128, 96), (64, 64, 64)
    native = build_engine(net, precision=precision)

    def by_monai(autocast: bool) -> Tensor:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            return sliding_window_inference(
                image[None], tile, 1, net, overlap=0.5, mode="gaussian", sigma_scale=0.125
            )[0].float()

    ways: dict[str, Action] = {
        "medseg3d fp32": lambda: predict_logits(net, image, tile_size=tile),
        f"medseg3d {precision}": lambda: predict_logits(native, image, tile_size=tile),
        "MONAI fp32": lambda: by_monai(False),
        "MONAI bf16 autocast": lambda: by_monai(True),
    }
    seconds, results = in_turn(ways, rounds)
    exact = results["MONAI fp32"].softmax(0)
    return {
        name: {
            "cpu_s": round(seconds[name], 2),
            "probability_difference": float((results[name].softmax(0) - exact).abs().max()),
            "equal_labels": float((results[name].argmax(0) == exact.argmax(0)).float().mean()),
        }
        for name in ways
    }


def measure_stitching(rounds: int, channels: int) -> dict[str, float]:
    """Time everything but the network: tiles to labels."""
    net, image, tile = Ones(channels).eval(), torch.rand(1, 240, 240, 155), (128, 128, 128)

    def by_monai() -> Tensor:
        with torch.inference_mode():
            logits = sliding_window_inference(
                image[None], tile, 1, net, overlap=0.5, mode="gaussian", sigma_scale=0.125
            )
            return logits[0].argmax(0)

    ways: dict[str, Action] = {
        "medseg3d": lambda: predict_labels(net, image, tile_size=tile),
        "MONAI": by_monai,
    }
    seconds, _ = in_turn(ways, rounds)
    return {name: round(value, 3) for name, value in seconds.items()}


def in_turn(ways: dict[str, Action], rounds: int) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Give the median CPU-seconds of each way, and its last result."""
    spent: dict[str, list[float]] = {name: [] for name in ways}
    results = {}
    for _ in range(rounds):
        for name, act in ways.items():
            start = time.process_time()
            results[name] = act()
            spent[name].append(time.process_time() - start)
    return {name: statistics.median(times) for name, times in spent.items()}, results


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # MONAI's
    print(json.dumps(inference(*sys.argv[1:]), indent=1))
