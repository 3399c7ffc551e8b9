"""What a GPU gets done: ceilings, tiles, whole volumes beside peers; a JSON line a stage.

    python benchmarks/gpu.py [--small] | tee benchmarks/gpu.jsonl

A synthetic image of BraTS's size (4×240×240×155) goes through a Res-UNet with instance norms,
leaky ReLU and random weights, in 18 tiles of 128³ that overlap by half. Medians of 5 after a
warm-up, on the wall clock. First come what the device can do at best, and what a tile takes in each
way to launch a network, in batches of 1, 2 and 4; then the volume from image in host memory to
labels there, its floor (the network's operations at the rate of the best matrix product), the most
device memory, and the share of the time in which the network runs; MONAI's and nnU-Net's predictors
where they are installed. What fails says so in its line. It takes less than ten minutes and needs
torch, NumPy, jaxtyping, pydantic, PyYAML and safetensors only.
`--small` goes through all of it on small images, on a CPU too.
"""

import json
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from medseg3d.nets.cost import measure_cost
from medseg3d.nets.presets import NETS, build_net
from medseg3d.predict.engine import Engine, build_engine
from medseg3d.predict.sliding import predict_labels

CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")
ROUNDS = 5
KERNELS = ("eager", "graph", "fused", "inductor")
Action = Callable[[], Any]


@dataclass(frozen=True)
class Scale:
    """How large everything is."""

    image: tuple[int, ...] = (240, 240, 155)
    tile: tuple[int, ...] = (128, 128, 128)
    channels: tuple[int, ...] = (32, 64, 128, 256, 320)
    batches: tuple[int, ...] = (1, 2, 4)
    matrix: int = 8192
    copied: int = 2**30
    convolutions: dict[int, int] = field(
        default_factory=lambda: {32: 128, 64: 96, 128: 64, 256: 32, 320: 16}
    )
    """Channels -> edge of the cube they are convolved over."""


SMALL = Scale((24, 24, 20), (16, 16, 16), (4, 8), (1, 2), 128, 2**20, {8: 16})


def main() -> None:
    """Go through the stages; each is told as soon as it is measured."""
    scale = SMALL if "--small" in sys.argv else Scale()
    torch.manual_seed(0)
    config = NETS["resunet"].model_copy(
        update={"channels": scale.channels, "norm": "instance", "activation": "leaky_relu"}
    )
    net = build_net(config, spatial_dims=3, in_channels=4, out_channels=4).to(DEVICE).eval()
    cost = measure_cost(config, spatial_dims=3, in_channels=4, out_channels=4, tile=scale.tile)
    tell("machine", name=torch.cuda.get_device_name() if CUDA else "cpu", torch=torch.__version__)
    with told("ceilings"):
        ceilings = measure_ceilings(scale)
        tell("ceilings", **ceilings)
    for way, run in ways_to_run(net):
        for batch in scale.batches if way != "inductor" else scale.batches[:1]:
            with told("tile", way=way, batch=batch):
                tell("tile", way=way, batch=batch, **measure_tile(run(), batch, scale, cost.tflops))
    image = torch.rand(4, *scale.image)
    exact = None
    for way, act, tiles in whole_volumes(net, image, scale):
        with told("volume", way=way):
            seconds, labels, gib = measure(act)
            exact = labels if exact is None else exact
            tell(
                "volume",
                way=way,
                seconds=seconds,
                floor_s=cost.tflops * tiles / ceilings["matrix_tflops"],
                peak_gib=gib,
                equal_labels=float((labels == exact).float().mean()),
            )
    with told("busy"):
        tell("busy", **measure_busy(net, image, scale))


def tell(stage: str, **facts: Any) -> None:
    """Print a line that stays even if the next stage is killed."""
    rounded = {k: round(v, 5) if isinstance(v, float) else v for k, v in facts.items()}
    print(json.dumps({"stage": stage, **rounded}), flush=True)


@contextmanager
def told(stage: str, **facts: Any) -> Iterator[None]:
    """Tell what fails, and go on."""
    try:
        yield
    except Exception as error:  # noqa: BLE001  the other stages are still worth their time
        first_line = str(error).partition("\n")[0]
        tell(stage, **facts, error=f"{type(error).__name__}: {first_line}")


def measure(act: Action) -> tuple[float, Any, float]:
    """Give the median of seconds, the last result, and the most device memory in GiB."""
    if CUDA:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    result, spent = act(), []
    for _ in range(ROUNDS):
        wait()
        start = time.perf_counter()
        result = act()
        wait()
        spent.append(time.perf_counter() - start)
    gib = torch.cuda.max_memory_reserved() / 2**30 if CUDA else 0.0
    return statistics.median(spent), result, gib


def wait() -> None:
    """Wait until the device has nothing left to do."""
    if CUDA:
        torch.cuda.synchronize()


@torch.inference_mode()
def measure_ceilings(scale: Scale) -> dict[str, float]:
    """Give the rates of the best matrix product, of copies (read and written), of convolutions."""
    half = {"device": DEVICE, "dtype": torch.bfloat16}
    a, b = torch.randn(2, scale.matrix, scale.matrix, **half)
    source = torch.empty(scale.copied, dtype=torch.uint8, device=DEVICE)
    target = torch.empty_like(source)
    rates = {
        "matrix_tflops": 2 * scale.matrix**3 / measure(lambda: a @ b)[0] / 1e12,
        "copy_gb_s": 2 * scale.copied / measure(lambda: target.copy_(source))[0] / 1e9,
    }
    for channels, edge in scale.convolutions.items():
        conv = nn.Conv3d(channels, channels, 3, padding=1, bias=False, **half)
        conv.to(memory_format=torch.channels_last_3d)
        x = torch.randn(1, channels, edge, edge, edge, **half)
        x = x.to(memory_format=torch.channels_last_3d)
        with torch.backends.cudnn.flags(enabled=True, benchmark=True):
            seconds = measure(lambda conv=conv, x=x: conv(x))[0]
        rates[f"conv_{channels}_{edge}_tflops"] = 2 * 27 * channels**2 * edge**3 / seconds / 1e12
    return rates


