"""Blobs: pieces of a mask in small boxes, found by their runs, grown, asked whether they touch.

Two voxels are in one component if they share at least a corner (26 neighbours in 3D, 8 in 2D). A
dilation grows a mask by the neighbours that share at least an edge (18 in 3D, 8 in 2D). n dilations
reach every voxel at most n steps away along each axis and 2n in all. Cutting a volume to a box
changes nothing: of two points in a box, the steps between them can stay in it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Final, TypeAlias

import numpy as np
import scipy
from jaxtyping import Bool, Int, Int64

from medseg3d.evaluate.overlap import Mask

SHORT: Final = 16
"""Voxels along the first axis up to which blobs are searched for in a window of them."""

IntArray: TypeAlias = Int[np.ndarray, "..."]
Corner: TypeAlias = Sequence[int] | IntArray


@dataclass(frozen=True, slots=True, eq=False)
class Blob:
    """A mask in the smallest box that holds it, and where that box begins; never empty."""

    start: tuple[int, ...]
    mask: Bool[np.ndarray, "..."]

    @property
    def stop(self) -> tuple[int, ...]:
        """Where the box ends, half-open."""
        return tuple(a + n for a, n in zip(self.start, self.mask.shape, strict=True))

    @property
    def voxels(self) -> int:
        """How many."""
        return int(np.count_nonzero(self.mask))

    def within(self, start: Corner, stop: Corner) -> Bool[np.ndarray, "..."]:
        """Show the blob in another box."""
        if tuple(start) == self.start and tuple(stop) == self.stop:
            return self.mask
        shown = np.zeros(np.subtract(stop, start), dtype=bool)
        low, high = np.maximum(self.start, start), np.minimum(self.stop, stop)
        if (low < high).all():
            own = self.mask[box(low - self.start, high - self.start)]
            shown[box(low - start, high - start)] = own
        return shown


def components(mask: Mask, *, by_faces: bool = False) -> list[Blob]:
    """Part a mask into its components, in the order of their first voxels, last axis fastest.

    With `by_faces`, the voxels of a component share faces: so hang together the parts of what lies
    around components.

    Runs of voxels along the axis that is contiguous in memory are the nodes of a graph; runs side
    by side are joined. That reads the mask once and keeps no array of labels.
    """
    is_transposed = mask.strides[0] < mask.strides[-1]
    rows = mask.T if is_transposed else mask
    runs = _find_runs(rows)
    blobs = _split(rows, runs, _join_runs(runs, rows.shape, by_faces)) if runs.size else []
    if is_transposed:
        blobs = [Blob(blob.start[::-1], blob.mask.T) for blob in blobs]
        blobs.sort(key=first_voxel)
    return blobs


def first_voxel(blob: Blob, *, dilations: int = 0, corner: Sequence[int] = ()) -> tuple[int, ...]:
    """Find the first voxel of a blob, last axis fastest, or of the blob when it is dilated.

    Nothing grows below `corner`, where the volume begins.
    """
    head = blob.mask[: dilations + 1]
    start = np.subtract(blob.start, dilations)
    if dilations:
        head = grow(head, dilations)
        cut = np.maximum(np.subtract(corner or [0] * len(start), start), 0)
        start, head = start + cut, head[tuple(slice(int(n), None) for n in cut)]
    plane = next(n for n, plane in enumerate(head) if plane.any())
    inside = np.unravel_index(int(np.argmax(head[plane])), head.shape[1:])
    return tuple((start + np.array([plane, *inside])).tolist())


def grow(mask: Bool[np.ndarray, "..."], dilations: int) -> Bool[np.ndarray, "..."]:
    """Dilate a mask, which gets larger by the number of dilations on every side."""
    grown = np.pad(mask, dilations)
    for _ in range(dilations):
        along = [_spread(grown, axis) for axis in range(grown.ndim)]
        for axis, spread in enumerate(along):
            grown |= _spread(spread, axis - 1)
    return grown


def shared_voxels(one: Blob, other: Blob) -> int:
    """Count the voxels that two blobs have in common."""
    low, high = np.maximum(one.start, other.start), np.minimum(one.stop, other.stop)
    if (low >= high).any():
        return 0
    return int(np.count_nonzero(one.within(low, high) & other.within(low, high)))


def touch(one: Blob, other: Blob, dilations: int) -> bool:
    """Tell whether one blob, dilated, has a voxel in common with the other, or the other way round.

    Both are looked at only where each could reach the other.
    """
    low = np.maximum(one.start, other.start) - dilations
    high = np.minimum(one.stop, other.stop) + dilations
    if (low >= high).any():
        return False
    here, there = one.within(low, high), other.within(low, high)
    if (here & there).any():
        return True
    inside = (slice(dilations, -dilations),) * here.ndim
    return bool(dilations and (grow(here, dilations)[inside] & there).any())


def unite(blobs: Sequence[Blob]) -> Blob:
    """Make one blob of several."""
    if len(blobs) == 1:
        return blobs[0]
    start, stop = joint_box(blobs)
    mask = np.zeros(np.subtract(stop, start), dtype=bool)
    for blob in blobs:
        mask[box(np.subtract(blob.start, start), np.subtract(blob.stop, start))] |= blob.mask
    return Blob(start, mask)


def joint_box(blobs: Sequence[Blob]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Find where the smallest box around all blobs begins and ends."""
    start = np.min([blob.start for blob in blobs], axis=0)
    stop = np.max([blob.stop for blob in blobs], axis=0)
    return tuple(start.tolist()), tuple(stop.tolist())


