"""Weights of one task as the start of another: what fits is taken, and what is not is said."""

import logging
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from types import MethodType
from typing import Final, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn

from medseg3d.config.network import MonaiConfig
from medseg3d.config.pretrain import EncoderRecipe
from medseg3d.config.recipe import Recipe
from medseg3d.config.section import Section
from medseg3d.errors import ConfigError
from medseg3d.nets.bundle import load_bundle
from medseg3d.nets.ops import BATCH_NORMS
from medseg3d.train.encoder import holds_encoder, load_encoder

Weights: TypeAlias = Mapping[str, Tensor]
Output: TypeAlias = tuple[str, str]
"""Whether a channel stands for a value or a region, and for which."""

IMAGE_WEIGHTS: Final = (
    "encoder.0.0.weight",  # of a stem
    "encoder.0.0.0.weight",  # of a convolution
    "encoder.0.0.body.0.0.weight",  # of a residual unit ...
    "encoder.0.0.shortcut.0.weight",  # ... and of what goes past it
)
"""Convolutions that see the image itself, of whatever network."""

LEAST_SHARE: Final = 0.5
"""Less of an encoder than this is no start from it."""

UNSEEN: Final = ("nonfinite", "volume", "tilt", "gaps")
"""Knobs of preprocessing that say which files are refused, not what a network is shown."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Transferred:
    """What became of each of a network's weights, by name."""

    taken: tuple[str, ...]
    adapted: tuple[str, ...]
    """Taken for what has the same name: input channels, output labels."""
    fresh: tuple[str, ...]

    def __str__(self) -> str:
        """Count them by part: `18 of encoder.0`."""
        said = {"taken": self.taken, "adapted": self.adapted, "fresh": self.fresh}
        return "; ".join(f"{what}: {_counted(names)}" for what, names in said.items() if names)


def start_from(net: nn.Module, recipe: Recipe, source: Path) -> Transferred:
    """Put the weights of a bundle, or of a pretrained encoder, into a network of `recipe`.

    What has the same name and shape is taken. Input channels are found by their names; those that
    the source does not know share evenly what the channels have summed to that are not used here,
    so that the sum over channels is kept. Outputs are found by the names of their labels; others
    stay as they were drawn, and so does whatever does not fit.

    Raises:
        BundleError: the file is neither a bundle nor an encoder, or damaged.
        ConfigError: one network is 2D and the other 3D, or less than half of the encoder fits.
    """
    weights, origin = _read(source)
    if origin.spatial_dims != recipe.spatial_dims:
        raise ConfigError(
            f"train.start_from: '{source}' holds a {origin.spatial_dims}D network, this run's is "
            f"{recipe.spatial_dims}D, and weights of one do not fit the other. Start from a "
            f"{recipe.spatial_dims}D network, or set spatial_dims={origin.spatial_dims}."
        )
    own = net.state_dict()
    adapted = _adapted_inputs(weights, [*origin.images], [*recipe.images])
    adapted |= _adapted_heads(weights, own, [*_outputs(origin)], [*_outputs(recipe)])
    offered = {**weights, **adapted}
    fitting = {
        name: given
        for name in own
        if (given := offered.get(name)) is not None and given.shape == own[name].shape
    }
    share = _share(fitting, own)
    if share < LEAST_SHARE:
        raise ConfigError(
            f"train.start_from: '{source}' fits {share:.0%} of the weights of this run's encoder, "
            f"at least {LEAST_SHARE:.0%} are expected. Networks differ: "
            f"{_differences(origin.network, recipe.network)}. Set network as it is there, or "
            "train.start_from=null."
        )
    _say_what_is_taken_in_order(source, origin, recipe)
    net.load_state_dict(fitting, strict=False)
    result = Transferred(
        taken=tuple(name for name in fitting if name not in adapted),
        adapted=tuple(name for name in fitting if name in adapted),
        fresh=tuple(name for name in own if name not in fitting),
    )
    level = logging.INFO if share == 1 else logging.WARNING
    log.log(level, "weights of '%s', %.0f %% of the encoder: %s", source, 100 * share, result)
    if changed := _differences(origin.preprocess, recipe.preprocess, leave_out=UNSEEN):
        log.warning(
            "'%s' was trained on images that were preprocessed in another way: %s", source, changed
        )
    return result


def freeze(net: nn.Module, parts: Sequence[str]) -> None:
    """Keep the weights of parts, such as `encoder` or `encoder.0`, as they are.

    Their batch norms stay in eval mode, whatever `net.train()` says, and keep their statistics.

    Raises:
        ConfigError: the network has no such part, or nothing is left to learn.
    """
    known = [name for name, _ in net.named_modules() if name]
    for part in parts:
        if part not in known:
            near = get_close_matches(part, known, n=1)
            there = f"did you mean '{near[0]}'?" if near else "parts are"
            raise ConfigError(
                f"train.frozen: the network has no part '{part}'; {there} "
                f"{', '.join(name for name, _ in net.named_children())}"
            )
        frozen = net.get_submodule(part).requires_grad_(False)
        for norm in frozen.modules():
            if isinstance(norm, (*BATCH_NORMS, nn.SyncBatchNorm)):
                norm.eval()
                norm.train = MethodType(_stay, norm)  # type: ignore[method-assign]
    if not any(parameter.requires_grad for parameter in net.parameters()):
        raise ConfigError(
            f"train.frozen: {', '.join(parts)} are the whole network, so that nothing is left to "
            "learn; leave out the parts that shall"
        )