def ways_to_run(net: nn.Module) -> Iterator[tuple[str, Callable[[], Callable[[Tensor], Tensor]]]]:
    """Give names, and what builds a function of a batch of tiles."""
    yield "fp32", lambda: build_engine(net)
    yield "autocast", lambda: autocast(net)
    for kernels in KERNELS:
        yield kernels, lambda kernels=kernels: build_engine(net, precision="bf16", kernels=kernels)


def autocast(net: nn.Module) -> nn.Module:
    """Run a network as most do in half precision."""

    class Autocast(nn.Module):
        def forward(self, tiles: Tensor) -> Tensor:
            with torch.autocast(DEVICE.type, torch.bfloat16):
                return net(tiles)

    return Autocast().eval()


def measure_tile(
    run: Callable[[Tensor], Tensor], batch: int, scale: Scale, tflops: float
) -> dict[str, float]:
    """Time a batch of tiles that lies on the device."""
    tiles = torch.rand(batch, 4, *scale.tile, device=DEVICE)
    with torch.inference_mode():
        seconds, _, gib = measure(lambda: run(tiles))
    return {
        "ms_per_tile": 1e3 * seconds / batch,
        "tiles_per_s": batch / seconds,
        "tflops": tflops * batch / seconds,
        "peak_gib": gib,
    }


def whole_volumes(net: nn.Module, image: Tensor, scale: Scale) -> Iterator[tuple[str, Action, int]]:
    """Give names, what segments a volume, and how many tiles that takes; the first is exact."""
    tiles = count_tiles(image, scale)
    engines: dict[str, Callable[[], Engine]] = dict(ways_to_run(net))
    for way in ("fp32", *KERNELS):
        for batch in scale.batches if way not in ("fp32", "inductor") else (1,):
            with told("volume", way=way, batch=batch):
                engine = engines[way]()

                def segment(engine: Engine = engine, batch: int = batch) -> Tensor:
                    return predict_labels(
                        engine, image, tile_size=scale.tile, tile_batch=batch
                    ).cpu()

                yield f"medseg3d {way}, batches of {batch}", segment, tiles
    if find_spec("monai"):
        for name, run in (("fp32", net), ("autocast", autocast(net))):
            for batch in (scale.batches[0], scale.batches[-1]):
                act = by_monai(run, image, scale, batch)
                yield f"MONAI {name}, batches of {batch}", act, tiles
    if find_spec("nnunetv2"):
        yield "nnU-Net", by_nnunet(net, image, scale), tiles
    for peer in ("monai", "nnunetv2"):
        if not find_spec(peer):
            tell("volume", way=peer, error="not installed")


def count_tiles(image: Tensor, scale: Scale) -> int:
    """Count by running a network that costs nothing."""

    class Zeros(nn.Module):
        def forward(self, tiles: Tensor) -> Tensor:
            return tiles.new_zeros((len(tiles), 1, *tiles.shape[2:]))

    counts = []
    predict_labels(
        Zeros().eval(),
        image,
        tile_size=scale.tile,
        progress=lambda _, number: counts.append(number),
    )
    return counts[-1]


def by_monai(run: nn.Module, image: Tensor, scale: Scale, batch: int) -> Action:
    """Segment as MONAI does, sums and all on the device."""
    from monai.inferers import sliding_window_inference  # noqa: PLC0415

    def segment() -> Tensor:
        with torch.inference_mode():
            logits = sliding_window_inference(
                image[None].to(DEVICE), scale.tile, batch, run,
                overlap=0.5, mode="gaussian", sigma_scale=0.125,
            )  # fmt: skip
            return logits[0].argmax(0).cpu()

    return segment


def by_nnunet(net: nn.Module, image: Tensor, scale: Scale) -> Action:
    """Segment as nnU-Net does, without mirroring; it uses fp16 autocast on a GPU."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor  # noqa: PLC0415

    predictor = nnUNetPredictor(use_mirroring=False, device=DEVICE, allow_tqdm=False)
    predictor.network = net
    predictor.configuration_manager = SimpleNamespace(patch_size=scale.tile)
    predictor.label_manager = SimpleNamespace(num_segmentation_heads=4)
    return lambda: predictor.predict_sliding_window_return_logits(image).argmax(0).cpu()


def measure_busy(net: nn.Module, image: Tensor, scale: Scale) -> dict[str, float | str]:
    """Give the share of a volume's time in which the network runs, by events around it."""
    if not CUDA:
        return {"error": "no GPU"}
    engine, marks = build_engine(net, precision="bf16", kernels="graph"), []

    def marked(tiles: Tensor) -> Tensor:
        pair = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
        pair[0].record()
        logits = engine.run(tiles)
        pair[1].record()
        marks.append(pair)
        return logits

    engine_marked = replace(engine, run=marked)
    seconds, _, _ = measure(
        lambda: predict_labels(engine_marked, image, tile_size=scale.tile).cpu()
    )
    of_one = len(marks) // (ROUNDS + 1)
    network = sum(begin.elapsed_time(end) for begin, end in marks[-of_one:]) / 1e3
    return {"seconds": seconds, "network_s": network, "share": network / seconds}


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # MONAI's
    main()
