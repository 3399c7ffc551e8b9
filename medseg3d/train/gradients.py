"""Gradients seen stage by stage: clipped as a whole, and watched for stages that starve.

A stage is a level of the encoder, a node of the decoder or a head (`encoder.0`, `heads.1`); in
other networks, what lies on top.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, groupby
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

STARVED: Final = 1e-3
"""A stage learns if its gradient, relative to its weights, is at least this share of the median
stage's. Sound networks spread over a factor of ten to a hundred; a thousandth is no longer noise,
and at one learning rate for all such a stage stays what it was drawn as."""

log = logging.getLogger(__name__)


class GradientWatch:
    """The gradient norms of a network's stages, summed over the steps of an epoch."""

    def __init__(self, net: nn.Module) -> None:
        """Watch what is learnt of `net`, on the device where it now is."""
        named = [(name, p) for name, p in net.named_parameters() if p.requires_grad]
        self.stages = {
            stage: [parameter for _, parameter in members]
            for stage, members in groupby(named, key=lambda pair: stage_of(pair[0]))
        }
        self.warned: set[str] = set()
        self._begin()

    def _begin(self) -> None:
        first = next(iter(self.stages.values()))[0]
        self.sums_S = torch.zeros(len(self.stages), device=first.device)
        self.num_steps = torch.zeros((), device=first.device)

    @torch.no_grad()
    def clip(self, max_norm: float | None) -> None:
        """Note a step's norms, and scale its gradients so that none exceeds `max_norm` in all.

        Nothing waits for the device. A step whose gradients are not finite, as happens while the
        scale of 16-bit floats is sought, is not counted.
        """
        gradients = ([p.grad for p in s if p.grad is not None] for s in self.stages.values())
        norms_S = self._norms(gradients)
        finite = norms_S.isfinite().all()
        self.sums_S += norms_S.where(finite, 0)
        self.num_steps += finite
        if max_norm is not None:
            learnt = chain.from_iterable(self.stages.values())
            clip_grads_with_norm_(learnt, max_norm, norms_S.norm())

    def end_epoch(self) -> dict[str, float]:
        """Give each stage's mean norm since the last call, and warn once of each that starves."""
        means_S = self.sums_S / self.num_steps.clamp(min=1)
        means = dict(zip(self.stages, means_S.tolist(), strict=True))
        if self.num_steps:
            for stage, share in self._starved(means_S):
                log.warning(
                    "stage '%s' hardly learns: relative to its weights, its mean gradient is %.1e "
                    "of the median stage's, below %.0e. Give the network a norm (network.norm), "
                    "set network.deep_supervision=true, or take fewer levels",
                    stage,
                    share,
                    STARVED,
                )
        self._begin()
        return means

    def state(self) -> dict[str, Tensor]:
        """Give everything a resumed epoch goes on from, as tensors."""
        return {"sums": self.sums_S, "num_steps": self.num_steps}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a state."""
        self.sums_S.copy_(state["sums"])
        self.num_steps.copy_(state["num_steps"])

    @torch.no_grad()
    def _starved(self, means_S: Float[Tensor, "S"]) -> Iterator[tuple[str, float]]:
        ratios_S = means_S / self._norms(self.stages.values()).clamp(min=1e-12)
        shares_S = ratios_S / ratios_S.median().clamp(min=1e-30)
        for stage, share in zip(self.stages, shares_S.tolist(), strict=True):
            if share < STARVED and stage not in self.warned:
                self.warned.add(stage)
                yield stage, share

    def _norms(self, stages: Iterable[Iterable[Tensor]]) -> Float[Tensor, "S"]:
        return torch.stack([get_total_norm([*stage]).to(self.sums_S) for stage in stages])


def stage_of(name: str) -> str:
    """Give the stage of a parameter: its first name, and its place where that is a list."""
    first, *rest = name.removeprefix("net.").split(".")
    return f"{first}.{rest[0]}" if rest and rest[0].isdigit() else first
