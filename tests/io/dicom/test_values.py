"""What voxels say: every way to store, compress and scale a number."""

import struct
from dataclasses import replace

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from medseg3d.errors import FormatError
from medseg3d.io.dicom.read import read_series

from .judge import assert_ramp, assert_ramp_or_refused, places_of, refused, several
from .phantom import (
    Geometry,
    Placed,
    Stored,
    enhanced,
    slices,
    value_at,
    write,
)

PLAIN = Geometry()


STORED = {
    "8 bits": (Stored(8, 8, signed=False), 16.0, 0.0),
    "8 bits signed": (Stored(8, 8), 16.0, 2000.0),
    "12 bits": (Stored(16, 12, signed=False), 1.0, 0.0),
    "12 bits signed": (Stored(16, 12), 1.0, 2000.0),
    "12 bits and garbage": (Stored(16, 12, signed=False, garbage=True), 1.0, 0.0),
    "12 bits signed and garbage": (Stored(16, 12, garbage=True), 1.0, 2000.0),
    "12 bits at the top": (Stored(16, 12, high_bit=15, signed=False), 1.0, 0.0),
    "12 bits signed at the top": (Stored(16, 12, high_bit=15), 1.0, 2000.0),
    "10 bits in the middle, garbage": (Stored(16, 10, 12, signed=False, garbage=True), 4.0, 0.0),
    "10 bits signed in the middle, garbage": (Stored(16, 10, 12, garbage=True), 4.0, 2000.0),
    "16 bits unsigned above the half": (Stored(signed=False), 0.0625, 0.0),
    "32 bits": (Stored(32, 32), 2.0**-16, 0.0),
    "32 bits unsigned": (Stored(32, 32, signed=False), 2.0**-18, 0.0),
}


