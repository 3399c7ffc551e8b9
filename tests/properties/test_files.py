"""Laws of files: what is written is what is read, and a damaged header does no worse than fail."""

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
text_names = st.sampled_from(["volume.nrrd", "volume.mha", "volume.mhd"])
picture_dtypes = {"volume.png": ["u1", "u2"], "volume.tif": ["u1", "u2", "i2", "u4", "i4", "f4"]}


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


@pytest.mark.slow
@settings(deadline=None, max_examples=150)
@given(volume=volumes(), name=text_names)
def test_reading_undoes_writing_of_nrrd_and_metaimage(tmp_path_factory, volume, name):
    path = tmp_path_factory.getbasetemp() / name
    write_volume(volume, path)
    read = read_volume(path, nonfinite="keep", fourth_axis="channels")
    assert read.array_CIJK.dtype == volume.array_CIJK.dtype
    np.testing.assert_array_equal(read.array_CIJK, volume.array_CIJK)
    if name == "volume.nrrd":
        np.testing.assert_array_equal(read.affine, volume.affine)
    else:  # which parts each axis into its length and its direction
        lengths = np.linalg.norm(volume.affine[:3], axis=0)
        assert (np.abs(read.affine - volume.affine)[:3] <= 1e-15 * lengths).all()


@settings(deadline=None, max_examples=60)
@given(data=st.data(), name=st.sampled_from([*picture_dtypes]), size_mm=st.floats(0.01, 100))
def test_reading_undoes_writing_of_pictures(tmp_path_factory, data, name, size_mm):
    dtype = np.dtype(data.draw(st.sampled_from(picture_dtypes[name])))
    channels = data.draw(st.sampled_from([1, 3])) if dtype in ("u1", "u2") else 1
    pages = data.draw(sizes) if name == "volume.tif" and channels == 1 else 1
    shape = (channels, data.draw(sizes), data.draw(sizes), pages)
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    array = np.frombuffer(rng.bytes(int(np.prod(shape)) * dtype.itemsize), dtype).reshape(shape)
    volume = Volume(array, np.diag([-size_mm, -size_mm, 1, 1]))
    path = tmp_path_factory.getbasetemp() / name
    write_volume(volume, path)
    read = read_volume(path, nonfinite="keep", fourth_axis="channels")
    assert read.array_CIJK.dtype == dtype
    np.testing.assert_array_equal(read.array_CIJK, array)
    np.testing.assert_allclose(read.affine, volume.affine, rtol=1e-4)  # PNG has five digits


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("sound") / "sound.nii"
    write_volume(Volume(np.arange(840, dtype=np.int16).reshape(1, 10, 12, 7), np.eye(4)), path)
    return path.read_bytes()


@pytest.mark.slow
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
