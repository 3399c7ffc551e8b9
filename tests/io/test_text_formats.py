"""NRRD and MetaImage: SimpleITK is the judge of what is right, not of what is sound."""

import logging
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from medseg3d.errors import ConfigError, FormatError
from medseg3d.io.files import read_volume, write_volume
from medseg3d.volume import Volume

DTYPES = ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"]
OBLIQUE = np.array(
    [[-0.96, 0.28, 0, 12.5], [0.28, 0.96, 0, -30.25], [0, 0, 2.5, 7], [0, 0, 0, 1]]
) @ np.diag([1.5, 2, 1, 1])
SHEARED = np.array([[1, 0, 0.25, 0], [0, 1, 0.5, 0], [0, 0, 3, 0], [0, 0, 0, 1.0]])
CANARY = "DOE^JANE"

NRRD = {
    "type": "short", "dimension": "3", "space": "left-posterior-superior", "sizes": "3 4 5",
    "space directions": "(1,0,0) (0,2,0) (0,0,3)", "endian": "little", "encoding": "raw",
    "space origin": "(10,20,30)",
}  # fmt: skip
META = {
    "ObjectType": "Image", "NDims": "3", "BinaryData": "True", "BinaryDataByteOrderMSB": "False",
    "TransformMatrix": "1 0 0 0 1 0 0 0 1", "Offset": "10 20 30", "ElementSpacing": "1 2 3",
    "DimSize": "3 4 5", "ElementType": "MET_SHORT", "ElementDataFile": "LOCAL",
}  # fmt: skip
SPACED = {"space directions": None, "spacings": "1 2 3"}
VOXELS = np.arange(60, dtype="<i2").tobytes()
PLACED = np.array([[-1, 0, 0, -10], [0, -2, 0, -20], [0, 0, 3, 30], [0, 0, 0, 1.0]])


def nrrd_bytes(data: bytes = VOXELS, **fields: str | None) -> bytes:
    """Build a file in which any field may lie, or be left out by None."""
    named = NRRD | {name.replace("_", " "): value for name, value in fields.items()}
    lines = [f"{name}: {value}\n" for name, value in named.items() if value is not None]
    return f"NRRD0005\n# {CANARY}\n{''.join(lines)}name:={CANARY}\n\n".encode() + data


def meta_bytes(data: bytes = VOXELS, **fields: str | None) -> bytes:
    """Build a file in which any field may lie, or be left out by None; the last stays last."""
    named = {"Comment": CANARY} | META | fields
    named["ElementDataFile"] = named.pop("ElementDataFile")
    lines = [f"{name} = {value}\n" for name, value in named.items() if value is not None]
    return "".join(lines).encode() + data


@pytest.fixture
def place(tmp_path: Path) -> Callable[[bytes, str], Path]:
    def write(data: bytes, name: str) -> Path:
        (tmp_path / name).write_bytes(data)
        return tmp_path / name

    return write


def affine_of(image: SimpleITK.Image) -> np.ndarray:
    """Give what ITK says about a place, in RAS+."""
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return np.diag([-1, -1, 1, 1]) @ affine


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("suffix", [".nrrd", ".nhdr", ".mha", ".mhd"])
@pytest.mark.parametrize("packed", [False, True])
def test_what_simpleitk_writes_is_read_alike(tmp_path, dtype, suffix, packed):
    array_KJI = np.random.default_rng(0).integers(0, 100, (5, 4, 3)).astype(dtype)
    image = SimpleITK.GetImageFromArray(array_KJI)
    image.SetSpacing((0.5, 1.25, 3))
    image.SetOrigin((1, -20, 3.5))
    image.SetDirection((0.6, -0.8, 0, 0, 0, 1, -0.8, -0.6, 0))
    SimpleITK.WriteImage(image, tmp_path / f"a{suffix}", useCompression=packed)
    volume = read_volume(tmp_path / f"a{suffix}")
    assert volume.array_CIJK.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(volume.array_CIJK[0], array_KJI.T)
    np.testing.assert_allclose(volume.affine, affine_of(image), atol=1e-12)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("suffix", [".nrrd", ".mha", ".mhd"])
