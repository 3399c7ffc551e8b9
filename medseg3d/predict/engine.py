"""How a batch of tiles is run: where, in which precision, in which order of memory."""

import copy
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Literal

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from medseg3d.config.predict import Kernels, Precision, PredictConfig
from medseg3d.errors import ConfigError
from medseg3d.nets.bundle import Bundle, bundle_digest
from medseg3d.predict.kernels import Run, launch
from medseg3d.predict.norms import quicken_norms
from medseg3d.predict.openvino import choose_backend, default_cache, openvino_engine

log = logging.getLogger(__name__)

AMPERE: Final = (8, 0)
"""Compute capability from which GPUs know bf16; older ones emulate it, as T4 and V100 do."""


@dataclass(frozen=True, slots=True)
class Engine:
    """A network made ready to run tiles."""

    run: Run
    device: torch.device
    dtype: torch.dtype = torch.float32
    channels_last: bool = False
    divisor: tuple[int, ...] | None = None
    """What a tile must be a multiple of, where the network says it."""
    num_maps: int = 0
    """Channels behind the logits that are none: maps of uncertainty."""

    @torch.inference_mode()
    def __call__(self, tiles: Shaped[Tensor, "B C *tile"]) -> Float[Tensor, "B L *tile"]:
        """Run a batch of tiles of whatever dtype and place."""
        tiles = tiles.to(self.device, self.dtype, memory_format=self.memory_format(tiles.ndim))
        with self._on_device():
            return self.run(tiles)

    @contextmanager
    def _on_device(self) -> Iterator[None]:
        """Launch on this GPU; cuDNN tries kernels, or in fp32 keeps to one and to fp32."""
        if self.device.type != "cuda":
            yield
            return
        exact = self.dtype == torch.float32
        convolutions = torch.backends.cudnn.flags(
            enabled=True, benchmark=not exact, deterministic=exact, allow_tf32=not exact
        )
        with torch.cuda.device(self.device), convolutions:
            yield

    def memory_format(self, ndim: int) -> torch.memory_format:
        """Give the order of a batch of tiles in memory."""
        if not self.channels_last:
            return torch.contiguous_format
        return torch.channels_last_3d if ndim == 5 else torch.channels_last


def build_engine(
    net: nn.Module, *, precision: Precision = "fp32", kernels: Kernels = "eager"
) -> Engine:
    """Make a network ready where it is; `net` itself is not changed, in fp32 it is run as it is.

    In half precision a copy of it is run, channels last, with norms that copy nothing. `auto`
    takes it where the processor computes in it: bf16 on CPUs with AVX512-BF16 or AMX and on GPUs
    that know it, fp16 on other GPUs. For `kernels` see PredictConfig.

    Raises:
        ConfigError: `net` is in training mode, or its kernels cannot be launched so.
    """
    if net.training:
        raise ConfigError("the network is in training mode, expected eval mode; call net.eval()")
    device = place_of(net)
    divisor = getattr(net, "divisor", None)
    if precision == "auto":
        precision = native_precision(device)
    if precision == "fp32":
        if kernels == "fused":
            raise ConfigError(
                "kernels 'fused' are for half precision, got precision 'fp32'; "
                "set predict.precision to 'bf16' or 'fp16', or predict.kernels to another"
            )
        return Engine(launch(net, kernels, device=device), device, divisor=divisor)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float16
    quick = quicken_norms(copy.deepcopy(net)).to(dtype)
    three = any(p.ndim == 5 for p in quick.parameters())
    quick.to(memory_format=torch.channels_last_3d if three else torch.channels_last)  # type: ignore[call-overload] # torch's stub lacks it
    run = launch(quick, kernels, device=device)
    return Engine(run, device, dtype, channels_last=True, divisor=divisor)


def bundle_engine(bundle: Bundle) -> Engine:
    """Make a bundle's network ready where it is, by the backend and precision of its recipe.

    Where the backend is left to `auto`, a network that OpenVINO cannot run is run by torch, with a
    WARNING.

    Raises:
        ConfigError: OpenVINO is asked for and cannot run this network, or not in fp16, or torch's
            kernels cannot be launched as asked for.
        MissingExtraError: OpenVINO is asked for and not installed.
    """
    net, predict = bundle.net, bundle.recipe.predict
    device, asked = place_of(net), _asked_backend(predict)
    if choose_backend(asked, device=device) == "torch" or predict.tile_size is None:
        return build_engine(net, precision=predict.precision, kernels=predict.kernels)
    precision = native_precision(device) if predict.precision == "auto" else predict.precision
    try:
        run = openvino_engine(
            net,
            tile=(predict.tile_batch, len(bundle.recipe.images), *predict.tile_size),
            precision="bf16" if precision == "bf16" else "fp32",
            cache=default_cache(),
            key=bundle_digest(bundle),
        )
    except ConfigError as error:
        if asked == "openvino":
            raise
        log.warning("%s", error)
        return build_engine(net, precision=predict.precision)
    return Engine(run, device, divisor=getattr(net, "divisor", None))


def _asked_backend(predict: PredictConfig) -> Literal["auto", "torch", "openvino"]:
    """Give the backend asked for; `auto` does not trade exactness, which OpenVINO's fp32 lacks.

    Raises:
        ConfigError: OpenVINO is asked for in fp16, or with kernels of torch.
    """
    if predict.backend == "openvino" and predict.precision == "fp16":
        raise ConfigError("OpenVINO runs in bf16 or fp32, got precision 'fp16'; choose another")
    if predict.backend == "openvino" and predict.kernels != "eager":
        raise ConfigError(
            f"OpenVINO launches kernels of its own, got kernels '{predict.kernels}'; "
            "set predict.kernels to 'eager' or predict.backend to 'torch'"
        )
    for_torch = predict.precision in ("fp32", "fp16") or predict.kernels != "eager"
    return "torch" if for_torch and predict.backend == "auto" else predict.backend


def place_of(net: nn.Module) -> torch.device:
    """Give the device of a network's weights, the CPU where it has none."""
    return next((p.device for p in net.parameters()), torch.device("cpu"))


def native_precision(device: torch.device) -> Precision:
    """Give the fastest precision that a processor computes in."""
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device) >= AMPERE else "fp16"
    known: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()  # torch 2.6 has none
    return "bf16" if known.get("avx512_bf16") or known.get("amx_bf16") else "fp32"
