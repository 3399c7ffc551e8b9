"""What fits a memory, against what a training really takes."""

import subprocess
import sys

import pytest
import torch

from medseg3d.config.network import UShapedConfig
from medseg3d.errors import ConfigError
from medseg3d.nets.cost import measure_step
from medseg3d.nets.presets import NETS, build_net
from medseg3d.plan.fit import PROGRAM, SURE, Images, fit_network, fit_patch
from medseg3d.plan.topology import plan_topology

HIPPOCAMPUS = Images((36, 50, 35), (1.0, 1.0, 1.0), 260, in_channels=1, out_channels=3)
BRATS = Images((140, 171, 137), (1.0, 1.0, 1.0), 1251, in_channels=4, out_channels=3)
GIB = 2**30


def test_hippocampus_gets_nnunets_patch_and_batch():
    fit = fit_patch(NETS["resenc_m"], HIPPOCAMPUS, memory=8 * GIB)
    assert fit.topology.patch == (40, 56, 40)
    assert fit.batch_size == fit.enough == 9
    assert fit.whole
    assert len(fit.network.channels) == 4


@pytest.mark.slow
def test_more_memory_never_gives_a_smaller_patch_or_batch():
    seen = [fit_patch(NETS["resenc_m"], BRATS, memory=n * GIB) for n in (4, 12, 48)]
    voxels = [fit.topology.voxels for fit in seen]
    assert voxels == sorted(voxels)
    assert len({*voxels}) == 3
    for fit, memory in zip(seen, (4, 12, 48), strict=True):
        assert 0.6 * memory * GIB < fit.memory <= memory * GIB or fit.whole


@pytest.mark.slow
def test_half_precision_lets_patches_grow_and_narrow_networks_too():
    wide = fit_patch(NETS["resenc_m"], BRATS, memory=10 * GIB)
    half = fit_patch(NETS["resenc_m"], BRATS, memory=10 * GIB, half=True)
    narrow = fit_patch(NETS["resenc_m"], BRATS, memory=10 * GIB, narrow=True)
    assert half.topology.voxels > wide.topology.voxels
    assert narrow.topology.voxels > wide.topology.voxels
    assert narrow.network.channels[0] == NETS["resenc_m"].channels[0] // 2


@pytest.mark.slow
def test_what_can_never_fit_is_refused_with_what_it_takes():
    with pytest.raises(ConfigError, match=r"two patches .* take .*MiB in training, there are 650"):
        fit_patch(NETS["resenc_m"], HIPPOCAMPUS, memory=650 * 2**20)


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize(
    ("size", "spacing_mm"),
    [
        ((16, 16, 16), (1.0, 1.0, 1.0)),
        ((512, 512, 8), (0.5, 0.5, 6.0)),
        ((64, 48), (1.0, 1.0)),
        ((8, 8), (1.0, 1.0)),
    ],
)
def test_every_preset_fits_every_topology(name: str, size: tuple, spacing_mm: tuple):
    topology = plan_topology(size, spacing_mm)
    network = fit_network(NETS[name], topology)
    with torch.device("meta"):
        net = build_net(network, spatial_dims=len(size), in_channels=1, out_channels=2)
    assert net.divisor == tuple(
        p // q for p, q in zip(topology.patch, _coarsest(topology), strict=True)
    )
    assert network.norm != "batch"


def _coarsest(topology) -> list[int]:
    size = [*topology.patch]
    for step in topology.strides:
        size = [n // s for n, s in zip(size, step, strict=True)]
    return size


TRAIN = """
import sys, torch
from medseg3d.nets.presets import NETS, build_net
from medseg3d.config.loss import LossConfig
from medseg3d.labels import LabelScheme
from medseg3d.train.losses import build_loss
kind, dims, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])

def field(name):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))

def step(size):
    outputs = net(torch.randn(2, 2, *[size] * dims))
    channels = torch.randint(0, 3, (2, *[size] * dims))
    outputs = outputs if isinstance(outputs, list) else [outputs]
    loss(outputs, channels).backward()
    optimizer.step()

config = NETS[kind].model_copy(update={"channels": (8, 16, 32), "norm": "instance"})
if kind == "resenc_m":
    config = config.model_copy(update={"encoder_blocks": (1, 3, 4)})
net = build_net(config, spatial_dims=dims, in_channels=2, out_channels=3)
optimizer = torch.optim.AdamW(net.parameters())
loss = build_loss(LossConfig(), LabelScheme(values={1: "a", 2: "b"}), outputs="values")
for _ in range(2):
    optimizer.zero_grad()
    step(size)
print(field("VmHWM"))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "dims", "size"),
    [("resunet", 3, 80), ("resenc_m", 3, 80), ("unet", 2, 512), ("unetplusplus", 3, 64)],
)
def test_a_step_takes_what_was_estimated(kind: str, dims: int, size: int):
    update = {"channels": (8, 16, 32), "norm": "instance"}
    if kind == "resenc_m":
        update["encoder_blocks"] = (1, 3, 4)
    config = NETS[kind].model_copy(update=update)
    assert isinstance(config, UShapedConfig)
    step = measure_step(config, in_channels=2, out_channels=3, batch=2, patch=[size] * dims)
    done = subprocess.run(
        [sys.executable, "-c", TRAIN, kind, str(dims), str(size)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    ratio = (PROGRAM + step.weights + SURE * step.tensors) / int(done.stdout)
    assert 1.0 <= ratio <= 1.6, f"estimated {ratio:.2f} times what was taken"
