"""One self-contained HTML page: scores, slices of the cases, curves of the training."""

import base64
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from math import inf
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, StrictUndefined, Template

from medseg3d import __version__
from medseg3d.config.load import read_yaml
from medseg3d.data.cases import Case, find_inputs, read_cases
from medseg3d.errors import ConfigError, GridError, LabelError
from medseg3d.io.atomic import prepare_folder, write_atomically
from medseg3d.io.events import read_events
from medseg3d.io.files import read_volume
from medseg3d.labels import LabelScheme
from medseg3d.report.overlay import Side, clearest_channel, draw_overlay
from medseg3d.report.plots import draw_strips, draw_training
from medseg3d.report.sources import ScoredCase, ScoresFile, read_scores
from medseg3d.volume import Volume

MOST_OVERLAYS: Final = 40
"""Of more cases than these, the worst are drawn; the page says so."""
NUM_WORST: Final = 3
"""So many cases are marked as the worst where there are more."""


@dataclass(frozen=True, slots=True)
class Overlay:
    """A drawn case; `picture` is base64, `channel` the image behind the outlines, if any."""

    case: ScoredCase
    channel: str | None
    picture: str


def write_report(
    path: Path, *, scores: Path | None, images: Path | None = None, run: Path | None = None
) -> Path:
    """Write one HTML page that needs nothing else, and give its path.

    `scores` is a scores.json of `evaluate`. The label maps it names are drawn over the images that
    the table `images` names (CSV with `case` and a column per channel) or that lie in the folder
    `images` as those of `run` did, or over an even grey.
    `run` is a training's folder: its curves are drawn, and its validation scores and images are
    taken where none are given. The page holds the names of cases, but no paths.

    Raises:
        ConfigError: neither scores nor run, or the page cannot be written.
        FormatError: an input is missing or damaged.
        GridError: an image does not lie on the grid of its label maps.
        LabelError: a scored label map is none any more.
    """
    if scores is None and run is None:
        raise ConfigError(
            "nothing to report on; name the scores.json of an evaluation, the folder of a "
            "training, or both"
        )
    if run is not None:
        scores = scores or _existing(run / "validation" / "scores.json")
        images = images or _existing(run / "validation.csv")
    content: dict[str, Any] = {
        "version": __version__,
        "scores": None,
        "training": {},
        "failed": (),
        "overlays": (),
    }
    if scores is not None:
        cases = _find_images(images, run) if images else []
        content |= _describe_scores(read_scores(scores), {case.id: case for case in cases})
    if run is not None:
        content["training"] = draw_training(read_events(run / "metrics.jsonl"))
    _write(path, _template().render(content))
    return path


def _find_images(images: Path, run: Path | None) -> list[Case]:
    """Read a table of images, or search a folder by the patterns of the training."""
    if not images.is_dir():
        return read_cases(images)
    if run is None:
        raise ConfigError(
            f"which files of folder '{images}' are images is known from the training alone; name "
            "it with --run, or give a CSV"
        )
    return find_inputs([images], read_yaml(run / "config.yaml")["data"]["images"])


def _existing(path: Path) -> Path | None:
    return path if path.exists() else None


def _describe_scores(scores: ScoresFile, images: Mapping[str, Case]) -> dict[str, Any]:
    """Say and draw what the page tells about scores."""
    colors = {region: scores.labels.region_color(region) for region in scores.labels.regions}
    unit = "voxels" if scores.labels.in_voxels else "mm"
    by_case = [case.regions for case in scores.cases]
    ordered = sorted(scores.cases, key=_mean_dice)
    scored = [case.case for case in ordered if case.regions]
    overlays = [*_draw_overlays(ordered, scores.labels, images)]
    return {
        "scores": scores,
        "unit": unit,
        "colors": colors,
        "cases": ordered,
        "failed": [case for case in scores.cases if case.status == "failed"],
        "worst": scored[:NUM_WORST] if len(scored) > NUM_WORST else [],
        "strips": [
            draw_strips("dice", by_case, colors, label="Dice"),
            draw_strips("hd95", by_case, colors, label=f"HD95 ({unit})"),
        ],
        "overlays": overlays,
        "drawn": {overlay.case.case: number for number, overlay in enumerate(overlays, start=1)},
    }


def _mean_dice(case: ScoredCase) -> float:
    """Order cases: those without any score come first."""
    return -inf if case.mean_dice is None else case.mean_dice


def _draw_overlays(
    cases: Sequence[ScoredCase], labels: LabelScheme, images: Mapping[str, Case]
) -> Iterator[Overlay]:
    """Draw scored cases, all over one channel: the one that shows the first case best."""
    channel: str | None = None
    for case in [case for case in cases if case.regions][:MOST_OVERLAYS]:
        paths = _images_of(case, images)
        label_maps = _read_label_maps(case)
        try:
            if channel is None and paths:
                channels = {name: _read_image(path) for name, path in paths.items()}
                channel = clearest_channel(channels, next(iter(label_maps.values())))
            image = _read_image(paths[channel]) if channel in paths else None
            picture = draw_overlay(image, label_maps, labels=labels)
        except (GridError, LabelError) as error:
            raise type(error)(f"case '{case.case}': {error}") from error
        yield Overlay(case, channel if image else None, base64.b64encode(picture).decode())


def _images_of(case: ScoredCase, images: Mapping[str, Case]) -> dict[str, Path]:
    """Find a case's images; a case of the same name with another reference is somebody else."""
    named = images.get(case.case)
    if named is None or (named.reference and named.reference.resolve() != case.reference):
        return {}
    return named.images


def _read_label_maps(case: ScoredCase) -> dict[Side, Volume]:
    """Read what was scored; of a failed case the reference alone."""
    label_maps: dict[Side, Volume] = {}
    if case.reference:
        label_maps["reference"] = read_volume(case.reference)
    if case.predicted and case.status == "scored":
        label_maps["predicted"] = read_volume(case.predicted)
    return label_maps


def _read_image(path: Path) -> Volume:
    return read_volume(path, nonfinite="zero")


def _template() -> Template:
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["without_paths"] = _without_paths
    return environment.from_string(files(__package__).joinpath("page.html.j2").read_text("utf-8"))


def _without_paths(text: str) -> str:
    """Leave only the last part of each path: folders may be named after patients."""
    text = re.sub(r"'[^'\n]*[/\\]([^'/\\\n]*)'", r"'\1'", text)
    return re.sub(r"(?<!\S)\S*/(?=\S)", "", text)


def _write(path: Path, page: str) -> None:
    if path.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"the page '{path}' would not be an HTML file; call it '….html'")
    prepare_folder(path.parent)
    write_atomically(path, page.encode())
