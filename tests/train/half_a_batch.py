"""Losses and gradients of half a batch in each of two processes, or of the whole batch in one.

python half_a_batch.py FOLDER RANK     # RANK 0 or 1, or -1 for the whole batch
"""

import sys
from itertools import product
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from medseg3d.config.loss import LossConfig
from medseg3d.labels import IGNORED, LabelScheme
from medseg3d.train.losses import build_loss

VALUES = {1: "necrosis", 2: "oedema", 4: "enhancing"}
REGIONS = {"WT": (1, 2, 4), "TC": (1, 4), "ET": (4,)}
TERMS = (("dice", "cross_entropy"), ("tversky", "focal"), ("dice", "none"), ("none", "focal"))


class TwoOutputs(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fine = nn.Conv3d(2, channels, 3, padding=1)
        self.coarse = nn.Conv3d(2, channels, 2, stride=2)

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        return [self.fine(image), self.coarse(image)]


def write_all(folder: Path, rank: int) -> None:
    part = slice(None) if rank < 0 else slice(2 * rank, 2 * rank + 2)
    tensors: dict[str, torch.Tensor] = {}
    for number, (terms, per_batch, outputs, ignore) in enumerate(
        product(TERMS, (True, False), ("values", "regions"), (None, 3))
    ):
        torch.manual_seed(number)
        net: nn.Module = TwoOutputs(4 if outputs == "values" else 3)
        image, channels = torch.randn(4, 2, 6, 6, 4), torch.randint(0, 4, (4, 6, 6, 4))
        if ignore:
            channels[0] = IGNORED
            channels[1, 1:] = IGNORED
            channels[3, :, 4] = IGNORED
        config = LossConfig(region_term=terms[0], voxel_term=terms[1], per_batch=per_batch)
        labels = LabelScheme(values=VALUES, regions=REGIONS, ignore=ignore)
        loss = build_loss(config, labels, outputs=outputs)
        together = DistributedDataParallel(net) if rank >= 0 else net
        cost = loss(together(image[part]), channels[part])
        cost.backward()
        name = f"{terms} per_batch={per_batch} {outputs} ignore={ignore}"
        tensors[f"{name} loss"] = cost.detach().reshape(1)
        for weight, parameter in net.named_parameters():
            assert parameter.grad is not None
            tensors[f"{name} {weight}"] = parameter.grad
    save_file(tensors, folder / f"{rank}.safetensors")


if __name__ == "__main__":
    folder, rank = Path(sys.argv[1]), int(sys.argv[2])
    torch.set_num_threads(1)
    if rank >= 0:
        address = f"file://{folder}/rendezvous"
        distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    write_all(folder, rank)
    if rank >= 0:
        distributed.destroy_process_group()
