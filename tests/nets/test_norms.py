"""Instance norm that copies nothing says the same, and so do its gradients."""

import pytest
import torch
from torch import nn

from medseg3d.nets.norms import SampleNorm


@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("channels_last", [False, True])
def test_the_norm_that_copies_nothing_is_instance_norm(
    spatial_dims: int, batch: int, channels_last: bool
) -> None:
    torch.manual_seed(0)
    norm = [nn.InstanceNorm2d, nn.InstanceNorm3d][spatial_dims - 2](4, affine=True)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    x = torch.randn(batch, 4, *(6, 5, 4)[:spatial_dims]) * 7 + 3
    last = [torch.channels_last, torch.channels_last_3d][spatial_dims - 2]
    given = (x.to(memory_format=last) if channels_last else x.clone()).requires_grad_()

    normed, expected = SampleNorm(norm)(given), norm(x.requires_grad_())

    torch.testing.assert_close(normed, expected, rtol=1e-5, atol=1e-5)
    ramp = torch.arange(x.numel()).reshape(x.shape) / x.numel()
    for gradient, truth in zip(
        torch.autograd.grad((normed * ramp).sum(), [given, *norm.parameters()]),
        torch.autograd.grad((expected * ramp).sum(), [x, *norm.parameters()]),
        strict=True,
    ):
        torch.testing.assert_close(gradient, truth, rtol=1e-4, atol=1e-4)
    assert normed.is_contiguous(memory_format=last) or not channels_last
