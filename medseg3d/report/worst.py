"""The worst cases, drawn; what cannot be drawn is shown with the reason."""

import base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import inf, isnan
from pathlib import Path
from typing import Final

from medseg3d.config.preprocess import PreprocessConfig
from medseg3d.data.cases import Case, read_images
from medseg3d.errors import FormatError, MedSegError
from medseg3d.evaluate.results import CaseResult, Scores
from medseg3d.io.files import read_volume
from medseg3d.report.measures import deciding_measures, mean_over_regions
from medseg3d.report.overlay import Side, clearest_channel, draw_overlay
from medseg3d.volume import Volume

NUM_WORST: Final = 5


@dataclass(frozen=True, slots=True)
class Picture:
    """A case's slices as base64, with the channel behind the outlines; or the reason for none."""

    case: CaseResult
    channel: str | None = None
    webp: str | None = None
    reason: str | None = None


def order_cases(scores: Scores) -> list[CaseResult]:
    """Order cases from the worst to the best, by name where they are equal.

    What decides is the mean over the regions of the Dice in `deciding_measures`. Cases without a
    score come first; cases with nothing in them to score come last.
    """
    dice, _ = deciding_measures(scores.scheme.protocol)

    def place(case: CaseResult) -> tuple[float, str]:
        mean = mean_over_regions(case, dice.name)
        undefined = inf if case.score else -inf
        return undefined if isnan(mean) else mean, case.pair.case

    return sorted(scores.cases, key=place)


def draw_worst(scores: Scores, images: Mapping[str, Case]) -> Iterator[Picture]:
    """Draw the worst cases that did not fail, all over one channel: what shows the first best."""
    channel: str | None = None
    scored = [case for case in order_cases(scores) if case.score and not case.reason]
    for case in scored[:NUM_WORST]:
        try:
            paths = _images_of(case, images)
            label_maps = _read_label_maps(case)
            channel = channel or _choose_channel(paths, label_maps)
            image = _read_channel(paths, channel) if channel in paths else None
            webp = draw_overlay(image, label_maps, labels=scores.scheme)
        except (MedSegError, OSError) as error:
            yield Picture(case, reason=str(error))
        else:
            yield Picture(case, channel if image else None, base64.b64encode(webp).decode())


def _images_of(case: CaseResult, images: Mapping[str, Case]) -> dict[str, Path]:
    """Find a case's images; a case of the same name with another reference is somebody else."""
    named = images.get(case.pair.case)
    if named is None or (named.reference and named.reference.resolve() != case.pair.reference):
        return {}
    return named.images


def _read_label_maps(case: CaseResult) -> dict[Side, Volume]:
    reference, predicted = case.pair.reference, case.pair.predicted
    if reference is None or predicted is None:
        raise FormatError("the scores name no label maps of this case; evaluate files to see it")
    return {"reference": read_volume(reference), "predicted": read_volume(predicted)}


def _choose_channel(paths: Mapping[str, Path], label_maps: Mapping[Side, Volume]) -> str | None:
    if not paths:
        return None
    channels = {name: _read_channel(paths, name) for name in paths}
    return clearest_channel(channels, label_maps["reference"])


def _read_channel(paths: Mapping[str, Path], channel: str) -> Volume:
    """Read one channel, perhaps of a file with several."""
    sharing = [name for name, path in paths.items() if path == paths[channel]]
    volume = read_images([paths[channel]] * len(sharing), PreprocessConfig(nonfinite="zero"))
    place = sharing.index(channel)
    return Volume(volume.array_CIJK[place : place + 1], volume.affine)
