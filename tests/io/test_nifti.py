"""Reading NIfTI: nibabel is the judge of what is right, and every fault gets its own message."""

import gzip
import logging
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from nibabel.analyze import AnalyzeImage
from nibabel.nifti1 import Nifti1Extension, Nifti1Header, Nifti1Image, Nifti1Pair
from nibabel.nifti2 import Nifti2Header, Nifti2Image, Nifti2Pair

from medseg3d.errors import FormatError
from medseg3d.io.files import read_volume
from medseg3d.io.nifti import read_nifti

OBLIQUE = np.array(
    [[-0.9, 0.1, 0.3, 12.5], [0.2, -1.1, 0.4, -30.25], [0.1, 0.5, 2.0, 7.0], [0, 0, 0, 1]]
)
CANARY = b"DOE^JANE"


def nifti_bytes(
    array: np.ndarray, kind: type[Nifti1Header] = Nifti1Header, order: str = "<", **fields: object
) -> bytes:
    """Build a file byte by byte, so that any header field may lie."""
    header = kind(endianness=order)
    header.set_data_dtype(array.dtype)
    header.set_data_shape(array.shape)
    header.set_sform(np.eye(4), code=1)
    header["vox_offset"] = header.single_vox_offset
    header["descrip"] = CANARY
    for name, value in fields.items():
        header[name] = value
    head = header.binaryblock.ljust(header.single_vox_offset, b"\0")
    return head + array.astype(array.dtype.newbyteorder(order)).tobytes(order="F")


def ramp(*shape: int, dtype: str = "i2") -> np.ndarray:
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


@pytest.fixture
def place(tmp_path: Path) -> Callable[..., Path]:
    def write(data: bytes, name: str = "image.nii") -> Path:
        path = tmp_path / name
        path.write_bytes(gzip.compress(data, 1) if name.endswith(".gz") else data)
        return path

    return write


@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"])
@pytest.mark.parametrize("kind", [Nifti1Header, Nifti2Header])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("name", ["image.nii", "image.nii.gz"])
def test_every_dtype_is_kept_in_native_byte_order(place, dtype, kind, order, name):
    array = ramp(3, 4, 5, dtype=dtype)
    volume = read_nifti(place(nifti_bytes(array, kind, order), name))
    assert volume.array_CIJK.dtype == np.dtype(dtype)
    assert volume.array_CIJK.dtype.isnative
    np.testing.assert_array_equal(volume.array_CIJK, array[np.newaxis])


def test_voxels_and_affine_of_real_images_are_nibabels(brats, hippocampus):
    paths = [*hippocampus.glob("*sTr/*0.nii.gz"), *brats.glob("*0001*/*.nii.gz")]
    assert len(paths) > 20
    for path in paths:
        image, volume = nibabel.load(path), read_nifti(path)
        np.testing.assert_array_equal(volume.affine, image.affine)
        stored = np.asarray(image.dataobj)
        np.testing.assert_array_equal(volume.array_CIJK[0], stored.astype(np.float32))
        if image.dataobj.slope == 1:
            assert volume.array_CIJK.dtype == image.get_data_dtype()


@pytest.mark.parametrize(("slope", "inter"), [(0, 7), (np.nan, 7), (1, 0), (np.inf, 0)])
def test_values_without_a_scale_stay_as_stored(place, slope, inter):
    array = ramp(2, 3, 4)
    volume = read_nifti(place(nifti_bytes(array, scl_slope=slope, scl_inter=inter)))
    assert volume.array_CIJK.dtype == np.int16
    np.testing.assert_array_equal(volume.array_CIJK[0], array)


@pytest.mark.parametrize(
    ("dtype", "given"), [("i4", "f4"), ("i2", "f4"), ("f4", "f4"), ("f8", "f8")]
)
def test_scaling_happens_in_float64(place, dtype, given):
    array = (ramp(4, 5, 6, dtype="f8") * 271).astype(dtype)
    slope, inter = np.float32(1.1), np.float32(-29000.3)
    volume = read_nifti(place(nifti_bytes(array, scl_slope=slope, scl_inter=inter)))
    exact = array.astype(np.float64) * np.float64(slope) + np.float64(inter)
    assert volume.array_CIJK.dtype == np.dtype(given)
    np.testing.assert_array_equal(volume.array_CIJK[0], exact.astype(given))


