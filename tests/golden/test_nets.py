"""Networks against plain functions written from their published description.

The plain side knows no module names: it asks for "the next layer, in order of execution, whose
weight has this shape", and must have asked for every layer at the end.
"""

from collections.abc import Callable
from functools import partial
from itertools import pairwise, product

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from medseg3d.nets.presets import NETS, build_net

CHANNELS = (4, 6, 8, 10, 12)
IN_CHANNELS, OUT_CHANNELS = 2, 3


class PlainNet:
    """The operations of a network on float64 tensors, each in its plainest form."""

    def __init__(self, layers: list[nn.Module], *, training: bool) -> None:
        self.layers = layers
        self.training = training

    def take(self, *shape: int) -> nn.Module:
        found = next(layer for layer in self.layers if layer.weight.shape == shape)
        self.layers.remove(found)
        return found

    def conv(self, x: Tensor, channels: int, size: int, *, bias: bool) -> Tensor:
        axes = x.ndim - 2
        layer = self.take(channels, x.shape[1], *[size] * axes)
        assert (layer.bias is not None) == bias
        convolve = functional.conv2d if axes == 2 else functional.conv3d
        return convolve(x, layer.weight, layer.bias, padding=size // 2)

    def batch_norm(self, x: Tensor) -> Tensor:
        layer = self.take(x.shape[1])
        mean, var = layer.running_mean, layer.running_var
        if self.training:
            flat = x.transpose(0, 1).flatten(1)
            mean, var = flat.mean(1), flat.var(1, correction=0)
        wide = (1, -1, *[1] * (x.ndim - 2))
        whitened = (x - mean.view(wide)) / torch.sqrt(var.view(wide) + 1e-5)
        return whitened * layer.weight.view(wide) + layer.bias.view(wide)

    def conv_norm(self, x: Tensor, channels: int, size: int = 3) -> Tensor:
        return self.batch_norm(self.conv(x, channels, size, bias=False))

    def up(self, x: Tensor, channels: int) -> Tensor:
        """Transposed convolution of kernel 2 and stride 2: each voxel paints its own 2×2(×2)."""
        axes = x.ndim - 2
        layer = self.take(x.shape[1], channels, *[2] * axes)
        painted = x.new_empty(len(x), channels, *(2 * n for n in x.shape[2:]))
        for corner in product((0, 1), repeat=axes):
            weight = layer.weight[(slice(None), slice(None), *corner)]
            colour = torch.einsum("bi...,io->bo...", x, weight)
            painted[(..., *(slice(c, None, 2) for c in corner))] = colour
        return painted + layer.bias.view(-1, *[1] * axes)

    def double_conv(self, x: Tensor, channels: int, *, bias: bool = False) -> Tensor:
        for _ in range(2):
            x = self.batch_norm(self.conv(x, channels, 3, bias=bias)).clamp(min=0)
        return x

    def residual_unit(self, x: Tensor, channels: int) -> Tensor:
        body = self.conv_norm(self.conv_norm(x, channels).clamp(min=0), channels)
        return (body + (x if x.shape[1] == channels else self.conv_norm(x, channels, 1))).clamp(
            min=0
        )

    def residual_unit_without_norm(self, x: Tensor, channels: int) -> Tensor:
        body = self.conv(x, channels, 3, bias=True).clamp(min=0)
        body = self.conv(body, channels, 3, bias=True)
        same = x.shape[1] == channels
        return (body + (x if same else self.conv(x, channels, 1, bias=True))).clamp(min=0)

    def excite(self, x: Tensor, narrow: int) -> Tensor:
        mean = x.flatten(2).mean(2).reshape(*x.shape[:2], *[1] * (x.ndim - 2))
        squeezed = self.conv(mean, narrow, 1, bias=True).clamp(min=0)
        return x / (1 + torch.exp(-self.conv(squeezed, x.shape[1], 1, bias=True)))

    def mobile_unit(self, x: Tensor, channels: int) -> Tensor:
        layer = self.take(x.shape[1], 1, *[3] * (x.ndim - 2))
        convolve = functional.conv2d if x.ndim == 4 else functional.conv3d
        each = [convolve(x[:, [c]], layer.weight[[c]], padding=1) for c in range(x.shape[1])]
        body = hard_swish(self.batch_norm(torch.cat(each, 1)))
        body = self.conv_norm(self.excite(body, max(8, body.shape[1] // 4)), channels, 1)
        return body + (x if x.shape[1] == channels else self.conv_norm(x, channels, 1))


def hard_swish(x: Tensor) -> Tensor:
    return x * (x + 3).clamp(0, 6) / 6


def max_pool(x: Tensor) -> Tensor:
    """Give the largest of each 2×2(×2)."""
    corners = product((0, 1), repeat=x.ndim - 2)
    return torch.stack([x[(..., *(slice(c, None, 2) for c in corner))] for corner in corners]).amax(
        0
    )


def stretch(x: Tensor, *, aligned: bool) -> Tensor:
    """Interpolate linearly to twice the length, one axis after the other."""
    for axis in range(2, x.ndim):
        length = x.shape[axis]
        places = torch.arange(2 * length, dtype=x.dtype)
        places = places * (length - 1) / (2 * length - 1) if aligned else (places - 0.5) / 2
        places = places.clamp(0, length - 1)
        low = places.floor().long()
        high = (low + 1).clamp(max=length - 1)
        share = (places - low).reshape(-1, *[1] * (x.ndim - 1 - axis))
        x = x.index_select(axis, low) * (1 - share) + x.index_select(axis, high) * share
    return x


def plain_unet(net: PlainNet, x: Tensor) -> list[Tensor]:
    skips = []
    for channels in CHANNELS[:-1]:
        x = net.double_conv(x, channels)
        skips.append(x)
        x = max_pool(x)
    x = net.double_conv(x, CHANNELS[-1])
    for skip in skips[::-1]:
        channels = skip.shape[1]
        x = net.double_conv(torch.cat([skip, net.up(x, channels)], 1), channels)
    return [net.conv(x, OUT_CHANNELS, 1, bias=True)]


def plain_resunet_shortcut(net: PlainNet, x: Tensor) -> list[Tensor]:
    skips = []
    for channels in CHANNELS:
        x = max_pool(x) if skips else x
        x = net.double_conv(x, channels) + net.conv(x, channels, 1, bias=True)
        skips.append(x)
    for skip in skips[-2::-1]:
        channels = skip.shape[1]
        x = net.double_conv(torch.cat([net.up(x, channels), skip], 1), channels)
    return [net.conv(x, OUT_CHANNELS, 1, bias=True)]


def plain_resunet(net: PlainNet, x: Tensor) -> list[Tensor]:
    return added(net, x, net.residual_unit, lambda skip: skip)


def plain_resunet_se(net: PlainNet, x: Tensor) -> list[Tensor]:
    return added(
        net, x, net.residual_unit, lambda skip: net.excite(skip, max(1, skip.shape[1] // 16))
    )


def plain_mobile_resunet(net: PlainNet, x: Tensor) -> list[Tensor]:
    stem = hard_swish(net.conv_norm(x, CHANNELS[0]))
    return added(net, stem, net.mobile_unit, lambda skip: skip)


def added(
    net: PlainNet,
    x: Tensor,
    unit: Callable[[Tensor, int], Tensor],
    attend: Callable[[Tensor], Tensor],
) -> list[Tensor]:
    skips = []
    for channels in CHANNELS:
        x = max_pool(x) if skips else x
        x = unit(unit(x, channels), channels)
        skips.append(x)
    for skip in skips[-2::-1]:
        channels = skip.shape[1]
        x = net.up(x, channels) + net.conv(attend(skip), channels, 1, bias=True)
        x = unit(x, channels)
    return [net.conv(x, OUT_CHANNELS, 1, bias=True)]


def plain_resunet_linear(net: PlainNet, x: Tensor) -> list[Tensor]:
    skips = []
    for channels in CHANNELS[:3]:
        x = max_pool(x) if skips else x
        x = net.residual_unit_without_norm(x, channels)
        skips.append(x)
    for skip in skips[-2::-1]:
        up = stretch(x, aligned=False)
        x = net.residual_unit_without_norm(torch.cat([up, skip], 1), skip.shape[1])
    return [net.conv(x, OUT_CHANNELS, 1, bias=True)]


def nested(
    net: PlainNet, x: Tensor, block: Callable[[Tensor, int], Tensor], *, heads: list[int]
) -> list[Tensor]:
    nodes: dict[tuple[int, int], Tensor] = {}
    for i, channels in enumerate(CHANNELS):
        x = nodes[i, 0] = block(max_pool(x) if i else x, channels)
    for j in range(1, 5):
        for i in range(5 - j):
            before = [nodes[i, k] for k in range(j)]
            up = stretch(nodes[i + 1, j - 1], aligned=True)
            nodes[i, j] = block(torch.cat([*before, up], 1), CHANNELS[i])
    return [net.conv(nodes[0, j], OUT_CHANNELS, 1, bias=True) for j in heads]


def plain_unetplusplus(net: PlainNet, x: Tensor) -> list[Tensor]:
    return nested(net, x, partial(net.double_conv, bias=True), heads=[4])


def plain_supervised_unetplusplus(net: PlainNet, x: Tensor) -> list[Tensor]:
    return nested(net, x, partial(net.double_conv, bias=True), heads=[4, 3, 2, 1])


def plain_resunetplusplus(net: PlainNet, x: Tensor) -> list[Tensor]:
    return nested(net, x, net.residual_unit, heads=[4])


PLAIN: dict[str, tuple[Callable[[PlainNet, Tensor], list[Tensor]], dict[str, object]]] = {
    "unet": (plain_unet, {}),
    "resunet_shortcut": (plain_resunet_shortcut, {}),
    "resunet": (plain_resunet, {}),
    "resunet with attention": (plain_resunet_se, {"attention": "se"}),
    "resunet_linear": (plain_resunet_linear, {"channels": CHANNELS[:3]}),
    "unetplusplus": (plain_unetplusplus, {}),
    "unetplusplus with supervision": (plain_supervised_unetplusplus, {"deep_supervision": True}),
    "resunetplusplus": (plain_resunetplusplus, {}),
    "mobile_resunet": (plain_mobile_resunet, {}),
}
"""Preset (and variant) -> its plain function, and its knobs."""


def layers_in_order(net: nn.Module, image: Tensor) -> list[nn.Module]:
    """List the layers with weights as the data reach them."""
    reached: list[nn.Module] = []
    layers = [m for m in net.modules() if [*m.parameters(recurse=False)]]
    hooks = [m.register_forward_hook(lambda m, *_: reached.append(m)) for m in layers]
    net.train()(image)  # in training all heads speak
    for hook in hooks:
        hook.remove()
    assert len(reached) == len(layers)
    return reached


def randomise(net: nn.Module) -> None:
    """Draw every weight and statistic, so that none hides behind a 0 or a 1."""
    for name, values in net.state_dict().items():
        if values.is_floating_point():
            values.uniform_(0.5, 2.0) if "var" in name else values.normal_(0.1, 0.5)


@torch.no_grad()
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize("variant", PLAIN)
def test_preset_is_the_published_function(variant: str, spatial_dims: int, training: bool):
    torch.manual_seed(0)
    plain_net, knobs = PLAIN[variant]
    net = build_net(
        NETS[variant.partition(" ")[0]].model_copy(update={"channels": CHANNELS, **knobs}),
        spatial_dims=spatial_dims,
        in_channels=IN_CHANNELS,
        out_channels=OUT_CHANNELS,
    ).double()
    randomise(net)
    image = torch.randn(2, IN_CHANNELS, *(32, 16, 16)[:spatial_dims], dtype=torch.float64)
    plain = PlainNet(layers_in_order(net, image), training=training)
    expected = plain_net(plain, image)
    assert plain.layers == []
    assert all(logits.std() > 0.1 for logits in expected)
    given = net.train(training)(image)
    assert isinstance(given, list) == (training and len(expected) > 1)
    given = given if isinstance(given, list) else [given]
    for ours, theirs in zip(given, expected[: len(given)], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def count_unet(widths: tuple[int, ...], dims: int, inputs: int, outputs: int) -> int:
    """Count by hand: a level is two convolutions and norms; up-sampling and head have biases."""

    def level(i: int, o: int) -> int:
        return (i + o) * o * 3**dims + 4 * o

    down = sum(level(i, o) for i, o in pairwise((inputs, *widths)))
    up = sum(deep * o * 2**dims + o + level(2 * o, o) for o, deep in pairwise(widths))
    return down + up + (widths[0] + 1) * outputs


def count_resunet(widths: tuple[int, ...], dims: int, inputs: int, outputs: int) -> int:
    """Count by hand: a unit is U-Net's level, and a 1×1 convolution and norm where i is not o."""

    def unit(i: int, o: int) -> int:
        return (i + o) * o * 3**dims + 4 * o + (i != o) * (i + 2) * o

    down = sum(unit(i, o) + unit(o, o) for i, o in pairwise((inputs, *widths)))
    up = sum(deep * o * 2**dims + o + (o + 1) * o + unit(o, o) for o, deep in pairwise(widths))
    return down + up + (widths[0] + 1) * outputs


def count_resunet_shortcut(widths: tuple[int, ...], dims: int, inputs: int, outputs: int) -> int:
    """Count by hand: a U-Net, and a 1×1 convolution with bias beside each encoder level."""
    shortcuts = sum((i + 1) * o for i, o in pairwise((inputs, *widths)))
    return count_unet(widths, dims, inputs, outputs) + shortcuts


def count_resunet_linear(widths: tuple[int, ...], dims: int, inputs: int, outputs: int) -> int:
    """Count by hand: everything has a bias, nothing a norm, and up-sampling learns nothing."""

    def unit(i: int, o: int) -> int:
        return (i + o) * o * 3**dims + 2 * o + (i != o) * (i + 1) * o

    down = sum(unit(i, o) for i, o in pairwise((inputs, *widths)))
    up = sum(unit(o + deep, o) for o, deep in pairwise(widths))
    return down + up + (widths[0] + 1) * outputs


def count_unetplusplus(widths: tuple[int, ...], dims: int, inputs: int, outputs: int) -> int:
    """Count by hand: U-Net's level with biases at each node, over all earlier ones and one up."""

    def level(i: int, o: int) -> int:
        return (i + o) * o * 3**dims + 6 * o

    down = sum(level(i, o) for i, o in pairwise((inputs, *widths)))
    nodes = [(i, j) for j in range(1, len(widths)) for i in range(len(widths) - j)]
    up = sum(level(j * widths[i] + widths[i + 1], widths[i]) for i, j in nodes)
    return down + up + (widths[0] + 1) * outputs


def count_resunetplusplus(widths: tuple[int, ...], dims: int, inputs: int, outputs: int) -> int:
    """Count by hand: Res-UNet's unit at each node."""

    def unit(i: int, o: int) -> int:
        return (i + o) * o * 3**dims + 4 * o + (i + 2) * o

    down = sum(unit(i, o) for i, o in pairwise((inputs, *widths)))
    nodes = [(i, j) for j in range(1, len(widths)) for i in range(len(widths) - j)]
    up = sum(unit(j * widths[i] + widths[i + 1], widths[i]) for i, j in nodes)
    return down + up + (widths[0] + 1) * outputs


def count_mobile_resunet(widths: tuple[int, ...], dims: int, inputs: int, outputs: int) -> int:
    """Count by hand: depthwise, gate of a quarter or 8, 1×1, and a shortcut where i is not o."""

    def unit(i: int, o: int) -> int:
        narrow = max(8, i // 4)
        gate = 2 * i * narrow + narrow + i
        return i * 3**dims + 2 * i + gate + (i + 2) * o + (i != o) * (i + 2) * o

    stem = widths[0] * (inputs * 3**dims + 2)
    down = sum(unit(i, o) + unit(o, o) for i, o in pairwise((widths[0], *widths)))
    up = sum(deep * o * 2**dims + o + (o + 1) * o + unit(o, o) for o, deep in pairwise(widths))
    return stem + down + up + (widths[0] + 1) * outputs


def count_resenc(widths: tuple[int, ...], dims: int, inputs: int, outputs: int) -> int:
    """Count by hand: biases before norms but not in shortcuts, a head at each decoder level."""

    def conv(i: int, o: int) -> int:
        return i * o * 3**dims + 3 * o

    def unit(i: int, o: int) -> int:
        return conv(i, o) + conv(o, o) + (i != o) * (i + 2) * o

    stages = zip((1, 3, 4, 6, 6, 6), pairwise((widths[0], *widths)), strict=True)
    down = conv(inputs, widths[0]) + sum(unit(i, o) + (n - 1) * unit(o, o) for n, (i, o) in stages)
    up = sum(deep * o * 2**dims + o + conv(2 * o, o) for o, deep in pairwise(widths))
    return down + up + sum((width + 1) * outputs for width in widths[:-1])


@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize(
    ("preset", "count", "widths"),
    [
        ("unet", count_unet, (64, 128, 256, 512, 1024)),
        ("resunet", count_resunet, (32, 64, 128, 256, 512)),
        ("resunet_shortcut", count_resunet_shortcut, (64, 128, 256, 512, 1024)),
        ("resunet_linear", count_resunet_linear, (64, 128, 256)),
        ("unetplusplus", count_unetplusplus, (32, 64, 128, 256, 512)),
        ("resunetplusplus", count_resunetplusplus, (32, 64, 128, 256, 512)),
        ("mobile_resunet", count_mobile_resunet, (16, 64, 128, 256, 512)),
        ("resenc_m", count_resenc, (32, 64, 128, 256, 512, 512)),
        ("resenc_l", count_resenc, (32, 64, 128, 256, 512, 512)),
    ],
)
def test_full_size_preset_has_the_published_number_of_parameters(
    preset, count, widths, spatial_dims
):
    with torch.device("meta"):
        net = build_net(preset, spatial_dims=spatial_dims, in_channels=3, out_channels=1)
    if preset.startswith("resenc") and spatial_dims == 3:
        widths = tuple(min(width, 320) for width in widths)
    found = sum(parameter.numel() for parameter in net.parameters())
    assert found == count(widths, spatial_dims, 3, 1)


def test_2d_unet_has_the_number_of_parameters_that_everyone_quotes():
    with torch.device("meta"):
        net = build_net("unet", spatial_dims=2, in_channels=3, out_channels=1)
    assert sum(parameter.numel() for parameter in net.parameters()) == 31_037_633