@pytest.mark.parametrize("affine", [OBLIQUE, SHEARED])
def test_simpleitk_reads_what_is_written_alike(tmp_path, dtype, suffix, affine):
    array = np.arange(60).reshape(1, 3, 4, 5).astype(dtype)
    write_volume(Volume(array, affine), tmp_path / f"a{suffix}")
    image = SimpleITK.ReadImage(tmp_path / f"a{suffix}")
    read_KJI = SimpleITK.GetArrayFromImage(image)
    assert read_KJI.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(read_KJI, array[0].T)
    np.testing.assert_allclose(affine_of(image), affine, atol=1e-12)


@pytest.mark.parametrize("suffix", [".nrrd", ".nhdr", ".mha", ".mhd"])
@pytest.mark.parametrize("elements", [True, False])
def test_elements_and_a_fourth_axis_are_channels_where_asked_for(tmp_path, suffix, elements):
    array = np.random.default_rng(0).integers(0, 100, (5, 4, 3, 2)).astype("i2")
    image = SimpleITK.GetImageFromArray(array, isVector=elements)
    SimpleITK.WriteImage(image, tmp_path / f"a{suffix}")
    with pytest.raises(FormatError, match=r"has four axes, . volumes of \(., ., .\) voxels; expec"):
        read_volume(tmp_path / f"a{suffix}")
    read = read_volume(tmp_path / f"a{suffix}", fourth_axis="channels").array_CIJK
    np.testing.assert_array_equal(read, array.transpose((3, 2, 1, 0) if elements else (0, 3, 2, 1)))


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_a_flat_image_has_one_plane_of_1_mm(tmp_path, suffix):
    image = SimpleITK.GetImageFromArray(np.arange(12, dtype="u1").reshape(4, 3))
    image.SetSpacing((2, 3))
    SimpleITK.WriteImage(image, tmp_path / f"flat{suffix}")
    volume = read_volume(tmp_path / f"flat{suffix}")
    assert volume.shape_IJK == (3, 4, 1)
    np.testing.assert_array_equal(volume.affine, np.diag([-2, -3, 1, 1]))


def test_the_mask_of_a_hospital_is_read_as_simpleitk_does(shared_data):
    path = shared_data / "dicom/ct_liver_with_seg/seg/liver_seg.nrrd"
    image, volume = SimpleITK.ReadImage(path), read_volume(path)
    np.testing.assert_array_equal(volume.array_CIJK[0], SimpleITK.GetArrayFromImage(image).T)
    np.testing.assert_allclose(volume.affine, affine_of(image), atol=1e-9)


@pytest.mark.parametrize(
    ("fields", "affine"),
    [
        ({}, PLACED),
        ({"space": "LPS"}, PLACED),
        ({"space": "right-anterior-superior"}, np.diag([-1, -1, 1, 1]) @ PLACED),
        ({"space": "LAS"}, np.diag([1, -1, 1, 1]) @ PLACED),
        ({"space units": '"mm" "mm" "mm"'}, PLACED),
        ({"byte skip": "-1"}, PLACED),
        ({"kinds": "domain domain domain"}, PLACED),
    ],
)
def test_an_nrrd_lies_where_its_space_says(place, caplog, fields, affine):
    volume = read_volume(place(nrrd_bytes(**fields), "a.nrrd"))
    np.testing.assert_array_equal(volume.affine, affine)
    np.testing.assert_array_equal(volume.array_CIJK.ravel(order="F"), np.arange(60))
    assert not caplog.records


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (nrrd_bytes(space="3D-right-handed"), "a.nrrd"),
        (nrrd_bytes(space="scanner-xyz"), "a.nrrd"),
        (nrrd_bytes(space_origin=None), "a.nrrd"),
        (nrrd_bytes(space=None, space_origin=None, **SPACED), "a.nrrd"),
        (meta_bytes(TransformMatrix=None), "a.mha"),
        (meta_bytes(Offset=None), "a.mha"),
    ],
)  # fmt: skip
def test_an_unknown_place_is_read_as_itk_does_with_one_warning(place, caplog, data, name):
    path = place(data, name)
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.affine, affine_of(SimpleITK.ReadImage(path)))
    assert volume.spacing_mm == (1, 2, 3)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "does not say where its voxels lie" in record.message
    assert "sides may be swapped" in record.message


