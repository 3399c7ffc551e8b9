"""The U-shape and its knobs."""

import pytest
import torch
from torch import nn

from medseg3d.config.network import NetworkConfig, ResEncConfig, ResUNetConfig, UNetConfig
from medseg3d.errors import GridError
from medseg3d.nets.presets import build_net
from medseg3d.nets.unet import UNet

VARIANTS = {
    "default": {},
    "nnU-Net": {
        "norm": "instance",
        "activation": "leaky_relu",
        "conv_bias": True,
        "downsampling": "stride",
    },
    "group norm": {"norm": "group", "activation": "silu"},
    "no norm": {"norm": "none"},
    "linear": {"upsampling": "linear", "skip_fusion": "concat"},
    "add": {"skip_fusion": "add", "attention": "se"},
    "concat": {"skip_fusion": "concat", "attention": "se"},
    "uneven": {"encoder_blocks": (1, 2, 3), "decoder_blocks": (2, 1)},
}


@pytest.fixture(params=[UNetConfig, ResUNetConfig])
def kind(request: pytest.FixtureRequest) -> type[UNetConfig | ResUNetConfig]:
    return request.param


def build(config: NetworkConfig, *, spatial_dims: int = 3) -> UNet:
    torch.manual_seed(0)
    return build_net(config, spatial_dims=spatial_dims, in_channels=2, out_channels=3)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("training", [False, True])
def test_a_3d_network_that_is_flat_along_an_axis_is_the_2d_network(kind, variant, training):
    knobs = {"channels": (4, 6, 8), **VARIANTS[variant]}
    flat = build(kind(**knobs), spatial_dims=2).double().train(training)
    deep = build(kind(**knobs, strides=((2, 2, 1),) * 2, kernel_sizes=((3, 3, 1),) * 3))
    weights = {
        name: value.unsqueeze(-1) if value.ndim == 4 else value
        for name, value in flat.state_dict().items()
    }
    deep.double().train(training).load_state_dict(weights)
    image = torch.randn(2, 2, 12, 8, dtype=torch.float64)
    torch.testing.assert_close(deep(image[..., None])[..., 0], flat(image))


def test_strides_are_per_level_and_axis(kind):
    net = build(kind(channels=(4, 6, 8, 10), strides=((1, 2, 2), 2, (3, 1, 2))))
    assert net.divisor == (6, 4, 8)
    image = torch.randn(2, 2, 6, 4, 16)
    sizes = []
    for level in net.encoder:
        level.register_forward_hook(lambda *call: sizes.append(tuple(call[2].shape[2:])))
    assert net(image).shape == (2, 3, 6, 4, 16)
    assert sizes == [(6, 4, 16), (6, 2, 8), (3, 1, 4), (1, 1, 2)]


def test_kernel_sizes_are_per_level_and_axis(kind):
    net = build(kind(channels=(4, 6, 8), kernel_sizes=((1, 3, 3), 3, (3, 5, 1))))
    kernels = [
        {tuple(w.shape[2:]) for w in level.parameters() if w.ndim == 5} - {(1, 1, 1)}
        for level in (*net.encoder, net.decoder[0].body, net.decoder[1].body)
    ]
    assert kernels == [{(1, 3, 3)}, {(3, 3, 3)}, {(3, 5, 1)}, {(3, 3, 3)}, {(1, 3, 3)}]


def test_blocks_are_counted_per_level(kind):
    net = build(kind(channels=(4, 6, 8), encoder_blocks=(1, 2, 3), decoder_blocks=(3, 1)))
    pooled = [isinstance(level[0], nn.MaxPool3d) for level in net.encoder]
    assert [len(level) - pool for level, pool in zip(net.encoder, pooled, strict=True)] == [1, 2, 3]
    assert [len(level.body) for level in net.decoder] == [1, 3]


def test_deep_supervision_lists_logits_fine_to_coarse_in_training_only(kind):
    net = build(kind(channels=(4, 6, 8, 10), deep_supervision=True, norm="none"))
    image = torch.randn(1, 2, 16, 8, 8)
    supervised = net.train()(image)
    assert [tuple(logits.shape) for logits in supervised] == [
        (1, 3, 16, 8, 8),
        (1, 3, 8, 4, 4),
        (1, 3, 4, 2, 2),
    ]
    torch.testing.assert_close(net.eval()(image), supervised[0])
    sum(logits.square().mean() for logits in supervised).backward()
    assert all(parameter.grad.any() for parameter in net.parameters())


def test_strided_convolutions_take_the_place_of_pooling(kind):
    pooled, strided = (build(kind(channels=(4, 6), downsampling=how)) for how in ("pool", "stride"))
    assert [type(m) for m in pooled.modules()].count(nn.MaxPool3d) == 1
    assert not any(isinstance(m, nn.MaxPool3d) for m in strided.modules())


