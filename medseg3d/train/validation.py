"""The held-out cases, looked at while training goes on."""

from collections.abc import Sequence

import numpy as np

from medseg3d.data.store import StoredCase
from medseg3d.errors import ConfigError
from medseg3d.evaluate.overlap import dice
from medseg3d.labels import channels_to_values, drop_ignored, region_masks
from medseg3d.nets.bundle import Bundle
from medseg3d.predict.case import predict_image
from medseg3d.predict.compose import compose_engine
from medseg3d.predict.engine import Engine
from medseg3d.train.ranks import Ranks
from medseg3d.train.signals import StopRequest


def validate_cases(
    bundle: Bundle, cases: Sequence[StoredCase], *, ranks: Ranks, stop: StopRequest | None = None
) -> dict[str, float] | None:
    """Give each region's mean Dice on the preprocessed grid, the cases shared among processes.

    None where a signal came before all were seen.

    Raises:
        ConfigError: the network cannot segment a case, as when training diverged.
    """
    bundle.net.eval()
    engine = compose_engine([bundle])
    found: dict[int, dict[str, float]] = {}
    fault: ConfigError | None = None
    for number in range(ranks.number, len(cases), ranks.count):
        if stop:
            break
        try:
            found[number] = _score(engine, cases[number], bundle)
        except ConfigError as error:  # all processes are to know, and the first to say
            fault = error
            break
    shares = ranks.gather((found, fault))
    if faults := [fault for _, fault in shares if fault]:
        raise faults[0]
    scores = dict(sorted(entry for share, _ in shares for entry in share.items()))
    if len(scores) < len(cases):
        return None
    return {
        region: float(np.mean([score[region] for score in scores.values()]))
        for region in bundle.recipe.labels.regions
    }


def _score(engine: Engine, case: StoredCase, bundle: Bundle) -> dict[str, float]:
    labels = bundle.recipe.labels
    try:
        predicted = predict_image(engine, case.image_CIJK, bundle.recipe).values_IJK
    except ConfigError as error:
        raise ConfigError(
            f"case '{case.id}' cannot be validated: {error}; or training diverged: lower "
            "train.learning_rate, or set train.clip_norm"
        ) from error
    reference = channels_to_values(case.channels_IJK, labels)
    maps = drop_ignored(reference, predicted, labels)
    masks = zip(*(region_masks(label_map, labels) for label_map in maps), strict=True)
    return {region: dice(truth, mask) for (region, truth), (_, mask) in masks}
