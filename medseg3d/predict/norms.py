"""Norms made cheap in a network that only predicts."""

from itertools import pairwise

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from medseg3d.nets.norms import replace_instance_norms
from medseg3d.nets.ops import BATCH_NORMS, CONVOLUTIONS


def quicken_norms(net: nn.Module) -> nn.Module:
    """Fold batch norms into the convolutions before them, replace instance norms; in place."""
    for module in net.modules():
        if isinstance(module, nn.Sequential):
            _fold_batch_norms(module)
    return replace_instance_norms(net)


def _fold_batch_norms(layers: nn.Sequential) -> None:
    for n, (conv, norm) in enumerate(pairwise(layers)):
        if isinstance(conv, CONVOLUTIONS) and isinstance(norm, BATCH_NORMS):
            transposed = isinstance(conv, nn.ConvTranspose2d | nn.ConvTranspose3d)
            layers[n], layers[n + 1] = fuse_conv_bn_eval(conv, norm, transposed), nn.Identity()
