"""A training step in half precision, without what makes it slow."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.backends import cudnn

from medseg3d.nets.norms import replace_instance_norms

Precision: TypeAlias = Literal["fp32", "bf16", "fp16"]


def quicken(net: nn.Module, precision: Precision) -> nn.Module:
    """Prepare a network to be trained under autocast; in place, nothing is done for fp32.

    While it trains its features lie channels-last, as convolutions in half precision want them, and
    instance norms copy nothing. Names, shapes, values and dtype of its weights stay.
    """
    if precision != "fp32":
        replace_instance_norms(net).register_forward_pre_hook(_put_channels_last)
    return net


def _put_channels_last(net: nn.Module, images: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
    """Copy the input, since an image of one channel counts as being in either order."""
    if not net.training:
        return None
    (image,) = images
    last = torch.channels_last if image.ndim == 4 else torch.channels_last_3d
    return (image.clone(memory_format=last),)


@contextmanager
def gpu_convolutions(precision: Precision, *, deterministic: bool) -> Iterator[None]:
    """Let cuDNN try kernels and take the quickest, unless in fp32 or where steps must repeat."""
    with cudnn.flags(
        enabled=True,
        benchmark=precision != "fp32" and not deterministic,
        deterministic=deterministic,
        allow_tf32=precision != "fp32",
    ):
        yield
