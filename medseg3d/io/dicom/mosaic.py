"""Siemens mosaics: one file whose plane of pixels is a whole volume, tile beside tile."""

import math
from dataclasses import replace
from typing import Final

import numpy as np
from pydicom import Dataset

from medseg3d.io.dicom.frames import Frame, triple

NORMAL_TOLERANCE: Final = 1e-3
"""How far the direction of the slices may be from length 1, and from their normal (cosine)."""

UNKNOWN: Final = "is a mosaic whose private header (CSA) does not say how its tiles lie"


def is_mosaic(header: Dataset) -> bool:
    """Tell a mosaic; enhanced files may say so too, without being one."""
    classic = not header.get("PerFrameFunctionalGroupsSequence")
    return classic and "MOSAIC" in [str(part).upper() for part in header.get("ImageType") or []]


def cut_mosaic(frame: Frame, header: Dataset) -> list[Frame]:
    """Give the tiles of a mosaic, by Siemens' private header; a faulty frame where it is missing.

    The header places the whole mosaic as if it were one slice with the centre of the first tile.
    """
    from nibabel.nicom import csareader  # noqa: PLC0415 # warns as it is imported

    csa = csareader.get_csa_header(header)
    count = 0 if csa is None else csareader.get_n_mosaic(csa) or 0
    normal = None if csa is None else csareader.get_slice_normal(csa)
    place = frame.plane
    spacing_mm = float(header.get("SpacingBetweenSlices") or 0)
    side = math.ceil(math.sqrt(count))
    columns, rows = frame.shape_IJ
    if place is None:
        return [frame]
    if normal is None or side < 2 or not spacing_mm > 0 or columns % side or rows % side:
        return [replace(frame, fault=UNKNOWN)]
    step = np.array(normal) * (-1, -1, 1)
    if (
        abs(np.linalg.norm(step) - 1) > NORMAL_TOLERANCE
        or abs(step @ place.normal) < 1 - NORMAL_TOLERANCE
    ):
        return [replace(frame, fault=UNKNOWN)]
    i, j = columns // side, rows // side
    along_i, along_j = np.array(place.along_i_mm), np.array(place.along_j_mm)
    corner = place.corner_mm + along_i * (columns - i) / 2 + along_j * (rows - j) / 2
    return [
        replace(
            frame,
            shape_IJ=(i, j),
            corner_IJ=(n % side * i, n // side * j),
            plane=replace(place, corner_mm=triple(corner + n * spacing_mm * step)),
        )
        for n in range(count)
    ]
