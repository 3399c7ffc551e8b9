"""Networks against plain functions written from their published description.

The plain side knows no module names: it asks for "the next layer, in order of execution, whose
weight has this shape", and must have asked for every layer at the end.
"""

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

    def double_conv(self, x: Tensor, channels: int) -> Tensor:
        for _ in range(2):
            x = self.conv_norm(x, channels).clamp(min=0)
        return x

    def residual_unit(self, x: Tensor, channels: int) -> Tensor:
        body = self.conv_norm(self.conv_norm(x, channels).clamp(min=0), channels)
        return (body + (x if x.shape[1] == channels else self.conv_norm(x, channels, 1))).clamp(
            min=0
        )


def max_pool(x: Tensor) -> Tensor:
    """Give the largest of each 2×2(×2)."""
    corners = product((0, 1), repeat=x.ndim - 2)
    return torch.stack([x[(..., *(slice(c, None, 2) for c in corner))] for corner in corners]).amax(
        0
    )


def plain_unet(net: PlainNet, x: Tensor) -> Tensor:
    skips = []
    for channels in CHANNELS[:-1]:
        x = net.double_conv(x, channels)
        skips.append(x)
        x = max_pool(x)
    x = net.double_conv(x, CHANNELS[-1])
    for skip in skips[::-1]:
        channels = skip.shape[1]
        x = net.double_conv(torch.cat([skip, net.up(x, channels)], 1), channels)
    return net.conv(x, OUT_CHANNELS, 1, bias=True)


def plain_resunet(net: PlainNet, x: Tensor) -> Tensor:
    skips = []
    for channels in CHANNELS:
        x = max_pool(x) if skips else x
        x = net.residual_unit(net.residual_unit(x, channels), channels)
        skips.append(x)
    for skip in skips[-2::-1]:
        channels = skip.shape[1]
        x = net.up(x, channels) + net.conv(skip, channels, 1, bias=True)
        x = net.residual_unit(x, channels)
    return net.conv(x, OUT_CHANNELS, 1, bias=True)


PLAIN = {"unet": plain_unet, "resunet": plain_resunet}


def layers_in_order(net: nn.Module, image: Tensor) -> list[nn.Module]:
    """List the layers with weights as the data reach them."""
    reached: list[nn.Module] = []
    layers = [m for m in net.modules() if [*m.parameters(recurse=False)]]
    hooks = [m.register_forward_hook(lambda m, *_: reached.append(m)) for m in layers]
    net.eval()(image)
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
@pytest.mark.parametrize("preset", PLAIN)
def test_preset_is_the_published_function(preset: str, spatial_dims: int, training: bool):
    torch.manual_seed(0)
    net = build_net(
        NETS[preset].model_copy(update={"channels": CHANNELS}),
        spatial_dims=spatial_dims,
        in_channels=IN_CHANNELS,
        out_channels=OUT_CHANNELS,
    ).double()
    randomise(net)
    image = torch.randn(2, IN_CHANNELS, *(48, 32, 16)[:spatial_dims], dtype=torch.float64)
    plain = PlainNet(layers_in_order(net, image), training=training)
    expected = PLAIN[preset](plain, image)
    assert plain.layers == []
    assert expected.std() > 0.1
    torch.testing.assert_close(net.train(training)(image), expected, rtol=1e-9, atol=1e-9)


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


@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize(
    ("preset", "count", "widths"),
    [
        ("unet", count_unet, (64, 128, 256, 512, 1024)),
        ("resunet", count_resunet, (32, 64, 128, 256, 512)),
    ],
)
def test_full_size_preset_has_the_published_number_of_parameters(
    preset, count, widths, spatial_dims
):
    with torch.device("meta"):
        net = build_net(preset, spatial_dims=spatial_dims, in_channels=3, out_channels=1)
    found = sum(parameter.numel() for parameter in net.parameters())
    assert found == count(widths, spatial_dims, 3, 1)


def test_2d_unet_has_the_number_of_parameters_that_everyone_quotes():
    with torch.device("meta"):
        net = build_net("unet", spatial_dims=2, in_channels=3, out_channels=1)
    assert sum(parameter.numel() for parameter in net.parameters()) == 31_037_633
