"""Files of many frames: enhanced CT and MR, and mosaics of Siemens."""

import struct
from dataclasses import replace

import pytest
from pydicom.uid import (
    EnhancedCTImageStorage,
    EnhancedMRImageStorage,
    MRImageStorage,
    RLELossless,
)

from medseg3d.errors import FormatError
from medseg3d.io.dicom.read import read_series

from .judge import assert_ramp, refused, several, volumes_of
from .phantom import (
    OBLIQUE,
    Geometry,
    Placed,
    enhanced,
    mosaic,
    slices,
    write,
)

PLAIN = Geometry()


GROUPS = ("PlaneOrientationSequence", "PixelMeasuresSequence", "PixelValueTransformationSequence")
ORDERS = [(0, 1, 2, 3, 4), (4, 3, 2, 1, 0), (3, 1, 0, 2, 4)]


class TestEnhanced:
    @pytest.mark.parametrize("class_uid", [EnhancedMRImageStorage, EnhancedCTImageStorage])
    @pytest.mark.parametrize("shared", [(), GROUPS], ids=["per frame", "shared"])
    @pytest.mark.parametrize("order", ORDERS)
    def test_frames_in_any_order(self, class_uid, shared, order, tmp_path):
        frames = [Placed(OBLIQUE, k) for k in order]
        write([enhanced(frames, class_uid=class_uid, shared=shared)], tmp_path)
        assert_ramp(read_series(tmp_path), OBLIQUE)

    def test_slope_of_each_frame(self, tmp_path):
        frames = [Placed(PLAIN, k, slope=2.0 ** -(k % 3), intercept=-100.0 * k) for k in range(5)]
        write([enhanced(frames)], tmp_path)
        assert_ramp(read_series(tmp_path), PLAIN)

    @pytest.mark.parametrize("word", ["TemporalPositionIndex", "time", "echo", "b", "component"])
    def test_volumes_in_one_file(self, word, tmp_path):
        def placed(k, t):
            content, groups = {"InStackPositionNumber": k + 1, "StackID": "1"}, {}
            if word == "TemporalPositionIndex":
                content["TemporalPositionIndex"] = t + 1
            if word == "time":
                content["FrameAcquisitionDateTime"] = f"20200102101{t}12.5"
            if word == "echo":
                groups["MREchoSequence"] = {"EffectiveEchoTime": 4.5 * (t + 1)}
            if word == "b":
                groups["MRDiffusionSequence"] = {"DiffusionBValue": 500.0 * t}
            if word == "component":
                component = ("MAGNITUDE", "PHASE", "REAL")[t]
                groups["MRImageFrameTypeSequence"] = {"ComplexImageComponent": component}
            return Placed(PLAIN, k, add=1000.0 * t, content=content, groups=groups)

        frames = [placed(k, t) for k in (3, 0, 1, 4, 2) for t in (1, 0, 2)]
        write([enhanced(frames, shared=GROUPS)], tmp_path)
        volumes = volumes_of(tmp_path)
        assert len(volumes) == 3
        names = ["magnitude", "phase", "real"] if word == "component" else sorted(volumes)
        for t, name in enumerate(names):
            assert_ramp(volumes[name], PLAIN, add=1000 * t)
        with refused(*volumes):
            read_series(tmp_path)

    def test_two_stacks_in_one_file(self, tmp_path):
        other = Geometry.along((0, 1, 0), (0, 0, -1))
        frames = [Placed(PLAIN, k, content={"StackID": "A"}) for k in range(5)]
        frames += [Placed(other, k, content={"StackID": "B"}) for k in range(5)]
        write([enhanced(frames)], tmp_path)
        volumes = volumes_of(tmp_path)
        assert len(volumes) == 2
        (axial,) = (name for name in volumes if "axial" in name or "1" in name)
        assert_ramp(volumes.pop(axial), PLAIN)
        assert_ramp(*volumes.values(), other)

    def test_two_volumes_one_above_the_other_in_one_file(self, tmp_path):
        upper = replace(PLAIN, origin=(10.0, -20.0, 60.0))
        frames = [Placed(PLAIN, k, content={"StackID": "1"}) for k in range(5)]
        frames += [Placed(upper, k, content={"StackID": "2"}) for k in range(5)]
        write([enhanced(frames)], tmp_path)
        first, second = sorted(volumes_of(tmp_path).items())
        assert_ramp(first[1], PLAIN)
        assert_ramp(second[1], upper)

    def test_a_file_for_each_point_in_time(self, tmp_path):
        for t in range(3):
            frames = [Placed(PLAIN, k, add=1000.0 * t) for k in range(5)]
            file = enhanced(frames, shared=GROUPS, AcquisitionNumber=t + 1)
            file.InstanceNumber = t + 1
            write([file], tmp_path)
        for t, (_, volume) in enumerate(sorted(volumes_of(tmp_path).items())):
            assert_ramp(volume, PLAIN, add=1000 * t)

    def test_a_missing_frame_is_refused_with_mm(self, tmp_path):
        write([enhanced([Placed(PLAIN, k) for k in (0, 1, 3, 4)])], tmp_path)
        with refused("17.50 mm", "22.50 mm", "frame 2", "frame 3"):
            read_series(tmp_path)

    @pytest.mark.parametrize("count", [4, 6, 10**6, 2**31 - 1])
    def test_a_wrong_number_of_frames_is_refused(self, count, tmp_path):
        file = enhanced([Placed(PLAIN, k) for k in range(5)])
        file.NumberOfFrames = count
        (path,) = write([file], tmp_path)
        with refused(path.name, kind=FormatError):
            read_series(tmp_path)

    def test_missing_groups_are_refused(self, tmp_path):
        file = enhanced([Placed(PLAIN, k) for k in range(5)], shared=GROUPS)
        del file.SharedFunctionalGroupsSequence
        (path,) = write([file], tmp_path)
        with refused(path.name, kind=FormatError):
            read_series(tmp_path)

    def test_a_frame_without_a_position_is_refused(self, tmp_path):
        file = enhanced([Placed(PLAIN, k) for k in range(5)], shared=GROUPS)
        del file.PerFrameFunctionalGroupsSequence[2].PlanePositionSequence
        (path,) = write([file], tmp_path)
        with refused("position", path.name, kind=FormatError):
            read_series(tmp_path)

    def test_one_frame_alone_is_a_slice_of_its_series(self, tmp_path):
        write([enhanced([Placed(PLAIN, k)]) for k in (3, 0, 4, 2, 1)], tmp_path)
        assert_ramp(read_series(tmp_path), PLAIN)

    def test_frames_without_any_place_are_refused(self, tmp_path):
        file = slices()[0]
        file.NumberOfFrames, file.PixelData = 3, file.PixelData * 3
        (path,) = write([file], tmp_path)
        with refused(path.name, kind=FormatError):
            read_series(tmp_path)

    def test_an_enhanced_series_in_parts_is_one_volume(self, tmp_path):
        files = [
            enhanced([Placed(PLAIN, k) for k in part], InConcatenationNumber=n + 1)
            for n, part in enumerate([(3, 4), (0, 1, 2)])
        ]
        write(files, tmp_path)
        assert_ramp(read_series(tmp_path), PLAIN)


