"""Damaged DICOM files: what is read is what the damaged files say, or an error of ours; no more.

The judge knows no series: it holds each plane of each file, as its tags say, against the volume.
"""

import resource
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import (
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
    MRImageStorage,
    RLELossless,
)

from medseg3d.errors import MedSegError
from medseg3d.io.dicom.read import read_series
from medseg3d.volume import Volume

from .damage import damage, quiet, victim
from .judge import Hang, limited
from .phantom import (
    CANARY_ID,
    CANARY_NAME,
    LPS,
    OBLIQUE,
    Geometry,
    Placed,
    Stored,
    enhanced,
    mosaic,
    save,
    slices,
)

pytestmark = pytest.mark.slow

SMALL = Geometry(shape=(5, 4, 3))
MEBIBYTES = 300
MUTATIONS = 600
"""Sized for CI; raise it for a long run by hand."""
TWELVE = Stored(16, 12, signed=False)
KINDS: dict[str, Callable[[], tuple[list[Dataset], object]]] = {
    "explicit": lambda: (
        slices(SMALL, stored=TWELVE, slope=2, intercept=-7),
        ExplicitVRLittleEndian,
    ),
    "implicit": lambda: (slices(SMALL, class_uid=MRImageStorage), ImplicitVRLittleEndian),
    "deflated": lambda: (slices(SMALL, class_uid=CTImageStorage), DeflatedExplicitVRLittleEndian),
    "rle": lambda: (slices(SMALL), RLELossless),
    "jpeg-ls": lambda: (slices(SMALL), JPEGLSLossless),
    "enhanced": lambda: (
        [enhanced([Placed(OBLIQUE, k) for k in (2, 0, 1)], shared=["PixelMeasuresSequence"])],
        ExplicitVRLittleEndian,
    ),
    "mosaic": lambda: ([mosaic(replace(OBLIQUE, shape=(5, 4, 3)))], ExplicitVRLittleEndian),
}


@dataclass(frozen=True)
class Seen:
    """A plane as the tags of its file say: three vectors in RAS+ mm, values by column and row."""

    corner: np.ndarray
    along_i: np.ndarray
    along_j: np.ndarray
    values: np.ndarray


def look(data: bytes) -> Iterator[Seen]:
    """Read every plane of a file by pydicom alone; fails where its tags make no sense."""
    dataset = dcmread(BytesIO(data), force=True)
    per_frame = dataset.get("PerFrameFunctionalGroupsSequence")
    stored = np.atleast_3d(pixels_of(dataset)).reshape(-1, dataset.Rows, dataset.Columns)
    if not per_frame and "MOSAIC" in [part.upper() for part in dataset.get("ImageType") or []]:
        yield from look_at_mosaic(dataset, stored[0])
        return
    shared = [*(dataset.get("SharedFunctionalGroupsSequence") or []), Dataset()][0]
    for number, plane in enumerate(stored):
        own = per_frame[number] if per_frame else Dataset()
        layers = [group[0] for item in (own, shared) for group in map(sequence, item) if group]
        yield look_at_plane([*layers, dataset], plane)


def sequence(element: object) -> list[Dataset]:
    return element.value if element.VR == "SQ" else []  # type: ignore[attr-defined]


def said(layers: list[Dataset], keyword: str, default: object = None) -> object:
    """Give the first value there is."""
    values = (layer[keyword].value for layer in layers if keyword in layer)
    return next((value for value in values if value not in (None, "")), default)


def look_at_plane(layers: list[Dataset], plane: np.ndarray) -> Seen:
    cosines = np.array(said(layers, "ImageOrientationPatient"), dtype=float).reshape(2, 3)
    assert np.abs(cosines @ cosines.T - np.eye(2)).max() < 3e-3
    rows_mm, columns_mm = (float(x) for x in said(layers, "PixelSpacing"))
    assert min(rows_mm, columns_mm) > 0
    slope = float(said(layers, "RescaleSlope", 1.0))
    intercept = float(said(layers, "RescaleIntercept", 0.0))
    assert slope
    return Seen(
        np.array(said(layers, "ImagePositionPatient"), dtype=float) * LPS,
        cosines[0] * columns_mm * LPS,
        cosines[1] * rows_mm * LPS,
        plane.T * slope + intercept,
    )


