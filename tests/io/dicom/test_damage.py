"""One bad file is never left out without a word, nor told whose it is."""

import struct

import pytest
from pydicom import DataElement, dcmread
from pydicom.datadict import dictionary_VR
from pydicom.uid import (
    SecondaryCaptureImageStorage,
)

from medseg3d.errors import FormatError
from medseg3d.io.dicom.read import read_series

from .judge import assert_ramp, assert_ramp_or_refused, refused
from .phantom import (
    Geometry,
    Stored,
    item,
    slices,
    uid,
    write,
)

PLAIN = Geometry()


def missing(*keywords):
    def change(dataset):
        for keyword in keywords:
            delattr(dataset, keyword)

    return change


def put(keyword, value):
    return lambda dataset: setattr(dataset, keyword, value)


def mixed_with(change, k=2):
    """Give the plain series with one slice changed."""
    files = slices(PLAIN)
    change(files[k])
    return files


class TestHeaders:
    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (missing("ImagePositionPatient"), ["position"]),
            (missing("ImageOrientationPatient"), ["orientation"]),
            (missing("PixelSpacing"), ["spacing"]),
            (put("ImagePositionPatient", None), ["position"]),
            (put("PixelSpacing", ["0", "2"]), ["mm"]),
            (put("PixelSpacing", ["-1.5", "2"]), ["mm"]),
            (put("ImageOrientationPatient", [1, 0, 0, 1, 0, 0]), ["orientation"]),
            (put("ImageOrientationPatient", [0, 0, 0, 0, 0, 0]), ["orientation"]),
            (put("ImageOrientationPatient", [1, 0, 0, 0, 0.5, 0]), ["orientation"]),
            (put("ImageOrientationPatient", [1, 0, 0, 0]), []),
            (put("BitsStored", 17), []),
            (put("BitsAllocated", 12), []),
            (put("BitsAllocated", 0), []),
            (missing("BitsAllocated"), []),
            (put("HighBit", 40), []),
            (put("Rows", 0), []),
            (missing("Columns"), []),
            (missing("PixelData"), []),
            (put("PixelData", b""), []),
        ],
    )
    @pytest.mark.parametrize("k", [0, 2])
    def test_what_is_missing_or_impossible_is_refused_with_the_slice(
        self, change, words, k, tmp_path
    ):
        paths = write(mixed_with(change, k), tmp_path)
        with refused(*words, paths[k].name, kind=FormatError):
            read_series(tmp_path)

    @pytest.mark.parametrize("k", [0, 2, 4])
    def test_a_file_of_the_series_that_seems_to_hold_no_image_is_not_left_out(self, k, tmp_path):
        files = slices(PLAIN)
        files[k].SOPClassUID = "1.2.840.10008.5.1.4.1.1.9999"
        del files[k].Rows
        paths = write(files, tmp_path)
        with refused(paths[k].name, kind=FormatError):
            read_series(tmp_path)

    def test_a_table_of_values_is_refused(self, tmp_path):
        table = item(LUTDescriptor=[4096, 0, 16], ModalityLUTType="HU", LUTData=b"\0" * 8192)
        files = slices(stored=Stored(16, 12, signed=False))
        table["LUTDescriptor"].VR, table["LUTData"].VR = "US", "OW"
        for file in files:
            file.ModalityLUTSequence = [table]
        write(files, tmp_path)
        with refused("table", kind=FormatError):
            read_series(tmp_path)

    def test_a_picture_of_a_screen_is_no_volume(self, tmp_path):
        file = slices(PLAIN)[0]
        file.SOPClassUID = SecondaryCaptureImageStorage
        for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
            delattr(file, keyword)
        (path,) = write([file], tmp_path)
        with refused(path.name, kind=FormatError):
            read_series(tmp_path)

    def test_one_series_of_two_patients_is_refused_without_their_names(self, tmp_path):
        files = slices(PLAIN)
        files[3].PatientID = "CANARY-ID-2"
        write(files, tmp_path)
        with refused("patient"):
            read_series(tmp_path)

    def test_one_series_of_two_studies_is_refused(self, tmp_path):
        files = slices(PLAIN)
        files[3].StudyInstanceUID = uid("another study")
        write(files, tmp_path)
        with refused("stud"):
            read_series(tmp_path)


