"""Batches of what patches are made of, each determined by the seed and its number alone."""

from collections.abc import Sequence

import numpy as np
from torch.utils.data import DataLoader, Dataset

from medseg3d.config.train import TrainConfig
from medseg3d.data.augment.compose import Sample, read_sample, whole_size
from medseg3d.data.patches import draw_start
from medseg3d.data.store import StoredCase


class PatchStream(Dataset[Sample]):
    """The endless sequence of training patches; patch n depends on the seed and n only.

    So the result is the same with any number of workers and of processes, and a run resumes by
    starting at a later number. Every case is seen once before any is seen again, and the foreground
    share holds in every stretch of the sequence.
    """

    def __init__(self, cases: Sequence[StoredCase], config: TrainConfig) -> None:
        """Draw from `cases` as `config` says."""
        self.cases = cases
        self.config = config

    def __getitem__(self, number: int) -> Sample:
        """Read what patch `number` is made of."""
        config = self.config
        rng = np.random.default_rng((config.seed, number))
        case = pick_case(self.cases, number, seed=config.seed)
        start_IJK = draw_start(
            rng,
            case,
            size_IJK=whole_size(config.patch_size),
            on_foreground=int((number + 1) * config.foreground_share)
            > int(number * config.foreground_share),
        )
        return read_sample(rng, case, start_IJK, size=config.patch_size, config=config.augment)


def pick_case(cases: Sequence[StoredCase], number: int, *, seed: int) -> StoredCase:
    """Give the case of an endless sequence in which each is seen once before any is again."""
    passed, place = divmod(number, len(cases))
    order = np.random.default_rng((seed, passed, 1)).permutation(len(cases))
    return cases[int(order[place])]


def build_loader(
    cases: Sequence[StoredCase],
    config: TrainConfig,
    *,
    first_step: int,
    last_step: int,
    rank: int = 0,
    ranks: int = 1,
    pin_memory: bool = False,
) -> DataLoader[Sample]:
    """Give the batches of steps `first_step` to `last_step`, the last not included.

    A step takes `config.accumulate` batches. Of each batch, process `rank` of `ranks` gets its
    part; `augment_batch` makes patches of it, more quickly on a GPU from pinned memory.
    """
    size = config.batch_size
    batches = range(first_step * config.accumulate, last_step * config.accumulate)
    numbers: list[Sequence[int]] = [range(n * size + rank, (n + 1) * size, ranks) for n in batches]
    return DataLoader(
        PatchStream(cases, config),
        batch_sampler=numbers,  # type: ignore[arg-type]
        collate_fn=list,
        num_workers=config.num_workers,
        pin_memory=pin_memory,
        persistent_workers=False,
    )
