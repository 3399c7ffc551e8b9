"""Blocks on disk: any box comes back as it went in, and little else is read."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medseg3d.arrays import TripleInt
from medseg3d.data.blocks import EDGE, Blocks, write_blocks

IO = Path("/proc/self/io")
Sizes = st.tuples(*[st.integers(1, 2 * EDGE + 6)] * 3)


def store(array_CIJK: np.ndarray, path: Path) -> Blocks:
    with path.open("wb") as stream:
        write_blocks(stream, array_CIJK)
    return Blocks.map(path, array_CIJK.shape[1:])


@settings(max_examples=40, deadline=None)
@given(
    shape=Sizes,
    channels=st.integers(1, 3),
    start=st.tuples(*[st.integers(-40, 110)] * 3),
    size=Sizes,
    seed=st.integers(0, 99),
)
def test_a_box_is_what_was_there_with_the_outermost_voxels_repeated(
    tmp_path_factory: pytest.TempPathFactory,
    shape: TripleInt,
    channels: int,
    start: TripleInt,
    size: TripleInt,
    seed: int,
):
    array = np.random.default_rng(seed).random((channels, *shape), dtype=np.float32)
    stored = store(array, tmp_path_factory.mktemp("blocks") / "a.npy")
    spans = [
        np.clip(np.arange(a, a + n), 0, length - 1)
        for a, n, length in zip(start, size, shape, strict=True)
    ]
    expected = array[np.ix_(range(channels), *spans)]
    for blocks in (stored, Blocks.of_array(array)):
        box = blocks.read(start, size)
        np.testing.assert_array_equal(box, expected)
        assert box.flags.writeable
        assert not np.shares_memory(box, array)


def test_blocks_are_even_and_hardly_padded(tmp_path: Path):
    for length in (1, 31, 32, 33, 35, 51, 65, 155, 240, 609, 700, 1249):
        blocks = store(np.zeros((1, length, 1, 1), np.uint8), tmp_path / "a.npy")
        count, *_, edge, _, _ = blocks.parts.shape
        assert edge <= EDGE
        assert 0 <= count * edge - length < min(count, edge)


def test_arrays_of_any_dtype_and_memory_order_are_written(tmp_path: Path):
    array = np.arange(2 * 33 * 4 * 65).reshape(2, 33, 4, 65)
    for dtype in (np.uint8, np.uint16, np.float16, np.float32):
        for view in (array, array.transpose(0, 2, 3, 1), array.transpose(0, 3, 1, 2)[:, ::-1]):
            blocks = store(view.astype(dtype, order="K"), tmp_path / "a.npy")
            whole = blocks.read((0, 0, 0), blocks.shape_IJK)
            assert whole.dtype == dtype
            np.testing.assert_array_equal(whole, view.astype(dtype))


def test_voxels_are_mapped_and_cannot_be_changed(tmp_path: Path):
    blocks = store(np.zeros((1, 40, 4, 4), np.float32), tmp_path / "a.npy")
    assert isinstance(blocks.parts.base, np.memmap)
    assert not blocks.parts.flags.writeable


def test_the_bytes_do_not_depend_on_the_memory_order(tmp_path: Path):
    array = np.random.default_rng(0).random((2, 33, 40, 5))
    written = []
    for order in "CF":
        store(np.array(array, order=order), tmp_path / order)
        written.append((tmp_path / order).read_bytes())
    assert written[0] == written[1]


@pytest.mark.skipif(not IO.exists(), reason="needs Linux to count what is read from the disk")
def test_a_box_reads_little_more_than_itself_from_the_disk(tmp_path: Path):
    def bytes_read() -> int:
        facts = dict(line.split(": ") for line in IO.read_text().splitlines())
        return int(facts["read_bytes"])

    path = tmp_path / "a.npy"
    store(np.ones((1, 256, 256, 256), np.float32), path)
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    before = bytes_read()
    Blocks.map(path, (256, 256, 256)).read((64, 96, 128), (64, 64, 64))
    read = bytes_read() - before
    if read == 0:
        pytest.skip("this file system does not count, or keeps files in memory")
    assert read < 1.5 * 64**3 * 4