@pytest.mark.parametrize("order", ["little", "big"])
def test_both_byte_orders_become_native(place, order):
    data = np.arange(60).astype(">i2" if order == "big" else "<i2").tobytes()
    nrrd = place(nrrd_bytes(data, endian=order), "a.nrrd")
    meta = place(meta_bytes(data, BinaryDataByteOrderMSB=str(order == "big")), "a.mha")
    for path in (nrrd, meta):
        array = read_volume(path).array_CIJK
        assert array.dtype == np.int16
        assert array.dtype.isnative
        np.testing.assert_array_equal(array.ravel(order="F"), np.arange(60))


def test_a_long_of_metaimage_has_the_width_that_itk_gives_it(place):
    path = place(meta_bytes(np.arange(60, dtype="<i4").tobytes(), ElementType="MET_LONG"), "a.mha")
    read_KJI = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(path))
    np.testing.assert_array_equal(read_volume(path).array_CIJK[0], read_KJI.T)


def test_voxels_may_lie_in_a_file_beside_or_below(tmp_path):
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "v.raw").write_bytes(b"12345" + VOXELS)
    nrrd = nrrd_bytes(b"", **{"data file": "below/v.raw", "byte skip": "5"})
    (tmp_path / "a.nhdr").write_bytes(nrrd)
    (tmp_path / "a.mhd").write_bytes(meta_bytes(b"", HeaderSize="5", ElementDataFile="below/v.raw"))
    for name in ("a.nhdr", "a.mhd"):
        array = read_volume(tmp_path / name).array_CIJK
        np.testing.assert_array_equal(array.ravel(order="F"), np.arange(60))
    (tmp_path / "below" / "v.raw").unlink()
    for name in ("a.nhdr", "a.mhd"):
        with pytest.raises(FormatError, match=r"v\.raw': no such file"):
            read_volume(tmp_path / name)


@pytest.mark.parametrize(
    "name", ["/etc/hostname", "../v.raw", "below/../../v.raw", "C:\\v.raw", "..\\v.raw", "."]
)
def test_a_header_does_not_fetch_files_from_elsewhere(tmp_path, name):
    (tmp_path / "v.raw").write_bytes(VOXELS)
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "a.nhdr").write_bytes(nrrd_bytes(b"", **{"data file": name}))
    (folder / "a.mhd").write_bytes(meta_bytes(b"", ElementDataFile=name))
    for header in ("a.nhdr", "a.mhd"):
        with pytest.raises(FormatError, match="only files in its own folder are read"):
            read_volume(folder / header)


NRRD_LIES = [
    ({"type": None}, "its header has no 'type'"),
    ({"type": "block"}, "says type 'block'; known are signed char"),
    ({"dimension": "4"}, "has 3 axes; expected two to four, as many as its header's dimension"),
    ({"dimension": "1", "sizes": "60"}, "has 1 axes; expected two to four"),
    ({"sizes": "3 x 5"}, "its header says sizes '3 x 5', expected numbers"),
    ({"sizes": "3 -4 5"}, "speaks of axes of (3, -4, 5) voxels"),
    ({"sizes": "3 4 6"}, "promises 144 bytes of voxels and holds 120"),
    ({"sizes": "3 4 4"}, "promises 96 bytes of voxels and holds more"),
    ({"endian": None}, "its header has no 'endian'"),
    ({"encoding": "bzip2"}, "says encoding 'bzip2'; known are raw, gzip, gz"),
    ({"space": "left-posterior-superior-time"}, "says space 'left-posterior-superior-time'"),
    ({"space units": '"m" "m" "m"'}, "gives lengths in 'm'; expected mm"),
    ({"space directions": "(1,0,0) (0,2,0)"}, "its header describes more or less than 3 axes"),
    ({"space directions": "1 0 0 0 2 0 0 0 3"}, "says space directions '1 0 0 0 2 0 0 0 3'"),
    ({"space directions": "(1,0,0) (0,2,x) (0,0,3)"}, "says place '0 2 x', expected numbers"),
    ({"space directions": "(1,0,0) (0,2) (3)"}, "says a place of 1 numbers"),
    ({"space directions": "(1,0,0) (1,0,0) (0,0,3)"}, "gives the voxels no place (the affine is"),
    ({"space directions": "(nan,0,0) (0,2,0) (0,0,3)"}, "gives the voxels no place (an affine is"),
    ({"space directions": "(1e999,0,0) (0,2,0) (0,0,3)"}, "gives the voxels no place"),
    ({"space origin": "somewhere"}, "gives the voxels no place"),
    ({"space directions": None, "spacings": "1 2"}, "has 2 spacings, expected 3"),
    ({"kinds": "domain domain"}, "describes more or less than 3 axes"),
    ({"kinds": "domain domain doman"}, "has an axis of the kind 'doman', which NRRD does not know"),
    ({"kinds": "list list domain"}, "has 3 axes, 1 of them of space; expected two or three"),
    ({"line skip": "2"}, "says lineskip '2', expected 0 to 0"),
    ({"byte skip": "-2"}, "says byteskip '-2', expected at least -1"),
    ({"data file": "LIST"}, "keeps its voxels in many files; expected one"),
    ({"data file": "v%03d.raw 1 5 1"}, "keeps its voxels in many files"),
    ({"Type": "short"}, "its header says 'type' twice"),
]


