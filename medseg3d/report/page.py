"""One self-contained HTML page: how good, how sure, what failed, and the worst cases to look at."""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from medseg3d import __version__
from medseg3d.config.load import read_yaml
from medseg3d.data.cases import Case, read_cases
from medseg3d.data.inputs import find_inputs, without_leading_folders
from medseg3d.data.patterns import match_pattern
from medseg3d.errors import ConfigError
from medseg3d.evaluate.results import read_scores
from medseg3d.io.atomic import prepare_folder, write_atomically
from medseg3d.io.events import read_events
from medseg3d.report.contents import describe_scores
from medseg3d.report.measures import is_penalised, mean_over_regions
from medseg3d.report.training import draw_training


def write_report(
    path: Path, *, scores: Path | None, images: Path | None = None, run: Path | None = None
) -> Path:
    """Write one HTML page that needs nothing else, and give its path.

    `scores` is a scores.json of `evaluate`. The label maps it names are drawn over the images that
    the table `images` names (CSV with `case` and a column per channel) or that lie in the folder
    `images` as those of `run` did, or over an even grey. A case whose files cannot be drawn is
    shown with the reason.
    `run` is a training's folder: its curves are drawn, and its validation scores and images are
    taken where none are given. The page holds the names of cases, but no paths.

    Raises:
        ConfigError: neither scores nor run, no images where some are named, or the page cannot be
            written.
        FormatError: the scores, the table, or the log of the training is missing or damaged.
    """
    if scores is None and run is None:
        raise ConfigError(
            "nothing to report on; name the scores.json of an evaluation, the folder of a "
            "training, or both"
        )
    if run is not None:
        scores = scores or _existing(run / "validation" / "scores.json")
        images = images or _existing(run / "validation.csv")
    content: dict[str, Any] = {"version": __version__, "scores": None, "training": []}
    if scores is not None:
        cases = _find_images(images, run) if images else []
        content |= describe_scores(read_scores(scores), {case.id: case for case in cases})
    if run is not None:
        content["training"] = draw_training(read_events(run / "metrics.jsonl"))
    _write(path, _template().render(content))
    return path


def _existing(path: Path) -> Path | None:
    return path if path.exists() else None


def _find_images(images: Path, run: Path | None) -> list[Case]:
    """Read a table of images, or search a folder by the patterns of the training."""
    if not images.is_dir():
        return read_cases(images)
    if run is None:
        raise ConfigError(
            f"which files of folder '{images}' are images is known from the training alone; name "
            "it with --run, or give a CSV"
        )
    patterns = read_yaml(run / "config.yaml")["data"]["images"]
    try:
        return find_inputs([images], patterns)
    except ConfigError:  # a case to look at may lack channels, unlike one to segment
        if cases := _find_incomplete(images, patterns):
            return cases
        raise


def _find_incomplete(folder: Path, patterns: Mapping[str, str]) -> list[Case]:
    found: dict[str, dict[str, Path]] = {}
    for channel, pattern in patterns.items():
        shortened = without_leading_folders(pattern)
        files = match_pattern(folder, pattern) or match_pattern(folder, shortened)
        for case, path in files.items():
            found.setdefault(case, {})[channel] = path
    return [Case(case, channels) for case, channels in found.items()]


def _template() -> Template:
    environment = Environment(
        loader=PackageLoader(__package__, ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "counted": _counted,
        "fixed": _fixed,
        "mean_over_regions": mean_over_regions,
        "is_penalised": is_penalised,
        "without_paths": _without_paths,
    }
    return environment.get_template("page.html.j2")


def _counted(number: int, noun: str) -> str:
    """Write a number with a noun, which takes an s unless there is one."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _fixed(number: float, digits: int) -> str:
    """Write a number, or a dash where there is none."""
    return "–" if math.isnan(number) else f"{number:.{digits}f}"


def _without_paths(text: str) -> str:
    """Leave only the last part of each path: folders may be named after patients."""
    text = re.sub(r"'[^'\n]*[/\\]([^'/\\\n]*)'", r"'\1'", text)
    return re.sub(r"(?<!\S)\S*/(?=\S)", "", text)


def _write(path: Path, page: str) -> None:
    if path.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"the page '{path}' would not be an HTML file; call it '….html'")
    prepare_folder(path.parent)
    write_atomically(path, page.encode())
