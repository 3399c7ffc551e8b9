"""Nested networks cut to the part that one head needs."""

from typing import Any, TypeVar

from torch import nn

from medseg3d.config.load import override_section
from medseg3d.config.network import NestedConfig
from medseg3d.errors import ConfigError
from medseg3d.nets.bundle import Bundle, build_recipe_net
from medseg3d.nets.unet import UNet

Nested = TypeVar("Nested", bound=NestedConfig)


def prune_bundle(bundle: Bundle, *, depth: int) -> Bundle:
    """Keep of a nested network what its head at `depth` needs; share the weights.

    The result predicts what the whole bundle predicts with `network.depth` set, bit for bit, and
    keeps the heads of smaller depths.

    Raises:
        ConfigError: the network is not nested, or has no head at this depth.
    """
    network, net = bundle.recipe.network, bundle.net
    if not isinstance(network, NestedConfig) or not isinstance(net, UNet):
        raise ConfigError(
            f"'{network.kind}' cannot be cut to a depth; nested networks can: unetplusplus, "
            "resunetplusplus, trained with network.deep_supervision"
        )
    override_section(bundle.recipe, [f"network.depth={depth}"])  # refuses a depth without a head
    recipe = bundle.recipe.model_copy(update={"network": _cut(network, depth)})
    pruned = build_recipe_net(recipe)
    weights = nn.ModuleDict(
        {
            "encoder": net.encoder[: depth + 1],
            "decoder": net.decoder[: depth * (depth + 1) // 2],
            "heads": net.heads[net.head_places.index((0, depth)) :],
        }
    )
    pruned.load_state_dict(weights.state_dict(), assign=True)
    return Bundle(pruned.eval(), recipe, bundle.version)


def _cut(network: Nested, depth: int) -> Nested:
    """Leave the levels below `depth` out of the configuration."""
    steps: dict[str, Any] = {name: getattr(network, name) for name in ("strides", "decoder_blocks")}
    levels = {n: getattr(network, n) for n in ("channels", "encoder_blocks", "kernel_sizes")}
    knobs = {
        **{name: _first(knob, depth) for name, knob in steps.items()},
        **{name: _first(knob, depth + 1) for name, knob in levels.items()},
        "deep_supervision": network.deep_supervision and depth > 1,
        "depth": None,
    }
    return type(network).model_validate({**network.model_dump(), **knobs})


def _first(knob: Any, count: int) -> Any:
    """Shorten a knob that has an entry per level."""
    return knob[:count] if isinstance(knob, tuple) else knob
