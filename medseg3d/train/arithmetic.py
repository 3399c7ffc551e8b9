"""How the device computes during a run; afterwards it is as it was."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from medseg3d.config.train import TrainConfig
from medseg3d.errors import ConfigError
from medseg3d.train.precision import gpu_convolutions


@contextmanager
def arithmetic(config: TrainConfig) -> Iterator[None]:
    """Choose convolutions by trial and TF32 where they are allowed, or what is repeatable.

    Raises:
        ConfigError: `deterministic` is on, and an operation has no repeatable form.
    """
    deterministic = torch.are_deterministic_algorithms_enabled()
    only_warned = torch.is_deterministic_algorithms_warn_only_enabled()
    precision = torch.get_float32_matmul_precision()
    with gpu_convolutions(config.precision, deterministic=config.deterministic):
        torch.set_float32_matmul_precision("highest" if config.precision == "fp32" else "high")
        if config.deterministic:
            torch.use_deterministic_algorithms(True)
        try:
            yield
        except RuntimeError as error:
            if "deterministic" not in str(error).lower():
                raise
            raise ConfigError(_advice(str(error))) from error
        finally:
            torch.use_deterministic_algorithms(deterministic, warn_only=only_warned)
            torch.set_float32_matmul_precision(precision)


@contextmanager
def kept_random_state() -> Iterator[None]:
    """Leave torch's generators to the caller as they were, the GPU's in use with them."""
    gpus = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(gpus):
        yield


def _advice(error: str) -> str:
    if "CUBLAS_WORKSPACE_CONFIG" in error:
        return (
            "train.deterministic on a GPU needs the environment variable "
            "CUBLAS_WORKSPACE_CONFIG=:4096:8 before the command; cuBLAS asks for it"
        )
    return f"train.deterministic cannot be kept: {error}. Set it to false, or train on the CPU."
