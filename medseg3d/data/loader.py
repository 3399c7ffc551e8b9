"""Batches of training patches, each determined by the seed and its number alone."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from medseg3d.config.train import TrainConfig
from medseg3d.data.augment.compose import augment_patch
from medseg3d.data.patches import draw_patch
from medseg3d.data.store import StoredCase

Sample = tuple[Float32[Tensor, "C *spatial"], Int64[Tensor, "*spatial"]]


class PatchStream(Dataset[Sample]):
    """The endless sequence of training patches; patch n depends on the seed and n only.

    So the result is the same with any number of workers, and a run resumes by starting at a later
    number. Every case is seen once before any is seen again, and the foreground share holds in
    every stretch of the sequence.
    """

    def __init__(self, cases: Sequence[StoredCase], config: TrainConfig) -> None:
        """Draw from `cases` as `config` says."""
        self.cases = cases
        self.config = config

    def __getitem__(self, number: int) -> Sample:
        """Draw patch `number`."""
        config = self.config
        rng = np.random.default_rng((config.seed, number))
        size_i, size_j, *size_k = config.patch_size
        patch = draw_patch(
            rng,
            self._case_of(number),
            size_IJK=(size_i, size_j, size_k[0] if size_k else 1),
            on_foreground=int((number + 1) * config.foreground_share)
            > int(number * config.foreground_share),
        )
        image = torch.from_numpy(patch.image_CIJK)
        channels = torch.from_numpy(patch.channels_IJK.astype(np.int64))
        if not size_k:
            image, channels = image[..., 0], channels[..., 0]
        return augment_patch(rng, image, channels, config.augment)

    def _case_of(self, number: int) -> StoredCase:
        passed, place = divmod(number, len(self.cases))
        order = np.random.default_rng((self.config.seed, passed, 1)).permutation(len(self.cases))
        return self.cases[int(order[place])]


def build_loader(
    cases: Sequence[StoredCase],
    config: TrainConfig,
    *,
    first_step: int,
    last_step: int,
    rank: int = 0,
    ranks: int = 1,
) -> DataLoader[Sample]:
    """Give the batches of steps `first_step` to `last_step`, the last not included.

    A step takes `accumulate` batches. Of several processes each gets its share of every batch, so
    that together they see what one would.
    """
    share = config.batch_size // ranks
    starts = range(
        first_step * config.accumulate * config.batch_size + rank * share,
        last_step * config.accumulate * config.batch_size,
        config.batch_size,
    )
    return DataLoader(
        PatchStream(cases, config),
        batch_sampler=[[*range(start, start + share)] for start in starts],
        num_workers=config.num_workers,
        persistent_workers=False,
    )
