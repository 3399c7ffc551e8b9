"""Networks against nnU-Net's own, built from the same plan."""

import pytest
import torch
from torch import Tensor, nn

from medseg3d.config.network import ResEncConfig, UNetConfig
from medseg3d.nets.presets import build_net

architectures = pytest.importorskip(
    "dynamic_network_architectures.architectures.unet",
    reason="dynamic-network-architectures is not installed (`make test` brings it)",
)

NNUNET = {"norm": "instance", "activation": "leaky_relu", "conv_bias": True}
PLANS = {
    2: {
        "channels": (4, 6, 8, 8),  # the last step only halves
        "strides": (2, (2, 1), 2),
        "kernel_sizes": (3, 3, (3, 1), 3),
    },
    3: {
        "channels": (4, 6, 8, 8),  # the last step only halves
        "strides": ((1, 2, 2), 2, (2, 2, 1)),
        "kernel_sizes": ((1, 3, 3), 3, 3, 3),
    },
}

ROLES = {"shortcut": (".skip.", ".shortcut."), "head": ("seg_layers.", "heads.")}
"""What the two call the same thing."""


def describe(plan: dict, dims: int, *, decoder_convs: list[int]) -> dict:
    """Say a plan in nnU-Net's words."""
    return {
        "input_channels": 2,
        "n_stages": 4,
        "features_per_stage": plan["channels"],
        "conv_op": nn.Conv2d if dims == 2 else nn.Conv3d,
        "kernel_sizes": plan["kernel_sizes"],
        "strides": [1, *plan["strides"]],
        "num_classes": 3,
        "n_conv_per_stage_decoder": decoder_convs,
        "conv_bias": True,
        "norm_op": nn.InstanceNorm2d if dims == 2 else nn.InstanceNorm3d,
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "nonlin": nn.LeakyReLU,
        "nonlin_kwargs": {"inplace": True},
        "deep_supervision": True,
    }


def layers_by_role(net: nn.Module, image: Tensor) -> dict[tuple, list[nn.Module]]:
    """List the layers with weights as the data reach them, by shape; shortcuts and heads apart."""
    roles: dict[tuple, list[nn.Module]] = {}

    def note(layer: nn.Module, *_: object) -> None:
        role = next((r for r, words in ROLES.items() if any(w in names[layer] for w in words)), "")
        roles.setdefault((role, *layer.weight.shape), []).append(layer)

    names = {layer: name for name, layer in net.named_modules() if [*layer.parameters(False)]}
    hooks = [layer.register_forward_hook(note) for layer in names]
    net(image)
    for hook in hooks:
        hook.remove()
    return roles


def copy_weights(source: nn.Module, target: nn.Module, image: Tensor) -> None:
    """Give each layer the weights of the next one of its role and shape."""
    theirs, ours = layers_by_role(source, image), layers_by_role(target, image)
    assert {role: len(queue) for role, queue in theirs.items()} == {
        role: len(queue) for role, queue in ours.items()
    }
    for role, queue in theirs.items():
        coarse_first = queue[::-1] if role[0] == "head" else queue  # ours speaks fine to coarse
        for layer, twin in zip(coarse_first, ours[role], strict=True):
            twin.load_state_dict(layer.state_dict())


def require_equal(theirs: nn.Module, ours: nn.Module, dims: int) -> None:
    """Compare both in training (all heads) and in eval mode (one)."""
    image = torch.randn(2, 2, *(16, 16, 8)[:dims], dtype=torch.float64)
    theirs.double()
    ours.double()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.normal_(0.1, 0.5)
        copy_weights(theirs, ours, image)
        expected = theirs(image)
        given = ours.train()(image)
        assert len(given) == len(expected) == 3
        for logits, reference in zip(given, expected, strict=True):
            torch.testing.assert_close(logits, reference, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(ours.eval()(image), expected[0], rtol=1e-9, atol=1e-9)
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())


@pytest.mark.parametrize("dims", [2, 3])
def test_resenc_is_the_residual_encoder_unet_of_the_same_plan(dims: int):
    torch.manual_seed(0)
    plan, blocks = PLANS[dims], (1, 3, 2, 2)
    theirs = architectures.ResidualEncoderUNet(
        **describe(plan, dims, decoder_convs=[1, 1, 1]), n_blocks_per_stage=blocks
    )
    config = ResEncConfig(**plan, encoder_blocks=blocks)
    ours = build_net(config, spatial_dims=dims, in_channels=2, out_channels=3)
    require_equal(theirs, ours, dims)


@pytest.mark.parametrize("dims", [2, 3])
def test_unet_is_the_plain_conv_unet_of_the_same_plan(dims: int):
    torch.manual_seed(0)
    plan = PLANS[dims]
    theirs = architectures.PlainConvUNet(
        **describe(plan, dims, decoder_convs=[3, 2, 1]), n_conv_per_stage=(1, 2, 3, 2)
    )
    config = UNetConfig(
        **plan,
        **NNUNET,
        downsampling="stride",
        skip_fusion="concat_up_first",
        encoder_blocks=(1, 2, 3, 2),
        decoder_blocks=(1, 2, 3),
        deep_supervision=True,
    )
    ours = build_net(config, spatial_dims=dims, in_channels=2, out_channels=3)
    require_equal(theirs, ours, dims)
