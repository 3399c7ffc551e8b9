"""What augmentation costs on a CPU, beside nnU-Net's and MONAI's: milliseconds per sample.

A sample is four channels of 128³ voxels with three labels, cut out of a case of 240×240×155 in
memory. Against nnU-Net (its own list of transforms and the crop before it, as its loader does them)
it is the mean over random draws of either; against MONAI, a turn and a bend of every image, without
labels. One draw of each in turn, in processes of their own; ours keeps its memory, and its waiting
threads sleep, as of `medseg3d train`.

Run: OMP_WAIT_POLICY=PASSIVE PYTHONPATH=PEERS python benchmarks/augment.py
PEERS as in peers.py; ten minutes; prints augment.json.
"""

import json
import statistics
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import version
from itertools import count
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from turns import Trial, describe_machine, fresh_process, run_round

from medseg3d.config.augment import AugmentConfig
from medseg3d.data.augment.compose import augment_batch, read_sample
from medseg3d.data.augment.spatial import sample_linear, source_grid
from medseg3d.data.store import StoredCase

SIZE = (128, 128, 128)
START = (40, 50, 14)
TURN_AND_BEND = {
    "preset": "none",
    "rotation_probability": 1,
    "rotation_degrees": 15,
    "scale_probability": 1,
    "elastic_probability": 1,
}


class Absent(ModuleType):
    """Stands in for what nnU-Net's trainer imports and its transforms do not use."""

    __path__: tuple[str, ...] = ()

    def __getattr__(self, name: str) -> type:
        """Give a class, whatever is asked for."""
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


ABSENT = [
    "seaborn",
    "sklearn",
    "sklearn.model_selection",
    "dynamic_network_architectures",
    "dynamic_network_architectures.architectures",
    "dynamic_network_architectures.architectures.unet",
    "dynamic_network_architectures.building_blocks",
    "dynamic_network_architectures.building_blocks.helper",
]


def build_case() -> StoredCase:
    """Make four channels of noise and three labels inside one another."""
    shape = (240, 240, 155)
    image_CIJK = np.random.default_rng(0).standard_normal((4, *shape), dtype=np.float32)
    away = [(np.arange(n, dtype=np.float32) - n / 2) ** 2 for n in shape]
    distance = np.sqrt(away[0][:, None, None] + away[1][:, None] + away[2])
    channels_IJK = sum((distance < radius).astype(np.uint8) for radius in (50, 35, 20))
    return StoredCase.of_arrays(
        "case", image_CIJK, channels_IJK=channels_IJK, spacing_mm=(1.0, 1.0, 1.0)
    )


def by_medseg3d(case: StoredCase, config: AugmentConfig) -> Callable[[], Tensor]:
    """Give what makes one sample after the other."""
    numbers = count()

    def act() -> Tensor:
        rng = np.random.default_rng((0, next(numbers)))
        sample = read_sample(rng, case, START, size=SIZE, config=config)
        return augment_batch([sample], torch.device("cpu"))[0]

    return act


def turned_and_bent(case: StoredCase) -> Callable[[], Tensor]:
    """Give what turns and bends one image after the other."""
    numbers, config = count(), AugmentConfig.model_validate(TURN_AND_BEND)

    def act() -> Tensor:
        rng = np.random.default_rng((0, next(numbers)))
        sample = read_sample(rng, case, START, size=SIZE, config=config)
        offsets = [np.arange(size) - (size - 1) / 2 for size in SIZE]
        grid = source_grid(
            sample.plan.warp,
            offsets,
            centre=sample.centre,
            box=np.array(sample.channels_IJK.shape),
            device=torch.device("cpu"),
        )
        return sample_linear(sample.image_CIJK, grid)

    return act