def test_scaling_beyond_float32_gives_infinity_without_a_warning(place):
    path = place(nifti_bytes(ramp(2, 2, 2, dtype="f4"), scl_slope=3e38))
    assert np.isinf(read_nifti(path).array_CIJK).sum() == 6


def test_sform_goes_before_qform_with_one_warning(tmp_path, caplog):
    image = Nifti1Image(ramp(3, 4, 5), OBLIQUE)
    image.set_sform(OBLIQUE, code=2)
    image.set_qform(np.diag([1, 1, 3, 1]), code=1)
    image.to_filename(tmp_path / "both.nii")
    volume = read_nifti(tmp_path / "both.nii")
    np.testing.assert_allclose(volume.affine, OBLIQUE, rtol=1e-6)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "both.nii" in record.message
    assert "sform and a qform that disagree (orientation" in record.message


def test_qform_counts_where_the_sform_has_no_code(tmp_path, caplog):
    image = Nifti1Image(ramp(3, 4, 5), None)
    image.set_qform(OBLIQUE, code=1)
    image.to_filename(tmp_path / "qform.nii")
    read = read_nifti(tmp_path / "qform.nii")
    np.testing.assert_array_equal(read.affine, nibabel.load(tmp_path / "qform.nii").affine)
    assert not caplog.records


def test_a_qform_that_does_not_say_its_hand_is_right_handed(place):
    said = {"sform_code": 0, "qform_code": 1, "quatern_b": 0.6}
    for first in (0, 1):
        pixdim = [first, 2, 3, 4, 1, 1, 1, 1]
        path = place(nifti_bytes(ramp(2, 2, 2), **said, pixdim=pixdim), f"{first}.nii")
        np.testing.assert_array_equal(
            read_nifti(path).affine, read_nifti(path.with_name("0.nii")).affine
        )
        assert read_nifti(path).affine[2, 2] > 0


def test_a_damaged_qform_beside_a_good_sform_is_a_warning(place, caplog):
    path = place(nifti_bytes(ramp(2, 2, 2), qform_code=1, quatern_b=5.0))
    np.testing.assert_array_equal(read_nifti(path).affine, np.eye(4))
    assert "the qform is damaged" in caplog.text


def test_spacing_alone_is_placed_as_nibabel_does_with_one_warning(place, caplog):
    pixdim = np.array([1, 2, 3, 4, 1, 1, 1, 1])
    path = place(nifti_bytes(ramp(3, 4, 5), sform_code=0, pixdim=pixdim))
    volume = read_nifti(path)
    np.testing.assert_array_equal(volume.affine, nibabel.load(path).affine)
    assert volume.spacing_mm == (2, 3, 4)
    assert "sides may be swapped" in caplog.text
    assert len(caplog.records) == 1


@pytest.mark.parametrize(("code", "mm"), [(1, 1000), (3, 0.001)])
def test_other_units_become_millimetres_with_one_warning(place, caplog, code, mm):
    volume = read_nifti(place(nifti_bytes(ramp(3, 4, 5), xyzt_units=code | 8)))
    np.testing.assert_allclose(volume.spacing_mm, mm)
    assert len(caplog.records) == 1
    assert f"units of {mm} mm" in caplog.text


@pytest.mark.parametrize(
    ("stored", "read"),
    [
        ((6,), (1, 6, 1, 1)),
        ((3, 2), (1, 3, 2, 1)),
        ((3, 2, 4, 1), (1, 3, 2, 4)),
        ((3, 2, 4, 1, 1), (1, 3, 2, 4)),
        ((3, 2, 4, 5), (5, 3, 2, 4)),
        ((3, 2, 4, 1, 5), (5, 3, 2, 4)),
    ],
)
def test_axes_of_length_one_do_not_count(place, stored, read):
    array = ramp(*stored)
    volume = read_nifti(place(nifti_bytes(array)))
    assert volume.array_CIJK.shape == read
    expected = np.moveaxis(array.reshape((*read[1:], read[0]), order="F"), -1, 0)
    np.testing.assert_array_equal(volume.array_CIJK, expected)


