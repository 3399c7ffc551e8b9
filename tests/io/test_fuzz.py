"""Damaged files are read rightly or refused: never another error, a hang, or a flood of memory.

`MUTATIONS` is sized for CI; raise it for a long run by hand.
"""

import gzip
import logging
import resource
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import nibabel
import numpy as np
import pytest
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header

from medseg3d.errors import MedSegError
from medseg3d.io.files import read_volume, write_volume
from medseg3d.volume import Volume

MUTATIONS = 6_000
"""Of NIfTI, and again of NRRD and MetaImage together."""

LONGEST_S = 2.0
MOST_KB = 100_000
NUMBERS = (b"\0", b"\1", b"\x7f\xff", b"\x80\0", b"\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\xc0\x7f")
WORDS = (b"-1", b"0", b"1e999", b"nan", b"99999999999999999999", b"4 4 4", b"%d", b"\n", b"none")
AFFINE = np.array([[-2, 0.1, 0, 9], [0, 1.5, 0.2, -4], [0.1, 0, 3, 1], [0, 0, 0, 1.0]])


def mutated(rng: np.random.Generator, data: bytes, extent: int, words: tuple[bytes, ...]) -> bytes:
    """Damage one to four places, most of them within the first `extent` bytes."""
    out = bytearray(data)
    for _ in range(rng.integers(1, 5)):
        end = extent if rng.random() < 0.8 else len(out)
        at = int(rng.integers(max(1, min(end, len(out)))))
        match rng.integers(5):
            case 0:
                out[at : at + 1] = bytes([rng.integers(256)])
            case 1:
                word = words[rng.integers(len(words))]
                out[at : at + len(word)] = word
            case 2:
                out[at:at] = words[rng.integers(len(words))]
            case 3:
                del out[at : at + int(rng.integers(1, 9))]
            case 4:
                if rng.random() < 0.2:
                    del out[at:]
                else:
                    out[at : at + 1] = bytes(
                        [out[at] ^ (1 << int(rng.integers(8)))] if out else b""
                    )
    return bytes(out)


def read(path: Path) -> Volume | None:
    """Read, or be refused, soon."""
    start = time.perf_counter()
    try:
        return read_volume(path, nonfinite="keep", fourth_axis="channels")
    except MedSegError:
        return None
    finally:
        assert time.perf_counter() - start < LONGEST_S


def peak_kb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def nifti_seeds() -> Iterator[tuple[str, bytes]]:
    """Give files of both versions and byte orders, scaled and not, of three and four axes."""
    rng = np.random.default_rng(1)
    for kind, order, dtype, shape, slope in [
        (Nifti1Header, "<", "i2", (5, 6, 7), 1),
        (Nifti1Header, ">", "u1", (5, 6, 7), 2.5),
        (Nifti1Header, "<", "f4", (3, 4, 5, 2), 1),
        (Nifti2Header, "<", "u2", (5, 6, 7), 1),
        (Nifti2Header, ">", "f8", (4, 3, 2), -0.5),
    ]:
        header = kind(endianness=order)
        header.set_data_dtype(dtype)
        header.set_data_shape(shape)
        header.set_sform(AFFINE, code=1)
        header.set_qform(AFFINE, code=1, strip_shears=True)
        header["scl_slope"], header["vox_offset"] = slope, header.single_vox_offset
        array = rng.integers(0, 100, shape).astype(np.dtype(dtype).newbyteorder(order))
        head = header.binaryblock.ljust(header.single_vox_offset, b"\0")
        yield order, head + array.tobytes(order="F")


def agrees_with_nibabel(volume: Volume, path: Path) -> bool | None:
    """Compare with another reading of the same file; None where nibabel refuses it."""
    try:
        with np.errstate(all="ignore"):
            image = nibabel.load(path)
            stored = np.asanyarray(image.dataobj)
    except Exception:  # noqa: BLE001 # nibabel's own, of many kinds
        return None
    if image.dataobj.offset == 0:
        return None  # nibabel takes the header of such a file for voxels
    shape, given = image.shape + (1,) * (4 - len(image.shape)), volume.array_CIJK
    channels = int(np.prod(shape[3:]))
    expected = np.moveaxis(stored.reshape(*shape[:3], channels, order="F"), -1, 0)
    exact = given.dtype.kind == "f"
    return given.shape == expected.shape and np.array_equal(
        given, expected.astype(given.dtype), equal_nan=exact
    )


