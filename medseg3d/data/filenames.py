"""What the names of files say of a data set that nobody described: which are which channel."""

import logging
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
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

BIDS_REFERENCE: Final = re.compile(r"_dseg$|_label-[^_]+(_[^_]+)*_mask$")
BIDS_CASE: Final = re.compile(r"(sub-[^_]+(?:_ses-[^_]+)?)(_.+)")


def says_reference(name: str) -> bool:
    """Tell whether the last word of a name, without suffix, is one of label maps: `p1_seg`."""
    last = LAST_WORD.match(name)
    return last is not None and last["word"].lower() in REFERENCE_WORDS


def by_bids(folder: Path) -> Content | None:
    """Take channels from `sub-*/[ses-*/]anat`, references from the derivative with most of them."""
    found = _bids_patterns(folder.glob("sub-*/**/anat/*"), folder)
    own = Counter({p: n for p, n in found.items() if not _is_bids_reference(p)})
    if not own:
        return None
    if len({pattern.count("/") for pattern in own}) > 1:
        log.warning("'%s': only some subjects have sessions; the others are left out", folder)
    depth = max(own, key=lambda pattern: own[pattern]).count("/")
    images = _frequent(folder, {p: number for p, number in own.items() if p.count("/") == depth})
    content: Content = {
        "images": {_bids_channel(pattern): pattern for pattern in images},
        "patient": r"(sub-[^_]+)",
    }
    derived = _bids_patterns(folder.glob("derivatives/**/sub-*/**/*"), folder) + found
    labels = [p for p, _ in derived.most_common() if _is_bids_reference(p)]
    return content | _first_reference(folder, labels)


def _first_reference(folder: Path, patterns: Sequence[str]) -> Content:
    if patterns[1:]:
        log.warning("'%s': other label maps are left out: %s", folder, ", ".join(patterns[1:]))
    return {"reference": patterns[0]} if patterns else {}


def _bids_patterns(paths: Iterable[Path], folder: Path) -> Counter[str]:
    """Count files by pattern; folders of subject and session become `*`."""
    patterns: Counter[str] = Counter()
    for path in _volumes(paths):
        if match := BIDS_CASE.fullmatch(path.name):
            *parts, _ = path.relative_to(folder).parts
            starred = ["*" if part.startswith(("sub-", "ses-")) else part for part in parts]
            patterns["/".join([*starred, "{case}" + match[2]])] += 1
    return patterns


def _is_bids_reference(pattern: str) -> bool:
    return BIDS_REFERENCE.search(volume_stem(Path(pattern))) is not None


def _bids_channel(pattern: str) -> str:
    return volume_stem(Path(pattern)).removeprefix("{case}_")


def by_names(folder: Path) -> Content | None:
    """Look for images beside labels, for one folder per case, then for files side by side."""
    inner = {path.name.lower(): path.name for path in folder.iterdir() if path.is_dir()}
    images = next((inner[n.lower()] for n in IMAGE_FOLDERS if n.lower() in inner), None)
    labels = next((inner[n.lower()] for n in REFERENCE_FOLDERS if n.lower() in inner), None)
    if images or labels:
        place = f"{images}/" if images else ""
        return _side_by_side(folder, place, f"{labels}/" if labels else None)
    return _by_case(folder) or _side_by_side(folder, "", "")


def _by_case(folder: Path) -> Content | None:
    """Take files of the same names in folders of their own; a name may hold the folder's."""
    files = _volumes(folder.glob("*/*"))
    patterns = Counter(f"{{case}}/{_named_apart(path)}" for path in files)
    common = _frequent(folder, patterns, among=len({path.parent for path in files}))
    references = [p for p in common if says_reference(volume_stem(Path(p)))]
    images = {_channel_of(p): p for p in common if p not in references}
    return {"images": images} | _first_reference(folder, references) if images else None


def _named_apart(path: Path) -> str:
    """Put `{case}` for the folder's name where it is a word of the file's: `1_t1`, not `t1`."""
    word = rf"(?<![^_.-]){re.escape(path.parent.name)}(?![^_.-])"
    return re.sub(word, "{case}", path.name)


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
    common = _frequent(folder, rests, among=len(cases))
    named = {_channel_of(rest): f"{images}{{case}}{rest}" for rest in common}
    return {"images": named} | content if named else None


def _rest(path: Path, cases: set[str]) -> str:
    """Give what follows the case's name; of no known case, what follows all but four digits."""
    stem, end = volume_stem(path), path.name[len(volume_stem(path)) :]
    known = [c for c in cases if stem.startswith(c) and stem[len(c) : len(c) + 1] in ("", "_", "-")]
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


def _frequent(folder: Path, patterns: Mapping[str, int], *, among: int = 0) -> list[str]:
    """Give, alphabetically, what at least half of the cases have; warn of the others."""
    least = (among or max(patterns.values(), default=0)) / 2
    common = sorted(pattern for pattern, number in patterns.items() if number >= least)
    rare = sorted({*patterns} - {*common})
    if common and rare:
        log.warning(
            "'%s': %d kinds of files are left out, as fewer than half of the cases have them: %s",
            folder,
            len(rare),
            ", ".join(rare[:5]),
        )
    return common


def _volumes(paths: Iterable[Path]) -> list[Path]:
    return sorted(
        path
        for path in paths
        if path.name.lower().endswith(VOLUME_SUFFIXES) and not path.name.startswith(".")
    )
