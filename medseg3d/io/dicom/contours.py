"""Outlines of masks as closed polygons, each with its holes.

A polygon runs halfway between the pixels inside and outside, so that a pixel is inside exactly
where its centre is, whoever fills it again. A hole hangs on its outline by a channel of no width
(keyhole, PS3.3 C.8.8.6.3). Points count in half pixels here: whole numbers, one of them odd.
"""

from typing import Final

import numpy as np
from jaxtyping import Bool, Float64, Integer
from scipy import ndimage

SIDES: Final = ((1, 0), (0, 1), (-1, 0), (0, -1))
"""Steps from a pixel across its sides, in the order of a way round it."""


def outline_mask(mask_IJ: Bool[np.ndarray, "I J"]) -> list[Float64[np.ndarray, "points 2"]]:
    """Give one polygon (i, j) per connected part of a mask, in pixels from the first one's centre.

    Pixels that touch by a corner only are two parts. The last point is not the first again, and
    no point lies on a straight line between its neighbours.
    """
    if not mask_IJ.any():
        return []
    start = np.array([np.flatnonzero(mask_IJ.any(axis=other))[0] for other in (1, 0)])
    stop = [np.flatnonzero(mask_IJ.any(axis=other))[-1] + 1 for other in (1, 0)]
    inside = np.pad(mask_IJ[start[0] : stop[0], start[1] : stop[1]], 1)
    return [_corners(_joined(rings, inside)) / 2 + start - 1 for rings in _rings(inside)]


def _rings(inside: Bool[np.ndarray, "I J"]) -> list[list[Integer[np.ndarray, "points 2"]]]:
    """Give for each part its boundaries from left to right: the outer one, then the holes'."""
    parts, count = ndimage.label(inside)
    rings: list[list[np.ndarray]] = [[] for _ in range(count)]
    following = _following(inside)
    while following:
        start, side = following.popitem()
        walk = [start]
        while side != start:
            walk.append(side)
            side = following.pop(side)
        pixels = np.transpose(np.unravel_index(np.array(walk) // 4, inside.shape))
        ring = pixels * 2 + np.array(SIDES)[np.array(walk) % 4]
        rings[parts[*pixels[0]] - 1].append(ring)
    return [sorted(part, key=lambda ring: int(ring[:, 0].min())) for part in rings]


def _following(inside: Bool[np.ndarray, "I J"]) -> dict[int, int]:
    """Say which side of a pixel follows which on the way round; side n of pixel p is 4p + n.

    Where the pixel ahead is outside, the way turns around its own; where that and the one across
    from it are inside, around the latter; else it goes straight on.
    """
    following: dict[int, int] = {}
    flat = inside.ravel()
    steps = [i * inside.shape[1] + j for i, j in SIDES]
    for side, (out, on) in enumerate(zip(steps, steps[1:] + steps[:1], strict=True)):
        pixel = np.flatnonzero(flat)
        pixel = pixel[~flat[pixel + out]]
        along, across = pixel + on, pixel + on + out
        then = np.where(flat[across], across * 4 + (side + 3) % 4, along * 4 + side)
        then = np.where(flat[along], then, pixel * 4 + (side + 1) % 4)
        following |= zip((pixel * 4 + side).tolist(), then.tolist(), strict=True)
    return following


def _joined(
    rings: list[Integer[np.ndarray, "_ 2"]], inside: Bool[np.ndarray, "I J"]
) -> Integer[np.ndarray, "points 2"]:
    outline, *holes = rings
    for hole in holes:
        start, end = _channel(hole, inside)
        outline_at = np.flatnonzero((outline == end).all(axis=1))[0]
        hole_at = np.flatnonzero((hole == start).all(axis=1))[0]
        there_and_back = [*np.roll(hole, -hole_at, axis=0), start]
        outline = np.insert(outline, outline_at + 1, [*there_and_back, end], axis=0)
    return outline


def _channel(
    hole: Integer[np.ndarray, "points 2"], inside: Bool[np.ndarray, "I J"]
) -> tuple[Integer[np.ndarray, "2"], Integer[np.ndarray, "2"]]:
    """Lead from a hole to the next boundary on its left, between two rows of pixels.

    A boundary on the left of the leftmost pixel of a hole is another one, and already joined. The
    channel starts between two pixels of a column; whether it ends so or between two pixels of a
    row, it meets no pixel's centre, where rounding would decide.
    """
    between_rows = hole[hole[:, 1] % 2 == 1]
    start = min(between_rows.tolist())
    column, row = start[0] // 2, (start[1] + 1) // 2
    above, below = inside[:column, row - 1], inside[:column, row]
    last = int(np.flatnonzero(~(above & below))[-1])
    edge = above[last] or below[last]
    end = (2 * last, start[1]) if edge else (2 * last + 1, 2 * row)
    return np.array(start), np.array(end)


def _corners(polygon: Integer[np.ndarray, "_ 2"]) -> Integer[np.ndarray, "corners 2"]:
    before, after = polygon - np.roll(polygon, 1, axis=0), np.roll(polygon, -1, axis=0) - polygon
    turn = before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]
    corners: Integer[np.ndarray, "corners 2"] = polygon[turn != 0]  # it never turns straight back
    return corners
