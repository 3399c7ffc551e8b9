"""Small label maps, drawn by seed, that ask every rule: what merges, what hits, what counts?"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.random import Generator

from .seasons import SEASONS

NUM_CASES = 240

SPACINGS = ((1.0, 1.0, 1.0), (1.0, 1.0, 1.0), (0.5, 1.0, 2.0), (0.7, 1.3, 5.0), (3.0, 0.9, 0.9),
            (2.0, 2.0, 2.0), (0.5, 0.5, 0.5))  # fmt: skip
STEPS = np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1], [1, 1, 0],
                  [0, -1, 1], [1, 1, 1]])  # fmt: skip
THRESHOLDS = (1, 2, 2, 3, 10, 10, 11, 20, 20, 21, 26, 27, 27, 50, 50, 50, 51)

Pair = tuple[np.ndarray, np.ndarray]


class Case(NamedTuple):
    """Two label maps with values 0 to 4 on one grid."""

    kind: str
    predicted: np.ndarray
    reference: np.ndarray
    spacing: tuple[float, float, float]


def draw_case(seed: int) -> Case:
    """Draw the case of a seed; kinds follow each other in turn."""
    rng = np.random.default_rng(seed)
    kind, draw = KINDS[seed % len(KINDS)]
    spacing = SPACINGS[int(rng.integers(3 if kind == "at thresholds" else len(SPACINGS)))]
    shape = rng.integers(24, 49 if seed % 7 == 0 else 33, size=3)
    predicted, reference = draw(rng, np.zeros(shape, dtype=np.uint8))
    return Case(kind, predicted, reference, spacing)


def fit_values(label_map: np.ndarray, scheme: str) -> np.ndarray:
    """Turn values 1 to 4 into those that a scheme knows."""
    known = sorted({value for values in SEASONS[scheme].regions.values() for value in values})
    table = {(1,): (0, 1, 1, 1, 1), (1, 2, 3): (0, 1, 2, 3, 2), (1, 2, 4): (0, 1, 2, 4, 4)}
    return np.array(table.get(tuple(known), range(5)), dtype=np.uint8)[label_map]


def draw_blob(rng: Generator, shape: tuple[int, ...], start: np.ndarray, voxels: int) -> np.ndarray:
    """Grow one connected lesion of that many voxels, by steps to neighbours."""
    mask = np.zeros(shape, dtype=bool)
    places = [np.clip(start, 0, np.array(shape) - 1)]
    mask[tuple(places[0])] = True
    while len(places) < voxels:
        place = places[rng.integers(len(places))] + STEPS[rng.integers(len(STEPS))]
        if (place >= 0).all() and (place < shape).all() and not mask[tuple(place)]:
            mask[tuple(place)] = True
            places.append(place)
    return mask


def draw_place(rng: Generator, empty: np.ndarray) -> np.ndarray:
    return rng.integers(empty.shape)


def paint(rng: Generator, label_map: np.ndarray, mask: np.ndarray, *, values: int = 4) -> None:
    """Give a lesion one value, or two on either side of a plane."""
    first, second = rng.integers(1, values + 1, size=2)
    label_map[mask] = first
    if rng.random() < 0.4:
        axis = int(rng.integers(3))
        middle = int(np.median(np.argwhere(mask)[:, axis]))
        label_map[mask & (np.indices(mask.shape)[axis] > middle)] = second


def shift(label_map: np.ndarray, by: np.ndarray) -> np.ndarray:
    """Move without wrapping round."""
    moved = np.zeros_like(label_map)
    source = tuple(slice(max(0, -d), n - max(0, d)) for d, n in zip(by, moved.shape, strict=True))
    target = tuple(slice(max(0, d), n - max(0, -d)) for d, n in zip(by, moved.shape, strict=True))
    moved[target] = label_map[source]
    return moved


def draw_lesions(rng: Generator, empty: np.ndarray, count: int) -> list[np.ndarray]:
    """Draw lesions of 2 to 30 voxels, each 1 to 8 voxels away from the one before."""
    place, masks = draw_place(rng, empty), []
    for _ in range(count):
        masks.append(draw_blob(rng, empty.shape, place, int(rng.integers(2, 31))))
        end = np.argwhere(masks[-1])[rng.integers(masks[-1].sum())]
        away = np.sign(rng.normal(size=3)).astype(int) * (rng.random(3) < 0.6)
        place = np.clip(end + away * rng.integers(2, 10), 0, np.array(empty.shape) - 1)
    return masks


def imitate(rng: Generator, reference: np.ndarray, mask: np.ndarray, to: np.ndarray) -> None:
    """Predict one lesion: exactly, moved, in part, split in two, in another tissue, or not."""
    lesion = np.where(mask, reference, 0)
    how = rng.integers(6)
    if how == 1:
        lesion = shift(lesion, rng.integers(-4, 5, size=3))
    elif how == 2:
        lesion[rng.random(lesion.shape) < 0.5] = 0
    elif how == 3:
        lesion[:, int(np.argwhere(mask)[:, 1].mean())] = 0
    elif how == 4:
        lesion[mask] = rng.integers(1, 5)
    elif how == 5:
        return
    to[lesion > 0] = lesion[lesion > 0]


def draw_empty(rng: Generator, empty: np.ndarray) -> Pair:
    one, other = empty.copy(), empty.copy()
    which = rng.integers(3)
    for label_map in ([], [one], [other])[which]:
        for mask in draw_lesions(rng, empty, 3):
            paint(rng, label_map, mask)
    return one, other


def draw_voxels(rng: Generator, empty: np.ndarray) -> Pair:
    one, other = empty.copy(), empty.copy()
    place = draw_place(rng, empty)
    for label_map in (one, other):
        for _ in range(rng.integers(1, 4)):
            near = np.clip(place + rng.integers(-4, 5, size=3), 0, np.array(empty.shape) - 1)
            label_map[tuple(near)] = rng.integers(1, 5)
    return one, other


def draw_scattered(rng: Generator, empty: np.ndarray) -> Pair:
    predicted, reference = empty.copy(), empty.copy()
    masks = draw_lesions(rng, empty, int(rng.integers(4, 11)))
    for mask in masks:
        paint(rng, reference, mask)
    for mask in masks:
        imitate(rng, reference, mask, predicted)
    for mask in draw_lesions(rng, empty, int(rng.integers(0, 4))):
        paint(rng, predicted, mask)
    return predicted, reference


def draw_at_border(rng: Generator, empty: np.ndarray) -> Pair:
    predicted, reference = empty.copy(), empty.copy()
    for _ in range(3):
        place = draw_place(rng, empty)
        axis = rng.integers(3)
        place[axis] = rng.choice([0, empty.shape[axis] - 1])
        mask = draw_blob(rng, empty.shape, place, int(rng.integers(10, 90)))
        paint(rng, reference, mask)
        imitate(rng, reference, mask, predicted)
    return predicted, reference


def draw_full(rng: Generator, empty: np.ndarray) -> Pair:
    empty = empty[:24, :24, :24]
    predicted, reference = (np.full_like(empty, value) for value in rng.integers(1, 5, size=2))
    if rng.random() < 0.7:
        predicted[int(rng.integers(1, 24)) :] = rng.integers(5)
    if rng.random() < 0.5:
        reference[:, :, : int(rng.integers(1, 24))] = rng.integers(5)
    return (predicted, reference) if rng.random() < 0.5 else (reference, predicted)


def draw_at_thresholds(rng: Generator, empty: np.ndarray) -> Pair:
    """Draw lesions of just the size, or with just the Dice of 0.2, at which they begin to count."""
    predicted, reference = empty.copy(), empty.copy()
    values = rng.integers(1, 5, size=4 if rng.random() < 0.3 else 1)
    for corner in np.ndindex(2, 2):
        start = np.array([6, 4, 4]) + (0, *corner) * (np.array(empty.shape) - 9)
        value = rng.choice(values)
        if rng.random() < 0.3:
            across = (slice(start[1], start[1] + rng.choice([1, 3])), start[2])
            reference[4:14, *across] = value
            predicted[12:22, *across] = value
            continue
        for label_map in (predicted, reference):
            if rng.random() < 0.8:
                mask = draw_blob(rng, empty.shape, start, int(rng.choice(THRESHOLDS)))
                label_map[mask] = value
    return predicted, reference


def draw_pieces(rng: Generator, length: int, longest: int, gaps: tuple[int, int]) -> np.ndarray:
    """Cut a line into pieces."""
    line, start = np.zeros(length, dtype=bool), int(rng.integers(0, 6))
    while start < length:
        stop = start + int(rng.integers(3, longest))
        line[start:stop] = True
        start = stop + int(rng.integers(*gaps))
    return line


def draw_tissues(rng: Generator, empty: np.ndarray) -> Pair:
    """Draw a bundle of four beams, one a tissue, in pieces that touch pieces of the others."""
    predicted, reference = np.zeros((2, 90, 12, 12), dtype=np.uint8)
    for place, value in enumerate(rng.permutation(4) + 1):
        manner = 90, int(rng.choice([5, 14, 26])), ((4, 9), (8, 14))[rng.integers(2)]
        line = draw_pieces(rng, *manner)
        broad = (
            slice(2 + 4 * (place // 2), 6 + 4 * (place // 2)),
            slice(2 + 4 * (place % 2), 6 + 4 * (place % 2)),
        )
        reference[line, *broad] = value
        if rng.random() < 0.3:
            line = draw_pieces(rng, *manner)
        predicted[np.roll(line, int(rng.integers(-2, 3))), *broad] = value
    return predicted, reference


def draw_chains(rng: Generator, empty: np.ndarray) -> Pair:
    """Draw rows of lesions cut at other places in the prediction: which of them is whose?"""
    predicted, reference = (empty.copy() for _ in range(2))
    for value in rng.permutation(4)[:2] + 1:
        across = rng.integers(2, 8, size=2) + 10 * (value % 2)
        broad = (slice(across[0], across[0] + 2), across[1])
        for label_map in (predicted, reference):
            label_map[draw_pieces(rng, len(empty), 12, (1, 3)), *broad] = value
    return predicted, reference


def draw_near_misses(rng: Generator, empty: np.ndarray) -> Pair:
    """Draw predictions 1 to 6 voxels beside the lesions, so that dilation decides."""
    predicted, reference = empty.copy(), empty.copy()
    for _ in range(3):
        corner, value = rng.integers(0, 16, size=3), rng.integers(1, 5)
        size, gap = rng.integers(2, 6, size=3), int(rng.integers(1, 7))
        box = [slice(c, c + s) for c, s in zip(corner, size, strict=True)]
        reference[tuple(box)] = value
        start = corner[0] + size[0] + gap
        predicted[(slice(start, start + 4), *box[1:])] = value
    return predicted, reference


def draw_bridges(rng: Generator, empty: np.ndarray) -> Pair:
    """Draw one predicted lesion that serves two lesions, or one lesion predicted in pieces."""
    one, other = empty.copy(), empty.copy()
    value, far = rng.integers(1, 5), int(rng.integers(4, 12))
    for start in (3, 3 + far):
        one[start : start + 4, 5:10, 5:10] = value
    other[4 : 6 + far, 6:9, 6 : int(rng.integers(8, 11))] = value
    paint(rng, other, draw_blob(rng, empty.shape, np.array(empty.shape) - 3, 12))
    return (one, other) if rng.random() < 0.5 else (other, one)


KINDS: tuple[tuple[str, Callable[[Generator, np.ndarray], Pair]], ...] = (
    ("scattered", draw_scattered),
    ("tissues", draw_tissues),
    ("at thresholds", draw_at_thresholds),
    ("chains", draw_chains),
    ("near misses", draw_near_misses),
    ("tissues", draw_tissues),
    ("at border", draw_at_border),
    ("empty", draw_empty),
    ("at thresholds", draw_at_thresholds),
    ("scattered", draw_scattered),
    ("bridges", draw_bridges),
    ("tissues", draw_tissues),
    ("full", draw_full),
    ("voxels", draw_voxels),
)
