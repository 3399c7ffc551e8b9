"""Volumes from one file or several, and back to disk whole or not at all."""

import gzip
import logging
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK
from nibabel.nifti1 import Nifti1Extension, Nifti1Image
from nibabel.nifti2 import Nifti2Header, Nifti2Image

from medseg3d.errors import ConfigError, FormatError, GridError, LabelError
from medseg3d.io.files import read_label_map, read_volume, write_volume
from medseg3d.labels import LabelScheme
from medseg3d.volume import Volume

REPOSITORY = Path(__file__).parents[2]
OBLIQUE = np.array(
    [[-0.96, 0.28, 0, 12.5], [0.28, 0.96, 0, -30.25], [0, 0, 2.5, 7], [0, 0, 0, 1]]
) @ np.diag([1.5, 2, 1, 1])
SHEARED = np.array([[1, 0, 0.25, 0], [0, 1, 0.5, 0], [0, 0, 3, 0], [0, 0, 0, 1.0]])
PLACE = [
    "sform_code", "srow_x", "srow_y", "srow_z", "qform_code", "quatern_b", "quatern_c",
    "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z", "xyzt_units",
]  # fmt: skip


def ramp(*shape: int, dtype: str = "i2", affine: np.ndarray = OBLIQUE) -> Volume:
    return Volume(np.arange(np.prod(shape)).reshape(shape).astype(dtype), affine)


def header_of(path: Path) -> nibabel.Nifti1Header:
    return nibabel.load(path).header


def test_files_become_channels_in_their_order(brats):
    case = brats / "brats_2013_pat0001_1"
    paths = [case / "T1c_subtrMeanDivStd.nii.gz", case / "Flair_subtrMeanDivStd.nii.gz"]
    volume = read_volume(paths)
    assert volume.array_CIJK.shape == (2, 240, 240, 155)
    assert volume.array_CIJK.dtype == np.float32
    assert volume.orientation == "LPS"
    for channel, path in zip(volume.array_CIJK, paths, strict=True):
        np.testing.assert_array_equal(channel, read_volume(str(path)).array_CIJK[0])
        assert channel.flags.f_contiguous


def test_channels_take_the_smallest_dtype_that_holds_them_all(tmp_path):
    write_volume(ramp(1, 2, 3, 4, dtype="i2"), tmp_path / "a.nii")
    write_volume(ramp(1, 2, 3, 4, dtype="u1"), tmp_path / "b.nii")
    volume = read_volume([tmp_path / "a.nii", tmp_path / "b.nii"])
    assert volume.array_CIJK.dtype == np.int16
    np.testing.assert_array_equal(volume.array_CIJK[0], volume.array_CIJK[1])


def test_files_on_different_grids_are_refused_and_both_grids_printed(tmp_path):
    write_volume(ramp(1, 2, 3, 4), tmp_path / "t1.nii")
    write_volume(ramp(1, 2, 3, 4, affine=SHEARED), tmp_path / "flair.nii")
    with pytest.raises(GridError) as error:
        read_volume([tmp_path / "t1.nii", tmp_path / "flair.nii"])
    said = str(error.value)
    assert "t1.nii' and '" in said
    assert "flair.nii' do not lie on one grid: orientation LAS against RAS" in said
    assert said.count("2×3×4 voxels") == 2


def test_four_axes_are_refused_unless_they_are_said_to_be_channels(tmp_path):
    volume = ramp(3, 4, 5, 6)
    write_volume(volume, tmp_path / "four.nii.gz")
    assert nibabel.load(tmp_path / "four.nii.gz").shape == (4, 5, 6, 3)
    with pytest.raises(FormatError, match=r"has four axes, 3 volumes of \(4, 5, 6\) voxels; expe"):
        read_volume(tmp_path / "four.nii.gz")
    read = read_volume(tmp_path / "four.nii.gz", fourth_axis="channels")
    np.testing.assert_array_equal(read.array_CIJK, volume.array_CIJK)


def test_unknown_kinds_folders_and_nothing_are_refused(tmp_path):
    (tmp_path / "scan.xyz").touch()
    with pytest.raises(
        FormatError, match=r"scan\.xyz' is of no kind that is read; those are \.nii\.gz, "
    ):
        read_volume(tmp_path / "scan.xyz")
    with pytest.raises(FormatError, match="holds no DICOM; expected one series of images"):
        read_volume(tmp_path)
    with pytest.raises(FormatError, match=r"missing\.nii': no such file"):
        read_volume(tmp_path / "missing.nii")
    with pytest.raises(ConfigError, match="no file to read a volume from; name at least one"):
        read_volume([])
    with pytest.raises(FormatError, match="is of no kind that is written"):
        write_volume(ramp(1, 2, 3, 4), tmp_path / "result.xyz")


