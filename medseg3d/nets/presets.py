"""The networks by name."""

from difflib import get_close_matches
from typing import Final

from medseg3d.config.network import NetworkConfig, ResUNetConfig, UNetConfig
from medseg3d.errors import ConfigError
from medseg3d.nets.blocks import build_conv, build_residual_unit, initialise
from medseg3d.nets.ops import OPS
from medseg3d.nets.unet import BlockBuilder, UNet, build_unet

NETS: Final[dict[str, NetworkConfig]] = {
    "unet": UNetConfig(),
    "resunet": ResUNetConfig(),
}
"""Preset -> its typed config; change a knob with `NETS[name].model_copy(update=...)`."""

BLOCKS: Final[dict[str, BlockBuilder]] = {
    "unet": build_conv,
    "resunet": build_residual_unit,
}
"""Kind of network -> the block its levels are made of."""


def build_net(
    net: str | NetworkConfig, *, spatial_dims: int, in_channels: int, out_channels: int
) -> UNet:
    """Build a network from a preset's name or a typed config, with fresh weights.

    The weights depend on torch's global seed only (`torch.manual_seed`). The network maps
    `(B, in_channels, *spatial)` to logits `(B, out_channels, *spatial)` for sizes that are
    multiples of its `divisor`.

    Raises:
        ConfigError: the name is unknown, or the numbers cannot make a network.
    """
    if isinstance(net, str):
        net = _preset(net)
    if spatial_dims not in OPS:
        raise ConfigError(f"spatial_dims is {spatial_dims}; networks have {[*OPS]}")
    for name, channels in {"in_channels": in_channels, "out_channels": out_channels}.items():
        if channels < 1:
            raise ConfigError(f"{name} is {channels}; a network needs at least one")
    built = build_unet(
        net,
        BLOCKS[net.kind],
        spatial_dims=spatial_dims,
        in_channels=in_channels,
        out_channels=out_channels,
    )
    initialise(built)
    return built


def _preset(name: str) -> NetworkConfig:
    """Look a preset up."""
    if name not in NETS:
        nearest = get_close_matches(name, NETS, n=1)
        hint = f"; did you mean '{nearest[0]}'?" if nearest else ""
        raise ConfigError(f"no network is called '{name}'; there are {', '.join(NETS)}{hint}")
    return NETS[name]