def merge(blobs: Sequence[Blob], dilations: int) -> list[Blob]:
    """Unite the blobs that one component holds together after so many dilations."""
    beside = neighbours(blobs, blobs, 2 * dilations + 1)
    groups = connect(len(blobs), [(n, m) for n, others in enumerate(beside) for m in others])
    near: dict[int, list[Blob]] = {}
    for group, blob in zip(groups.tolist(), blobs, strict=True):
        near.setdefault(group, []).append(blob)
    return [merged for group in near.values() for merged in _merge_near(group, dilations)]


def neighbours(blobs: Sequence[Blob], others: Sequence[Blob], steps: int) -> list[list[int]]:
    """List for each blob the others whose boxes are at most so many steps away along each axis."""
    found: list[list[int]] = [[] for _ in blobs]
    if not others:
        return found
    starts = np.array([other.start for other in others])
    stops = np.array([other.stop for other in others])
    lengths = stops[:, 0] - starts[:, 0]
    for some in (lengths <= SHORT, lengths > SHORT):  # a long one would widen every window
        order = np.flatnonzero(some)
        if not order.size:
            continue
        order = order[np.argsort(starts[order, 0], kind="stable")]
        begins, longest = starts[order, 0], int(lengths[order].max())
        for n, blob in enumerate(blobs):
            low, high = np.subtract(blob.start, steps), np.add(blob.stop, steps)
            window = order[slice(*np.searchsorted(begins, (low[0] - longest, high[0])))]
            touching = (starts[window] < high).all(axis=1) & (stops[window] > low).all(axis=1)
            found[n] += window[touching].tolist()
    return [sorted(near) for near in found]


def _merge_near(blobs: list[Blob], dilations: int) -> list[Blob]:
    """Merge blobs in one box around them all."""
    if len(blobs) == 1:
        return blobs
    whole = unite(blobs)
    firsts = np.array([first_voxel(blob) for blob in blobs]) - whole.start + dilations
    merged = []
    for hull in components(grow(whole.mask, dilations)):
        at = firsts - hull.start
        near = np.flatnonzero(((at >= 0) & (at < hull.mask.shape)).all(axis=1))
        held = near[hull.mask[tuple(at[near].T)]]
        merged.append(unite([blobs[n] for n in held.tolist()]))
    return merged


def _spread(mask: Bool[np.ndarray, "..."], axis: int) -> Bool[np.ndarray, "..."]:
    """Add to each voxel the one before and the one after it."""
    spread = np.array(mask)
    into, source = np.swapaxes(spread, axis, 0), np.swapaxes(mask, axis, 0)
    into[1:] |= source[:-1]
    into[:-1] |= source[1:]
    return spread