@pytest.mark.parametrize("knob", ["nonfinite", "fourth_axis", "tilt", "gaps"])
def test_a_wish_that_is_none_is_refused_of_any_kind_of_file(tmp_path, unchecked, knob):
    write_volume(ramp(1, 2, 3, 4), tmp_path / "scan.nii")
    for path in (tmp_path / "scan.nii", tmp_path):
        with pytest.raises(ConfigError, match=rf"^{knob} 'bogus' is none of refuse, "):
            read_volume(path, **{knob: "bogus"})


def test_dicom_is_known_by_its_mark_where_the_name_has_no_suffix(shared_data, tmp_path):
    source = next((shared_data / "dicom/mr_mosaic_siemens/dicom").iterdir())
    for name in ("IM0001", "scan.ima", "scan.DICOM", "scan.xyz"):
        shutil.copy(source, tmp_path / name)
        volume = read_volume(tmp_path / name)
        assert volume.shape_IJK == read_volume(source).shape_IJK


def test_a_suffix_may_be_written_in_capitals(tmp_path):
    write_volume(ramp(1, 2, 3, 4), tmp_path / "SCAN.NII.GZ")
    assert read_volume(tmp_path / "SCAN.NII.GZ").shape_IJK == (2, 3, 4)


def test_values_that_are_no_numbers_are_refused_replaced_or_kept(tmp_path, caplog):
    array = ramp(1, 3, 4, 5, dtype="f4").array_CIJK.copy()
    array[0, 1, :3, 1] = np.nan, np.inf, -np.inf
    write_volume(Volume(array, OBLIQUE), tmp_path / "holes.nii.gz")
    with pytest.raises(FormatError, match=r"holes.* holds 3 voxels of NaN .* nonfinite='zero'"):
        read_volume(tmp_path / "holes.nii.gz")
    kept = read_volume(tmp_path / "holes.nii.gz", nonfinite="keep")
    np.testing.assert_array_equal(kept.array_CIJK, array)
    assert not caplog.records
    zero = read_volume(tmp_path / "holes.nii.gz", nonfinite="zero")
    np.testing.assert_array_equal(zero.array_CIJK, np.nan_to_num(array, posinf=0, neginf=0))
    assert zero.array_CIJK.dtype == np.float32
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "3 voxels of NaN or infinity are read as 0" in caplog.text


def test_dtypes_of_a_whole_data_set_are_kept(hippocampus):
    images = [read_volume(path) for path in (hippocampus / "imagesTr").glob("*.nii.gz")]
    labels = [read_volume(path) for path in (hippocampus / "labelsTr").glob("*.nii.gz")]
    dtypes = [str(image.array_CIJK.dtype) for image in images]
    assert (dtypes.count("float32"), dtypes.count("uint8"), len(dtypes)) == (79, 21, 100)
    assert {str(label.array_CIJK.dtype) for label in labels} == {"uint8"}


def test_label_maps_stored_as_floats_become_integers(brats):
    case = brats / "brats_2013_pat0001_1"
    stored = nibabel.load(case / "OTMultiClass.nii.gz")
    assert stored.get_data_dtype() == np.float32
    label_map = read_label_map(case / "OTMultiClass.nii.gz")
    assert label_map.array_CIJK.dtype == np.uint8
    np.testing.assert_array_equal(label_map.array_CIJK[0], np.asarray(stored.dataobj))
    mask = read_label_map(case / "brainmask.nii.gz").array_CIJK[0]
    stored_mask = nibabel.load(case / "brainmask.nii.gz").get_fdata()
    assert 0 < np.abs(stored_mask - 1)[stored_mask > 0.5].max() < 1e-6
    np.testing.assert_array_equal(mask, stored_mask > 0.5)


def test_label_maps_of_another_scheme_are_refused_by_name(brats):
    path = brats / "brats_2013_pat0001_1" / "OTMultiClass.nii.gz"
    with pytest.raises(LabelError, match=r"OTMultiClass.*: holds 1 \(\d+ voxels\), 3 \("):
        read_label_map(path, LabelScheme(values={2: "oedema", 4: "enhancing"}))
    with pytest.raises(LabelError, match=r"Flair.*voxels hold no integer"):
        read_label_map(path.with_name("Flair_subtrMeanDivStd.nii.gz"))


