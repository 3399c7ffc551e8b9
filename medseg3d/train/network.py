"""The network of a run as it is before the first step."""

import torch

from medseg3d import __version__
from medseg3d.config.recipe import build_recipe
from medseg3d.config.run import RunConfig
from medseg3d.nets.bundle import Bundle, build_recipe_net
from medseg3d.train.precision import quicken
from medseg3d.train.ranks import Ranks
from medseg3d.train.transfer import freeze, start_from


def begin_network(config: RunConfig, ranks: Ranks, *, resumed: bool) -> Bundle:
    """Build a network, draw its weights or take those it starts from, and freeze parts.

    The weights of a run that is resumed come from its checkpoint.

    Raises:
        BundleError, ConfigError: as `start_from`, `freeze` and `Ranks.with_synchronous_norms`.
    """
    torch.manual_seed(config.train.seed)
    recipe = build_recipe(config)
    net = build_recipe_net(recipe)
    if config.train.start_from and not resumed:
        start_from(net, recipe, config.train.start_from)
    net = quicken(ranks.with_synchronous_norms(net), config.train.precision)
    freeze(net, config.train.frozen)
    return Bundle(net, recipe, __version__)