def _find_runs(rows: Bool[np.ndarray, "..."]) -> Int64[np.ndarray, "ends axes runs"]:
    """Find the first and the last voxel of each run along the last axis."""
    before, behind = (..., slice(None, -1)), (..., slice(1, None))
    ends = []
    for here, beside in ((behind, before), (before, behind)):
        end = rows.copy()
        np.greater(rows[here], rows[beside], out=end[here])
        ends.append(np.stack(np.unravel_index(np.flatnonzero(end), rows.shape)))
    return np.stack(ends)


def _join_runs(
    runs: Int64[np.ndarray, "ends axes runs"], shape: tuple[int, ...], by_faces: bool
) -> Int[np.ndarray, "runs"]:
    """Number the component of each run.

    Voxels get a place on one line, on which rows are kept apart, so that a run in the row beside
    is found by sorted search: it ends no earlier than just before the run, and begins no later
    than just behind it; without corners, no earlier than the run begins and no later than it ends.
    """
    reach, most_steps = (0, 1) if by_faces else (1, len(shape))
    places = np.cumprod([1, *(size + 2 for size in shape[:0:-1])])[::-1]
    first, last = np.einsum("a,ear->er", places, runs)
    rows = product((-1, 0, 1), repeat=len(shape) - 1)
    beside = [row for row in rows if row > (0,) * len(row) and np.abs(row).sum() <= most_steps]
    pairs = []
    for row in beside:
        away = int(np.dot(row, places[:-1]))
        low = np.searchsorted(last, first + away - reach)
        counts = np.searchsorted(first, last + away + reach, side="right") - low
        one = np.repeat(np.arange(len(first)), counts)
        within = np.arange(len(one)) - np.repeat(np.cumsum(counts) - counts, counts)
        pairs.append(np.stack([one, np.repeat(low, counts) + within], axis=1))
    return connect(len(first), np.concatenate(pairs))


def connect(count: int, pairs: Sequence[tuple[int, int]] | IntArray) -> Int[np.ndarray, "nodes"]:
    """Number the connected parts of a graph, in the order of their first nodes."""
    one, other = np.asarray(pairs, dtype=np.int64).reshape(-1, 2).T
    edges = scipy.sparse.coo_array((np.ones(len(one), dtype=bool), (one, other)), (count, count))
    return scipy.sparse.csgraph.connected_components(edges, directed=False)[1]


def _split(
    rows: Bool[np.ndarray, "..."],
    runs: Int64[np.ndarray, "ends axes runs"],
    parts: Int[np.ndarray, "runs"],
) -> list[Blob]:
    """Cut each part out of the mask; where nothing else is in its box, without a copy."""
    order = np.argsort(parts, kind="stable")
    runs, sizes = runs[:, :, order], np.bincount(parts)
    begins = np.cumsum(sizes) - sizes
    voxels = np.add.reduceat(runs[1, -1] - runs[0, -1] + 1, begins)
    starts = np.minimum.reduceat(runs[0], begins, axis=1).T
    stops = np.maximum.reduceat(runs[1], begins, axis=1).T + 1
    blobs = []
    for n, (start, stop) in enumerate(zip(starts, stops, strict=True)):
        mask = rows[box(start, stop)]
        if np.count_nonzero(mask) != voxels[n]:
            own = runs[:, :, begins[n] : begins[n] + sizes[n]] - start[:, np.newaxis]
            mask = _paint(own, mask.shape)
        blobs.append(Blob(tuple(start.tolist()), mask))
    return blobs


def _paint(
    runs: Int64[np.ndarray, "ends axes runs"], shape: tuple[int, ...]
) -> Bool[np.ndarray, "..."]:
    """Fill runs: up by one where one begins, down behind its end, and summed up along the line."""
    first, last = (np.ravel_multi_index(tuple(ends), shape) for ends in runs)
    steps = np.zeros(np.prod(shape) + 1, dtype=np.int8)
    steps[first] += 1
    steps[last + 1] -= 1
    return np.cumsum(steps[:-1], dtype=np.int8).view(bool).reshape(shape)


def box(start: Corner, stop: Corner) -> tuple[slice, ...]:
    """Slice from one corner to the other."""
    return tuple(slice(int(a), int(b)) for a, b in zip(start, stop, strict=True))