def by_nnunet(case: StoredCase) -> Callable[[], Tensor]:
    """Give what nnU-Net's loader does with a case it has read."""
    import_module("torch._dynamo")  # looks for some of them
    sys.modules.update({name: Absent(name) for name in ABSENT})
    from acvl_utils.cropping_and_padding.bounding_boxes import crop_and_pad_nd
    from nnunetv2.training.data_augmentation.compute_initial_patch_size import get_patch_size
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    turn = (-np.pi / 6, np.pi / 6)
    wider = get_patch_size(SIZE, turn, turn, turn, (0.85, 1.25)).astype(int)
    middle = np.array(START) + np.array(SIZE) // 2
    box = [[int(m - w // 2), int(m - w // 2 + w)] for m, w in zip(middle, wider, strict=True)]
    change = nnUNetTrainer.get_training_transforms(
        np.array(SIZE), turn, None, (0, 1, 2), False, [False] * 4
    )
    np.random.seed(0)  # noqa: NPY002, their source of numbers
    torch.manual_seed(0)

    image_CIJK, channels_IJK = case.image_CIJK, case.channels_IJK

    def act() -> Tensor:
        image = torch.from_numpy(crop_and_pad_nd(image_CIJK, box, 0))
        labels = crop_and_pad_nd(channels_IJK[None], box, -1, cast_cropped_to=np.int16)
        changed = change(image=image, segmentation=torch.from_numpy(labels))
        batch, target = torch.empty((1, 4, *SIZE)), torch.empty((1, 1, *SIZE), dtype=torch.int16)
        batch[0], target[0] = changed["image"], changed["segmentation"]
        return batch

    return act


def by_monai(case: StoredCase) -> Callable[[], Tensor]:
    """Give MONAI's turn and bend of an image that is cut out already."""
    from monai.transforms import Compose, Rand3DElastic, RandAffine

    angle, cut = np.pi / 12, tuple(slice(a, a + n) for a, n in zip(START, SIZE, strict=True))
    given = torch.from_numpy(case.image_CIJK[(slice(None), *cut)].copy())
    turn = RandAffine(
        prob=1, rotate_range=[angle] * 3, scale_range=[0.15] * 3, padding_mode="border"
    )
    bend = Rand3DElastic(
        sigma_range=(10, 10), magnitude_range=(180, 180), prob=1, padding_mode="border"
    )  # of which shifts deviate by half a voxel, as ours do
    change = Compose([turn, bend]).set_random_state(0)
    return lambda: change(given)


def prepare(peer: str, threads: int) -> Trial:
    """Prepare ours or a peer's part of a comparison."""
    torch.set_num_threads(threads)
    case = build_case()
    ways = {
        "medseg3d nnunet": lambda: by_medseg3d(case, AugmentConfig(preset="nnunet")),
        "medseg3d": lambda: turned_and_bent(case),
        "nnU-Net": lambda: by_nnunet(case),
        "MONAI": lambda: by_monai(case),
    }
    act = ways[peer]()
    act()
    return Trial({peer: act}, lambda _: {})


def compare(ours: str, theirs: str, *, threads: int, rounds: int) -> dict[str, Any]:
    """Let two take turns; give milliseconds and how many times quicker ours is."""
    spent: dict[str, list[dict[str, float]]] = {ours: [], theirs: []}
    pools = {ours: fresh_process("memory kept"), theirs: fresh_process("as it comes")}
    for _ in range(rounds):
        for name, pool in pools.items():
            spent[name].append(pool.submit(run_round, prepare, name, threads).result()[name])
    for pool in pools.values():
        pool.shutdown()
    found: dict[str, Any] = {"rounds": rounds}
    for what in ("cpu_s", "wall_s"):
        for summary in (statistics.mean, statistics.median):
            ms = {name: 1000 * summary(one[what] for one in spent[name]) for name in spent}
            found[f"{summary.__name__} {what[:-2]} ms"] = {n: round(v, 1) for n, v in ms.items()}
            found[f"{summary.__name__} {what[:-2]} times faster"] = round(ms[theirs] / ms[ours], 2)
    return found


def main(rounds: int = 48) -> dict[str, Any]:
    """Compare with both peers, on one thread and on two."""
    packages = ("numpy", "monai", "nnunetv2", "batchgeneratorsv2")
    return {
        **describe_machine(),
        **{package: version(package) for package in packages},
        **{
            f"{theirs}, {threads} threads": compare(ours, theirs, threads=threads, rounds=few)
            for threads in (1, 2)
            for ours, theirs, few in (
                ("medseg3d nnunet", "nnU-Net", rounds),
                ("medseg3d", "MONAI", max(2, rounds // 8)),
            )
        },
    }


if __name__ == "__main__":
    print(json.dumps(main(*map(int, sys.argv[1:])), indent=2))
