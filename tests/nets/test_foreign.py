"""Networks of MONAI's through the same door."""

import subprocess
import sys

import pytest
import torch

from medseg3d.config.network import MonaiConfig
from medseg3d.errors import ConfigError, GridError
from medseg3d.nets.foreign import ForeignNet
from medseg3d.nets.presets import build_net

BASIC = MonaiConfig(name="BasicUNet", arguments={"features": [4, 4, 6, 8, 8, 4]}, divisor=16)
SEGRES = MonaiConfig(name="SegResNet", arguments={"init_filters": 8}, divisor=8)
DYN = MonaiConfig(
    name="DynUNet",
    arguments={
        "kernel_size": [3, 3, 3, 3],
        "strides": [1, 2, 2, 2],
        "upsample_kernel_size": [2, 2, 2],
        "filters": [4, 6, 8, 8],
        "deep_supervision": True,
        "deep_supr_num": 2,
    },
    divisor=8,
)


def build(net: str | MonaiConfig, *, dims: int = 3) -> ForeignNet:
    torch.manual_seed(0)
    return build_net(net, spatial_dims=dims, in_channels=2, out_channels=3)


@pytest.mark.slow
@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("config", [BASIC, SEGRES, DYN], ids=lambda config: config.name)
def test_logits_have_the_size_of_the_image(config: MonaiConfig, dims: int):
    net = build(config, dims=dims).eval()
    image = torch.randn(1, 2, *(2 * divisor for divisor in net.divisor))
    with torch.no_grad():
        assert net(image).shape == (1, 3, *image.shape[2:])


def test_several_outputs_become_a_list_in_training_and_a_tensor_in_eval():
    net, image = build(DYN), torch.randn(1, 2, 16, 16, 16)
    with torch.no_grad():
        outputs, whole = net.train()(image), net.eval()(image)
    assert [tuple(logits.shape) for logits in outputs] == [(1, 3, 16, 16, 16)] * 3
    torch.testing.assert_close(outputs[0], whole)


def test_a_name_with_its_prefix_is_enough():
    net = build("monai/BasicUNet", dims=2)
    assert type(net.net).__name__ == "BasicUNet"
    assert net.divisor == (32, 32)


def test_sizes_are_checked_before_monai_sees_them():
    with pytest.raises(GridError, match=r"\(16, 16, 12\) is not a multiple .* \(16, 16, 16\)"):
        build(BASIC)(torch.zeros(1, 2, 16, 16, 12))


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (MonaiConfig(name="SegResnet2"), "MONAI has no network called 'SegResnet2'; did you mean"),
        (
            MonaiConfig(name="BasicUNetPlusPlus", arguments={"deep_supervision": True}),
            "MONAI's UNet\\+\\+ lists its shallowest head first; use 'unetplusplus'",
        ),
        (MonaiConfig(name="np"), "MONAI has no network called 'np'"),
        (
            MonaiConfig(name="SegResNet", arguments={"depth": 3}),
            "monai/SegResNet cannot be built: .*'depth'",
        ),
        (MonaiConfig(name="DynUNet"), "monai/DynUNet cannot be built: .*'kernel_size'"),
    ],
)
def test_what_monai_does_not_have_or_take_is_refused_by_name(config: MonaiConfig, said: str):
    with pytest.raises(ConfigError, match=said):
        build(config)


@pytest.mark.slow
def test_monai_is_imported_only_for_its_own_networks():
    code = (
        "import sys, medseg3d.predict.case, medseg3d.nets.presets as presets\n"
        "presets.build_net('resunet_linear', spatial_dims=2, in_channels=1, out_channels=2)\n"
        "assert 'monai' not in sys.modules\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