class TestDamage:
    """One bad file is never left out without a word, at the end of the stack least of all."""

    @pytest.fixture(params=[0, 2, 4])
    def files(self, request, tmp_path):
        paths = write(slices(PLAIN), tmp_path)
        return paths[request.param], tmp_path

    @pytest.mark.parametrize("share", [0.02, 0.1, 0.3, 0.6, 0.9, 0.99])
    def test_a_file_cut_short_is_refused_by_name(self, files, share):
        path, folder = files
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * share)])
        with refused(path.name, kind=FormatError):
            read_series(folder)

    def test_a_damaged_file_alone_in_its_folder_is_refused_by_name(self, files):
        path, folder = files
        (folder / "alone").mkdir()
        moved = path.rename(folder / "alone" / path.name)
        moved.write_bytes(moved.read_bytes()[:200])
        with refused(path.name, kind=FormatError):
            read_series(folder)

    def test_a_file_without_bytes_is_refused_by_name(self, files):
        path, folder = files
        path.write_bytes(b"")
        with refused(path.name, kind=FormatError):
            read_series(folder)

    @pytest.mark.parametrize("size", [2, 40, 82])
    def test_too_few_pixels_are_refused_by_name(self, files, size):
        path, folder = files
        dataset = dcmread(path)
        dataset.PixelData = dataset.PixelData[:size]
        dataset.save_as(path)
        with refused(path.name, kind=FormatError):
            read_series(folder)

    def test_one_byte_too_many_is_padding(self, files):
        path, folder = files
        dataset = dcmread(path)
        dataset.PixelData = dataset.PixelData + b"\0\0"
        dataset.save_as(path)
        assert_ramp_or_refused(folder, PLAIN, path.name)

    def test_a_second_plane_of_pixels_is_refused_or_left_out(self, files):
        path, folder = files
        dataset = dcmread(path)
        dataset.PixelData = dataset.PixelData * 2
        dataset.save_as(path)
        assert_ramp_or_refused(folder, PLAIN, path.name)

    @pytest.mark.parametrize("suffix", [".dcm", ""])
    def test_a_damaged_mark_of_dicom_is_not_passed_over(self, suffix, tmp_path):
        paths = write(slices(PLAIN), tmp_path, suffix=suffix)
        content = paths[4].read_bytes()
        paths[4].write_bytes(content[:128] + b"D_CM" + content[132:])
        assert_ramp_or_refused(tmp_path, PLAIN, paths[4].name)

    def test_a_beginning_with_some_bytes_too_many_is_not_passed_over(self, tmp_path):
        paths = write(slices(PLAIN), tmp_path, suffix="")
        paths[4].write_bytes(bytes(40) + b"\xd8\x39" + paths[4].read_bytes()[40:])
        assert_ramp_or_refused(tmp_path, PLAIN, paths[4].name)

    def test_a_plain_file_that_speaks_of_deflated_ones_is_no_such_file(self, tmp_path):
        write(slices(PLAIN, ImageComments="1.2.840.10008.1.2.1.99"), tmp_path)
        assert_ramp(read_series(tmp_path), PLAIN)

    def test_a_name_of_a_character_set_nobody_knows_does_not_matter(self, tmp_path):
        files = slices(PLAIN)
        for file in files:
            file.SpecificCharacterSet = "NO SUCH SET"
        with pytest.warns(UserWarning, match="NO SUCH SET"):
            write(files, tmp_path)
        assert_ramp(read_series(tmp_path), PLAIN)

    def test_nested_sequences_without_end_are_refused(self, tmp_path):
        paths = write(slices(PLAIN), tmp_path)
        content = paths[2].read_bytes()
        start = struct.pack("<HH2s2xI", 0x0008, 0x1140, b"SQ", 0xFFFFFFFF)
        level = start + struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
        at = content.index(struct.pack("<HH2s", 0x10, 0x10, b"PN"))
        paths[2].write_bytes(content[:at] + level * 20_000 + content[at:])
        with refused(paths[2].name, kind=FormatError):
            read_series(tmp_path)

    @pytest.mark.parametrize(("rows", "columns"), [(65535, 65535), (6, 65535), (65535, 7)])
    def test_sizes_beyond_the_pixels_there_are_cost_no_memory(self, rows, columns, tmp_path):
        files = slices(PLAIN)
        for file in files:
            file.Rows, file.Columns = rows, columns
        write(files, tmp_path)
        with refused(kind=FormatError):
            read_series(tmp_path)


@pytest.mark.parametrize(
    "keyword", ["FrameOfReferenceUID", "SeriesNumber", "AcquisitionTime", "EchoTime"]
)
def test_a_name_in_the_wrong_place_is_not_told(keyword, tmp_path, recwarn):
    files = slices(PLAIN)
    for file in files:
        file.add(DataElement(keyword, "LO", "12345678901234"))
        file[keyword].VR = dictionary_VR(keyword)
    for path in write(files, tmp_path):
        path.write_bytes(path.read_bytes().replace(b"12345678901234", b"CANARY^PATIENT"))
    message = ""
    try:
        read_series(tmp_path)
    except FormatError as error:
        message = str(error)
    assert "CANARY" not in message + "".join(str(warning.message) for warning in recwarn)