def look_at_mosaic(dataset: Dataset, stored: np.ndarray) -> Iterator[Seen]:
    csa = dataset.private_block(0x0029, "SIEMENS CSA HEADER")[0x10].value
    count = int(csa_numbers(csa, b"NumberOfImagesInMosaic")[0])
    normal = csa_numbers(csa, b"SliceNormalVector")
    side = int(np.ceil(np.sqrt(count)))
    whole = look_at_plane([dataset], stored)
    cross = np.cross(whole.along_i, whole.along_j) / np.linalg.norm(whole.along_i)
    assert abs(abs(normal * LPS @ cross) / np.linalg.norm(whole.along_j) - 1) < 3e-3
    columns, rows = np.array(whole.values.shape) // side
    corner = whole.corner + (whole.along_i * columns + whole.along_j * rows) * (side - 1) / 2
    for n in range(count):
        i, j = n % side * columns, n // side * rows
        step = normal * LPS * float(dataset.SpacingBetweenSlices) * n
        yield replace(
            whole, corner=corner + step, values=whole.values[i : i + columns, j : j + rows]
        )


def csa_numbers(csa: bytes, name: bytes) -> np.ndarray:
    """Find the values of one tag in Siemens' private header."""
    at = csa.index(name + b"\0") + 84
    numbers = []
    for _ in range(struct.unpack_from("<i", csa, at - 20)[0]):
        size = struct.unpack_from("<4i", csa, at)[1]
        numbers.append(float(csa[at + 16 : at + 16 + size].strip(b"\0 ")))
        at += 16 + -(-size // 4) * 4
    return np.array(numbers)


def pixels_of(dataset: Dataset) -> np.ndarray:
    """Decode pixels by the letter of the header."""
    assert dataset.get("SamplesPerPixel", 1) in (1, None)
    assert str(dataset.get("PhotometricInterpretation") or "MONOCHROME2").startswith("MONOCHROME")
    allocated, stored = dataset.BitsAllocated, dataset.get("BitsStored") or dataset.BitsAllocated
    high, signed = dataset.get("HighBit") or stored - 1, dataset.get("PixelRepresentation") or 0
    count = dataset.Rows * dataset.Columns * int(dataset.get("NumberOfFrames") or 1)
    syntax = UID(dataset.file_meta.get("TransferSyntaxUID") or ImplicitVRLittleEndian)
    if not syntax.is_private and syntax.is_encapsulated:
        dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = (
            allocated,
            allocated - 1,
            0,
        )
        bits = dataset.pixel_array.astype("i8")
    else:
        order = "<" if dataset.original_encoding[1] else ">"
        bits = np.frombuffer(
            dataset.PixelData[: count * allocated // 8], f"{order}u{allocated // 8}"
        )
        assert 0 <= len(dataset.PixelData) - count * allocated // 8 <= 1
    assert stored - 1 <= high < allocated
    bits = (bits.astype("i8") >> (high + 1 - stored)) & (2**stored - 1)
    return np.where((signed & 1) & (bits >> (stored - 1)), bits - 2**stored, bits)


def one_series(files: list[bytes]) -> list[bytes]:
    """Leave out files that say they are of another series than most."""
    uids = [dcmread(BytesIO(data), force=True).get("SeriesInstanceUID") for data in files]
    usual = max(uids, key=uids.count)
    return [data for data, uid in zip(files, uids, strict=True) if uid in (usual, None)]


def complaint(volume: Volume, files: list[bytes]) -> str | None:
    """Say in what a volume differs from its files, or None."""
    with quiet():
        try:
            planes = [plane for data in one_series(files) for plane in look(data)]
        except Exception as error:  # noqa: BLE001 # whatever pydicom makes of damage
            return f"was read, but makes no sense: {error!r}"
    if len(planes) != volume.shape_IJK[2]:
        return f"has {volume.shape_IJK[2]} of {len(planes)} slices"
    along_i, along_j, step, first = volume.affine[:3].T
    taken = set()
    for plane in planes:
        k = round(float((plane.corner - first) @ step / (step @ step)))
        taken.add(k)
        off = [plane.corner - first - k * step, plane.along_i - along_i, plane.along_j - along_j]
        if not np.abs(off).max() < 0.06:
            return f"slice {k} lies {np.abs(off).max()} mm elsewhere"
        if not 0 <= k < len(planes) or plane.values.shape != volume.shape_IJK[:2]:
            return f"has no slice {k} of {plane.values.shape}"
        if not np.allclose(volume.array_CIJK[0, :, :, k], plane.values, rtol=1e-6, equal_nan=False):
            return f"slice {k} has other values"
    return None if len(taken) == len(planes) else "holds a slice twice"


def outcome(folder: Path, original: Volume) -> str | None:
    """Read a damaged series; say what is wrong with what comes out, or None."""
    try:
        with limited():
            volume = read_series(folder)
    except MedSegError as error:
        shown = f"{error} {error.__cause__ or ''}"
        return f"tells {shown}" if CANARY_NAME in shown or CANARY_ID in shown else None
    except (Exception, Hang) as error:  # noqa: BLE001 # that is the question
        return f"raises {error!r}"
    if volume.array_CIJK.shape == original.array_CIJK.shape and (
        np.array_equal(volume.array_CIJK, original.array_CIJK)
        and np.allclose(volume.affine, original.affine, atol=1e-6)
    ):
        return None
    return complaint(volume, [path.read_bytes() for path in sorted(folder.iterdir())])


def written(kind: str, folder: Path) -> list[Path]:
    """Write a small series; some files are named like DICOM, some are not."""
    folder.mkdir()
    datasets, syntax = KINDS[kind]()
    paths = [folder / f"{number}{('.dcm', '')[number % 2]}" for number in range(len(datasets))]
    for dataset, path in zip(datasets, paths, strict=True):
        save(dataset, path, syntax=syntax)
    return paths


def fuzz(kind: str, folder: Path, seeds: range) -> dict[int, str]:
    """Damage a series once a seed; give what went wrong, by seed."""
    victims = [victim(path) for path in written(kind, folder)]
    original = read_series(folder)
    wrong = {}
    for seed in seeds:
        hit = damage(victims, seed)
        if what := outcome(folder, original):
            wrong[seed] = what
        for one in hit:
            one.write(one.content)
    return wrong


@pytest.mark.parametrize("kind", KINDS)
def test_damage_gives_what_the_files_say_or_an_error_of_ours(kind, tmp_path):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    wrong = fuzz(kind, tmp_path / "series", range(MUTATIONS))
    assert not wrong, "\n".join(f"{seed}: {what}" for seed, what in [*wrong.items()][:20])
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown < MEBIBYTES, f"memory grew by {grown:.0f} MiB"


@pytest.mark.parametrize("kind", KINDS)
def test_the_judge_finds_the_sound_series_right_and_a_changed_one_wrong(kind, tmp_path):
    files = [path.read_bytes() for path in written(kind, tmp_path / "series")]
    volume = read_series(tmp_path / "series")
    assert complaint(volume, files) is None
    for array, affine in [
        (volume.array_CIJK[:, ::-1], volume.affine),
        (volume.array_CIJK[..., ::-1], volume.affine),
        (volume.array_CIJK[..., :-1], volume.affine),
        (volume.array_CIJK + 1, volume.affine),
        (
            volume.array_CIJK,
            volume.affine + 0.1 * np.eye(4)[:, [3, 0, 1, 2]] * [[1], [1], [1], [0]],
        ),
    ]:
        assert complaint(Volume(array, affine), files)
