"""However kernels are launched, the logits stay the same."""

import sys

import pytest
import torch
from torch import Tensor, nn

from medseg3d.errors import ConfigError
from medseg3d.nets.presets import NETS, build_net
from medseg3d.predict.engine import build_engine
from medseg3d.predict.kernels import FilledBatches, launch
from medseg3d.predict.sliding import predict_logits

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU")


def test_smaller_batches_are_filled_up_to_one_size() -> None:
    seen = []

    def double(tiles: Tensor) -> Tensor:
        seen.append(tiles.shape)
        return 2 * tiles

    run, tiles = FilledBatches(double), torch.rand(5, 2, 3, 4, 5)
    for batch in (tiles[:2], tiles[2:4], tiles[4:]):
        assert torch.equal(run(batch), 2 * batch)
    assert {*seen} == {(2, 2, 3, 4, 5)}


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
@pytest.mark.slow
def test_torch_compiles_a_network_that_says_the_same() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.InstanceNorm2d(4, affine=True), nn.ReLU())
    image = torch.rand(1, 12, 20)
    exact, compiled = (
        predict_logits(build_engine(net.eval(), kernels=kernels), image, tile_size=(8, 8))
        for kernels in ("eager", "inductor")
    )
    torch.testing.assert_close(compiled, exact, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kernels", ["graph", "fused"])
def test_ways_of_cuda_are_refused_elsewhere(kernels: str) -> None:
    with pytest.raises(
        ConfigError, match=f"kernels '{kernels}' need device 'cuda', got 'cpu'; set"
    ):
        launch(nn.Identity(), kernels, device=CPU)


@pytest.mark.parametrize("kernels", ["fused", "inductor"])
def test_what_triton_is_missing_for_is_refused(
    kernels: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "triton", None)
    with pytest.raises(ConfigError, match=f"kernels '{kernels}' need Triton, which comes with"):
        launch(nn.Identity(), kernels, device=CUDA)


@pytest.mark.gpu
@on_gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("kernels", ["graph", "fused", "inductor"])
@pytest.mark.parametrize("name", ["unet", "resunet", "unetplusplus"])
def test_on_a_gpu_all_say_the_same_in_batches_of_any_size(
    name: str, kernels: str, precision: str
) -> None:
    if kernels == "fused" and precision == "fp32":
        pytest.skip("refused: fused kernels are for half precision")
    torch.manual_seed(0)
    config = NETS[name].model_copy(update={"channels": (8, 16, 24), "norm": "instance"})
    net = build_net(config, spatial_dims=3, in_channels=2, out_channels=3).cuda().eval()
    image, near = torch.rand(2, 40, 36, 33), 1e-4 if precision == "fp32" else 0.05
    eager, other = (build_engine(net, precision=precision, kernels=k) for k in ("eager", kernels))
    exact = predict_logits(eager, image, tile_size=(32, 32, 32)).softmax(0)
    for size in (1, 3, 2):  # the last one is filled up
        logits = predict_logits(other, image, tile_size=(32, 32, 32), tile_batch=size)
        assert (logits.softmax(0) - exact).abs().max() < near


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="torch finds no second GPU")
@pytest.mark.parametrize("kernels", ["graph", "fused"])
def test_kernels_are_launched_where_the_network_is(kernels: str) -> None:
    norm = nn.InstanceNorm3d(2, affine=True)
    net = nn.Sequential(nn.Conv3d(1, 2, 1), norm).to("cuda:1").eval()
    eager, other = (build_engine(net, precision="bf16", kernels=k) for k in ("eager", kernels))
    for tiles in torch.rand(2, 1, 1, 8, 8, 8):
        torch.testing.assert_close(other(tiles), eager(tiles), rtol=0.02, atol=0.02)


@pytest.mark.gpu
@on_gpu
def test_a_graph_gives_logits_in_memory_of_their_own() -> None:
    net = nn.Conv3d(1, 2, 1).cuda().eval()
    engine = build_engine(net, kernels="graph")
    first = engine(torch.zeros(1, 1, 8, 8, 8))
    kept = first.clone()
    engine(torch.ones(1, 1, 8, 8, 8))
    assert torch.equal(first, kept)