SLICES = {
    "MOSAIC": lambda file: setattr(file, "ImageType", ["ORIGINAL", "PRIMARY", "M", "MOSAIC"]),
    "one tile": lambda file: private(file, 0x0019, "SIEMENS MR HEADER", 0x0A, "US", 1),
    "GE's own element": lambda file: private(file, 0x0019, "GEMS_ACQU_01", 0x0A, "US", 30),
    "damaged CSA": lambda file: private(
        file, 0x0029, "SIEMENS CSA HEADER", 0x10, "OB", b"SV10\4\3\2\1" + b"\xff" * 200
    ),
}
"""What plain slices say that sounds like a mosaic."""


def private(file, group, creator, element, vr, value):
    file.private_block(group, creator, create=True).add_new(element, vr, value)


class TestMosaic:
    @pytest.mark.parametrize("geometry", [PLAIN, OBLIQUE, several(OBLIQUE, slices=4)])
    def test_tiles_are_slices(self, geometry, tmp_path):
        write([mosaic(geometry)], tmp_path)
        assert_ramp(read_series(tmp_path), geometry)

    def test_a_normal_against_row_and_column_turns_the_order(self, tmp_path):
        geometry = replace(PLAIN, step=(0.0, 0.0, -2.5))
        write([mosaic(geometry)], tmp_path)
        assert_ramp(read_series(tmp_path), geometry)

    def test_each_is_a_point_in_time(self, tmp_path):
        for t in (1, 0, 2):
            file = mosaic(OBLIQUE, add=1000 * t, AcquisitionNumber=t + 1)
            file.InstanceNumber = t + 1
            write([file], tmp_path)
        volumes = volumes_of(tmp_path)
        assert len(volumes) == 3
        for t, name in enumerate(sorted(volumes)):
            assert_ramp(volumes[name], OBLIQUE, add=1000 * t)

    @pytest.mark.parametrize("words", [[], ["M", "ND"], ["FMRI", "NONE", "VFRAME"]])
    def test_they_are_known_by_their_private_header_alone(self, words, tmp_path):
        file = mosaic(PLAIN)
        file.ImageType = ["ORIGINAL", "PRIMARY", *words]
        write([file], tmp_path)
        assert_ramp(read_series(tmp_path), PLAIN)

    @pytest.mark.parametrize("change", SLICES)
    def test_slices_are_none_whatever_they_say_of_mosaics(self, change, tmp_path):
        files = slices(PLAIN, class_uid=MRImageStorage)
        for file in files:
            SLICES[change](file)
        write(files, tmp_path)
        assert_ramp(read_series(tmp_path), PLAIN)

    def test_compressed_ones_too(self, tmp_path):
        write([mosaic(OBLIQUE)], tmp_path, syntax=RLELossless)
        assert_ramp(read_series(tmp_path), OBLIQUE)

    def test_without_its_private_header_it_is_refused(self, tmp_path):
        file = mosaic(PLAIN)
        file.remove_private_tags()
        (path,) = write([file], tmp_path)
        with refused("mosaic", path.name, kind=FormatError):
            read_series(tmp_path)

    @pytest.mark.parametrize("count", ["0", "1", "10", "99", "-4", "x"])
    def test_a_private_header_that_does_not_fit_is_refused(self, count, tmp_path):
        file = mosaic(PLAIN)
        element = file.private_block(0x0029, "SIEMENS CSA HEADER")[0x10]
        head = struct.pack("<4i", 1, 1, 77, 1)
        new = struct.pack("<4i", *[len(count)] * 2, 77, len(count))
        assert element.value.count(head + b"5\0\0\0") == 1
        element.value = element.value.replace(
            head + b"5\0\0\0", new + count.encode().ljust(4, b"\0")
        )
        (path,) = write([file], tmp_path)
        with refused(path.name, kind=FormatError):
            read_series(tmp_path)

    @pytest.mark.parametrize("normal", [(0, 0, 9), (1, 0, 0), (0, 0, 0), (0, 0.7, 0.7)])
    def test_a_mosaic_with_an_impossible_normal_is_refused(self, normal, tmp_path):
        file = mosaic(PLAIN)
        element = file.private_block(0x0029, "SIEMENS CSA HEADER")[0x10]
        content = bytearray(element.value)
        at = content.index(b"0.00000000")
        for number in normal:
            content[at : at + 10] = f"{number:.8f}".encode()
            at += 12 + 16
        element.value = bytes(content)
        write([file], tmp_path)
        with refused(kind=FormatError):
            read_series(tmp_path)