def test_an_extension_before_the_voxels_is_stepped_over(tmp_path):
    image = Nifti1Image(ramp(3, 4, 5), np.eye(4))
    image.header.extensions.append(Nifti1Extension("comment", CANARY * 50))
    image.to_filename(tmp_path / "extended.nii.gz")
    np.testing.assert_array_equal(
        read_nifti(tmp_path / "extended.nii.gz").array_CIJK[0], ramp(3, 4, 5)
    )


def test_gzip_members_one_after_the_other_are_one_file(tmp_path):
    data = nifti_bytes(ramp(3, 4, 5))
    path = tmp_path / "members.nii.gz"
    path.write_bytes(gzip.compress(data[:100]) + gzip.compress(data[100:]))
    np.testing.assert_array_equal(read_nifti(path).array_CIJK[0], ramp(3, 4, 5))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"magic": b"ni1"}, "is no NIfTI file"),
        ({"dim": [0, 3, 4, 5, 1, 1, 1, 1]}, "speaks of 0 axes"),
        ({"dim": [8, 3, 4, 5, 1, 1, 1, 1]}, "speaks of 8 axes"),
        ({"dim": [3, 3, -4, 5, 1, 1, 1, 1]}, "[3, -4, 5"),
        ({"dim": [3, 3, 0, 5, 1, 1, 1, 1]}, "at least one"),
        ({"dim": [5, 3, 2, 1, 5, 2, 1, 1]}, "has 5 axes, 3×2×1×5×2; expected three"),
        ({"dim": [3, 3, 4, 6, 1, 1, 1, 1]}, "promises 144 bytes of voxels and holds 120"),
        ({"dim": [3, 3, 4, 4, 1, 1, 1, 1]}, "promises 96 bytes of voxels and holds more"),
        ({"dim": [3, 30000, 30000, 5, 1, 1, 1, 1]}, "promises 30000×30000×5×1 voxels of int16"),
        ({"datatype": 128}, "NIfTI's type 128; expected real numbers"),
        ({"datatype": 2304}, "Convert colours and complex numbers first"),
        ({"datatype": 32}, "NIfTI's type 32"),
        ({"datatype": 1}, "NIfTI's type 1"),
        ({"datatype": -5}, "NIfTI's type -5"),
        ({"vox_offset": 348}, "voxels start at byte 348"),
        ({"vox_offset": 352.5}, "voxels start at byte 352.5"),
        ({"vox_offset": np.nan}, "voxels start at byte nan"),
        ({"vox_offset": 1e30}, "voxels start at byte 1e+30"),
        ({"srow_x": [np.nan, 0, 0, 0]}, "an affine is finite"),
        ({"srow_x": [0, 0, 0, 0]}, "the affine is singular"),
        ({"sform_code": 0, "qform_code": 1, "quatern_b": 5.0}, "the qform in its header gives"),
        (
            {"sform_code": 0, "qform_code": 1, "pixdim": [1, -1, 1, 1, 1, 1, 1, 1]},
            "pixdims[1,2,3] should be positive",
        ),
        ({"scl_slope": 2, "scl_inter": np.nan}, "its header adds nan to every voxel"),
    ],
)
@pytest.mark.parametrize("name", ["image.nii", "image.nii.gz"])
def test_a_header_that_lies_is_refused_by_name(place, caplog, fields, said, name):
    path = place(nifti_bytes(ramp(3, 4, 5), **fields), name)
    with pytest.raises(FormatError) as error:
        read_nifti(path)
    assert said in str(error.value)
    assert str(error.value).startswith(f"'{path}'")
    assert CANARY.decode() not in str(error.value) + caplog.text


