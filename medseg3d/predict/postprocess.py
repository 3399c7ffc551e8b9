"""Putting a label map right: holes filled, components and small regions taken away.

Rules are told in `config/postprocess.py`. One rule alone, done twice, changes nothing the second
time; of several, a later one may undo what an earlier one did.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from typing import Final, TypeAlias

import numpy as np
import scipy

from medseg3d.arrays import LabelMapIJK, MaskIJK, TripleInt
from medseg3d.config.postprocess import RegionRule, Step, plan_steps
from medseg3d.errors import GridError
from medseg3d.evaluate.blobs import Blob, box, components
from medseg3d.labels import LabelScheme, as_label_map
from medseg3d.volume import Volume

ROUNDING: Final = 1e-6
"""A volume in mm³ that falls short of a threshold by this share of it reaches it: headers hold
float32."""

Window: TypeAlias = tuple[slice, ...]


def postprocess_label_map(
    label_map: Volume, scheme: LabelScheme, rules: Mapping[str, RegionRule]
) -> Volume:
    """Apply rules, one after the other, to a label map of one channel.

    The input is not changed; without rules it is what is given back. Values that the scheme does
    not know stay, and are no background. In a volume of one plane, holes are those of the plane.

    Raises:
        ConfigError: a rule does not fit the scheme.
        GridError: several channels.
        LabelError: no integers from 0 to 65535.
    """
    steps = plan_steps(rules, scheme)
    if not steps:
        return label_map
    if label_map.num_channels != 1:
        raise GridError(
            f"a label map has one channel, got {label_map.num_channels}; decide on one value per "
            "voxel first"
        )
    given = as_label_map(label_map.array_CIJK[0])
    wide_enough = np.min_scalar_type(max(scheme.channel_values))
    values = np.array(given, dtype=np.promote_types(given.dtype, wide_enough))
    found = enumerate(scipy.ndimage.find_objects(values), start=1)
    windows: dict[int, Window] = {value: window for value, window in found if window}
    for step in steps:
        here = [windows[value] for value in step.values if value in windows]
        if here:
            window = _around(here)
            _take_step(step, values[window], shape=values.shape, voxel_mm3=label_map.grid.voxel_mm3)
            for value in (*step.values, step.becomes):
                windows[value] = _around([window, windows.get(value, window)])
    return Volume(values[np.newaxis], label_map.affine)


def _around(windows: Sequence[Window]) -> Window:
    """Give the smallest window around several."""
    return tuple(
        slice(min(side.start for side in sides), max(side.stop for side in sides))
        for sides in zip(*windows, strict=True)
    )


def _take_step(step: Step, values: LabelMapIJK, *, shape: TripleInt, voxel_mm3: float) -> None:
    """Change values in a window around a region, cut out of a volume of this shape."""
    mask = reduce(np.logical_or, (values == value for value in step.values))
    if step.fill is not None:
        for hole in _holes(mask, values, shape=shape):
            part = box(hole.start, hole.stop)
            values[part][hole.mask] = step.fill
            mask[part] |= hole.mask
    for piece in _taken_away(step.rule, mask, voxel_mm3=voxel_mm3):
        values[box(piece.start, piece.stop)][piece.mask] = step.becomes


def _holes(mask: MaskIJK, values: LabelMapIJK, *, shape: TripleInt) -> Iterator[Blob]:
    """Give what lies wholly inside a mask and is background.

    Around the window nothing is in the region, so what reaches its sides reaches the border.
    """
    for piece in components(~mask, by_faces=True):
        sides = zip(piece.start, piece.stop, mask.shape, shape, strict=True)
        if all(length == 1 or 0 < a < b < end for a, b, end, length in sides):
            part = box(piece.start, piece.stop)
            if not (values[part].astype(bool) & piece.mask).any():
                yield piece


def _taken_away(rule: RegionRule, mask: MaskIJK, *, voxel_mm3: float) -> Sequence[Blob]:
    """Choose the components that do not stay."""
    pieces = components(mask)
    volumes_mm3 = [piece.voxels * voxel_mm3 * (1 + ROUNDING) for piece in pieces]
    smallest_mm3 = rule.smallest_component_mm3
    if rule.keep == "largest":
        smallest_mm3 = max([smallest_mm3, *volumes_mm3])
    staying_mm3 = sum(volume for volume in volumes_mm3 if volume >= smallest_mm3)
    if staying_mm3 < rule.smallest_region_mm3:
        return pieces
    return [p for p, mm3 in zip(pieces, volumes_mm3, strict=True) if mm3 < smallest_mm3]