@pytest.mark.parametrize("name", ["out.nii", "out.nii.gz"])
@pytest.mark.parametrize("affine", [OBLIQUE, SHEARED, np.diag([-2, -3, 4, 1.0])])
def test_nibabel_reads_what_is_written(tmp_path, name, affine):
    volume = ramp(1, 4, 5, 6, dtype="u2", affine=affine)
    write_volume(volume, tmp_path / name)
    image = nibabel.load(tmp_path / name)
    np.testing.assert_allclose(image.affine, affine, rtol=1e-6)
    np.testing.assert_array_equal(np.asarray(image.dataobj), volume.array_CIJK[0])
    assert image.get_data_dtype() == np.uint16
    assert image.header.get_xyzt_units()[0] == "mm"
    assert int(image.header["sform_code"]) == 1
    assert int(image.header["qform_code"]) == (0 if affine is SHEARED else 1)


def test_simpleitk_places_what_is_written_alike(tmp_path):
    volume = ramp(1, 4, 5, 6, dtype="f4")
    write_volume(volume, tmp_path / "out.nii.gz")
    image = SimpleITK.ReadImage(tmp_path / "out.nii.gz")
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(image).T, volume.array_CIJK[0])
    for index in [(0, 0, 0), (3, 0, 0), (0, 4, 0), (3, 4, 5)]:
        left, posterior, superior = image.TransformIndexToPhysicalPoint(index)
        world = (OBLIQUE @ (*index, 1))[:3]
        np.testing.assert_allclose((-left, -posterior, superior), world, atol=1e-4)


@pytest.mark.parametrize(
    ("given", "written"), [("?", "u1"), ("f2", "f4"), (">i4", "i4"), ("<i8", "i8")]
)
def test_dtypes_that_nifti_lacks_become_the_next_that_holds_them(tmp_path, given, written):
    volume = ramp(1, 1, 1, 2, dtype=given)
    write_volume(volume, tmp_path / "out.nii")
    read = read_volume(tmp_path / "out.nii")
    assert read.array_CIJK.dtype == np.dtype(written)
    np.testing.assert_array_equal(read.array_CIJK, volume.array_CIJK)


def test_complex_numbers_are_not_written(tmp_path):
    with pytest.raises(ConfigError, match="up to 64 bits, got complex64; convert the array first"):
        write_volume(ramp(1, 2, 2, 2, dtype="c8"), tmp_path / "out.nii")
    assert not [*tmp_path.iterdir()]


def test_an_axis_beyond_nifti_1_is_written_as_nifti_2(tmp_path):
    write_volume(ramp(1, 40000, 1, 2), tmp_path / "long.nii.gz")
    assert type(header_of(tmp_path / "long.nii.gz")) is Nifti2Header
    read = read_volume(tmp_path / "long.nii.gz")
    np.testing.assert_array_equal(read.array_CIJK, ramp(1, 40000, 1, 2).array_CIJK)


def test_the_same_volume_gives_the_same_bytes_under_any_name(tmp_path):
    for name in ("a.nii.gz", "another.nii.gz", "a.nii", "b.nii"):
        write_volume(ramp(1, 40, 50, 6), tmp_path / name)
    data = (tmp_path / "a.nii.gz").read_bytes()
    assert data == (tmp_path / "another.nii.gz").read_bytes()
    assert (tmp_path / "a.nii").read_bytes() == (tmp_path / "b.nii").read_bytes()
    assert gzip.decompress(data) == (tmp_path / "a.nii").read_bytes()
    assert data[3:8] == bytes(5), "neither a file name nor a time is in the gzip header"


def sources(folder: Path) -> list[Path]:
    """Write files placed in every way there is."""
    array = np.zeros((3, 4, 5), np.int16)
    qform = Nifti1Image(array, None)
    qform.set_qform(OBLIQUE, code=3)
    nowhere = Nifti1Image(array, None)
    nowhere.header["pixdim"][1:4] = 2, 3, 4
    big = Nifti2Header(endianness=">")
    big.set_data_dtype(">i2")
    sform = Nifti1Image(array, SHEARED)
    sform.set_sform(SHEARED, code=4)
    sform.header["xyzt_units"] = 3
    named = {
        "qform": qform, "nowhere": nowhere, "sform": sform,
        "big": Nifti2Image(array.astype(">i2"), OBLIQUE * 1.1 - 0.1 * np.diag([0, 0, 0, 1]), big),
    }  # fmt: skip
    for name, image in named.items():
        image.to_filename(folder / f"{name}.nii.gz")
    return [folder / f"{name}.nii.gz" for name in named]