@pytest.fixture(autouse=True)
def _silent() -> Iterator[None]:
    """Let no line be logged: there would be thousands."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_mutated_nifti_is_read_as_nibabel_does_or_refused(tmp_path: Path, suffix: str) -> None:
    rng = np.random.default_rng(0)
    seeds = [data for _, data in nifti_seeds()]
    path = tmp_path / f"mutated{suffix}"
    before, outcomes = peak_kb(), Counter[str]()
    for number in range(MUTATIONS // 2):
        data = mutated(rng, seeds[number % len(seeds)], 360, NUMBERS)
        if suffix == ".nii.gz":
            data = gzip.compress(data, 1)
            if number % 3 == 0:
                data = mutated(rng, data, len(data), NUMBERS)
        path.write_bytes(data)
        volume = read(path)
        agrees = None if volume is None else agrees_with_nibabel(volume, path)
        assert agrees is not False, f"mutation {number}"
        outcomes["refused" if volume is None else "agrees" if agrees else "unjudged"] += 1
    assert peak_kb() - before < MOST_KB
    assert min(outcomes["refused"], outcomes["agrees"]) > MUTATIONS / 20, outcomes
    assert outcomes["unjudged"] < MUTATIONS / 20, outcomes


TEXT_SEEDS = [
    (suffix, np.random.default_rng(2).integers(0, 4, shape).astype(dtype))
    for suffix, dtype, shape in [
        (".nrrd", "i2", (1, 9, 8, 7)),
        (".mha", "u1", (1, 9, 8, 17)),
        (".nrrd", "f4", (3, 4, 5, 6)),
        (".mha", "f8", (2, 4, 5, 6)),
    ]
]
"""Packed, they are so much smaller that no damage makes them pass for voxels that are not."""


def byte_orders(array: np.ndarray) -> set[bytes]:
    """Give the bytes of an array, and those it has where other sizes or orders are believed."""
    whole = array.tobytes()
    swapped = [np.frombuffer(whole, f"V{n}") for n in (2, 4, 8) if len(whole) % n == 0]
    turned = [np.frombuffer(x.tobytes(), f"u{x.itemsize}").byteswap().tobytes() for x in swapped]
    return {whole, *turned}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_mutated_text_headers_give_the_bytes_that_the_checksum_guards(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    files = []
    for suffix, array in TEXT_SEEDS:
        path = tmp_path / f"mutated{suffix}"
        write_volume(Volume(array, AFFINE), path)
        stored = read_volume(path, fourth_axis="channels").array_CIJK
        channels_first = suffix == ".mha"
        as_stored = stored.transpose(3, 2, 1, 0) if channels_first else stored.transpose(0, 3, 2, 1)
        files.append((path, path.read_bytes(), byte_orders(as_stored)))
    before, outcomes = peak_kb(), Counter[str]()
    for number in range(MUTATIONS):
        path, data, wanted = files[number % len(files)]
        path.write_bytes(mutated(rng, data, len(data) // 2, WORDS))
        volume = read(path)
        outcomes["refused" if volume is None else "read"] += 1
        assert volume is None or file_bytes(volume.array_CIJK) & wanted, f"mutation {number}"
    assert peak_kb() - before < MOST_KB
    assert min(outcomes.values()) > MUTATIONS / 20, outcomes


def file_bytes(array_CIJK: np.ndarray) -> set[bytes]:
    """Give the bytes of an array whose channels were stored first, or last."""
    first, last = array_CIJK.transpose(3, 2, 1, 0), array_CIJK.transpose(0, 3, 2, 1)
    return byte_orders(np.ascontiguousarray(first)) | byte_orders(np.ascontiguousarray(last))
