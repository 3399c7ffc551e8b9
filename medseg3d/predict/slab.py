"""A finished part of an image, and what can be made of its sums."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import torch
from jaxtyping import Bool, Float32, Integer
from torch import Tensor

from medseg3d.config.run import Outputs
from medseg3d.errors import ConfigError
from medseg3d.predict.tiles import Box


@dataclass(frozen=True, slots=True)
class Slab:
    """A part of an image to which no tile adds any more."""

    box: Box
    """Where it lies in the image."""
    sums: Float32[Tensor, "L *slab"]
    """Logits times weights; a view that is overwritten once the next slab is asked for."""
    map_sums: Float32[Tensor, "M *slab"]
    """The same of what is no logit."""
    weights: tuple[Float32[Tensor, "..."], ...]
    """Factors of the sum of weights at each voxel, which is 0 where no tile lies."""

    def within(self, inside: Box) -> "Slab | None":
        """Cut a slab to what lies inside a box, whose first voxel is then the origin."""
        pairs = [*zip(self.box, inside, strict=True)]
        kept = [slice(max(own.start, b.start), min(own.stop, b.stop)) for own, b in pairs]
        if any(part.start >= part.stop for part in kept):
            return None
        box = tuple(moved(part, b.start) for part, b in zip(kept, inside, strict=True))
        here = tuple(moved(part, own.start) for part, own in zip(kept, self.box, strict=True))
        weights = tuple(
            weight[
                tuple(a if n > 1 else slice(None) for a, n in zip(here, weight.shape, strict=True))
            ]
            for weight in self.weights
        )
        sums, map_sums = (sums[(slice(None), *here)] for sums in (self.sums, self.map_sums))
        return Slab(box, sums, map_sums, weights)

    def logits(self) -> Float32[Tensor, "L *slab"]:
        """Divide by the weights; 0 where no tile lies."""
        return self._weighed(self.sums)

    def maps(self) -> Float32[Tensor, "M *slab"]:
        """Divide by the weights; 0 where no tile lies."""
        return self._weighed(self.map_sums)

    def probs(self, outputs: Outputs) -> Float32[Tensor, "L *slab"]:
        """Give the probability of each channel; where no tile lies, that of background is 1."""
        if outputs == "regions":
            return self.logits().sigmoid() * self._covered()
        background = torch.zeros_like(self.sums)
        background[0] = 1
        return torch.where(self._covered(), self.logits().softmax(0), background)

    def labels(self) -> Integer[Tensor, "*slab"]:
        """Give each voxel the channel with the largest logit, of equals the first.

        Raises:
            ConfigError: a logit is NaN.
        """
        best = self.sums[0].clone()
        labels = torch.zeros(best.shape, dtype=label_dtype(len(self.sums)), device=best.device)
        for channel, sums in enumerate(self.sums[1:], start=1):
            won = (sums > best).to(labels.dtype).mul_(channel)
            torch.maximum(labels, won, out=labels)  # of those that won, the last
            torch.maximum(best, sums, out=best)
        _require_numbers(best)
        return labels

    def regions(self, thresholds: Sequence[float]) -> Bool[Tensor, "R *slab"]:
        """Tell where the probability of each channel, a sigmoid, is above its threshold.

        Raises:
            ConfigError: a logit is NaN.
        """
        _require_numbers(self.sums)
        least = torch.tensor(thresholds, device=self.sums.device).logit()
        return (self.logits() > least.view(-1, *[1] * len(self.box))) & self._covered()

    def _covered(self) -> Bool[Tensor, "..."]:
        return reduce(torch.logical_and, (weight > 0 for weight in self.weights))

    def _weighed(self, sums: Float32[Tensor, "_ *slab"]) -> Float32[Tensor, "_ *slab"]:
        for weight in self.weights:
            sums = sums / weight.clamp_min(torch.finfo(weight.dtype).tiny)
        return sums


def moved(part: slice, origin: int) -> slice:
    """Give a slice as seen from another first voxel."""
    return slice(part.start - origin, part.stop - origin)


def label_dtype(num_channels: int) -> torch.dtype:
    """Give the dtype of labels that are indices of channels."""
    return torch.uint8 if num_channels <= 256 else torch.int32


def _require_numbers(logits: Float32[Tensor, "..."]) -> None:
    if logits.isnan().any():
        raise ConfigError(
            "the network gives NaN: its weights are damaged, or numbers overflow in half "
            "precision; try --set predict.precision=fp32"
        )
