"""What a volume read from the phantom must be, and what a refusal must say."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType

import numpy as np
import pytest

from medseg3d.errors import FormatError, SeriesError
from medseg3d.io.dicom.read import read_series
from medseg3d.io.dicom.series import find_series
from medseg3d.volume import Volume

from .phantom import CANARY_ID, CANARY_NAME, Geometry, value_at

SECONDS = 10


def places_of(volume: Volume) -> np.ndarray:
    """Give the place of every voxel in the world, as its affine says."""
    i, j, k = np.indices(volume.shape_IJK)
    return np.stack([i, j, k], axis=-1) @ volume.affine[:3, :3].T + volume.affine[:3, 3]


def assert_ramp(
    volume: Volume, geometry: Geometry, *, add: float = 0.0, within: float = 0.5, channel: int = 0
) -> None:
    """Check the place and value of every voxel; `within` is half a step of the stored values."""
    assert volume.shape_IJK == geometry.shape
    np.testing.assert_allclose(volume.affine, geometry.ascending.affine(), atol=1e-5)
    values = volume.array_CIJK[channel].astype("f8")
    np.testing.assert_allclose(
        values, value_at(places_of(volume)) + add, atol=within + 1e-3, rtol=0
    )


def several(geometry: Geometry, *, slices: int) -> Geometry:
    """Give a geometry of another number of slices."""
    return replace(geometry, shape=(*geometry.shape[:2], slices))


def volumes_of(folder: Path) -> dict[str, Volume]:
    """Read every volume of the one series of a folder, by name."""
    (series,) = find_series(folder)
    return {stack.name: read_series(folder, volume=stack.name) for stack in series.stacks}


def assert_ramp_or_refused(folder: Path, geometry: Geometry, *words: str) -> None:
    """Read a series that may be refused, with these words, but must not be read wrongly."""
    message = None
    try:
        volume = read_series(folder)
    except FormatError as error:
        message = str(error)
    if message is None:
        assert_ramp(volume, geometry)
    else:
        assert all(word in message for word in words), message


@dataclass
class Refusal:
    """The message of an error."""

    message: str = ""


@contextmanager
def refused(*words: str, kind: type[FormatError] = SeriesError) -> Iterator[Refusal]:
    """Expect an error of which the message holds all these words, and nothing of the patient."""
    refusal = Refusal()
    with pytest.raises(kind) as caught:
        yield refusal
    error: BaseException | None = caught.value
    refusal.message = str(error)
    while error is not None:
        assert CANARY_NAME not in str(error)
        assert CANARY_ID not in str(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    missing = [word for word in words if word.lower() not in refusal.message.lower()]
    assert not missing, f"{missing} not in: {refusal.message}"


class Hang(BaseException):
    """Reading takes too long; no Exception, lest the reader takes it for damage."""


@contextmanager
def limited() -> Iterator[None]:
    """Stop what takes too long."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
