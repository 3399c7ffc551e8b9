"""The networks by name."""

from difflib import get_close_matches
from typing import Final

from medseg3d.config import network
from medseg3d.config.load import parse_section
from medseg3d.config.network import MonaiConfig, NetworkConfig
from medseg3d.errors import ConfigError
from medseg3d.nets.blocks import build_conv, build_mobile_unit, build_residual_unit, initialise
from medseg3d.nets.foreign import ForeignNet, build_monai
from medseg3d.nets.ops import OPS
from medseg3d.nets.unet import Blocks, UNet, build_unet

NETS: Final[dict[str, NetworkConfig]] = {
    "unet": network.UNetConfig(),
    "resunet_shortcut": network.ResUNetShortcutConfig(),
    "resunet": network.ResUNetConfig(),
    "resunet_linear": network.ResUNetLinearConfig(),
    "unetplusplus": network.UNetPlusPlusConfig(),
    "resunetplusplus": network.ResUNetPlusPlusConfig(),
    "resenc_m": network.ResEncConfig(kind="resenc_m"),
    "resenc_l": network.ResEncConfig(kind="resenc_l"),
    "mobile_resunet": network.MobileResUNetConfig(),
}
"""Preset -> its typed config; change a knob with `NETS[name].model_copy(update=...)`."""

MONAI: Final = "monai/"
"""What the name of a network of MONAI's begins with."""

BLOCKS: Final[dict[str, Blocks]] = {
    "unet": (build_conv, build_conv),
    "resunet_shortcut": (build_residual_unit, build_conv),
    "resunet": (build_residual_unit, build_residual_unit),
    "resunet_linear": (build_residual_unit, build_residual_unit),
    "unetplusplus": (build_conv, build_conv),
    "resunetplusplus": (build_residual_unit, build_residual_unit),
    "resenc_m": (build_residual_unit, build_conv),
    "resenc_l": (build_residual_unit, build_conv),
    "mobile_resunet": (build_mobile_unit, build_mobile_unit),
}
"""Kind of network -> what its levels are made of."""


def build_net(
    net: str | NetworkConfig, *, spatial_dims: int, in_channels: int, out_channels: int
) -> UNet | ForeignNet:
    """Build a network from a preset's name, `monai/` and a class of MONAI's, or a typed config.

    The weights are fresh and depend on torch's global seed only (`torch.manual_seed`). The network
    maps `(B, in_channels, *spatial)` to logits `(B, out_channels, *spatial)` for sizes that are
    multiples of its `divisor`; with deep supervision and in training mode to a list of logits,
    fine to coarse.

    Raises:
        ConfigError: the name is unknown, or the numbers cannot make a network.
        MissingExtraError: a network of MONAI's is asked for and MONAI is not installed.
    """
    config = find_config(net) if isinstance(net, str) else net
    # model_copy does not check what it changes
    config = parse_section(type(config), config.model_dump(), source=config.kind)
    if spatial_dims not in OPS:
        raise ConfigError(f"spatial_dims is {spatial_dims}; networks have {[*OPS]}")
    for name, channels in {"in_channels": in_channels, "out_channels": out_channels}.items():
        if channels < 1:
            raise ConfigError(f"{name} is {channels}; a network needs at least one")
    numbers = {"spatial_dims": spatial_dims, "in_channels": in_channels}
    if isinstance(config, MonaiConfig):
        return build_monai(config, **numbers, out_channels=out_channels)
    built = build_unet(config, BLOCKS[config.kind], **numbers, out_channels=out_channels)
    initialise(built)
    return built


def find_config(name: str) -> NetworkConfig:
    """Look a network's config up by its name.

    Raises:
        ConfigError: the name is unknown.
    """
    if name.startswith(MONAI):
        return MonaiConfig(name=name.removeprefix(MONAI))
    if name not in NETS:
        nearest = get_close_matches(name, NETS, n=1)
        hint = f"; did you mean '{nearest[0]}'?" if nearest else ""
        known = ", ".join([*NETS, f"{MONAI}<Name>"])
        raise ConfigError(f"no network is called '{name}'; there are {known}{hint}")
    return NETS[name]