def _stay(norm: nn.Module, _mode: bool = True) -> nn.Module:
    """Take the place of `norm.train`; a method, so that a copy of the network has its own."""
    return norm


def _read(source: Path) -> tuple[Weights, Recipe | EncoderRecipe]:
    if holds_encoder(source):
        encoder = load_encoder(source)
        return encoder.weights, encoder.recipe
    bundle = load_bundle(source)
    return bundle.net.state_dict(), bundle.recipe


def _adapted_inputs(
    weights: Weights, theirs: Sequence[str], ours: Sequence[str]
) -> dict[str, Tensor | None]:
    """Bring what sees the image to other channels; of a depthwise convolution nothing is left."""
    mixture = mix_channels(theirs, ours)
    if torch.equal(mixture, torch.eye(len(ours))):
        return {}
    return {
        name: torch.einsum("ts,os...->ot...", mixture, given)
        if given.shape[1] == len(theirs)
        else None
        for name, given in weights.items()
        if name in IMAGE_WEIGHTS
    }


def _adapted_heads(
    weights: Weights, own: Weights, theirs: Sequence[Output], ours: Sequence[Output]
) -> dict[str, Tensor | None]:
    """Bring heads to other labels; of those that share no label nothing is left."""
    if theirs == ours:
        return {}
    shared = [label for label in ours if label in theirs]
    rows = torch.tensor([ours.index(label) for label in shared], dtype=torch.long)
    their_rows = torch.tensor([theirs.index(label) for label in shared], dtype=torch.long)
    return {
        name: own[name].index_copy(0, rows, given[their_rows])
        if shared and given.shape[1:] == own[name].shape[1:]
        else None
        for name, given in weights.items()
        if name.startswith("heads.") and name in own
    }


def mix_channels(theirs: Sequence[str], ours: Sequence[str]) -> Float[Tensor, "T S"]:
    """Give the share that each of their channels has in each of ours.

    A channel of one name is itself. Those of ours that have no fellow share evenly in those of
    theirs that have none, so that each of theirs is given away once, if anything can take it.
    """
    mixture = torch.tensor([[float(s == t) for s in theirs] for t in ours])
    alone = mixture.sum(1) == 0
    unused = mixture.sum(0) == 0
    mixture[alone] = unused / max(int(alone.sum()), 1)
    return mixture


def _outputs(recipe: Recipe | EncoderRecipe) -> Iterator[Output]:
    """Name what each output channel tells, and how; an encoder has none."""
    if isinstance(recipe, EncoderRecipe):
        return
    labels = recipe.labels
    if recipe.outputs == "regions":
        yield from (("region", name) for name in labels.regions)
    else:
        yield from (("value", labels.values.get(v, "")) for v in labels.channel_values)


def _counted(names: Sequence[str]) -> str:
    parts = Counter(".".join(name.split(".")[:2]) for name in names)
    return ", ".join(f"{count} of {part}" for part, count in parts.items())


def _say_what_is_taken_in_order(source: Path, origin: Recipe | EncoderRecipe, own: Recipe) -> None:
    """Warn of a network whose channels are not known by name, where they mean something else."""
    theirs, ours = ([*r.images, *(name for _, name in _outputs(r))] for r in (origin, own))
    if isinstance(own.network, MonaiConfig) and theirs != ours:
        log.warning(
            "'%s': which weights of network 'monai/%s' belong to a channel or label is not known; "
            "they are taken in their order, those of %s for %s",
            source,
            own.network.name,
            ", ".join(filter(None, theirs)),
            ", ".join(filter(None, ours)),
        )


def _share(fitting: Weights, own: Weights) -> float:
    """Give the share of an encoder's numbers that fit; of all numbers, where none is set apart."""
    encoder = [name for name in own if name.startswith("encoder.")] or [*own]
    found = sum(own[name].numel() for name in encoder if name in fitting)
    return found / sum(own[name].numel() for name in encoder)


def _differences(theirs: Section, ours: Section, *, leave_out: Collection[str] = ()) -> str:
    """Name the knobs that differ, with both values; of those that both have."""
    there, here = theirs.model_dump(), ours.model_dump()
    return "; ".join(
        f"{knob} {value} there, {here[knob]} here"
        for knob, value in there.items()
        if knob in here and knob not in leave_out and here[knob] != value
    )