@pytest.mark.parametrize(("fields", "said"), NRRD_LIES)
def test_an_nrrd_that_lies_is_refused_by_name(place, caplog, fields, said):
    refused(place(nrrd_bytes(**fields), "a.nrrd"), said, caplog)


META_LIES = [
    ({"NDims": None}, "its header has no 'ndims'"),
    ({"NDims": "5"}, "says ndims '5', expected 2 to 4"),
    ({"DimSize": "3 4"}, "speaks of 3 axes of (3, 4) voxels"),
    ({"DimSize": "3 4 0"}, "speaks of 3 axes of (3, 4, 0) voxels"),
    ({"DimSize": "3 4 6"}, "promises 144 bytes of voxels and holds 120"),
    ({"DimSize": "3 4 4"}, "promises 96 bytes of voxels and holds more"),
    ({"ObjectType": "Tube"}, "says objecttype 'tube'; known are image"),
    ({"ElementType": "MET_OTHER"}, "says elementtype 'met_other'; known are met_char"),
    ({"BinaryData": "False"}, "holds its voxels as text; expected BinaryData = True"),
    ({"BinaryData": "maybe"}, "says binarydata 'maybe'; known are true, false"),
    ({"TransformMatrix": "1 0 0 1"}, "places 3 axes by 4 numbers of axes, 3 of the origin"),
    ({"TransformMatrix": "1 0 0 0 1 0 0 0 0"}, "gives the voxels no place (the affine is singular"),
    ({"ElementSpacing": "1 inf 3"}, "gives the voxels no place"),
    ({"DistanceUnits": "um"}, "gives lengths in another unit than mm"),
    ({"HeaderSize": "-2"}, "says headersize '-2', expected at least -1"),
    ({"CompressedDataSize": "120"}, "gives a compressed size, but no compression"),
    ({"CompressedData": "True"}, "is not soundly compressed"),
    ({"ElementDataFile": "LIST"}, "keeps its voxels in many files"),
    ({"ElementDataFile": "v%02d.raw 1 5 1"}, "keeps its voxels in many files"),
    ({"offset": "1 2 3"}, "its header says 'offset' twice"),
    ({"ElementNumberOfChannels": "0"}, "says elementnumberofchannels '0', expected at least 1"),
    (
        {"NDims": "4", "DimSize": "3 4 5 1", "ElementNumberOfChannels": "2"},
        "has four axes of several elements; expected one or the other",
    ),
]


@pytest.mark.parametrize(("fields", "said"), META_LIES)
def test_a_metaimage_that_lies_is_refused_by_name(place, caplog, fields, said):
    refused(place(meta_bytes(**fields), "a.mha"), said, caplog)


def refused(path: Path, said: str, caplog: pytest.LogCaptureFixture) -> None:
    """See that a message says what it should, begins with the file's name, and tells no name."""
    with pytest.raises(FormatError) as error:
        read_volume(path, fourth_axis="channels")
    assert said in str(error.value)
    assert str(error.value).startswith(f"'{path}'")
    assert CANARY not in str(error.value) + caplog.text


@pytest.mark.parametrize("data", [b"", b"hello\n", b"\0" * 1000, b"\xff" * 3_000_000])
@pytest.mark.parametrize("name", ["a.nrrd", "a.nhdr", "a.mha", "a.mhd"])
def test_what_is_neither_is_refused(place, data, name):
    with pytest.raises(
        FormatError, match=r"is no NRRD|is no MetaImage|no 'ndims'|no end within 1048576 bytes"
    ):
        read_volume(place(data, name))


