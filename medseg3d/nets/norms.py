"""Instance norm that copies nothing, for networks that run channels-last."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import batch_norm


class SampleNorm(nn.Module):
    """Instance norm that leaves the order of memory as it is.

    torch's own copies channels-last input twice. Batch norm of a single sample is instance norm.
    """

    def __init__(self, norm: nn.InstanceNorm2d | nn.InstanceNorm3d) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = norm.weight, norm.bias, norm.eps
        self.affine = norm.affine

    def forward(self, x: Float[Tensor, "B C *spatial"]) -> Float[Tensor, "B C *spatial"]:
        """Normalise each channel of each sample."""
        samples = [
            batch_norm(one, None, None, self.weight, self.bias, True, 0.0, self.eps)
            for one in torch.split(x, 1)
        ]
        return samples[0] if len(samples) == 1 else torch.cat(samples)


def replace_instance_norms(net: nn.Module) -> nn.Module:
    """Let sample norms take the place of a network's instance norms and their weights; in place.

    Those that track statistics do not normalise by the sample, and stay.
    """
    for name, child in net.named_children():
        if not isinstance(child, nn.InstanceNorm2d | nn.InstanceNorm3d):
            replace_instance_norms(child)
        elif not child.track_running_stats:
            setattr(net, name, SampleNorm(child))
    return net
