"""The one place that knows how torch calls an operation in 2D and in 3D."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from torch import nn

from medseg3d.nets.convolutions import Conv3d, DepthwiseConv3d, MeanPool3d


@dataclass(frozen=True, slots=True)
class Ops:
    """The layers of one dimensionality."""

    conv: Callable[..., nn.Module]
    depthwise_conv: Callable[..., nn.Module]
    transposed_conv: Callable[..., nn.Module]
    max_pool: Callable[..., nn.Module]
    mean_pool: Callable[..., nn.Module]
    global_pool: Callable[..., nn.Module]
    batch_norm: Callable[..., nn.Module]
    instance_norm: Callable[..., nn.Module]
    dropout: Callable[..., nn.Module]
    interpolation: str


OPS: Final = {
    2: Ops(
        conv=nn.Conv2d,
        depthwise_conv=nn.Conv2d,
        transposed_conv=nn.ConvTranspose2d,
        max_pool=nn.MaxPool2d,
        mean_pool=nn.AvgPool2d,
        global_pool=nn.AdaptiveAvgPool2d,
        batch_norm=nn.BatchNorm2d,
        instance_norm=nn.InstanceNorm2d,
        dropout=nn.Dropout2d,
        interpolation="bilinear",
    ),
    3: Ops(
        conv=Conv3d,
        depthwise_conv=DepthwiseConv3d,
        transposed_conv=nn.ConvTranspose3d,
        max_pool=nn.MaxPool3d,
        mean_pool=MeanPool3d,
        global_pool=nn.AdaptiveAvgPool3d,
        batch_norm=nn.BatchNorm3d,
        instance_norm=nn.InstanceNorm3d,
        dropout=nn.Dropout3d,
        interpolation="trilinear",
    ),
}
"""Number of spatial axes -> its layers."""

CONVOLUTIONS: Final = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)
"""Every layer whose weights are drawn."""

BATCH_NORMS: Final = (nn.BatchNorm2d, nn.BatchNorm3d)
"""Every layer that keeps running statistics."""
