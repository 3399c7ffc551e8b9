"""The stream of patches: patch n is patch n, wherever and whenever it is drawn."""

import tracemalloc
import warnings
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from medseg3d.config.train import AugmentConfig, TrainConfig
from medseg3d.data.augment.compose import augment_batch
from medseg3d.data.blocks import Blocks
from medseg3d.data.loader import PatchStream, build_loader
from medseg3d.data.store import Store, StoredCase

CPU = torch.device("cpu")
PLAIN = AugmentConfig(preset="none")


def build_cases(number: int) -> list[StoredCase]:
    """Build cases that tell their number by their grey value; one voxel of each is labelled."""
    cases = []
    for n in range(number):
        channels = np.zeros((12, 11, 10), dtype=np.uint8)
        channels[0, 0, 0] = 1
        image = np.random.default_rng(n).random((1, 12, 11, 10), dtype=np.float32) + 10 * n
        cases.append(
            StoredCase.of_arrays(f"p{n}", image, channels_IJK=channels, spacing_mm=(1.0, 1.0, 1.0))
        )
    return cases


def configure(**knobs: object) -> TrainConfig:
    return TrainConfig.model_validate({"patch_size": (4, 4, 4), "batch_size": 3, **knobs})


def batches(
    config: TrainConfig, *, first: int, last: int, rank: int = 0, ranks: int = 1
) -> list[tuple[torch.Tensor, ...]]:
    with warnings.catch_warnings():
        # forking with torch's threads alive is deprecated from Python 3.12 on
        warnings.filterwarnings("ignore", message=".*fork", category=DeprecationWarning)
        loader = build_loader(
            build_cases(5), config, first_step=first, last_step=last, rank=rank, ranks=ranks
        )
        return [augment_batch(batch, CPU) for batch in loader]


def patch(stream: PatchStream, number: int) -> tuple[torch.Tensor, torch.Tensor]:
    image, channels = augment_batch([stream[number]], CPU)
    return image[0], channels[0]


def same(first: list[tuple[torch.Tensor, ...]], second: list[tuple[torch.Tensor, ...]]) -> bool:
    pairs = zip(first, second, strict=True)
    return all(torch.equal(a, b) for pair in pairs for a, b in zip(*pair, strict=True))


def test_a_batch_is_images_and_true_channels():
    (batch,) = batches(configure(), first=0, last=1)
    image, channels = batch
    assert image.shape == (3, 1, 4, 4, 4)
    assert image.dtype == torch.float32
    assert channels.shape == (3, 4, 4, 4)
    assert channels.dtype == torch.int64


def test_the_number_of_workers_changes_nothing():
    config = configure(augment="nnunet")
    in_workers = batches(configure(num_workers=2, augment="nnunet"), first=0, last=6)
    assert same(batches(config, first=0, last=6), in_workers)


def test_processes_share_a_batch_among_them():
    config = configure(batch_size=6, augment="nnunet")
    parts = [batches(config, first=1, last=4, rank=rank, ranks=2) for rank in range(2)]
    for whole, *shares in zip(batches(config, first=1, last=4), *parts, strict=True):
        for own, first, second in zip(whole, *shares, strict=True):
            assert torch.equal(own, torch.stack([first, second], dim=1).flatten(0, 1))


def test_a_step_takes_as_many_batches_as_it_accumulates():
    every = batches(configure(), first=0, last=6)
    assert same(every[2:], batches(configure(accumulate=2), first=1, last=3))


def test_a_stream_that_starts_later_goes_on_with_the_same_patches():
    whole = batches(configure(), first=0, last=7)
    assert same(whole[4:], batches(configure(), first=4, last=7))
    assert not same(whole[:3], whole[3:6])


def test_the_seed_decides():
    assert same(*(batches(configure(seed=4), first=0, last=2) for _ in range(2)))
    assert not same(*(batches(configure(seed=seed), first=0, last=2) for seed in (4, 5)))


def test_no_two_patches_are_changed_alike():
    noisy = AugmentConfig(preset="none", noise_probability=1)
    stream = PatchStream(build_cases(1), configure(augment=noisy, foreground_share=0))
    seeds = [stream[n].plan.changes[0].seed for n in range(50)]
    assert len(set(seeds)) == 50


def test_torchs_global_generator_neither_matters_nor_moves():
    stream = PatchStream(build_cases(2), configure())
    first = patch(stream, 7)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        before = torch.random.get_rng_state()
        assert all(map(torch.equal, first, patch(stream, 7)))
        assert torch.equal(torch.random.get_rng_state(), before)


def test_every_case_is_seen_once_before_any_is_seen_again():
    stream = PatchStream(build_cases(7), configure(augment=PLAIN))
    seen = [int(patch(stream, number)[0].min()) // 10 for number in range(7 * 20)]
    passes = [seen[first : first + 7] for first in range(0, len(seen), 7)]
    assert all(sorted(one) == [*range(7)] for one in passes)
    assert len({tuple(one) for one in passes}) > 15


@pytest.mark.parametrize("share", [0, 0.3, 1 / 3, 0.5, 0.75, 1])
def test_the_foreground_share_holds_in_every_stretch(share: float):
    stream = PatchStream(build_cases(3), configure(augment=PLAIN, foreground_share=share))
    # the labelled corner is in a patch that was drawn on it, and by chance in 1 of 504 others
    held = [bool(patch(stream, number)[1].any()) for number in range(60)]
    expected = [int((n + 1) * share) - int(n * share) for n in range(60)]
    assert sum(h != bool(e) for h, e in zip(held, expected, strict=True)) <= 2
    assert abs(sum(held) - 60 * share) <= 2


def test_a_2d_network_is_given_slices_from_all_over_the_volume():
    config = configure(patch_size=(4, 5), augment=PLAIN, foreground_share=0)
    [case] = build_cases(1)
    image_CIJK = case.image_CIJK
    image_CIJK[0] = np.arange(10, dtype=np.float32)  # each slice tells its number
    stream = PatchStream([replace(case, image=Blocks.of_array(image_CIJK))], config)
    seen: Counter[float] = Counter()
    for number in range(200):
        image, channels = patch(stream, number)
        assert image.shape == (1, 4, 5)
        assert channels.shape == (4, 5)
        assert image.unique().numel() == 1
        seen[float(image[0, 0, 0])] += 1
    assert sorted(seen) == [*range(10)]


@pytest.mark.parametrize("preset", ["none", "nnunet"])
def test_a_patch_reads_a_small_part_of_its_case(tmp_path: Path, preset: str):
    store, image = Store(tmp_path), np.ones((2, 96, 96, 96), np.float32)
    labels = np.ones((96, 96, 96), np.uint8)
    store.save("p", "key", image_CIJK=image, channels_IJK=labels, spacing_mm=(1.0, 1.0, 1.0))
    stream = PatchStream([store.load("p", "key")], configure(patch_size=(8, 8, 8), augment=preset))
    tracemalloc.start()
    for number in range(20):
        stream[number]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < image.nbytes / 8