def test_a_result_is_placed_by_the_very_fields_of_its_source(tmp_path, brats):
    case = brats / "brats_2013_pat0001_1"
    real = [case / "Flair_subtrMeanDivStd.nii.gz", case / "OTMultiClass.nii.gz"]
    for source in [*real, *sources(tmp_path)]:
        volume = read_volume(source)
        label_map = Volume((volume.array_CIJK > 1).astype(np.uint8), volume.affine)
        write_volume(label_map, tmp_path / "result.nii.gz", like=str(source))
        image, result = nibabel.load(source), nibabel.load(tmp_path / "result.nii.gz")
        assert type(result) is type(image)
        assert result.affine.tobytes() == image.affine.tobytes()
        assert result.shape == image.shape
        assert result.get_data_dtype() == np.uint8
        for field in PLACE:
            np.testing.assert_array_equal(result.header[field], image.header[field])
        np.testing.assert_array_equal(result.header["pixdim"][:4], image.header["pixdim"][:4])
        read = read_volume(tmp_path / "result.nii.gz")
        np.testing.assert_array_equal(read.affine, volume.affine)
        np.testing.assert_array_equal(read.array_CIJK, label_map.array_CIJK)


def test_a_source_on_another_grid_is_refused(tmp_path):
    write_volume(ramp(1, 3, 4, 5), tmp_path / "source.nii")
    with pytest.raises(GridError, match=r"source\.nii' and 'volume to write' do not lie on one"):
        write_volume(ramp(1, 3, 4, 6), tmp_path / "out.nii", like=tmp_path / "source.nii")
    with pytest.raises(FormatError, match=r"absent\.nii': no such file"):
        write_volume(ramp(1, 3, 4, 6), tmp_path / "out.nii", like=tmp_path / "absent.nii")
    assert not (tmp_path / "out.nii").exists()


def test_free_text_of_the_source_does_not_reach_the_result(tmp_path):
    canary = b"DOE^JANE"
    image = Nifti1Image(np.zeros((3, 4, 5), np.int16), OBLIQUE)
    for field in ("descrip", "aux_file", "intent_name", "db_name"):
        image.header[field] = canary
    image.header.extensions.append(Nifti1Extension("comment", canary))
    image.to_filename(tmp_path / "source.nii")
    assert (tmp_path / "source.nii").read_bytes().count(canary) == 5
    volume = read_volume(tmp_path / "source.nii")
    write_volume(volume, tmp_path / "out.nii", like=tmp_path / "source.nii")
    assert canary not in (tmp_path / "out.nii").read_bytes()


@pytest.mark.parametrize(
    ("folder", "said"),
    [
        ("missing", "No such file or directory"),
        ("file", "Not a directory"),
        ("/sys", "Permission denied|Read-only file system"),
    ],
)
def test_a_folder_that_cannot_be_written_to_is_a_config_error(tmp_path, folder, said):
    (tmp_path / "file").touch()
    path = tmp_path / folder / "out.nii.gz"
    with pytest.raises(ConfigError, match=f"cannot write '{path}': ({said}). Nothing was left"):
        write_volume(ramp(1, 3, 4, 5), path)


def test_a_folder_in_the_place_of_the_result_is_a_config_error(tmp_path):
    (tmp_path / "out.nii").mkdir()
    with pytest.raises(ConfigError, match="Is a directory"):
        write_volume(ramp(1, 3, 4, 5), tmp_path / "out.nii")
    assert [*tmp_path.iterdir()] == [tmp_path / "out.nii"]


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "out.nii"
    write_volume(ramp(1, 3, 4, 5), path)
    before = path.read_bytes()
    program = (
        "import resource, sys; import numpy as np; import medseg3d\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (9999, 9999))\n"
        "try: medseg3d.write_volume(medseg3d.Volume(np.ones((1, 64, 64, 64)), np.eye(4)),"
        " sys.argv[1])\n"
        "except medseg3d.ConfigError as error: sys.exit(str(error))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, path],
        capture_output=True, text=True, check=False, cwd=REPOSITORY,
    )  # fmt: skip
    assert "cannot write" in done.stderr
    assert "File too large" in done.stderr
    assert path.read_bytes() == before
    assert [*tmp_path.iterdir()] == [path]
