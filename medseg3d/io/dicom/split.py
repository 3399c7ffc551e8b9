"""Which frames of a series belong to one volume.

Frames of one volume share every trait. Where they repeat their places, what is said of their order
tells volumes apart; where nothing does, they stay together as doubled slices, which are refused.
"""

from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

import numpy as np

from medseg3d.io.dicom.frames import Frame
from medseg3d.io.dicom.stacks import Stack, place_ids, stack_of, view_of

PLANE_TOLERANCE: Final = 3e-4
"""Planes are parallel, with pixels of one size, up to this share of a pixel's edge."""

NUMBERING: Final = ("time", "stack")
"""Traits that some scanners merely number their slices by."""

VALUED: Final = {
    "echo": "echo",
    "b": "b",
    "type": "type",
    "index": "volume",
    "kernel": "kernel",
    "flip": "flip",
    "inversion": "inversion",
    "acquisition": "time",
    "acquired": "time",
    "trigger": "time",
    "gradient": "direction",
}
"""What may have one value throughout a volume, the surest first -> how volumes are then called."""

RANKED: Final = ("echo", "b", "trigger", "acquired")
"""What may rise at each place from one volume to the next."""

WORDS: Final = {
    "kind": "image",
    "component": "magnitude",
    "display": "upright",
}
"""Traits that name a volume by themselves -> the word where nothing is said."""

Groups: TypeAlias = Mapping[str, Sequence[Frame]]


def split_frames(frames: Sequence[Frame]) -> tuple[Stack, ...]:
    """Sort the frames of a series into volumes; each is named by what sets it apart."""
    stacks = []
    for name, group in _by_traits(frames).items():
        for time, part in _by_order(group).items():
            stacks.append(stack_of("_".join(filter(None, (name, time))), part))
    return tuple(sorted(stacks, key=lambda stack: stack.name))


def _by_traits(frames: Sequence[Frame]) -> Groups:
    """Group frames that share every trait, the plane's directions and sizes among them."""
    planes = _numbered_planes(frames)
    traits = [
        {"plane": plane, "size": frame.shape_IJ, **frame.traits}
        for plane, frame in zip(planes, frames, strict=True)
    ]
    said = {trait: _words(trait, [t[trait] for t in traits]) for trait in traits[0]}
    for trait in NUMBERING:
        if len(said[trait]) == len(frames) > 1:
            said[trait] = {}
    views: dict[Hashable, str] = {
        plane: view_of(frame) for plane, frame in zip(planes, frames, strict=True)
    }
    if len({*views.values()}) == len(views):
        said["plane"] = views if len(views) > 1 else {}
    groups: dict[str, list[Frame]] = defaultdict(list)
    for frame, own in zip(frames, traits, strict=True):
        groups["_".join(filter(None, (said[t].get(own[t]) for t in own)))].append(frame)
    return groups


def _words(trait: str, values: Sequence[Hashable]) -> dict[Hashable, str]:
    """Name each value of a trait; nothing where all frames share one."""
    distinct = sorted({*values}, key=lambda value: (value is not None, str(type(value)), value))
    if len(distinct) == 1:
        return {}
    if trait in WORDS:
        return {value: str(value) if value != "" else WORDS[trait] for value in distinct}
    return dict(zip(distinct, _ranks(trait, len(distinct)), strict=True))


def _ranks(word: str, count: int) -> list[str]:
    """Name a number of things so that their names sort."""
    return [f"{word}-{n:0{len(str(count))}}" for n in range(1, count + 1)]


def _numbered_planes(frames: Sequence[Frame]) -> list[int]:
    """Number planes by the directions and sizes of their pixels; 0 is none."""
    known: list[np.ndarray] = []
    numbers = []
    for frame in frames:
        if frame.plane is None:
            numbers.append(0)
            continue
        steps = np.array([frame.plane.along_i_mm, frame.plane.along_j_mm])
        edge = PLANE_TOLERANCE * float(np.linalg.norm(steps, axis=1).min())
        near = (n for n, other in enumerate(known) if np.abs(steps - other).max() <= edge)
        number = next(near, len(known))
        if number == len(known):
            known.append(steps)
        numbers.append(number + 1)
    return numbers