@pytest.mark.parametrize(
    "data", [b"", b"hello", b"Dear colleague, please find enclosed " * 20, b"\0" * 1000]
)
def test_what_is_no_nifti_is_refused(tmp_path, data):
    for name in ("note.nii", "note.nii.gz"):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(FormatError, match=r"is no NIfTI file|is not a sound gzip file"):
            read_nifti(tmp_path / name)


def test_a_plain_file_named_gz_is_told_its_right_name(tmp_path):
    path = tmp_path / "plain.nii.gz"
    path.write_bytes(nifti_bytes(ramp(3, 4, 5)))
    with pytest.raises(FormatError, match=r"A file that is not compressed is not named '\.gz'"):
        read_nifti(path)


def test_a_truncated_file_is_refused_wherever_it_ends(tmp_path, hippocampus):
    whole = next(iter(sorted((hippocampus / "labelsTr").glob("*.nii.gz")))).read_bytes()
    path = tmp_path / "cut.nii.gz"
    for end in {*range(0, len(whole), 47), *range(len(whole) - 20, len(whole))}:
        path.write_bytes(whole[:end])
        with pytest.raises(FormatError, match=r"is not a sound gzip file|is no NIfTI file"):
            read_nifti(path)
    plain = gzip.decompress(whole)
    path = tmp_path / "cut.nii"
    for end in range(0, len(plain), 1009):
        path.write_bytes(plain[:end])
        with pytest.raises(FormatError, match=r"promises|is no NIfTI file"):
            read_nifti(path)


@pytest.mark.parametrize("from_end", [8, 5, 4, 1])
def test_a_wrong_checksum_or_length_is_refused(tmp_path, from_end):
    data = bytearray(gzip.compress(nifti_bytes(ramp(3, 4, 5))))
    data[-from_end] ^= 1
    path = tmp_path / "flipped.nii.gz"
    path.write_bytes(data)
    with pytest.raises(FormatError, match="is not a sound gzip file"):
        read_nifti(path)


@pytest.mark.parametrize("place", [10, 1000, -1000])
def test_a_damaged_stream_is_refused(tmp_path, hippocampus, place):
    data = bytearray(next((hippocampus / "imagesTr").glob("*.nii.gz")).read_bytes())
    data[place] ^= 0xFF
    path = tmp_path / "damaged.nii.gz"
    path.write_bytes(data)
    with pytest.raises(FormatError, match="is not a sound gzip file"):
        read_nifti(path)


def test_missing_folder_and_unreadable_names_are_format_errors(tmp_path):
    with pytest.raises(FormatError, match="no such file"):
        read_nifti(tmp_path / "missing.nii.gz")
    with pytest.raises(FormatError, match="cannot be read: Is a directory"):
        read_nifti(tmp_path)
    with pytest.raises(FormatError, match="cannot be read: File name too long"):
        read_nifti(tmp_path / ("x" * 300 + ".nii"))


