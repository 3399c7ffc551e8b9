"""Where voxels lie: every orientation, tilted gantries, gaps, slices that are doubled."""

import shutil
import struct
from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest

from medseg3d.errors import FormatError
from medseg3d.io.dicom.read import read_series

from .judge import assert_ramp, places_of, refused, several
from .phantom import (
    OBLIQUE,
    Geometry,
    slices,
    value_at,
    write,
)

PLAIN = Geometry()


SIGNED_AXES = [tuple((sign * unit).tolist()) for unit in np.eye(3) for sign in (1, -1)]
ORIENTATIONS = [
    Geometry.along(row, column, sense)
    for row, column in permutations(SIGNED_AXES, 2)
    if not np.dot(row, column)
    for sense in (1, -1)
]


class TestPlaces:
    def test_there_are_48_orientations(self):
        assert len({str(geometry.affine()) for geometry in ORIENTATIONS}) == 48

    @pytest.mark.parametrize("geometry", ORIENTATIONS, ids=str)
    def test_every_voxel_is_in_its_place_in_all_48_orientations(self, geometry, tmp_path):
        write(slices(geometry), tmp_path)
        assert_ramp(read_series(tmp_path), geometry)

    @pytest.mark.parametrize("sense", [1, -1])
    def test_and_in_an_oblique_one(self, sense, tmp_path):
        geometry = replace(OBLIQUE, step=tuple(sense * np.array(OBLIQUE.step)))
        write(slices(geometry), tmp_path)
        assert_ramp(read_series(tmp_path), geometry)

    @pytest.mark.parametrize("count", [1, 2])
    def test_few_slices_are_a_volume_too(self, count, tmp_path):
        files = slices(several(PLAIN, slices=count))
        for file in files:
            file.SpacingBetweenSlices = "2.5"
        write(files, tmp_path)
        assert_ramp(read_series(tmp_path), several(PLAIN, slices=count))

    def test_rounded_positions_are_an_even_stack(self, tmp_path):
        places = [
            k + error for k, error in zip(range(5), (0, 0.004, -0.004, 0.003, 0), strict=True)
        ]
        write(slices(PLAIN, at=places), tmp_path)
        assert_ramp(read_series(tmp_path), PLAIN, within=1.0)

    def test_a_file_of_one_slice_is_read_by_its_name(self, tmp_path):
        (path,) = write(slices(several(PLAIN, slices=1), SpacingBetweenSlices="2.5"), tmp_path)
        assert_ramp(read_series(path), several(PLAIN, slices=1))

    def test_the_same_series_gives_the_same_bytes_whatever_the_files_are_called(self, tmp_path):
        (tmp_path / "b").mkdir()
        for number, path in enumerate(write(slices(OBLIQUE), tmp_path / "a")):
            shutil.copy(path, tmp_path / "b" / f"{97 - number}.bin")
        first, second = read_series(tmp_path / "a"), read_series(tmp_path / "b")
        assert first.array_CIJK.dtype == second.array_CIJK.dtype
        assert first.array_CIJK.tobytes() == second.array_CIJK.tobytes()
        assert first.affine.tobytes() == second.affine.tobytes()

    def test_slices_whose_place_is_said_to_few_digits(self, tmp_path):
        geometry = Geometry.along((0.8660254, 0.5, 0), (-0.5, 0.8660254, 0))
        geometry = replace(geometry, shape=(7, 6, 40))
        files = slices(geometry)
        for file in files:
            file.ImageOrientationPatient = [0.866, 0.5, 0, -0.5, 0.866, 0]
            file.ImagePositionPatient = [round(x, 1) for x in file.ImagePositionPatient]
        write(files, tmp_path)
        volume = read_series(tmp_path)
        assert np.abs(volume.affine - geometry.affine()).max() < 0.06


class TestSingles:
    @pytest.mark.parametrize("said", ["-2.5", "0", "nan", "1e9"])
    def test_an_impossible_distance_turns_no_single_slice(self, said, tmp_path):
        geometry = several(PLAIN, slices=1)
        (path,) = write(slices(geometry, SpacingBetweenSlices="7.5"), tmp_path)
        content = path.read_bytes()
        at = content.index(struct.pack("<HH2sH", 0x18, 0x88, b"DS", 4))
        new = said.encode().ljust(4)
        path.write_bytes(content[: at + 8] + new + content[at + 12 :])
        try:
            volume = read_series(tmp_path)
        except FormatError:
            return
        assert volume.affine[2, 2] > 0
        assert volume.spacing_mm[2] < 100

    def test_a_single_slice_is_as_thick_as_it_says(self, tmp_path):
        write(slices(several(PLAIN, slices=1)), tmp_path)
        volume = read_series(tmp_path)
        assert volume.spacing_mm[2] == pytest.approx(2)


