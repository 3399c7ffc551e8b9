"""What an epoch adds up for its entry in the log."""

from dataclasses import dataclass, field
from resource import RUSAGE_SELF, getrusage
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medseg3d.errors import ConfigError
from medseg3d.train.ranks import Ranks


@dataclass(slots=True, eq=False)
class Tally:
    """The losses of an epoch, which stay on the device until they are asked for, and its time."""

    losses: list[float] = field(default_factory=list)
    seconds: float = 0.0
    waited: float = 0.0
    """Seconds, of these, without a batch."""
    gradient_norms: dict[str, float] = field(default_factory=dict)
    """Of each stage, once the epoch is full."""
    _fresh: list[Tensor] = field(default_factory=list)

    def state(self) -> list[Any]:
        """Give what a resumed epoch begins with, as arguments."""
        return [self.losses, self.seconds, self.waited, self.gradient_norms]

    def add(self, loss: Tensor) -> None:
        """Add a step's loss; nothing waits for the device."""
        self._fresh.append(loss.detach())

    def settle(self, ranks: Ranks, *, step: int) -> None:
        """Fetch what was added until `step`, as the mean over all processes.

        Raises:
            ConfigError: a loss is not finite.
        """
        if self._fresh:
            shares = ranks.gather(torch.stack(self._fresh).double().tolist())
            self._fresh.clear()
            self.losses += np.mean(shares, axis=0).tolist()
        if (bad := np.flatnonzero(~np.isfinite(self.losses))).size:
            raise ConfigError(
                f"the loss became {self.losses[bad[0]]} at step {step - len(self.losses) + bad[0]}"
                ": training diverged. Lower the learning_rate or set train.clip_norm; the last "
                "checkpoint is still whole."
            )


def memory_peak_mib(device: torch.device) -> float:
    """Give the most memory that a GPU has held since this was asked last, or this process ever."""
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
    else:
        peak = getrusage(RUSAGE_SELF).ru_maxrss * 1024
    return round(peak / 2**20, 1)
