"""Finding series: folders, archives, discs, and all that lies between."""

import math
import os
import shutil
import zipfile
from pathlib import Path

import pytest
from pydicom.fileset import FileSet
from pydicom.uid import (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RTStructureSetStorage,
)

from medseg3d.errors import FormatError
from medseg3d.io.dicom.read import read_series
from medseg3d.io.dicom.series import find_series

from .judge import assert_ramp, assert_ramp_or_refused, limited, refused, several
from .phantom import (
    Geometry,
    blank,
    slices,
    uid,
    write,
)

PLAIN = Geometry()


class TestFolders:
    def test_two_series_are_told_apart_and_chosen(self, tmp_path):
        other = Geometry.along((0, 1, 0), (0, 0, -1))
        write(slices(PLAIN), tmp_path)
        write(slices(other, series=2, SeriesDescription="second", SeriesNumber=2), tmp_path)
        found = find_series(tmp_path)
        assert sorted(series.description for series in found) == ["ramp", "second"]
        for series in found:
            assert_ramp(read_series(series), other if series.description == "second" else PLAIN)
        with refused("series 1", "series 2"):
            read_series(tmp_path)

    def test_two_patients_in_one_folder_are_two_series(self, tmp_path):
        write(slices(PLAIN), tmp_path)
        other = slices(PLAIN, series=2, add=100, StudyInstanceUID=uid("study 2"))
        for file in other:
            file.PatientID, file.PatientName = "CANARY-ID-2", "CANARY^PATIENT^TWO"
        write(other, tmp_path)
        assert len(find_series(tmp_path)) == 2
        with refused("series"):
            read_series(tmp_path)

    def test_files_of_other_kinds_lie_between(self, tmp_path):
        write(slices(PLAIN), tmp_path / "deep" / "er", suffix="")
        (tmp_path / "deep" / "notes.txt").write_text("CANARY^PATIENT\n" * 20)
        (tmp_path / "deep" / "er" / "facts.json").write_text("{}")
        (tmp_path / "deep" / "er" / "image.nii").write_bytes(b"\x5c\1\0\0" + b"\0" * 400)
        (tmp_path / "deep" / "empty folder").mkdir()
        (tmp_path / ".DS_Store").write_bytes(b"\0\0\0\1Bud1" + b"\0" * 200)
        assert_ramp(read_series(tmp_path), PLAIN)

    def test_slices_in_several_folders_are_one_series(self, tmp_path):
        files = slices(PLAIN)
        write(files[:2], tmp_path / "a")
        write(files[2:], tmp_path / "b")
        assert_ramp(read_series(tmp_path), PLAIN)

    def test_objects_without_pixels_are_passed_over(self, tmp_path):
        write(slices(PLAIN), tmp_path)
        structures = blank(RTStructureSetStorage, series=7, Modality="RTSTRUCT")
        write([structures], tmp_path)
        assert_ramp(read_series(tmp_path), PLAIN)
        assert len([series for series in find_series(tmp_path) if series.stacks]) == 1

    @pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
    @pytest.mark.parametrize("suffix", ["", ".dcm", ".IMA", ".1"])
    def test_files_without_preamble(self, syntax, suffix, tmp_path):
        write(slices(PLAIN), tmp_path, syntax=syntax, suffix=suffix, preamble=False)
        assert_ramp(read_series(tmp_path), PLAIN)

    def test_a_zip(self, tmp_path):
        write(slices(PLAIN), tmp_path / "a" / "b")
        shutil.make_archive(str(tmp_path / "study"), "zip", tmp_path / "a")
        assert_ramp(read_series(tmp_path / "study.zip"), PLAIN)

    def test_a_zip_inside_a_folder(self, tmp_path):
        write(slices(PLAIN), tmp_path / "a" / "b")
        (tmp_path / "c").mkdir()
        shutil.make_archive(str(tmp_path / "c" / "study"), "zip", tmp_path / "a")
        assert_ramp(read_series(tmp_path / "c"), PLAIN)

    def test_a_zip_cut_short_is_refused(self, tmp_path):
        write(slices(PLAIN), tmp_path / "a")
        path = Path(shutil.make_archive(str(tmp_path / "study"), "zip", tmp_path / "a"))
        path.write_bytes(path.read_bytes()[:-200])
        with refused("study.zip", kind=FormatError):
            read_series(path)

    def test_a_zip_of_damaged_bytes_is_refused(self, tmp_path):
        write(slices(PLAIN), tmp_path / "a")
        path = Path(shutil.make_archive(str(tmp_path / "study"), "zip", tmp_path / "a"))
        content = bytearray(path.read_bytes())
        content[500:520] = bytes(20)
        path.write_bytes(content)
        with refused(kind=FormatError):
            read_series(path)

    def test_a_zip_that_holds_a_name_twice_is_refused(self, tmp_path):
        paths = write(slices(several(PLAIN, slices=2)), tmp_path / "a")
        with zipfile.ZipFile(tmp_path / "flat.zip", "w") as archive:
            archive.write(paths[0], "same.dcm")
            with pytest.warns(UserWarning, match="Duplicate name"):
                archive.write(paths[1], "same.dcm")
        with refused("flat.zip", "twice", kind=FormatError):
            read_series(tmp_path / "flat.zip")

    def test_an_encrypted_zip_is_refused(self, tmp_path):
        write(slices(PLAIN), tmp_path / "a")
        path = Path(shutil.make_archive(str(tmp_path / "study"), "zip", tmp_path / "a"))
        content = path.read_bytes()
        for mark, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
            parts = content.split(mark)
            locked = [part[: flags - 4] + b"\1\0" + part[flags - 2 :] for part in parts[1:]]
            content = mark.join([parts[0], *locked])
        path.write_bytes(content)
        with refused("encrypted", kind=FormatError):
            read_series(path)

    @pytest.mark.parametrize("folder", ["series", "reports"])
    def test_an_archive_that_is_none_keeps_no_series_from_being_listed(self, folder, tmp_path):
        write(slices(PLAIN), tmp_path / "series")
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "report.zip").write_bytes(b"no archive")
        (series,) = find_series(tmp_path)
        assert [stack.size for stack in series.stacks] == ["7×6×5"]
        with refused("report.zip"):  # it may hold a slice
            read_series(tmp_path)

    @pytest.mark.slow
    def test_a_zip_of_changed_bytes_is_read_right_or_refused(self, tmp_path):
        write(slices(PLAIN), tmp_path / "a", suffix="")
        path = Path(shutil.make_archive(str(tmp_path / "study"), "zip", tmp_path / "a"))
        content = path.read_bytes()
        directory = content.index(b"PK\1\2")
        for at in range(directory, len(content), 5):
            changed = content[:at] + bytes([content[at] ^ 1 << at % 8]) + content[at + 1 :]
            path = tmp_path / f"{at}.zip"
            path.write_bytes(changed)
            assert_ramp_or_refused(path, PLAIN)

    @pytest.mark.slow
    def test_a_zip_that_unpacks_beyond_all_bounds_is_refused(self, tmp_path):
        with (
            zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=9) as z,
            z.open("bomb.dcm", "w", force_zip64=True) as stream,
        ):
            stream.write(bytes(128) + b"DICM")
            for _ in range(1100):
                stream.write(bytes(2**20))
        with refused("bomb", kind=FormatError):
            read_series(tmp_path / "bomb.zip")

    def test_a_dicomdir(self, tmp_path):
        write(slices(PLAIN), tmp_path / "plain")
        fileset = FileSet()
        for path in sorted((tmp_path / "plain").iterdir()):
            fileset.add(path)
        fileset.write(tmp_path / "disc")
        fileset._stage["t"].cleanup()
        assert (tmp_path / "disc" / "DICOMDIR").is_file()
        assert_ramp(read_series(tmp_path / "disc"), PLAIN)

    def test_an_empty_folder_is_refused_by_name(self, tmp_path):
        with refused(tmp_path.name, kind=FormatError):
            read_series(tmp_path)
        with refused("nowhere", kind=FormatError):
            read_series(tmp_path / "nowhere")

    def test_names_with_spaces_and_letters_of_any_kind(self, tmp_path):
        write(slices(PLAIN), tmp_path / "Müller 日本 's", suffix=" ü.dcm")
        assert_ramp(read_series(tmp_path / "Müller 日本 's"), PLAIN)


