"""Series that hold more than one volume, and series that only look so."""

from dataclasses import replace

import numpy as np
import pytest
from pydicom.uid import (
    MRImageStorage,
)

from medseg3d.errors import MedSegError
from medseg3d.io.dicom.read import read_series
from medseg3d.io.dicom.series import find_series

from .judge import assert_ramp, places_of, refused, several, volumes_of
from .phantom import (
    Geometry,
    Placed,
    enhanced,
    item,
    slices,
    uid,
    value_at,
    write,
)

PLAIN = Geometry()


def mixed_with(change, k=2):
    """Give the plain series with one slice changed."""
    files = slices(PLAIN)
    change(files[k])
    return files


class TestMixtures:
    """Whatever differs within a series is told apart by name, or refused; never stacked."""

    def check(self, tmp_path, files, parts):
        """Expect a refusal without a choice, and each part right when chosen by name."""
        write(files, tmp_path)
        (series,) = find_series(tmp_path)
        assert len(series.stacks) == len(parts)
        with refused(*(stack.name for stack in series.stacks)):
            read_series(tmp_path)
        found = {}
        for name, volume in volumes_of(tmp_path).items():
            for part, (geometry, add) in parts.items():
                try:
                    assert_ramp(volume, geometry, add=add, within=1.0)
                except AssertionError:
                    continue
                found[part] = name
        assert sorted(found) == sorted(parts)
        assert len({*found.values()}) == len(parts)
        return found

    def test_two_orientations(self, tmp_path):
        other = Geometry.along((0, 1, 0), (0, 0, -1))
        files = slices(PLAIN) + slices(other)
        names = self.check(tmp_path, files, {"axial": (PLAIN, 0), "sagittal": (other, 0)})
        assert all(part in name for part, name in names.items())

    def test_opposite_normals_over_the_same_places(self, tmp_path):
        other = Geometry.along((-1, 0, 0), (0, 1, 0))
        other = replace(other, origin=(22.0, -20.0, 25.0))
        self.check(tmp_path, slices(PLAIN) + slices(other), {"a": (PLAIN, 0), "b": (other, 0)})

    def test_two_sizes_of_pixels(self, tmp_path):
        other = replace(PLAIN, spacing=(2.5, 1.0), origin=(10.0, -20.0, 40.0))
        self.check(tmp_path, slices(PLAIN) + slices(other), {"a": (PLAIN, 0), "b": (other, 0)})

    def test_two_numbers_of_pixels(self, tmp_path):
        other = replace(PLAIN, shape=(8, 6, 5), origin=(10.0, -20.0, 40.0))
        self.check(tmp_path, slices(PLAIN) + slices(other), {"a": (PLAIN, 0), "b": (other, 0)})

    def test_two_frames_of_reference(self, tmp_path):
        other = replace(PLAIN, origin=(10.0, -20.0, 27.5))
        files = slices(PLAIN) + slices(other, FrameOfReferenceUID=uid("another"))
        self.check(tmp_path, files, {"a": (PLAIN, 0), "b": (other, 0)})

    def test_derived_images_beside_original_ones(self, tmp_path):
        files = slices(PLAIN) + slices(PLAIN, add=500, ImageType=["DERIVED", "SECONDARY", "MIP"])
        names = self.check(tmp_path, files, {"original": (PLAIN, 0), "derived": (PLAIN, 500)})
        assert names == {"derived": "type-1", "original": "type-2"}
        first, second = find_series(tmp_path)[0].stacks
        assert [*first.oddities()] == ["derived"]
        assert [*second.oddities()] == []

    def test_a_localizer_is_told_from_the_volume_and_passed_over(self, tmp_path):
        other = several(Geometry.along((0, 1, 0), (0, 0, -1)), slices=1)
        files = slices(PLAIN)
        files += slices(
            other, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], SpacingBetweenSlices="2.5"
        )
        write(files, tmp_path)
        localizer, volume = sorted(find_series(tmp_path)[0].stacks, key=lambda s: len(s.frames))
        assert "localizer" in localizer.name
        assert_ramp(read_series(tmp_path), PLAIN)
        assert_ramp(read_series(tmp_path, volume=volume.name), PLAIN)
        assert_ramp(read_series(tmp_path, volume=localizer.name), other)

    @pytest.mark.parametrize(
        "change",
        [
            lambda d: setattr(d, "Columns", 6) or setattr(d, "Rows", 7),
            lambda d: setattr(d, "PixelSpacing", [1.5, 2.1]),
            lambda d: setattr(d, "ImageOrientationPatient", [0, 1, 0, 1, 0, 0]),
            lambda d: setattr(d, "ImageOrientationPatient", [1, 0, 0, 0, 0.9998, 0.02]),
            lambda d: setattr(d, "FrameOfReferenceUID", uid("another")),
            lambda d: setattr(d, "ImagePositionPatient", [10, -20.5, 20]),
            lambda d: setattr(d, "ImagePositionPatient", [11, -20, 20]),
        ],
        ids=["size", "spacing", "axes", "turned", "space", "beside", "beside too"],
    )
    @pytest.mark.parametrize("k", [0, 2, 4])
    def test_one_odd_slice_is_never_stacked_nor_dropped(self, change, k, tmp_path):
        files = mixed_with(change, k)
        paths = write(files, tmp_path)
        with refused() as refusal:
            read_series(tmp_path)
        said = paths[k].name in refusal.message or "place of another" in refusal.message
        assert said or len(find_series(tmp_path)[0].stacks) == 2