@pytest.mark.parametrize("name", ["a.nrrd", "a.mha"])
def test_damage_that_itk_takes_for_sound_is_refused(tmp_path, name):
    path = tmp_path / name
    array = np.random.default_rng(0).integers(0, 200, (1, 20, 20, 20)).astype("i2")
    write_volume(Volume(array, OBLIQUE), path)
    whole, quiet = path.read_bytes(), 0
    ends = [*range(len(whole) - 9, len(whole)), len(whole) // 2, len(whole) - 100]
    flips = [len(whole) - n for n in (1, 3, 5, 7, 100, 3000)]
    damaged = [whole[:end] for end in ends]
    damaged += [whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :] for at in flips]
    damaged += [whole + b"more"]
    SimpleITK.ProcessObject_SetGlobalWarningDisplay(False)
    for data in damaged:
        path.write_bytes(data)
        with pytest.raises(FormatError, match=r"is not soundly compressed|promises \d+ bytes"):
            read_volume(path)
        try:
            quiet += SimpleITK.ReadImage(path).GetNumberOfPixels() == array.size
        except RuntimeError:
            continue
    assert quiet, "ITK has become careful: read through it again?"


@pytest.mark.parametrize("name", ["a.nrrd", "a.mha"])
def test_raw_voxels_cut_off_are_refused(place, name):
    data = (nrrd_bytes if name == "a.nrrd" else meta_bytes)()
    for cut in (1, 2, 60, 119):
        with pytest.raises(FormatError, match="it is truncated or its header is wrong"):
            read_volume(place(data[:-cut], name))


def test_absurd_sizes_take_no_memory(tmp_path, place):
    sizes = "1000000 1000000 1000000"
    nrrd = place(nrrd_bytes(sizes=sizes, encoding="gzip"), "a.nrrd")
    meta = place(meta_bytes(DimSize=sizes, CompressedData="True"), "a.mha")
    holes = place(nrrd_bytes(sizes="32000 32000 20"), "holes.nrrd")
    os.truncate(holes, 32000 * 32000 * 40 + 1000)
    tracemalloc.start()
    for path in (nrrd, meta, holes):
        with pytest.raises(FormatError, match="medseg3d reads at most 17179869184"):
            read_volume(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3e6


@pytest.mark.parametrize("suffix", [".nrrd", ".mha", ".mhd"])
def test_the_same_volume_gives_the_same_bytes(tmp_path, suffix):
    volume = Volume(np.ones((1, 20, 30, 4), bool), OBLIQUE)
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        write_volume(volume, tmp_path / folder / f"a{suffix}")
    first, second = (
        {path.name: path.read_bytes() for path in (tmp_path / folder).iterdir()}
        for folder in ("one", "two")
    )
    assert first == second
    assert read_volume(tmp_path / "one" / f"a{suffix}").array_CIJK.dtype == np.uint8


@pytest.mark.parametrize("suffix", [".nrrd", ".mha", ".mhd"])
def test_complex_numbers_are_not_written(tmp_path, suffix):
    volume = Volume(np.ones((1, 2, 2, 2), "c8"), OBLIQUE)
    with pytest.raises(ConfigError, match="up to 64 bits, got complex64; convert the array first"):
        write_volume(volume, tmp_path / f"a{suffix}")
    assert not [*tmp_path.iterdir()]


def test_a_result_lies_on_the_grid_of_a_source_of_another_kind(tmp_path):
    volume = Volume(np.ones((1, 3, 4, 5), "u1"), OBLIQUE)
    write_volume(volume, tmp_path / "source.nrrd")
    nearly = OBLIQUE + 1e-4 * np.eye(4, k=1)
    write_volume(
        Volume(volume.array_CIJK, nearly), tmp_path / "a.nrrd", like=tmp_path / "source.nrrd"
    )
    np.testing.assert_array_equal(read_volume(tmp_path / "a.nrrd").affine, OBLIQUE)
    write_volume(volume, tmp_path / "a.nii.gz", like=tmp_path / "source.nrrd")
    np.testing.assert_allclose(read_volume(tmp_path / "a.nii.gz").affine, OBLIQUE, rtol=1e-6)
    with pytest.raises(ValueError, match=r"source\.nrrd' and 'volume to write' do not lie on one"):
        write_volume(
            Volume(volume.array_CIJK, SHEARED), tmp_path / "b.nii", like=tmp_path / "source.nrrd"
        )
