"""Triton's kernels give what torch gives in float64; without a GPU, by Triton's interpreter.

They run in a process of their own: how is settled when Triton is imported.
"""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")

NORMS = """
import sys, torch
from torch import nn
from torch.nn.functional import instance_norm, leaky_relu
from medseg3d.predict.fused import FusedNorm
from medseg3d.nets.norms import SampleNorm

torch.manual_seed(0)
device = sys.argv[1]
small = [(2, 5, 7, 6, 9), (1, 72, 30, 31), (3, 16, 8, 8, 8), (1, 1, 3, 1, 1)]
ways = [(shape, *how) for shape in small for how in ((0.0, False), (0.01, True), (1.0, True))]
for shape, slope, adds in [*ways, ((1, 8, 700, 760), 0.01, True)]:  # the last one in two steps
    norm = [nn.InstanceNorm2d, nn.InstanceNorm3d][len(shape) - 4](shape[1], affine=slope < 1)
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    for dtype, near in ((torch.float32, 1e-4), (torch.bfloat16, 2**-7), (torch.float16, 2**-10)):
        if len(shape) == 4 and shape[-1] > 100 and dtype != torch.bfloat16:
            continue
        norm.to(device, dtype)
        x = (torch.randn(shape) * 3 + 40).to(device, dtype)
        added = torch.randn(shape).to(device, dtype) if adds else None
        exact = instance_norm(x.double(), None, None, *(p.double() for p in norm.parameters()))
        exact = leaky_relu(exact + (added.double() if adds else 0), slope)
        fused = FusedNorm(SampleNorm(norm), slope=slope)(x, added)
        last = [torch.channels_last, torch.channels_last_3d][len(shape) - 4]
        assert fused.dtype == dtype and fused.is_contiguous(memory_format=last)
        torch.testing.assert_close(fused.double(), exact, rtol=near, atol=near)
        norm.float()
"""

NETWORKS = """
import copy, sys, torch
from medseg3d.nets.presets import NETS, build_net
from medseg3d.predict.fused import FusedNorm, fuse_norms
from medseg3d.nets.norms import SampleNorm
from medseg3d.predict.norms import quicken_norms

torch.manual_seed(0)
device, kinds = sys.argv[1], {}
for name in ("unet", "resunet", "resunet_shortcut", "resunet_linear", "mobile_resunet"):
    config = NETS[name].model_copy(update={"channels": (8, 16), "norm": "instance"})
    net = build_net(config, spatial_dims=2, in_channels=2, out_channels=3).to(device).eval()
    fused = fuse_norms(quicken_norms(copy.deepcopy(net)))
    tiles = torch.randn(2, 2, 16, 16, device=device)
    with torch.inference_mode():
        torch.testing.assert_close(fused(tiles), net(tiles), rtol=1e-3, atol=1e-3)
    modules = [*fused.modules()]
    kinds[name] = {type(module).__name__ for module in modules}
    assert "FusedNorm" in kinds[name] and "SampleNorm" not in kinds[name]
assert "FusedUnit" in kinds["resunet"] and "FusedUnit" not in kinds["unet"]
assert "ReLU" not in kinds["unet"] | kinds["resunet"]
"""

gpu = pytest.param(
    "cuda",
    marks=[
        pytest.mark.gpu,
        pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU"),
    ],
)


@pytest.mark.slow
@pytest.mark.parametrize("device", ["cpu", gpu])
@pytest.mark.parametrize("script", [NORMS, NETWORKS], ids=["norms", "networks"])
def test_fused_is_what_torch_says(script: str, device: str) -> None:
    how = {"TRITON_INTERPRET": "1"} if device == "cpu" else {}
    done = subprocess.run(
        [sys.executable, "-c", script, device],
        cwd=ROOT,
        env={**os.environ, **how},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