class TestFiles:
    def test_shadows_that_a_mac_leaves_are_passed_over(self, tmp_path):
        for path in write(slices(PLAIN), tmp_path):
            (tmp_path / f"._{path.name}").write_bytes(b"\0\5\x16\7" + b"\0" * 200)
        assert_ramp(read_series(tmp_path), PLAIN)

    def test_a_pipe_is_not_waited_for(self, tmp_path):
        write(slices(PLAIN), tmp_path)
        os.mkfifo(tmp_path / "pipe")
        with limited():
            assert_ramp_or_refused(tmp_path, PLAIN, "pipe")

    def test_a_link_to_nowhere_is_named_or_passed_over(self, tmp_path):
        write(slices(PLAIN), tmp_path)
        (tmp_path / "link").symlink_to(tmp_path / "gone")
        assert_ramp_or_refused(tmp_path, PLAIN, "link")

    def test_links_are_followed(self, tmp_path):
        files = slices(PLAIN)
        write(files[:2], tmp_path / "series")
        (there,) = write(files[2:3], tmp_path / "there")
        write(files[3:], tmp_path / "elsewhere")
        (tmp_path / "series/slice.dcm").symlink_to(there)
        (tmp_path / "series/rest").symlink_to(tmp_path / "elsewhere")
        assert_ramp(read_series(tmp_path / "series"), PLAIN)

    def test_links_in_a_circle_end_and_show_nothing_twice(self, tmp_path):
        write(slices(PLAIN), tmp_path)
        (tmp_path / "circle").symlink_to(tmp_path)
        (series,) = find_series(tmp_path)
        assert series.remarks == ()
        assert_ramp(read_series(series), PLAIN)

    def test_the_same_files_unpacked_beside_their_zip(self, tmp_path):
        write(slices(PLAIN), tmp_path / "a")
        shutil.make_archive(str(tmp_path / "a" / "study"), "zip", tmp_path / "a")
        assert_ramp(read_series(tmp_path / "a"), PLAIN)


