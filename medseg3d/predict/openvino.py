"""Networks run on CPUs by OpenVINO, which fuses norms, sums and activations into convolutions.

Converting takes seconds, so what comes of it is kept in a folder: OpenVINO's blob and, behind it, a
SHA-256 over the blob and what it was made for, since OpenVINO itself hardly checks what it loads.
"""

import hashlib
import json
import logging
import platform
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, Final, Literal, TypeAlias

import torch
from jaxtyping import Float32
from torch import Tensor, nn

from medseg3d.errors import ConfigError, GridError, MedSegError
from medseg3d.extras import import_extra
from medseg3d.io.atomic import write_atomically

log = logging.getLogger(__name__)

Backend: TypeAlias = Literal["torch", "openvino"]
Precision: TypeAlias = Literal["bf16", "fp32"]

HINTS: Final[dict[Precision, str]] = {"bf16": "bf16", "fp32": "f32"}
"""Precision -> what OpenVINO calls it."""

DIGEST_BYTES: Final = 32
MOST_KEPT: Final = 8
"""Blobs in the folder; each has the size of its model's weights. The longest unused go first."""

TELEMETRY: Final = "openvino_telemetry"


class OpenVinoEngine:
    """A network for tiles of one shape. It has one place to work in: one thread at a time."""

    def __init__(self, compiled: Any, *, openvino: ModuleType) -> None:
        self.tile = tuple(compiled.input(0).shape)
        self._logits_shape = tuple(compiled.output(0).shape)
        self._request = compiled.create_infer_request()
        self._tensor = openvino.Tensor

    def __call__(self, tiles: Float32[Tensor, "b C *spatial"]) -> Float32[Tensor, "b L *spatial"]:
        """Give the logits of at most B tiles, in memory of their own; the tiles are only read.

        Raises:
            GridError: more tiles than the engine was built for, or of another shape.
        """
        count, batch = len(tiles), self.tile[0]
        if count > batch or tuple(tiles.shape[1:]) != self.tile[1:]:
            raise GridError(
                f"the engine was built for tiles of shape {self.tile}, got {tuple(tiles.shape)}; "
                "build another, or give it a smaller batch of its own tiles"
            )
        whole = tiles.detach().contiguous()
        if count < batch:
            whole = torch.cat([whole, whole.new_zeros(batch - count, *self.tile[1:])])
        logits = torch.empty(self._logits_shape)
        self._request.set_input_tensor(self._tensor(whole.numpy(), shared_memory=True))
        self._request.set_output_tensor(self._tensor(logits.numpy(), shared_memory=True))
        self._request.infer(share_outputs=True)
        return logits[:count]


def openvino_engine(
    net: nn.Module,
    *,
    tile: tuple[int, ...],
    precision: Precision = "bf16",
    threads: int | None = None,
    cache: Path | None,
    key: str,
) -> OpenVinoEngine:
    """Build the engine for a network in eval mode, with float32 weights on the CPU.

    `tile` is the shape (B, C, *spatial). `threads` is their number, null as many as there are
    cores. `cache` is where blobs are kept, null keeps none; `key` must say which weights and which
    structure `net` has. Nothing is sent, and nothing is written but the blob.

    `fp32` is less exact than torch's: OpenVINO sums up what instance norms and gates average, one
    voxel after the other, which moves single probabilities by 1e-4 in a tile of 64³ and by 2e-3 in
    one of 128³.

    Raises:
        ConfigError: `net` is in training mode, or has a layer that OpenVINO cannot run.
        MissingExtraError: OpenVINO is not installed.
    """
    if net.training:
        raise ConfigError("the network is in training mode, expected eval mode; call net.eval()")
    openvino = import_openvino()
    core = openvino.Core()
    config: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": HINTS[precision],
        "ENABLE_CPU_PINNING": False,  # two processes would be pinned to the same cores
        "INFERENCE_NUM_THREADS": threads or 0,
    }
    made_for = [key, tile, precision, openvino.__version__, _describe_cpu(core)]
    identity = json.dumps(made_for).encode()
    path = cache / f"{hashlib.sha256(identity).hexdigest()[:32]}.blob" if cache else None
    if path and (blob := _read_blob(path, identity)):
        return OpenVinoEngine(core.import_model(blob, "CPU", config), openvino=openvino)
    compiled = _compile(net, tile, config=config, openvino=openvino)
    if path:
        _keep_blob(compiled.export_model().getvalue(), path, identity)
    return OpenVinoEngine(compiled, openvino=openvino)


