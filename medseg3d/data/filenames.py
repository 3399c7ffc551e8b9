"""What the names of files say of a data set that nobody described: which are which channel."""

import logging
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias

from medseg3d.data.patterns import VOLUME_SUFFIXES, volume_stem

log = logging.getLogger(__name__)

Content: TypeAlias = dict[str, Any]
"""Knobs of a DataConfig, as YAML would give them."""

IMAGE_FOLDERS: Final = ("imagesTr", "images", "image", "imgs", "img", "scans", "volumes")
REFERENCE_FOLDERS: Final = (
    "labelsTr", "labels", "label", "masks", "mask", "segmentations", "segmentation", "segs", "seg",
    "references", "annotations",
)  # fmt: skip
REFERENCE_WORDS: Final = (
    "seg", "label", "labels", "mask", "gt", "segmentation", "dseg", "annotation", "reference",
)  # fmt: skip
"""What the last part of a label map's name says."""

LAST_WORD: Final = re.compile(r"(?P<case>.*?)(?P<rest>(?:^|[_-])(?P<word>[^_-]+))$")
"""The last part of a name, as `seg` in `p1_seg`."""

BIDS_REFERENCE: Final = re.compile(r"_(dseg|label-[^_]+_mask)$")
BIDS_CASE: Final = re.compile(r"(sub-[^_]+(?:_ses-[^_]+)?)(_.+)")


def says_reference(name: str) -> bool:
    """Tell whether the last word of a name, without suffix, is one of label maps: `p1_seg`."""
    last = LAST_WORD.match(name)
    return last is not None and last["word"].lower() in REFERENCE_WORDS


def by_bids(folder: Path) -> Content | None:
    """Take channels from `sub-*/[ses-*/]anat`, references from the derivative with most of them.

    What fewer than half of the cases have is left out, with a WARNING.
    """
    own = _bids_patterns(folder.glob("sub-*/**/anat/*"), folder)
    if not own:
        return None
    derived = _bids_patterns(folder.glob("derivatives/**/sub-*/**/*"), folder)
    references = {p: n for p, n in derived.items() if BIDS_REFERENCE.search(volume_stem(Path(p)))}
    images = {_bids_channel(pattern): pattern for pattern in _frequent(own)}
    content: Content = {"images": images, "patient": r"(sub-[^_]+)"}
    if references:
        content["reference"], *others = _frequent(references, least=0)
        if others:
            log.warning("'%s': other label maps are left out: %s", folder, ", ".join(others))
    return content


def _bids_patterns(paths: Iterable[Path], folder: Path) -> Counter[str]:
    """Count files by pattern; folders of subject and session become `*`."""
    patterns: Counter[str] = Counter()
    for path in _volumes(paths):
        if match := BIDS_CASE.fullmatch(path.name):
            *parts, _ = path.relative_to(folder).parts
            starred = ["*" if part.startswith(("sub-", "ses-")) else part for part in parts]
            patterns["/".join([*starred, "{case}" + match[2]])] += 1
    return patterns


def _bids_channel(pattern: str) -> str:
    return volume_stem(Path(pattern)).removeprefix("{case}_")


def by_names(folder: Path) -> Content | None:
    """Look for images beside labels, for one folder per case, then for files side by side."""
    inner = {path.name.lower(): path.name for path in folder.iterdir() if path.is_dir()}
    images = next((inner[n.lower()] for n in IMAGE_FOLDERS if n.lower() in inner), None)
    labels = next((inner[n.lower()] for n in REFERENCE_FOLDERS if n.lower() in inner), None)
    if images:
        return _side_by_side(folder, f"{images}/", f"{labels}/" if labels else None)
    return _by_case(folder) or _side_by_side(folder, "", "")


def _by_case(folder: Path) -> Content | None:
    """Take files of the same names in folders of their own; a name may hold the folder's."""
    patterns = Counter(
        "{case}/" + path.name.replace(path.parent.name, "{case}")
        for path in _volumes(folder.glob("*/*"))
    )
    common = _frequent(patterns, among=len({path.parent for path in _volumes(folder.glob("*/*"))}))
    references = [p for p in common if says_reference(volume_stem(Path(p)))]
    images = {_channel_of(p): p for p in common if p not in references}
    if not images:
        return None
    if references[1:]:
        log.warning("'%s': other label maps are left out: %s", folder, ", ".join(references[1:]))
    return {"images": images} | ({"reference": references[0]} if references else {})


def _side_by_side(folder: Path, images: str, references: str | None) -> Content | None:
    """Take names that begin with a case's and go on with the channel's; the rest are warned of.

    Cases are called as references are, without a last word such as `_seg`, or, where there are no
    references, without four digits.
    """
    label_maps = {*_volumes((folder / references).glob("*"))} if references is not None else set()
    if references == images:
        label_maps = {path for path in label_maps if says_reference(volume_stem(path))}
    files = {*_volumes((folder / images).glob("*"))} - label_maps
    ends = Counter(_split(path, says_reference(volume_stem(path)))[1] for path in label_maps)
    content: Content = {}
    cases: set[str] = set()
    if ends:
        end = max(ends, key=lambda rest: ends[rest])
        content["reference"] = f"{references}{{case}}{end}"
        cases = {path.name.removesuffix(end) for path in label_maps}
    rests = Counter(_rest(path, cases) for path in files)
    if frequent := _frequent(rests, among=len(cases) or None):
        return content | {"images": {_channel_of(r): f"{images}{{case}}{r}" for r in frequent}}
    return None


def _rest(path: Path, cases: set[str]) -> str:
    """Give what follows the case's name; of no known case, what follows all but four digits."""
    stem, end = volume_stem(path), path.name[len(volume_stem(path)) :]
    known = [case for case in cases if re.fullmatch(re.escape(case) + r"([_-].*)?", stem)]
    if known:
        return path.name.removeprefix(max(known, key=len))
    return _split(path, cut=re.search(r"_\d{4}$", stem) is not None)[1] if not cases else end


def _split(path: Path, cut: bool) -> tuple[str, str]:
    """Part a file's name into the case's and the rest, which is the suffix or a word more."""
    stem = volume_stem(path)
    last = LAST_WORD.match(stem) if cut else None
    case = last["case"] if last else stem
    return case, path.name.removeprefix(case)


def _channel_of(pattern: str) -> str:
    """Name a channel as the pattern's file is called, without the case."""
    name = volume_stem(Path(pattern)).replace("{case}", "").strip("_-. ")
    return f"channel_{int(name)}" if name.isdigit() else name or "image"


def _frequent(
    patterns: Mapping[str, int], *, among: int | None = None, least: float = 0.5
) -> list[str]:
    """Give what at least a share has, alphabetically; warn of the others."""
    among = among or max(patterns.values(), default=0)
    return sorted(p for p, number in patterns.items() if number >= least * among)


def _volumes(paths: Iterable[Path]) -> list[Path]:
    return sorted(
        path
        for path in paths
        if path.name.lower().endswith(VOLUME_SUFFIXES) and not path.name.startswith(".")
    )