def test_what_is_odd_about_a_series_is_said_when_it_is_found(tmp_path):
    write(slices(Geometry.tilted(18.5), series="tilt", SeriesNumber=1), tmp_path)
    write(slices(PLAIN, at=[0, 1, 3], series="gap", SeriesNumber=2), tmp_path)
    write(slices(PLAIN, series="plain", SeriesNumber=3, SpacingBetweenSlices="2.5"), tmp_path)
    tilt, gap, plain = sorted(find_series(tmp_path), key=lambda series: series.number)
    assert "18.5" in " ".join(tilt.stacks[0].remarks())
    assert "17.50 mm" in " ".join(gap.stacks[0].remarks())
    assert not [*plain.stacks[0].remarks()]
    assert plain.modality == "CT"
    assert math.isclose(plain.stacks[0].grid.spacing_mm[2], 2.5)


@pytest.mark.parametrize("at", [[0, 2, 4], [0, 4]])
def test_slices_further_apart_than_they_say_are_read_and_told(at, tmp_path):
    write(slices(PLAIN, at=at, SpacingBetweenSlices="2.5"), tmp_path)
    assert read_series(tmp_path).spacing_mm[2] == pytest.approx(2.5 * at[1])
    (stack,) = find_series(tmp_path)[0].stacks
    said = f"slices lie {2.5 * at[1]:.2f} mm apart, their headers say 2.50 mm"
    assert [*stack.remarks()] == [said]


@pytest.mark.parametrize("along", ["2.5", "2.3715"])
def test_a_distance_said_along_the_table_or_the_normal_is_right_for_tilted_slices(along, tmp_path):
    write(slices(Geometry.tilted(18.4544), SpacingBetweenSlices=along), tmp_path)
    (stack,) = find_series(tmp_path)[0].stacks
    assert [*stack.remarks()] == ["gantry tilted by 18.45 degrees"]


def test_names_of_files_do_not_matter(tmp_path):
    paths = write(slices(PLAIN), tmp_path / "in")
    for n, path in enumerate(paths):
        (tmp_path / "in" / str(n)).mkdir()
        path.rename(tmp_path / "in" / str(n) / "same.dcm")
    assert_ramp(read_series(tmp_path / "in"), PLAIN)


def test_files_that_differ_and_say_they_are_one_are_told_by_their_folders(tmp_path):
    files = slices(PLAIN)
    write(files, tmp_path / "first")
    files[0].SeriesDescription = "sent again"
    (path,) = write(files[:1], tmp_path / "second")
    with refused(f"'first/{path.name}' and 'second/{path.name}' differ"):
        read_series(tmp_path)
