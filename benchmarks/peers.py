"""The sliding windows of others, called as their own documentation or pipeline does.

Everyone gets the same network object, tiles of one size and half of a tile as overlap, one tile at
a time. MONAI comes with medseg3d[train]; the other two are optional, and best installed into a
folder of their own without what they ask for, which includes a torch:

    pip install --no-deps --target PEERS nnunetv2 torchio acvl_utils batchgenerators \
        batchgeneratorsv2 threadpoolctl tqdm blosc2 msgpack ndindex numexpr humanize deprecated \
        wrapt einops httpx httpcore h11 anyio sniffio certifi
    PYTHONPATH=PEERS OMP_NUM_THREADS=1 python benchmarks/inference.py

MONAI and nnU-Net weigh a tile's logits where they lie: they write into what the network gave them.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import version
from types import SimpleNamespace

import torch
from torch import Tensor, nn

OVERLAP = 0.5
"""Share of a tile that its neighbour covers too."""


@dataclass(frozen=True)
class Job:
    """What everyone is given."""

    net: nn.Module
    image: Tensor
    """C I J K, float32."""
    tile: tuple[int, ...]
    channels: int
    """Those that the network gives."""


@dataclass(frozen=True)
class Peer:
    """Someone else's sliding window."""

    package: str
    window: Callable[[Job], Tensor]
    """Gives logits (L I J K)."""
    writes: bool
    """Into the logits that the network gave."""


@torch.inference_mode()
def by_monai(job: Job, *, weights: Tensor | None = None) -> Tensor:
    """Let MONAI's `sliding_window_inference` blend by a Gaussian as wide as nnU-Net's and ours."""
    return import_module("monai.inferers").sliding_window_inference(
        job.image[None],
        job.tile,
        1,
        job.net,
        overlap=OVERLAP,
        mode="gaussian",
        sigma_scale=0.125,
        roi_weight_map=weights,
    )[0]


def by_monai_unfloored(job: Job) -> Tensor:
    """Let MONAI do so by the Gaussian itself, which it else keeps above 1e-3 of its peak."""
    weights = torch.ones(())
    for n in job.tile:
        offsets = torch.arange(n) - (n - 1) / 2
        weights = weights[..., None] * (-0.5 * (offsets / (0.125 * n)) ** 2).exp()
    return by_monai(job, weights=weights)


def by_monai_autocast(job: Job) -> Tensor:
    """Let MONAI do so in bfloat16, as its users are told to."""
    with torch.autocast("cpu", torch.bfloat16):
        return by_monai(job)


def by_nnunet(job: Job) -> Tensor:
    """Let nnU-Net's predictor blend; it sums up in half precision, and has no autocast on CPUs."""
    with _quiet():
        module = import_module("nnunetv2.inference.predict_from_raw_data")
        predictor = module.nnUNetPredictor(
            tile_step_size=1 - OVERLAP,
            use_gaussian=True,
            use_mirroring=False,
            perform_everything_on_device=False,
            device=torch.device("cpu"),
            allow_tqdm=False,
        )
    predictor.network = job.net
    predictor.configuration_manager = SimpleNamespace(patch_size=job.tile)
    predictor.label_manager = SimpleNamespace(num_segmentation_heads=job.channels)
    return predictor.predict_sliding_window_return_logits(job.image)


def by_torchio(job: Job) -> Tensor:
    """Let TorchIO's sampler and aggregator blend by a Hann window, the closest to a Gaussian."""
    with _quiet():
        torchio = import_module("torchio")
        subject = torchio.Subject(image=torchio.ScalarImage(tensor=job.image))
        sampler = torchio.GridSampler(subject, job.tile, [int(n * OVERLAP) for n in job.tile])
        aggregator = torchio.GridAggregator(sampler, overlap_mode="hann")
        with torch.inference_mode():
            for batch in torchio.SubjectsLoader(sampler, batch_size=1):
                logits = job.net(batch["image"][torchio.DATA])
                aggregator.add_batch(logits, batch[torchio.LOCATION])
        return aggregator.get_output_tensor()


PEERS = {
    "MONAI": Peer("monai", by_monai, writes=True),
    "nnU-Net": Peer("nnunetv2", by_nnunet, writes=True),
    "TorchIO": Peer("torchio", by_torchio, writes=False),
}


def find_peers() -> dict[str, Peer]:
    """Give the peers that can be called here."""
    return {name: peer for name, peer in PEERS.items() if not why_absent(peer)}


def describe_peers() -> dict[str, str]:
    """Give the version of each peer, or say that it is not installed."""
    return {name: why_absent(peer) or version(peer.package) for name, peer in PEERS.items()}


@cache
def why_absent(peer: Peer) -> str | None:
    """Say that a peer is not installed, or what it misses; nothing where it can be called."""
    smallest = Job(nn.Identity(), torch.zeros(1, 4, 4, 4), (4, 4, 4), channels=1)
    try:
        peer.window(smallest)
    except ImportError as error:
        return f"not installed: {error}"
    return None


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what others print out of the document, and their warnings out of sight."""
    with redirect_stdout(None), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