def choose_backend(asked: Backend | Literal["auto"], *, device: torch.device) -> Backend:
    """Settle what `auto` means: OpenVINO where it is installed, on x86 CPUs; torch elsewhere.

    Raises:
        ConfigError: OpenVINO is asked for on another device than the CPU.
    """
    if asked == "openvino" and device.type != "cpu":
        raise ConfigError(
            f"backend 'openvino' runs on the CPU, got device '{device.type}'; "
            "set device to 'cpu' or backend to 'torch'"
        )
    if asked != "auto":
        return asked
    measured = device.type == "cpu" and platform.machine().lower() in ("x86_64", "amd64")
    return "openvino" if measured and find_spec("openvino") else "torch"


def default_cache() -> Path:
    """Give the folder in the user's home where blobs are kept."""
    return Path.home() / ".cache" / "medseg3d" / "openvino"


def import_openvino() -> ModuleType:
    """Import OpenVINO without its telemetry, which reports to Google and writes into the home.

    OpenVINO falls back to a stub where that package cannot be imported. A program that has imported
    OpenVINO before has the telemetry that it let in.

    Raises:
        MissingExtraError: OpenVINO is not installed.
    """
    if TELEMETRY in sys.modules:
        return import_extra("openvino", extra="openvino")
    sys.modules[TELEMETRY] = None  # type: ignore[assignment]
    try:
        return import_extra("openvino", extra="openvino")
    finally:
        del sys.modules[TELEMETRY]


def _compile(
    net: nn.Module, tile: tuple[int, ...], *, config: dict[str, Any], openvino: ModuleType
) -> Any:
    program = None
    try:
        with _undisturbed(), torch.inference_mode(mode=False), torch.no_grad():
            program = torch.export.export(net, (torch.zeros(tile),))
            model = openvino.convert_model(program)
        model.reshape(list(tile))
        return openvino.compile_model(model, "CPU", config)
    except MedSegError:
        raise
    except Exception as error:
        lines = str(error).splitlines() or [type(error).__name__]
        reason = next((line for line in lines if "No conversion rule" in line), lines[0])
        layer = _failing_layer(net, program, error)
        raise ConfigError(
            f"OpenVINO cannot run this network because of layer '{layer}': {reason.strip('-. ')}. "
            "Use the backend torch."
        ) from error


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Put back what converting changes of the root logger, and hide warnings about torch itself."""
    root = logging.getLogger()
    handlers, level = [*root.handlers], root.level
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


def _failing_layer(
    net: nn.Module, program: torch.export.ExportedProgram | None, error: Exception
) -> str:
    """Name the layer that was running, or the first whose operation OpenVINO says it lacks."""
    if program is None:
        names = {id(module): name for name, module in net.named_modules()}
        frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
        running = [names.get(id(frame.f_locals.get("self"))) for frame in frames]
        return [name for name in running if name is not None][-1]
    calls = [node for node in program.graph.nodes if node.op == "call_function"]
    stacks = [node.meta.get("nn_module_stack") for node in calls if str(node.target) in str(error)]
    return next(([*stack.values()][-1][0] for stack in stacks if stack), "?")


def _describe_cpu(core: Any) -> list[Any]:
    """Say what compiled code depends on; virtual machines hide much of it in the name alone."""
    names = ("FULL_DEVICE_NAME", "OPTIMIZATION_CAPABILITIES")
    return [core.get_property("CPU", name) for name in names]


def _read_blob(path: Path, identity: bytes) -> bytes | None:
    """Give the blob that was kept, or nothing; a damaged or foreign one is told of."""
    try:
        content = path.read_bytes()
        path.touch()  # the longest unused are removed
    except FileNotFoundError:
        return None
    except OSError as error:
        log.warning("'%s' cannot be read (%s); the network is converted again", path, error)
        return None
    blob, digest = content[:-DIGEST_BYTES], content[-DIGEST_BYTES:]
    if _digest(identity, blob) == digest:
        return blob
    log.warning("'%s' is damaged or of another model; the network is converted again", path)
    return None


def _keep_blob(blob: bytes, path: Path, identity: bytes) -> None:
    """Write a blob and make room for it; a folder that cannot be written to is told of."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, blob + _digest(identity, blob))
    except (OSError, ConfigError) as error:
        log.warning("the converted network is not kept for the next time: %s", error)
    with suppress(OSError):  # another process makes room as well
        kept = sorted(path.parent.glob("*.blob"), key=lambda blob: -blob.stat().st_mtime)
        for unused in kept[MOST_KEPT:]:
            unused.unlink()


def _digest(identity: bytes, blob: bytes) -> bytes:
    digest = hashlib.sha256(identity)
    digest.update(blob)
    return digest.digest()
