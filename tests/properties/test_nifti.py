"""Laws of NIfTI: what is written is what is read, and a damaged header does no worse than fail."""

import gzip

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from medseg3d.errors import FormatError, GridError
from medseg3d.io.files import read_volume, write_volume
from medseg3d.volume import Grid, Volume

DTYPES = ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"]
sizes = st.integers(1, 6)
names = st.sampled_from(["volume.nii", "volume.nii.gz"])


@st.composite
def affines(draw: st.DrawFn) -> np.ndarray:
    """Draw any affine a header can hold: rotated, sheared, mirrored, in float32."""
    numbers = st.floats(-1000, 1000, width=32)
    affine = np.eye(4)
    affine[:3] = np.reshape(draw(st.lists(numbers, min_size=12, max_size=12)), (3, 4))
    try:
        Grid((1, 1, 1), affine)
    except GridError:
        assume(False)
    return affine


@st.composite
def volumes(draw: st.DrawFn) -> Volume:
    """Draw a volume of any dtype with any bytes in it, NaN and infinity too."""
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    shape = (draw(st.integers(1, 3)), draw(sizes), draw(sizes), draw(sizes))
    count = int(np.prod(shape)) * dtype.itemsize
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    array = np.frombuffer(rng.bytes(count), dtype).reshape(shape)
    return Volume(draw(st.sampled_from([array, np.asfortranarray(array)])), draw(affines()))


@settings(deadline=None, max_examples=150)
@given(volume=volumes(), name=names)
def test_reading_undoes_writing(tmp_path_factory, volume, name):
    path = tmp_path_factory.getbasetemp() / name
    write_volume(volume, path)
    read = read_volume(path, nonfinite="keep", fourth_axis="channels")
    assert read.array_CIJK.dtype == volume.array_CIJK.dtype
    np.testing.assert_array_equal(read.array_CIJK, volume.array_CIJK)
    np.testing.assert_array_equal(read.affine, volume.affine)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("sound") / "sound.nii"
    write_volume(Volume(np.arange(840, dtype=np.int16).reshape(1, 10, 12, 7), np.eye(4)), path)
    return path.read_bytes()


@settings(deadline=None, max_examples=1000)
@given(
    changes=st.lists(
        st.tuples(st.integers(0, 351), st.sampled_from([0, 1, 127, 128, 255])), max_size=8
    ),
    name=names,
)
def test_a_changed_header_gives_a_volume_or_a_format_error(sound, tmp_path_factory, changes, name):
    data = bytearray(sound)
    for place, value in changes:
        data[place] = value
    path = tmp_path_factory.getbasetemp() / name
    path.write_bytes(gzip.compress(data, 1) if name.endswith(".gz") else data)
    try:
        volume = read_volume(path, nonfinite="keep", fourth_axis="channels")
    except FormatError as error:
        message = str(error)
        volume = None
    assert message.startswith(f"'{path}'") if volume is None else volume.array_CIJK.size <= 1680
