"""Norms that cost less say the same."""

import copy

import pytest
import torch
from torch import nn

from medseg3d.nets.norms import SampleNorm
from medseg3d.nets.presets import NETS, build_net
from medseg3d.predict.norms import quicken_norms


@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize("name", ["unet", "resunet", "unetplusplus"])
@pytest.mark.parametrize("norm", ["batch", "instance", "group"])
def test_a_network_with_quick_norms_says_the_same(name: str, norm: str, spatial_dims: int) -> None:
    torch.manual_seed(0)
    config = NETS[name].model_copy(update={"channels": (4, 8), "norm": norm})
    net = build_net(config, spatial_dims=spatial_dims, in_channels=2, out_channels=3)
    tiles = torch.randn(2, 2, *(8, 8, 8)[:spatial_dims])
    with torch.no_grad():
        net(tiles)  # moves the statistics of batch norms
        quick = quicken_norms(copy.deepcopy(net.eval()))
        torch.testing.assert_close(quick(tiles), net(tiles), rtol=1e-4, atol=1e-4)
    slow = (nn.BatchNorm2d, nn.BatchNorm3d, nn.InstanceNorm2d, nn.InstanceNorm3d)
    assert not [module for module in quick.modules() if isinstance(module, slow)]


@pytest.mark.parametrize("tracks", [False, True])
def test_a_norm_of_tracked_statistics_stays(tracks: bool) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.InstanceNorm2d(3, track_running_stats=tracks))
    tiles = torch.randn(2, 3, 8, 8) * 7 + 3
    net(tiles)  # moves the statistics
    quick = quicken_norms(copy.deepcopy(net.eval()))
    torch.testing.assert_close(quick(tiles), net(tiles), rtol=1e-5, atol=1e-5)
    assert isinstance(quick[0], SampleNorm) is not tracks


def test_a_batch_norm_is_folded_into_a_transposed_convolution() -> None:
    torch.manual_seed(0)
    norm = nn.BatchNorm3d(3)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.running_mean)
    net = nn.Sequential(nn.ConvTranspose3d(2, 3, 2, stride=2), norm, nn.ReLU()).eval()
    tiles = torch.randn(1, 2, 4, 4, 4)
    quick = quicken_norms(copy.deepcopy(net))
    torch.testing.assert_close(quick(tiles), net(tiles), rtol=1e-5, atol=1e-5)
    assert isinstance(quick[1], nn.Identity)