class TestSeveralVolumes:
    """Points in time, echoes, b-values, components: chosen by name, or as channels."""

    def check(self, tmp_path, word, count=3):
        volumes = volumes_of(tmp_path)
        assert len(volumes) == count
        assert all(word in name for name in volumes)
        for add, name in zip((0, 1000, 2000), sorted(volumes), strict=False):
            assert_ramp(volumes[name], PLAIN, add=add)
        with refused(*volumes, "volume="):
            read_series(tmp_path)
        channels = read_series(tmp_path, fourth_axis="channels")
        assert channels.num_channels == count
        for number in range(count):
            assert_ramp(channels, PLAIN, add=1000 * number, channel=number)
        with refused(*volumes):
            read_series(tmp_path, volume="no such thing")

    def test_times_by_their_index(self, tmp_path):
        for t in (2, 0, 1):
            files = slices(PLAIN, add=1000 * t, TemporalPositionIdentifier=t + 1)
            write(files, tmp_path)
        self.check(tmp_path, "time")

    def test_places_that_differ_by_rounding_are_one_place(self, tmp_path):
        for t in range(3):
            at = [k + 0.001 * ((k + t) % 3 - 1) for k in range(5)]
            write(slices(PLAIN, at=at, add=1000 * t, AcquisitionNumber=t + 1), tmp_path)
        volumes = volumes_of(tmp_path)
        assert len(volumes) == 3
        for t, name in enumerate(sorted(volumes)):
            off = volumes[name].array_CIJK[0] - value_at(places_of(volumes[name])) - 1000 * t
            assert np.abs(off).max() < 1

    def test_more_than_nine_times_stay_in_order(self, tmp_path):
        for t in range(11):
            write(slices(PLAIN, add=100 * t, TemporalPositionIdentifier=t + 1), tmp_path)
        channels = read_series(tmp_path, fourth_axis="channels")
        for t in range(11):
            assert_ramp(channels, PLAIN, add=100 * t, channel=t)

    def test_times_by_the_time_of_acquisition(self, tmp_path):
        for t, said in enumerate(["095959.5", "100000.25", "100001"]):
            write(slices(PLAIN, add=1000 * t, AcquisitionTime=said), tmp_path)
        self.check(tmp_path, "time")

    def test_times_by_an_acquisition_time_that_differs_from_slice_to_slice(self, tmp_path):
        for t in range(3):
            files = slices(PLAIN, add=1000 * t)
            for k, file in enumerate(files):
                file.AcquisitionTime = f"{101112 + t * 3:06}.{k * 2 % 5}"
            write(files, tmp_path)
        self.check(tmp_path, "time")

    def test_times_by_number_of_acquisition(self, tmp_path):
        for t in range(3):
            write(slices(PLAIN, add=1000 * t, AcquisitionNumber=t + 1), tmp_path)
        self.check(tmp_path, "time")

    def test_times_by_the_trigger(self, tmp_path):
        for t in range(3):
            write(slices(PLAIN, add=1000 * t, TriggerTime=str(t * 40)), tmp_path)
        self.check(tmp_path, "time")

    @pytest.mark.parametrize("slice_first", [True, False])
    def test_times_by_nothing_but_the_number_of_the_image(self, slice_first, tmp_path):
        for t in range(3):
            files = slices(PLAIN, add=1000 * t)
            for k, file in enumerate(files):
                file.InstanceNumber = t * 5 + k + 1 if slice_first else k * 3 + t + 1
            write(files, tmp_path)
        self.check(tmp_path, "volume")

    def test_echoes(self, tmp_path):
        for t in range(3):
            files = slices(
                PLAIN, add=1000 * t, class_uid=MRImageStorage, EchoTime=str(4.5 * (t + 1))
            )
            write(files, tmp_path)
        self.check(tmp_path, "echo")

    def test_b_values(self, tmp_path):
        for t, b in enumerate([0, 500, 1000]):
            files = slices(PLAIN, add=1000 * t, class_uid=MRImageStorage, DiffusionBValue=float(b))
            write(files, tmp_path)
        self.check(tmp_path, "b")

    def test_magnitude_and_phase(self, tmp_path):
        for t, kind in enumerate("MP"):
            kinds = ["ORIGINAL", "PRIMARY", kind, "ND"]
            write(slices(PLAIN, add=1000 * t, class_uid=MRImageStorage, ImageType=kinds), tmp_path)
        volumes = volumes_of(tmp_path)
        assert_ramp(volumes["magnitude"], PLAIN)
        assert_ramp(volumes["phase"], PLAIN, add=1000)

    def test_kinds_of_images_that_only_their_type_tells_apart(self, tmp_path):
        for t, kind in enumerate(["WATER", "FAT", "IN_PHASE"]):
            kinds = ["DERIVED", "PRIMARY", "DIXON", kind]
            write(slices(PLAIN, add=1000 * t, class_uid=MRImageStorage, ImageType=kinds), tmp_path)
        volumes = volumes_of(tmp_path)
        assert len(volumes) == 3
        for volume in volumes.values():
            add = np.median(volume.array_CIJK[0] - value_at(places_of(volume)))
            assert_ramp(volume, PLAIN, add=round(add / 1000) * 1000)

    def test_a_time_that_lacks_a_slice_is_the_only_one_refused(self, tmp_path):
        write(slices(PLAIN, TemporalPositionIdentifier=1), tmp_path)
        write(slices(PLAIN, add=1000, at=[0, 1, 3, 4], TemporalPositionIdentifier=2), tmp_path)
        first, second = sorted(stack.name for stack in find_series(tmp_path)[0].stacks)
        assert_ramp(read_series(tmp_path, volume=first), PLAIN)
        with refused("17.50 mm", "22.50 mm"):
            read_series(tmp_path, volume=second)
        with refused():
            read_series(tmp_path, fourth_axis="channels")

    @pytest.mark.parametrize("gone", [0, 2, 4])
    def test_numbers_of_images_with_one_missing_mix_nothing(self, gone, tmp_path):
        for t in range(2):
            files = slices(PLAIN, add=1000 * t)
            for k, file in enumerate(files):
                file.InstanceNumber = t * 5 + k + 1
            write([file for k, file in enumerate(files) if (t, k) != (1, gone)], tmp_path)
        with refused("mm"):
            read_series(tmp_path)

    def test_volumes_on_different_grids_are_no_channels(self, tmp_path):
        other = Geometry.along((0, 1, 0), (0, 0, -1))
        write(slices(PLAIN) + slices(other), tmp_path)
        with pytest.raises(MedSegError, match="grid"):
            read_series(tmp_path, fourth_axis="channels")


