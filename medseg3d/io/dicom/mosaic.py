"""Siemens mosaics: one file whose plane of pixels is a whole volume, tile beside tile.

Image Type may say so of files that are none, and not of files that are: what counts is the number
of tiles in Siemens' private header, and where that is missing, whether files lie at one place.
"""

import math
from dataclasses import replace
from typing import Any, Final

import numpy as np
from pydicom import Dataset

from medseg3d.io.dicom.frames import Frame, lps, triple

NORMAL_TOLERANCE: Final = 1e-3
"""How far the direction of the slices may be from length 1, and from their normal (cosine)."""

UNKNOWN: Final = "is a mosaic, or says so, and its private header (CSA) does not tell its tiles"


def cut_mosaic(frame: Frame, header: Dataset) -> list[Frame]:
    """Give the tiles of a mosaic; the frame itself where it is none, faulty or doubtful if need be.

    The header places the whole mosaic as if it were one slice with the centre of the first tile.
    """
    count, normal = _tiles(header)
    if count < 2 or frame.plane is None:
        said = "MOSAIC" in [str(part).upper() for part in header.get("ImageType") or []]
        return [replace(frame, doubt=UNKNOWN if said else None)]
    side = math.ceil(math.sqrt(count))
    columns, rows = frame.shape_IJ
    if normal is None or frame.spacing_mm is None or columns % side or rows % side:
        return [replace(frame, fault=UNKNOWN)]
    length, cosine = np.linalg.norm(normal), abs(lps(normal) @ frame.plane.normal)
    if abs(length - 1) > NORMAL_TOLERANCE or cosine < 1 - NORMAL_TOLERANCE:
        return [replace(frame, fault=UNKNOWN)]
    place, step = frame.plane, lps(normal) * frame.spacing_mm
    i, j = columns // side, rows // side
    along_i, along_j = np.array(place.along_i_mm), np.array(place.along_j_mm)
    corner = place.corner_mm + along_i * (columns - i) / 2 + along_j * (rows - j) / 2
    return [
        replace(
            frame,
            shape_IJ=(i, j),
            corner_IJ=(n % side * i, n // side * j),
            plane=replace(place, corner_mm=triple(corner + n * step)),
        )
        for n in range(count)
    ]


def _tiles(header: Dataset) -> tuple[int, Any]:
    """Give the number of tiles and the direction of the slices in LPS, as far as they are told."""
    from nibabel.nicom import csareader  # noqa: PLC0415 # warns as it is imported

    try:
        said = header.get_private_item(0x0019, 0x0A, "SIEMENS MR HEADER").value
    except KeyError:
        said = ""
    count = int(said) if str(said).strip().isdigit() else 0
    try:
        csa = csareader.get_csa_header(header)
    except Exception:  # noqa: BLE001 # a damaged one matters to mosaics alone
        csa = None
    if csa is None:
        return count, None
    tiles = csareader.get_n_mosaic(csa)
    if count and tiles is not None and tiles != count:
        return count, None  # they contradict each other
    return tiles or count, csareader.get_slice_normal(csa)
