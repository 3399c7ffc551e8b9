"""Planes of pixels, and what a header says of each: place, pixels, and what tells volumes apart.

A frame is a classic file, one of the frames of an enhanced one, or one tile of a Siemens mosaic.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from medseg3d.arrays import TripleFloat
from medseg3d.io.dicom.headers import DicomFile

Traits: TypeAlias = Mapping[str, Hashable]


@dataclass(frozen=True, slots=True)
class Plane:
    """Where the pixels of a frame lie, in RAS+ mm: the first one's centre and the two steps."""

    corner_mm: TripleFloat
    along_i_mm: TripleFloat
    along_j_mm: TripleFloat

    @property
    def normal(self) -> TripleFloat:
        """Direction of length 1 that slices are sorted along: that of DICOM's row × column."""
        x, y, z = np.cross(self.along_i_mm, self.along_j_mm)
        length = math.sqrt(x * x + y * y + z * z)
        return float(x / length), float(y / length), float(z / length)


@dataclass(frozen=True, slots=True)
class Pixels:
    """How the pixels of a frame are stored; a value is `stored * slope + intercept`."""

    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool
    real: bool
    """Floating point numbers; the header then says nothing of stored bits."""
    rescaled: bool
    """Whether the header says slope and intercept, which are 1 and 0 else."""
    slope: float
    intercept: float


@dataclass(frozen=True, slots=True)
class Frame:
    """One plane of pixels."""

    file: DicomFile
    number: int
    """Place within the file, from 0."""
    image_uid: str
    class_uid: str
    shape_IJ: tuple[int, int]
    """Columns and rows."""
    corner_IJ: tuple[int, int]
    """First column and row within the file's frame; not 0 in a mosaic."""
    plane: Plane | None
    spacing_mm: float | None
    """What the header says of the distance between slices ..."""
    thickness_mm: float | None
    """... and of their thickness, which may be more or less."""
    pixels: Pixels
    traits: Traits
    """What never differs within one volume."""
    order: Traits
    """What may differ within one volume, and tells volumes apart that lie at one place."""
    fault: str | None
    """Why this is no slice of a volume."""
    doubt: str | None = None
    """Why it is none unless others of the series lie at other places."""

    @property
    def name(self) -> str:
        """Name for messages."""
        many = self.number or any(self.corner_IJ)
        return f"{self.file.name}, frame {self.number + 1}" if many else self.file.name


def lps(vectors_ras: Sequence[float] | np.ndarray) -> np.ndarray:
    """Turn places or directions from RAS to LPS, or back."""
    return np.multiply(vectors_ras, (-1, -1, 1))


def triple(vector: np.ndarray) -> TripleFloat:
    """Give a vector as three numbers."""
    x, y, z = vector.tolist()
    return x, y, z