class TestTilt:
    @pytest.fixture(params=[18.5, -12.0, 3.0])
    def degrees(self, request, tmp_path):
        write(slices(Geometry.tilted(request.param, shape=(7, 20, 9))), tmp_path)
        return request.param

    def test_a_tilted_gantry_is_refused_with_its_angle(self, degrees, tmp_path):
        with refused("tilt", f"{abs(degrees):.1f}"[:-2], "correct", "keep"):
            read_series(tmp_path)

    def test_kept_it_is_a_sheared_affine(self, degrees, tmp_path):
        geometry = Geometry.tilted(degrees, shape=(7, 20, 9))
        assert_ramp(read_series(tmp_path, tilt="keep"), geometry)

    def test_corrected_it_is_an_orthogonal_grid_with_every_value_in_its_place(
        self, degrees, tmp_path
    ):
        volume = read_series(tmp_path, tilt="correct")
        axes = volume.affine[:3, :3] / volume.spacing_mm
        np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-6)
        source = Geometry.tilted(degrees, shape=(7, 20, 9)).affine()
        places = places_of(volume)
        indices = (places - source[:3, 3]) @ np.linalg.inv(source[:3, :3]).T
        inside = ((indices > -1e-6) & (indices < np.array((6, 19, 8)) + 1e-6)).all(axis=-1)
        off = volume.array_CIJK[0].astype("f8") - value_at(places)
        assert np.abs(off[inside]).max() < 1.01
        assert inside.sum() > 0.6 * 7 * 20 * 9

    def test_corrected_it_holds_every_place_of_the_source(self, degrees, tmp_path):
        volume = read_series(tmp_path, tilt="correct")
        kept = read_series(tmp_path, tilt="keep")
        indices = (places_of(kept) - volume.affine[:3, 3]) @ np.linalg.inv(volume.affine[:3, :3]).T
        assert indices.min() > -0.5 - 1e-6
        assert (indices.max(axis=(0, 1, 2)) < np.array(volume.shape_IJK) - 0.5 + 1e-6).all()

    def test_without_a_tilt_both_ways_give_the_plain_volume(self, tmp_path):
        write(slices(PLAIN), tmp_path)
        for tilt in ("keep", "correct"):
            assert_ramp(read_series(tmp_path, tilt=tilt), PLAIN)

    def test_a_tilt_tag_that_the_positions_do_not_show_is_no_tilt(self, tmp_path):
        write(slices(PLAIN, GantryDetectorTilt="18.5"), tmp_path)
        assert_ramp(read_series(tmp_path), PLAIN)

    def test_a_series_sheared_to_the_side_is_refused_like_a_tilt(self, tmp_path):
        write(slices(replace(PLAIN, step=(0.5, 0.2, 2.5))), tmp_path)
        with refused("tilt", "degree"):
            read_series(tmp_path)

    @pytest.mark.parametrize(("beside_mm", "is_tilt"), [(0.01, False), (0.04, True)])
    def test_rounding_of_thin_slices_is_no_tilt(self, beside_mm, is_tilt, tmp_path):
        thin = replace(PLAIN, shape=(7, 6, 3), step=(beside_mm, 0.0, 0.5))
        write(slices(thin), tmp_path)
        if is_tilt:
            with refused("tilted by 4.57 degrees"):
                read_series(tmp_path)
        else:
            assert_ramp(read_series(tmp_path), thin)

    def test_gaps_and_tilt_together(self, tmp_path):
        geometry = Geometry.tilted(15, shape=(7, 20, 9))
        write(slices(geometry, at=[0, 1, 2, 4, 5, 7]), tmp_path)
        with refused("15.0", "mm", "tilt", "gaps"):
            read_series(tmp_path)
        with refused("15.0"):
            read_series(tmp_path, gaps="resample")
        with refused("mm"):
            read_series(tmp_path, tilt="correct")
        for tilt in ("keep", "correct"):
            volume = read_series(tmp_path, gaps="resample", tilt=tilt)
            places = places_of(volume)
            source = geometry.affine()
            indices = (places - source[:3, 3]) @ np.linalg.inv(source[:3, :3]).T
            inside = ((indices > -1e-6) & (indices < np.array((6, 19, 7)) + 1e-6)).all(axis=-1)
            off = volume.array_CIJK[0].astype("f8") - value_at(places)
            assert inside.sum() > 500
            assert np.abs(off[inside]).max() < 1.51