class TestValues:
    @pytest.mark.parametrize("how", STORED)
    @pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
    def test_every_way_to_store_whole_numbers(self, how, syntax, tmp_path):
        stored, slope, intercept = STORED[how]
        write(slices(stored=stored, slope=slope, intercept=intercept), tmp_path, syntax=syntax)
        assert_ramp(read_series(tmp_path), PLAIN, within=slope / 2)

    @pytest.mark.parametrize("dtype", ["f4", "f8"])
    def test_floating_point_pixels(self, dtype, tmp_path):
        stored = Stored({"f4": 32, "f8": 64}[dtype], dtype=dtype)
        write(slices(stored=stored), tmp_path)
        assert_ramp(read_series(tmp_path), PLAIN, within=0)

    @pytest.mark.parametrize("dtype", ["f4", "f8"])
    def test_floating_point_pixels_of_files_that_speak_of_bits_too(self, dtype, tmp_path):
        bits = {"f4": 32, "f8": 64}[dtype]
        files = slices(stored=Stored(bits, dtype=dtype))
        for file in files:
            file.BitsStored, file.HighBit, file.PixelRepresentation = bits, bits - 1, 1
        write(files, tmp_path)
        assert_ramp_or_refused(tmp_path, PLAIN)

    def test_32_bits_without_a_number_of_bits_stored_are_no_floats(self, tmp_path):
        files = slices(stored=Stored(32, 32))
        for file in files:
            del file.BitsStored
        write(files, tmp_path)
        assert_ramp_or_refused(tmp_path, PLAIN)

    @pytest.mark.parametrize("stored", [Stored(16, 12, signed=False), Stored(16, 16)])
    def test_monochrome1_is_a_way_to_show_and_changes_no_value(self, stored, tmp_path):
        stored = replace(stored, photometric="MONOCHROME1")
        write(slices(stored=stored, slope=2, intercept=-10), tmp_path)
        assert_ramp(read_series(tmp_path), PLAIN, within=1)

    def test_slope_and_intercept_of_each_slice(self, tmp_path):
        slopes, intercepts = (1, 0.5, 2, 0.25, 1.5), (0, -1000, 100, 7.5, 1)
        write(slices(slope=slopes, intercept=intercepts), tmp_path)
        volume = read_series(tmp_path)
        for k, slope in enumerate(slopes):
            off = volume.array_CIJK[0, ..., k] - value_at(places_of(volume))[..., k]
            assert np.abs(off).max() <= slope / 2 + 1e-3

    def test_a_slope_below_zero(self, tmp_path):
        write(slices(slope=-1, intercept=100), tmp_path)
        assert_ramp(read_series(tmp_path), PLAIN)

    def test_an_intercept_without_a_slope(self, tmp_path):
        files = slices(slope=1, intercept=-1024)
        for file in files:
            del file.RescaleSlope
        write(files, tmp_path)
        assert_ramp(read_series(tmp_path), PLAIN)

    @pytest.mark.parametrize("k", [0, 2, 4])
    def test_one_slice_without_a_slope_is_refused_by_name(self, k, tmp_path):
        files = slices(slope=2, intercept=0)
        del files[k].RescaleSlope, files[k].RescaleIntercept
        paths = write(files, tmp_path)
        with refused(paths[k].name, "no rescale slope"):
            read_series(tmp_path)

    def test_one_slice_without_a_slope_where_all_others_say_1_is_like_them(self, tmp_path):
        files = slices(slope=1, intercept=0)
        del files[2].RescaleSlope, files[2].RescaleIntercept
        write(files, tmp_path)
        assert_ramp(read_series(tmp_path), PLAIN)

    def test_values_that_no_16_bits_hold_do_not_wrap(self, tmp_path):
        write(slices(stored=Stored(16, 16, signed=False), slope=0.0625, intercept=-100), tmp_path)
        for file in tmp_path.iterdir():
            dataset = dcmread(file)
            dataset.RescaleSlope, dataset.RescaleIntercept = "100", "-1024"
            dataset.save_as(file)
        volume = read_series(tmp_path)
        truth = np.rint((value_at(places_of(volume)) + 100) / 0.0625) * 100 - 1024
        assert np.array_equal(volume.array_CIJK[0], truth)

    def test_extreme_whole_numbers_keep_their_last_digit(self, tmp_path):
        files = slices(several(PLAIN, slices=2), slope=1, intercept=-1024)
        for file in files:
            file.PixelData = np.resize(np.array([-32768, 32767, 0, -1], "<i2"), 42).tobytes()
        write(files, tmp_path)
        array = read_series(tmp_path).array_CIJK
        assert {*np.unique(array).tolist()} == {-33792, 31743, -1024, -1025}

    @pytest.mark.parametrize("slope", ["0", "1e400", "nan"])
    def test_a_slope_that_is_none_is_refused_with_the_slice(self, slope, tmp_path):
        paths = write(slices(slope=1), tmp_path)
        content = paths[3].read_bytes()
        tag = struct.pack("<HH2s", 0x28, 0x1053, b"DS")
        at = content.index(tag)
        text = slope.encode().ljust(-(-len(slope) // 2) * 2)
        old = struct.unpack_from("<H", content, at + 6)[0]
        head = content[: at + 6] + struct.pack("<H", len(text)) + text
        paths[3].write_bytes(head + content[at + 8 + old :])
        with refused(paths[3].name, kind=FormatError):
            read_series(tmp_path)

    def test_signed_and_unsigned_slices_in_one_series(self, tmp_path):
        files = slices(PLAIN, stored=Stored(signed=False), slope=0.0625)
        files[2:3] = slices(PLAIN, at=[2], stored=Stored(signed=True), slope=1)
        write(files, tmp_path)
        assert_ramp(read_series(tmp_path), PLAIN)

    def test_8_and_16_bits_in_one_series(self, tmp_path):
        files = slices(PLAIN, slope=1, intercept=0)
        files[2:3] = slices(PLAIN, at=[2], stored=Stored(8, 8, signed=False), slope=16)
        write(files, tmp_path)
        assert_ramp(read_series(tmp_path), PLAIN, within=8)

    def test_large_unsigned_numbers_beside_negative_ones(self, tmp_path):
        files = slices(several(PLAIN, slices=2), slope=1, intercept=0)
        files[0].PixelRepresentation = 0
        files[0].PixelData = np.resize(np.array([65535, 40000], "<u2"), 42).tobytes()
        files[1].PixelData = np.resize(np.array([-32768, -5], "<i2"), 42).tobytes()
        write(files, tmp_path)
        array = read_series(tmp_path).array_CIJK
        assert {*np.unique(array).tolist()} == {65535, 40000, -32768, -5}


class TestColours:
    @pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL", "PALETTE COLOR"])
    def test_colours_are_refused_by_name(self, photometric, tmp_path):
        files = slices(stored=Stored(8, 8, signed=False), slope=16)
        for file in files:
            file.PhotometricInterpretation = photometric
            if photometric != "PALETTE COLOR":
                file.SamplesPerPixel, file.PlanarConfiguration = 3, 0
                file.PixelData = file.PixelData * 3
        paths = write(files, tmp_path)
        with refused("colour", kind=FormatError) as refusal:
            read_series(tmp_path)
        assert any(path.name in refusal.message for path in paths)


SYNTAXES = [
    ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian, RLELossless, JPEGLSLossless, JPEG2000Lossless, JPEGLosslessSV1,
]  # fmt: skip


class TestTransferSyntaxes:
    LARGE = Geometry(shape=(40, 33, 3), origin=(50.0, 30.0, 20.0))

    @pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: syntax.keyword)
    @pytest.mark.parametrize(
        "stored",
        [
            Stored(),
            Stored(16, 12, signed=False),
            Stored(16, 16, signed=False, photometric="MONOCHROME1"),
        ],
        ids=["signed", "12 bits", "MONOCHROME1"],
    )
    def test_pixels_are_the_same_in_every_syntax(self, syntax, stored, tmp_path):
        write(slices(self.LARGE, stored=stored), tmp_path, syntax=syntax)
        assert_ramp(read_series(tmp_path), self.LARGE)

    @pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless])
    def test_8_bits_too(self, syntax, tmp_path):
        stored = Stored(8, 8, signed=False)
        write(slices(self.LARGE, stored=stored, slope=16), tmp_path, syntax=syntax)
        assert_ramp(read_series(tmp_path), self.LARGE, within=8)

    @pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless])
    def test_frames_of_enhanced_files_too(self, syntax, tmp_path):
        file = enhanced([Placed(self.LARGE, k) for k in (2, 0, 1)])
        write([file], tmp_path, syntax=syntax)
        assert_ramp(read_series(tmp_path), self.LARGE)

    def test_an_unknown_one_is_refused_by_name(self, tmp_path):
        files = slices()
        paths = write(files, tmp_path)
        for path in paths:
            content = path.read_bytes()
            path.write_bytes(content.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.9.9\0", 1))
        with refused("1.2.840.10008.1.9.9", kind=FormatError):
            read_series(tmp_path)

    def test_pixels_that_are_not_what_their_syntax_says_are_refused(self, tmp_path):
        paths = write(slices(self.LARGE), tmp_path, syntax=JPEG2000Lossless)
        content = paths[1].read_bytes()
        paths[1].write_bytes(content[:-300] + b"\x55" * 200 + content[-100:])
        with refused(paths[1].name, kind=FormatError):
            read_series(tmp_path)

    @pytest.mark.parametrize(
        "syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless, JPEGBaseline8Bit]
    )
    def test_compressed_noise_is_refused(self, syntax, tmp_path):
        files = slices(self.LARGE)
        paths = write(files, tmp_path, syntax=RLELossless)
        dataset = dcmread(paths[0])
        dataset.file_meta.TransferSyntaxUID = syntax
        dataset.PixelData = b"\xfe\xff\x00\xe0\0\0\0\0\xfe\xff\x00\xe0\x20\0\0\0" + b"\x7f" * 32
        dataset.PixelData += b"\xfe\xff\xdd\xe0\0\0\0\0"
        dataset["PixelData"].is_undefined_length = True
        dataset.save_as(paths[0])
        with refused(paths[0].name, kind=FormatError):
            read_series(tmp_path)

    def test_a_compressed_plane_of_another_size_is_refused(self, tmp_path):
        files = slices(self.LARGE)
        paths = write(files, tmp_path, syntax=JPEGLSLossless)
        for path in paths:
            dataset = dcmread(path)
            dataset.Rows, dataset.Columns = 40, 33
            dataset.save_as(path)
        with refused(kind=FormatError):
            read_series(tmp_path)

    @pytest.mark.parametrize("signed", [False, True])
    @pytest.mark.parametrize("syntax", [JPEGLSLossless, JPEG2000Lossless, JPEGLosslessSV1])
    def test_more_bits_than_said_are_refused_and_do_not_wrap(self, syntax, signed, tmp_path):
        stored = Stored(signed=signed)
        paths = write(slices(self.LARGE, stored=stored, slope=0.125), tmp_path, syntax=syntax)
        for path in paths:
            dataset = dcmread(path)
            dataset.BitsStored, dataset.HighBit = 12, 11
            dataset.save_as(path)
        with refused("says it stores 12 bits each", kind=FormatError):
            read_series(tmp_path)

    @pytest.mark.parametrize("syntax", [JPEGLSLossless, JPEG2000Lossless])
    @pytest.mark.parametrize("table", [True, False])
    def test_a_compressed_plane_in_many_fragments(self, syntax, table, tmp_path):
        geometry = Geometry(shape=(40, 33, 3), origin=(50.0, 30.0, 20.0))
        for path in write(slices(geometry), tmp_path, syntax=syntax):
            dataset = dcmread(path)
            (frame,) = generate_frames(dataset.PixelData, number_of_frames=1)
            dataset.PixelData = encapsulate([frame], fragments_per_frame=4, has_bot=table)
            dataset.save_as(path)
        assert_ramp(read_series(tmp_path), geometry)