def test_linear_upsampling_keeps_channels_and_interpolates_between_voxel_centres():
    net = build(UNetConfig(channels=(4, 6), upsampling="linear"))
    ramp = torch.tensor([0.0, 1.0]).expand(1, 6, 1, 1, 2)
    expected = torch.tensor([0.0, 0.25, 0.75, 1.0]).expand(1, 6, 2, 2, 4)
    torch.testing.assert_close(net.decoder[0].up(ramp), expected)


def test_aligned_linear_upsampling_interpolates_from_corner_to_corner():
    net = build(UNetConfig(channels=(4, 6), upsampling="linear_aligned"))
    ramp = torch.tensor([0.0, 3.0]).expand(1, 6, 1, 1, 2)
    expected = torch.tensor([0.0, 1.0, 2.0, 3.0]).expand(1, 6, 2, 2, 4)
    torch.testing.assert_close(net.decoder[0].up(ramp), expected)


@pytest.mark.parametrize(("fusion", "expected"), [("concat", [1, 2]), ("concat_up_first", [2, 1])])
def test_fusion_decides_whether_skip_or_up_sampled_comes_first(fusion: str, expected: list[int]):
    level = build(UNetConfig(channels=(1, 1), skip_fusion=fusion)).decoder[0]
    level.up, level.body = nn.Upsample(scale_factor=2), nn.Identity()
    fused = level(torch.full((1, 1, 1, 1, 1), 2.0), torch.ones(1, 1, 2, 2, 2))
    assert fused[0, :, 0, 0, 0].tolist() == expected


def test_channels_are_capped_in_3d_only():
    config = ResEncConfig(channels=(4, 8, 16), max_channels_3d=10, encoder_blocks=1)
    widths = {
        dims: [head.weight.shape[1] for head in build(config, spatial_dims=dims).heads]
        + [build(config, spatial_dims=dims).decoder[0].up.weight.shape[0]]
        for dims in (2, 3)
    }
    assert widths == {2: [4, 8, 16], 3: [4, 8, 10]}


def count_kept(net: UNet) -> int:
    """Count what a pass in training keeps for the gradients."""
    kept: list[int] = []

    def note(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        net.train()(torch.randn(1, 2, 16, 16, 16))
    return sum(kept)


def test_checkpointing_keeps_less_for_the_gradients(kind):
    thrifty = kind(channels=(4, 6), norm="none", activation_checkpointing=True)
    usual = thrifty.model_copy(update={"activation_checkpointing": False})
    assert count_kept(build(thrifty)) < 0.5 * count_kept(build(usual))


def test_attention_acts_on_the_skip_before_its_convolution():
    level = build(ResUNetConfig(channels=(4, 6), attention="se")).decoder[0]
    attend, convolve = level.skip
    skip = torch.rand(2, 4, 2, 2, 2)
    torch.testing.assert_close(level.skip(skip), convolve(skip * attend.gate(skip)))


def test_dropout_empties_its_share_of_the_deepest_channels_in_training_only(kind):
    net = build(kind(channels=(4, 400), norm="none", dropout=0.5))
    deepest, finer = net.encoder[-1], torch.rand(1, 4, 8, 8, 8)
    whole, thinned = deepest.eval()(finer)[0], deepest.train()(finer)[0]
    empty = ~thinned.flatten(1).any(1)
    torch.testing.assert_close(thinned[~empty], 2 * whole[~empty])
    alive = whole.flatten(1).any(1)
    assert (empty & alive).sum() / alive.sum() == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ((2, 2, 8, 8), ["3D network takes (batch, channel, 3 spatial axes)", "(2, 2, 8, 8)"]),
        ((2, 1, 8, 8, 8), ["built for 2 input channels, got 1"]),
        ((2, 2, 8, 10, 1), ["(8, 10, 1)", "(4, 4, 4)", "predict_logits, which pads and crops"]),
    ],
)
def test_an_image_that_does_not_fit_is_refused_by_name(kind, shape, said):
    net = build(kind(channels=(4, 6, 8)))
    with pytest.raises(GridError) as refusal:
        net(torch.zeros(shape))
    assert all(words in str(refusal.value) for words in said)


@pytest.mark.parametrize(
    ("norm", "training", "batch", "refused"),
    [
        ("batch", True, 1, True),
        ("batch", True, 2, False),
        ("batch", False, 1, False),
        ("instance", True, 2, True),
        ("instance", False, 1, True),
        ("none", True, 1, False),
    ],
)
def test_a_norm_over_a_single_voxel_is_refused_by_name(kind, norm, training, batch, refused):
    net = build(kind(channels=(4, 6, 8), norm=norm)).train(training)
    if not refused:
        assert net(torch.randn(batch, 2, 4, 4, 4)).isfinite().all()
        return
    with pytest.raises(GridError, match=f"one voxel in the deepest level, where {norm} norm"):
        net(torch.randn(batch, 2, 4, 4, 4))
    assert net(torch.randn(batch, 2, 8, 4, 4)).isfinite().all()
