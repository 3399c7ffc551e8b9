"""What an epoch adds up for its entry in the log."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from resource import RUSAGE_SELF, getrusage

import numpy as np
import torch
from torch import Tensor

from medseg3d.errors import ConfigError
from medseg3d.train.ranks import Ranks


@dataclass(slots=True, eq=False)
class Tally:
    """A row of numbers a step, which stay on the device until they are asked for, and time."""

    columns: Sequence[str]
    """What the numbers are, the first of them the loss."""
    rows: list[list[float]] = field(default_factory=list)
    seconds: float = 0.0
    waited: float = 0.0
    """Seconds, of these, without a batch."""
    _fresh: list[Tensor] = field(default_factory=list)

    def add(self, numbers: Sequence[Tensor]) -> None:
        """Add the numbers of a step."""
        self._fresh.append(torch.stack([number.detach().float() for number in numbers]))

    def settle(self, ranks: Ranks, *, step: int) -> None:
        """Fetch from the device what was added until `step`, as the mean over all processes.

        Raises:
            ConfigError: a loss is not finite.
        """
        if self._fresh:
            rows = ranks.gather(torch.stack(self._fresh).double().tolist())
            self._fresh.clear()
            self.rows += np.mean(rows, axis=0).tolist()
        losses = np.array([row[0] for row in self.rows])
        if (bad := np.flatnonzero(~np.isfinite(losses))).size:
            raise ConfigError(
                f"the loss became {losses[bad[0]]} at step {step - len(losses) + bad[0]}: training "
                "diverged. Lower train.learning_rate or set train.clip_norm; the last checkpoint "
                "is still whole."
            )

    def means(self) -> dict[str, float]:
        """Give the mean of each column, over finite numbers: fp16 passes over some steps."""
        rows = np.ma.masked_invalid(np.reshape(self.rows, (-1, len(self.columns))))
        means = np.ma.filled(rows.mean(axis=0), np.nan).tolist()
        return dict(zip(self.columns, means, strict=True))


def memory_peak_mib(device: torch.device) -> float:
    """Give the most memory that a GPU has held since this was asked last, or this process ever."""
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
    else:
        peak = getrusage(RUSAGE_SELF).ru_maxrss * 1024
    return round(peak / 2**20, 1)