def _by_order(frames: Sequence[Frame]) -> Groups:
    """Tell volumes apart that lie at one place; all frames are one where nothing does."""
    whole = {"": frames}
    if len(frames) == 1 or any(frame.plane is None for frame in frames):
        return whole
    ids = place_ids(frames)
    if len({*ids}) == len(ids):
        return whole
    for word, volumes in _tries(frames, ids):
        if volumes:
            return dict(zip(_ranks(word, len(volumes)), volumes, strict=True))
    return whole


def _tries(frames: Sequence[Frame], ids: Sequence[int]) -> Iterator[tuple[str, list[list[Frame]]]]:
    """Try to tell volumes apart, by the surest means first; give what to call them, and them."""
    for key, word in VALUED.items():
        yield word, _volumes(frames, ids, [frame.order[key] for frame in frames])
    acquisitions = [frame.order["acquisition"] for frame in frames]
    yield "acquisition", _volumes(frames, ids, acquisitions, partial=True)
    ranks = {key: _ranked([frame.order[key] for frame in frames], ids) for key in RANKED}
    ranks["instance"] = _numbered([frame.order["instance"] for frame in frames], ids)
    said = [key for key in ranks if None not in ranks[key]]
    if said and all(ranks[key] == ranks[said[0]] for key in said):
        volumes = _volumes(frames, ids, ranks[said[0]])
        if not any(_contradicts(volumes, key) for key in VALUED):
            yield VALUED.get(said[0], "volume"), volumes


def _contradicts(volumes: Sequence[Sequence[Frame]], key: str) -> bool:
    """Tell whether volumes mix what so few values are said of that each should have one.

    A time of acquisition may well differ from slice to slice.
    """
    values = [{frame.order[key] for frame in volume} for volume in volumes]
    return len(set().union(*values)) <= len(volumes) and any(len(one) > 1 for one in values)


def _volumes(
    frames: Sequence[Frame], ids: Sequence[int], values: Sequence[Any], *, partial: bool = False
) -> list[list[Frame]]:
    """Give the frames of each value, in its order, if each has every place just once.

    With `partial`, each may have some of the places, but of several at least.
    """
    if None in values or len({*values}) < 2:
        return []
    groups: dict[Any, list[int]] = defaultdict(list)
    for n, value in enumerate(values):
        groups[value].append(n)
    every = sorted({*ids})
    for group in groups.values():
        own = sorted(ids[n] for n in group)
        if own != every and not (partial and 2 < len({*own}) == len(own)):
            return []
    return [[frames[n] for n in groups[value]] for value in sorted(groups)]


def _ranked(values: Sequence[Any], ids: Sequence[int]) -> list[int | None]:
    """Give each frame's rank among those at its place; None where two are equal."""
    if None in values:
        return [None]
    at: dict[int, list[Any]] = defaultdict(list)
    for place, value in zip(ids, values, strict=True):
        at[place].append(value)
    if any(len({*here}) < len(here) for here in at.values()):
        return [None]
    return [sorted(at[place]).index(value) for place, value in zip(ids, values, strict=True)]


def _numbered(values: Sequence[Any], ids: Sequence[int]) -> list[int | None]:
    """Give each frame's volume where images are numbered volume by volume, or place by place."""
    places = len({*ids})
    if None in values or len({*values}) < len(values) or len(values) % places:
        return [None]
    count = len(values) // places
    order = np.argsort(values)
    in_order = np.array(ids)[order]
    if all(len({*volume}) == places for volume in in_order.reshape(count, places).tolist()):
        ranks = np.repeat(np.arange(count), places)
    elif all(len({*place}) == 1 for place in in_order.reshape(places, count).tolist()):
        ranks = np.tile(np.arange(count), places)
    else:
        return [None]
    return [int(ranks[n]) for n in np.argsort(order)]