class TestOrderOfTimes:
    @pytest.mark.parametrize("each", [True, False])
    def test_midnight_does_not_mix_times(self, each, tmp_path):
        for t in range(2):
            files = slices(PLAIN, add=1000 * t)
            for k, file in enumerate(files):
                second = t * 10 + (k - 12 if each else -5)
                file.AcquisitionDate = "20200101" if second < 0 else "20200102"
                file.AcquisitionTime = f"2359{60 + second}" if second < 0 else f"{second:06}"
                file.InstanceNumber = t * 5 + k + 1
            write(files, tmp_path)
        volumes = volumes_of(tmp_path)
        assert len(volumes) == 2
        for t, name in enumerate(sorted(volumes)):
            assert_ramp(volumes[name], PLAIN, add=1000 * t)

    def test_numbers_of_images_that_contradict_the_times_are_refused(self, tmp_path):
        for t in range(2):
            files = slices(PLAIN, add=1000 * t)
            for k, file in enumerate(files):
                file.InstanceNumber = t * 5 + k + 1
                file.AcquisitionTime = f"1011{20 + k * 2 + (t if k < 3 else 1 - t):02}"
            write(files, tmp_path)
        assert len(find_series(tmp_path)[0].stacks) == 1
        with refused("15.00 mm"):
            read_series(tmp_path)

    def test_directions_of_diffusion_at_one_b_value(self, tmp_path):
        for t, (b, direction) in enumerate([(0, None), (1000, [1, 0, 0]), (1000, [0, 1, 0])]):
            files = slices(PLAIN, add=1000 * t, class_uid=MRImageStorage, DiffusionBValue=float(b))
            for file in files:
                if direction:
                    file.DiffusionGradientOrientation = [float(x) for x in direction]
                file.InstanceNumber += 5 * t
            write(files, tmp_path)
        volumes = volumes_of(tmp_path)
        assert len(volumes) == 3
        found = set()
        for volume in volumes.values():
            add = float(np.median(volume.array_CIJK[0] - value_at(places_of(volume))))
            assert_ramp(volume, PLAIN, add=round(add / 1000) * 1000)
            found.add(round(add / 1000))
        assert found == {0, 1, 2}

    @pytest.mark.parametrize("key", ["TemporalPositionIdentifier", "StackID"])
    def test_an_index_that_counts_slices_makes_no_volumes_of_one_slice(self, key, tmp_path):
        files = slices(PLAIN)
        for k, file in enumerate(files):
            setattr(file, key, k + 1 if key == "TemporalPositionIdentifier" else str(k + 1))
        write(files, tmp_path)
        assert_ramp(read_series(tmp_path), PLAIN)

    def test_directions_that_differ_by_noise_make_no_volumes(self, tmp_path):
        files = slices(PLAIN)
        for k, file in enumerate(files):
            turn = 1e-4 * (-1) ** k
            file.ImageOrientationPatient = [1, turn, 0, -turn, 1, 0]
        write(files, tmp_path)
        volume = read_series(tmp_path)
        assert volume.shape_IJK == PLAIN.shape
        assert np.abs(volume.array_CIJK[0] - value_at(places_of(volume))).max() < 0.6

    @pytest.mark.parametrize("key", ["EchoTime", "DiffusionBValue"])
    def test_small_differences_from_slice_to_slice_are_no_volumes(self, key, tmp_path):
        files = slices(PLAIN, class_uid=MRImageStorage)
        for k, file in enumerate(files):
            setattr(file, key, 4.5 + 0.01 * k)
        write(files, tmp_path)
        assert_ramp(read_series(tmp_path), PLAIN)