class TestGaps:
    def test_a_missing_slice_is_refused_with_its_neighbours_and_mm(self, tmp_path):
        files = write(slices(PLAIN, at=[0, 1, 3, 4]), tmp_path)
        with refused("17.50 mm", "22.50 mm", "5.00 mm", files[1].name, files[2].name):
            read_series(tmp_path)

    @pytest.mark.parametrize("spacing_mm", [0.02, 0.08, 0.3])
    def test_slices_that_lie_close_are_no_excuse(self, spacing_mm, tmp_path):
        fine = replace(PLAIN, step=(0.0, 0.0, spacing_mm), spacing=(0.1, 0.1))
        write(slices(fine, at=[0, 1, 3, 4]), tmp_path)
        with refused("mm"):
            read_series(tmp_path)

    def test_so_are_uneven_positions(self, tmp_path):
        files = write(slices(PLAIN, at=[0, 1, 2.2, 3, 4]), tmp_path)
        with refused("mm", "20.50", files[2].name):
            read_series(tmp_path)

    def test_and_a_step_that_changes_half_way(self, tmp_path):
        write(slices(PLAIN, at=[0, 1, 2, 4, 6, 8]), tmp_path)
        with refused("17.50 mm", "20.00 mm"):
            read_series(tmp_path)

    @pytest.mark.parametrize("at", [[0, 1, 3, 4], [0, 1, 2.2, 3, 4], [0, 1, 2, 4, 6, 8]])
    def test_resampled_every_value_is_in_its_place(self, at, tmp_path):
        write(slices(PLAIN, at=at), tmp_path)
        volume = read_series(tmp_path, gaps="resample")
        assert volume.shape_IJK[:2] == PLAIN.shape[:2]
        places = places_of(volume)
        off = volume.array_CIJK[0].astype("f8") - value_at(places)
        assert np.abs(off).max() < 1.01
        np.testing.assert_allclose(places[0, 0, 0], PLAIN.affine()[:3, 3], atol=1e-5)
        last = PLAIN.place(at[-1])[2]
        assert last - volume.spacing_mm[2] - 1e-3 < places[0, 0, -1, 2] < last + 1e-3

    def test_an_even_stack_is_not_resampled(self, tmp_path):
        write(slices(PLAIN), tmp_path)
        assert_ramp(read_series(tmp_path, gaps="resample"), PLAIN)

    def test_resampling_invents_no_slice_where_two_share_a_place(self, tmp_path):
        write(slices(PLAIN, at=[0, 1, 1, 2, 4]), tmp_path)
        with refused("17.50 mm"):
            read_series(tmp_path, gaps="resample")

    @pytest.mark.parametrize("at", [[0, 1, 2.6], [0, 1, 2.3], [0, 0.4, 1, 2.1, 3], [0, 3, 4]])
    def test_resampled_gaps_put_no_value_beyond_the_last_slice(self, at, tmp_path):
        write(slices(PLAIN, at=at), tmp_path)
        volume = read_series(tmp_path, gaps="resample")
        places = places_of(volume)
        assert np.abs(volume.array_CIJK[0].astype("f8") - value_at(places)).max() < 1.01
        assert places[..., 2].max() <= PLAIN.place(at[-1])[2] + 1e-3
        assert places[..., 2].max() > PLAIN.place(at[-1])[2] - volume.spacing_mm[2]

    def test_two_volumes_a_little_apart_are_not_resampled_into_one(self, tmp_path):
        at = [k + beside for k in range(5) for beside in (0, 0.02)]
        write(slices(PLAIN, at=at), tmp_path)
        with refused("0.050 mm", "2.45 mm", "more than one volume"):
            read_series(tmp_path, gaps="resample")

    def test_the_usual_distance_is_one_that_there_is(self, tmp_path):
        write(slices(PLAIN, at=[0, 1, 2.2, 3.4, 4.4]), tmp_path)
        with refused("usual are 2.50 mm"):
            read_series(tmp_path)


class TestDoubledSlices:
    def test_another_slice_at_the_same_place_is_refused_with_both_names(self, tmp_path):
        files = write(slices(PLAIN, at=[0, 1, 2, 2, 3, 4]), tmp_path)
        with refused("20.00 mm") as refusal:
            read_series(tmp_path)
        assert files[2].name in refusal.message or files[3].name in refusal.message

    def test_one_that_nearly_has_the_same_place_is_refused_too(self, tmp_path):
        write(slices(PLAIN, at=[0, 1, 2, 2.05, 3, 4]), tmp_path)
        with refused("mm"):
            read_series(tmp_path)

    def test_a_copy_of_one_file_changes_nothing(self, tmp_path):
        files = write(slices(PLAIN), tmp_path)
        shutil.copy(files[2], tmp_path / "copy of it.dcm")
        assert_ramp(read_series(tmp_path), PLAIN)

    def test_one_identifier_with_two_contents_is_refused(self, tmp_path):
        files = slices(PLAIN)
        files[3].SOPInstanceUID = files[2].SOPInstanceUID
        paths = write(files, tmp_path)
        with refused(kind=FormatError) as refusal:
            read_series(tmp_path)
        assert any(path.name in refusal.message for path in paths[2:4])

    def test_two_values_at_one_place_under_one_identifier_are_refused(self, tmp_path):
        files = slices(PLAIN)
        (other,) = slices(PLAIN, at=[2], add=500)
        other.SOPInstanceUID = files[2].SOPInstanceUID
        other.InstanceNumber = 3
        write([*files, other], tmp_path)
        with refused(kind=FormatError):
            read_series(tmp_path)
