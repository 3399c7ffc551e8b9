"""A mean of the weights over the last steps, which segments better than any one of them."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Final

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

COUNT: Final = "num_updates"
"""Name of the count among the tensors of the state; no network's part is called so."""


class Ema:
    """A copy of a network whose weights are the moving mean of the other's.

    It is a network of its own, to validate with and to ship, so that nothing is ever swapped.
    """

    def __init__(self, net: nn.Module, *, decay: float) -> None:
        """Begin with the weights of `net`, on its device."""
        self.net = deepcopy(net).eval().requires_grad_(False)
        self.decay = decay
        self.num_updates = 0

    @torch.no_grad()
    def update(self, net: nn.Module) -> None:
        """Move by a step towards `net`; what is counted and not learnt, as in norms, is copied.

        After n updates the mean keeps (1 + n) / (10 + n), until that is `decay`: else the first
        weights, which have learnt nothing, would linger.
        """
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        move = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        move([*self.net.parameters()], [*net.parameters()], self.num_updates)
        for own, other in zip(self.net.buffers(), net.buffers(), strict=True):
            own.copy_(other)
        self.num_updates += 1

    def state(self) -> dict[str, Tensor]:
        """Give everything a resumed mean goes on from, as tensors."""
        return {**self.net.state_dict(), COUNT: torch.tensor(self.num_updates)}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a state.

        Raises:
            KeyError, RuntimeError: it is another network's.
        """
        self.num_updates = int(state[COUNT])
        self.net.load_state_dict({name: state[name] for name in state if name != COUNT})