def find_times(folder, count):
    """Find each volume, none a mixture, by what it adds to the phantom in thousands."""
    found = {}
    for name, volume in volumes_of(folder).items():
        t = round(float(np.median(volume.array_CIJK[0] - value_at(places_of(volume)))) / 1000)
        assert_ramp(volume, PLAIN, add=1000 * t)
        found[t] = name
    assert sorted(found) == [*range(count)]
    return [found[t] for t in range(count)]


class TestScrambled:
    """Frames or numbers in an order that says nothing; no volume may be a mixture."""

    DIRECTIONS = (None, (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))

    def diffusion(self, told_by):
        """Give one b=0 and three b=1000 in one file, its frames in no order."""
        frames = []
        for t, direction in enumerate(self.DIRECTIONS):
            group = {"DiffusionBValue": 1000.0 if direction else 0.0}
            if direction and told_by == "gradient":
                gradient = item(DiffusionGradientOrientation=[*direction])
                group["DiffusionGradientDirectionSequence"] = [gradient]
            for k in range(5):
                content = {"StackID": "1", "InStackPositionNumber": k + 1}
                if told_by == "index":
                    content["DimensionIndexValues"] = [1, k + 1, t + 1]
                groups = {"MRDiffusionSequence": group}
                frames.append(Placed(PLAIN, k, add=1000 * t, content=content, groups=groups))
        np.random.default_rng(0).shuffle(frames)
        file = enhanced(frames)
        pointers = 0x00209056, 0x00209057, 0x00189087  # stack, place in it, b-value
        file.DimensionIndexSequence = [item(DimensionIndexPointer=tag) for tag in pointers]
        return file

    @pytest.mark.parametrize(("told_by", "word"), [("index", "volume"), ("gradient", "direction")])
    def test_frames_are_told_apart_by_index_or_gradient(self, told_by, word, tmp_path):
        write([self.diffusion(told_by)], tmp_path)
        assert sorted(find_times(tmp_path, 4)) == [f"{word}-{n}" for n in (1, 2, 3, 4)]

    def test_frames_that_only_their_number_tells_apart_are_refused(self, tmp_path):
        write([self.diffusion("")], tmp_path)
        with refused("nothing in the headers says which volume each belongs to"):
            read_series(tmp_path)

    def test_moments_count_more_than_the_order_of_frames(self, tmp_path):
        frames = [
            Placed(
                PLAIN,
                k,
                add=1000 * t,
                content={"FrameAcquisitionDateTime": f"20200101101{t}{k * 20 % 50:02}"},
            )
            for t in range(3)
            for k in range(5)
        ]
        np.random.default_rng(1).shuffle(frames)
        write([enhanced(frames)], tmp_path)
        assert find_times(tmp_path, 3) == ["time-1", "time-2", "time-3"]

    def numbered(self, numbers, tags):
        """Give one volume for each of `tags`, its images numbered volume by volume."""
        files = [f for t, own in enumerate(tags) for f in slices(PLAIN, add=1000 * t, **own)]
        for number, file in zip(numbers, files, strict=True):
            file.InstanceNumber = int(number)
        return files

    def test_numbers_that_mix_b_values_are_refused(self, tmp_path):
        numbers = (1, 6, 7, 12, 13), (2, 4, 8, 10, 14), (3, 5, 9, 11, 15)
        bs = [{"DiffusionBValue": b, "class_uid": MRImageStorage} for b in (0.0, 1000.0, 1000.0)]
        write(self.numbered(np.ravel(numbers), bs), tmp_path)
        with refused("nothing in the headers says which volume"):
            read_series(tmp_path)

    @pytest.mark.parametrize("seed", range(3))
    def test_random_numbers_are_refused(self, seed, tmp_path):
        numbers = np.random.default_rng(seed).permutation(15) + 1
        write(self.numbered(numbers, [{}, {}, {}]), tmp_path)
        with refused("nothing in the headers says which volume"):
            read_series(tmp_path)

    @pytest.mark.parametrize(
        ("key", "values", "word"),
        [
            ("ConvolutionKernel", ("B30f", "B70f"), "kernel"),
            ("FlipAngle", (5, 15), "flip"),
            ("InversionTime", (700, 2500), "inversion"),
        ],
    )
    def test_what_each_image_says_counts_more_than_its_number(self, key, values, word, tmp_path):
        numbers = 1, 4, 5, 8, 9, 2, 3, 6, 7, 10
        write(self.numbered(numbers, [{key: value} for value in values]), tmp_path)
        assert find_times(tmp_path, 2) == [f"{word}-1", f"{word}-2"]


def test_acquisitions_that_overlap_are_told_apart(tmp_path):
    upper = replace(PLAIN, origin=(10.0, -20.0, 15.0 + 3 * 2.5))
    files = slices(PLAIN, AcquisitionNumber=1)
    files += slices(upper, add=1000, AcquisitionNumber=2)
    write(files, tmp_path)
    volumes = volumes_of(tmp_path)
    assert sorted(volumes) == ["acquisition-1", "acquisition-2"]
    assert_ramp(volumes["acquisition-1"], PLAIN)
    assert_ramp(volumes["acquisition-2"], upper, add=1000)