@pytest.mark.parametrize("name", ["huge.nii", "huge.nii.gz"])
def test_absurd_dimensions_take_no_memory(place, name):
    size = (4, 2**40, 2**40, 2**40, 2**40, 1, 1, 1)
    huge = place(nifti_bytes(ramp(3, 4, 5), Nifti2Header, dim=size), name)
    large = place(nifti_bytes(ramp(3, 4, 5), dim=[3, 300, 300, 300, 1, 1, 1, 1]), f"large{name}")
    tracemalloc.start()
    for path in (huge, large):
        with pytest.raises(FormatError, match="a file of its size holds at most"):
            read_nifti(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3e6


def test_more_than_the_budget_is_refused_even_where_the_file_holds_it(place):
    dim = [3, 32000, 32000, 20, 1, 1, 1, 1]
    path = place(nifti_bytes(ramp(1, 1, 1), dim=dim))
    os.truncate(path, 32000 * 32000 * 20 * 2 + 352)
    with pytest.raises(FormatError, match="medseg3d reads at most 17179869184"):
        read_nifti(path)


def test_a_volume_larger_than_memory_is_a_format_error(place):
    path = place(nifti_bytes(ramp(1, 1, 1), dim=[3, 20000, 20000, 10, 1, 1, 1, 1]))
    os.truncate(path, 20000 * 20000 * 10 * 2 + 352)
    program = (
        "import resource, sys; from pathlib import Path; from medseg3d.io.nifti import read_nifti\n"
        "resource.setrlimit(resource.RLIMIT_AS, (2**32, 2**32))\n"
        "try: read_nifti(Path(sys.argv[1]))\n"
        "except ValueError as error: sys.exit(str(error))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, path], capture_output=True, text=True, check=False,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert "does not fit into this machine's memory" in done.stderr


def test_big_endian_nifti_2_of_nibabel_is_read(tmp_path):
    header = Nifti2Header(endianness=">")
    header.set_data_dtype(">i4")
    image = Nifti2Image(ramp(3, 4, 5, dtype=">i4"), OBLIQUE, header)
    image.to_filename(tmp_path / "big.nii.gz")
    volume = read_nifti(tmp_path / "big.nii.gz")
    np.testing.assert_array_equal(volume.affine, OBLIQUE)
    np.testing.assert_array_equal(volume.array_CIJK[0], ramp(3, 4, 5))


@pytest.mark.parametrize("named", ["scan.hdr", "scan.img"])
@pytest.mark.parametrize("packed", ["", ".gz"])
@pytest.mark.parametrize("kind", [Nifti1Pair, Nifti2Pair])
def test_a_pair_is_read_whichever_file_is_named(tmp_path, named, packed, kind):
    image = kind(ramp(3, 4, 5), OBLIQUE)
    image.to_filename(tmp_path / f"scan.img{packed}")
    volume = read_volume(tmp_path / f"{named}{packed}")
    np.testing.assert_array_equal(volume.array_CIJK[0], ramp(3, 4, 5))
    np.testing.assert_array_equal(
        volume.affine, nibabel.load(tmp_path / f"scan.img{packed}").affine
    )


def test_one_file_of_a_pair_may_be_packed_alone(tmp_path):
    Nifti1Pair(ramp(3, 4, 5), OBLIQUE).to_filename(tmp_path / "scan.img")
    (tmp_path / "scan.img.gz").write_bytes(gzip.compress((tmp_path / "scan.img").read_bytes()))
    (tmp_path / "scan.img").unlink()
    for named in ("scan.hdr", "scan.img.gz"):
        np.testing.assert_array_equal(read_nifti(tmp_path / named).array_CIJK[0], ramp(3, 4, 5))


def test_half_a_pair_is_refused(tmp_path):
    Nifti1Pair(ramp(3, 4, 5), OBLIQUE).to_filename(tmp_path / "scan.img")
    whole = (tmp_path / "scan.img").read_bytes()
    (tmp_path / "scan.img").write_bytes(whole[:-1])
    with pytest.raises(
        FormatError, match=r"scan\.img' promises 3×4×5×1 voxels of int16, 120 bytes; a file"
    ):
        read_nifti(tmp_path / "scan.hdr")
    (tmp_path / "scan.img").unlink()
    said = r"neither 'scan\.img' nor 'scan\.img\.gz' lies beside it\. Copy both files"
    with pytest.raises(FormatError, match=said):
        read_nifti(tmp_path / "scan.hdr")


def test_analyze_is_refused_because_it_has_no_sides(tmp_path):
    AnalyzeImage(ramp(3, 4, 5), np.eye(4)).to_filename(tmp_path / "old.img")
    with pytest.raises(FormatError, match=r"old\.hdr' is a header of ANALYZE 7\.5, which does not"):
        read_nifti(tmp_path / "old.img")


@pytest.mark.parametrize(("name", "mark"), [("a.hdr", b"n+1"), ("a.nii", b"ni1")])
def test_the_mark_of_the_other_kind_is_refused(tmp_path, name, mark):
    (tmp_path / "a.img").touch()
    (tmp_path / name).write_bytes(nifti_bytes(ramp(3, 4, 5), magic=mark))
    with pytest.raises(FormatError, match=r"is no NIfTI file: .* its mark 'n"):
        read_nifti(tmp_path / name)
