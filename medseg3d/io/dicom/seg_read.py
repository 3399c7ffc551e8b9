"""DICOM SEG back into label maps and masks, whoever wrote it and in whatever order."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Integer

from medseg3d.arrays import MaskIJK, TripleInt
from medseg3d.errors import ConfigError, FormatError, LabelError
from medseg3d.io.dicom.attributes import frames_of
from medseg3d.io.dicom.derived import plain_text
from medseg3d.io.dicom.headers import DicomFile, guarded, read_header
from medseg3d.io.dicom.seg_content import (
    StoredSegment,
    decode_numbers,
    frame_numbers,
    least_pixel,
    slice_spacing_mm,
    stored_segments,
)
from medseg3d.io.dicom.seg_grid import find_slices, own_grid
from medseg3d.io.voxels import LARGEST_BYTES
from medseg3d.labels import LabelScheme
from medseg3d.volume import Grid, Volume


@dataclass(frozen=True, slots=True, eq=False)
class DicomSeg:
    """Segments, and the voxels they are made of."""

    segments: tuple[StoredSegment, ...]
    layers: Volume
    """Segment numbers, 0 for none; more than one channel only where segments overlap."""

    def mask(self, number: int) -> MaskIJK:
        """Give the voxels of a segment, by its number."""
        mask: MaskIJK = (self.layers.array_CIJK == number).any(axis=0)
        return mask

    @property
    def masks(self) -> Volume:
        """Booleans, one channel per segment in the order of `segments`."""
        masks = np.stack([self.mask(segment.number) for segment in self.segments])
        return Volume(masks, self.layers.affine)

    def label_map(self, scheme: LabelScheme | None = None) -> Volume:
        """Give one value per voxel: the segment's number, or the scheme's value of its name.

        Raises:
            LabelError: segments overlap, or the scheme has no value of a segment's name.
        """
        numbers = self.layers.array_CIJK
        several = (numbers > 0).sum(axis=0, dtype=np.uint16) > 1
        if several.any():
            names = [s.name for s in self.segments if (numbers[:, several] == s.number).any()]
            raise LabelError(
                f"{int(several.sum())} voxels belong to more than one of the segments {names}; a "
                "label map has one value per voxel. Take `masks`, which has a channel per segment."
            )
        label_map = numbers.max(axis=0, keepdims=True)
        if scheme is not None:
            label_map = self._values(scheme)[label_map]
        return Volume(label_map, self.layers.affine)

    def _values(self, scheme: LabelScheme) -> Integer[np.ndarray, " numbers"]:
        """Give the scheme's value of each segment number."""
        values = {plain_text(name, 64): value for value, name in scheme.values.items()}
        if unknown := [s.name for s in self.segments if s.name not in values]:
            raise LabelError(
                f"segments {unknown} are no values of scheme '{scheme.name}', which has "
                f"{[*values]}; choose the scheme they were written with, or none"
            )
        table = np.zeros(max(s.number for s in self.segments) + 1, dtype=np.uint16)
        for segment in self.segments:
            table[segment.number] = values[segment.name]
        return table.astype(np.min_scalar_type(table.max()))


def read_dicom_seg(
    path: str | Path, *, grid: Grid | None = None, threshold: float | None = None
) -> DicomSeg:
    """Read a DICOM segmentation: binary, label map, or fractional from a `threshold` on.

    It lies on the even grid of its own slices, from the first to the last that holds a segment, or
    on `grid`, that of the images it was made from: axes may be swapped or reversed against it and
    slices tilted, but each frame must be one of its planes, pixel on voxel. What has no frame is
    empty. `threshold` is the least share of the highest value (a probability, or how full a voxel
    is) that belongs to a segment.

    Raises:
        FormatError: no segmentation, damaged, too large, or fractional and no threshold.
        GridError: a frame is no plane of `grid`, or its slices are uneven and no grid is given.
        ConfigError: the threshold is not above 0 and at most 1.
    """
    if threshold is not None and not 0 < threshold <= 1:
        raise ConfigError(f"a threshold is a share above 0 and at most 1, got {threshold}")
    file = DicomFile(Path(path))
    seg = read_header(file, pixels=True)
    with guarded(file):
        segments = stored_segments(seg)
        frames = frames_of(file, seg)
        numbers = frame_numbers(seg, segments)
        least = least_pixel(seg, threshold)
        spacing_mm = slice_spacing_mm(seg)
        if not numbers or len(numbers) != len(frames):
            raise FormatError(f"has {len(frames)} frames and describes {len(numbers)}")
    place = own_grid(frames, spacing_mm=spacing_mm) if grid is None else grid
    turn, slices = find_slices(frames, place)
    columns, rows, count = turn.apply_grid(place).shape_IJK
    with guarded(file):
        planes = zip(slices, decode_numbers(seg, numbers, least=least), strict=True)
        layers_CKJI = _layered(planes, (count, rows, columns))
    layers_CIJK = turn.inverse.apply_array(layers_CKJI.transpose(0, 3, 2, 1))
    return DicomSeg(segments, Volume(layers_CIJK, place.affine))


def _layered(
    planes: Iterable[tuple[int, Integer[np.ndarray, "J I"]]], shape_KJI: TripleInt
) -> Integer[np.ndarray, "C K J I"]:
    """Put planes of segment numbers on their slices, on as few label maps as overlaps allow.

    Raises:
        FormatError: they take more memory than any scan.
    """
    layers: list[Integer[np.ndarray, "K J I"]] = []
    for k, plane in planes:
        flat = plane.reshape(-1)
        where = np.flatnonzero(flat)
        own = flat[where]
        for layer in layers:
            there = layer[k].reshape(-1)[where]
            if ((there == 0) | (there == own)).all():
                break
        else:
            if (len(layers) + 1) * math.prod(shape_KJI) * plane.itemsize > LARGEST_BYTES:
                raise FormatError(f"takes more than {LARGEST_BYTES} bytes of memory")
            layer = np.zeros(shape_KJI, dtype=plane.dtype)
            layers.append(layer)
        layer[k].reshape(-1)[where] = own
    return layers[0][np.newaxis] if len(layers) == 1 else np.stack(layers)
