"""Measures of data sets that are known, because they were made so."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medseg3d.config.data import DataConfig
from medseg3d.data.cases import find_cases
from medseg3d.errors import ConfigError, FormatError
from medseg3d.io.files import write_volume
from medseg3d.preprocess.fingerprint import Fingerprint, measure_cases
from medseg3d.volume import Volume

LPS = np.diag([-1.0, -2.0, 3.0, 1.0])
PIR = np.array([[0, 0, 3.0, 0], [-1.0, 0, 0, 0], [0, -2.0, 0, 0], [0, 0, 0, 1]])
Write = Callable[..., None]


@pytest.fixture
def data(tmp_path: Path) -> DataConfig:
    """Give an empty data set of one channel, called `scan`, and two values."""
    return DataConfig.model_validate(
        {
            "folder": tmp_path,
            "images": {"scan": "{case}_scan.nii"},
            "reference": "{case}_seg.nii",
            "labels": {"values": {1: "organ", 2: "lesion"}},
        }
    )


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Give a function that writes a case."""

    def write_case(
        name: str, image: np.ndarray, label_map: np.ndarray, *, affine: np.ndarray = LPS
    ) -> None:
        write_volume(Volume(image[None], affine), tmp_path / f"{name}_scan.nii")
        write_volume(Volume(label_map[None].astype(np.uint8), affine), tmp_path / f"{name}_seg.nii")

    return write_case


def measure(data: DataConfig) -> Fingerprint:
    return measure_cases(find_cases(data), data)


def test_shapes_and_spacings_are_those_of_turned_axes(data: DataConfig, write: Write):
    image, label_map = np.ones((4, 5, 6), dtype=np.int16), np.ones((4, 5, 6))
    write("a", image, label_map, affine=PIR)
    (case,) = measure(data).cases
    assert case.orientation == "PIR"
    assert case.shape_IJK == (6, 4, 5)
    assert case.spacing_mm == (3, 1, 2)


def test_a_stripped_skull_is_told_by_its_zeros_and_the_box_is_cut_to_it(
    data: DataConfig, write: Write
):
    image = np.zeros((8, 9, 10), dtype=np.float32)
    image[2:6, 3:8, 4:9] = 1.5
    write("a", image, image > 0)
    found = measure(data)
    assert found.cases[0].zeros == pytest.approx(1 - 100 / 720)
    assert found.cases[0].filled_IJK == (4, 5, 5)
    assert found.skull_stripped
    assert found.shapes_IJK.tolist() == [[4, 5, 5]]


def test_grey_values_are_those_of_labelled_and_of_filled_voxels(data: DataConfig, write: Write):
    rng = np.random.default_rng(0)
    for name, centre in (("a", 100), ("b", 300)):
        image = rng.normal(centre, 10, size=(20, 20, 20)).astype(np.float32)
        label_map = np.zeros(image.shape)
        label_map[:10] = 1
        image[10:] = 5
        image[15:] = 0
        write(name, image, label_map)
    seen = measure(data).channels["scan"]
    assert seen.modality == "MR"
    # of two normal distributions: the mixture's deviation, and percentiles 1 and 99 of each half
    assert seen.foreground.mean == pytest.approx(200, abs=1)
    assert seen.foreground.deviation == pytest.approx(np.hypot(100, 10), abs=1)
    assert seen.foreground.low == pytest.approx(100 - 2.326 * 10, abs=2)
    assert seen.foreground.high == pytest.approx(300 + 2.326 * 10, abs=2)
    assert seen.filled.mean == pytest.approx((200 * 2 + 5) / 3, abs=3)


def test_every_case_weighs_the_same_and_a_seed_gives_the_same_numbers(
    data: DataConfig, write: Write
):
    for name, size, value in (("a", 4, 0.5), ("b", 40, 2.5)):
        image = np.full((size, size, size), value, dtype=np.float32)
        write(name, image, np.ones(image.shape))
    assert measure(data).channels["scan"].foreground.mean == pytest.approx(1.5)
    assert repr(measure(data)) == repr(measure(data))


@pytest.mark.parametrize(
    ("channel", "low", "dtype", "modality", "reason"),
    [
        ("CT", 0, np.float32, "CT", "called CT"),
        ("thorax-ct", 0, np.float32, "CT", "called CT"),
        ("scan", -1024, np.int16, "CT", "integers down to -1024, as Hounsfield units are"),
        ("scan", -499, np.int16, "MR", "neither called CT nor integers down to -500"),
        ("act", 0, np.int16, "MR", "neither called CT"),
        ("scan", -1024.5, np.float32, "MR", "neither called CT"),
    ],
)
def test_what_is_ct_is_told_by_name_or_by_values(
    data: DataConfig, write: Write, channel: str, low: float, dtype: type, modality: str,
    reason: str,
):  # fmt: skip
    image = np.full((6, 6, 6), 50, dtype=dtype)
    image[0] = low
    write("a", image, image == 50)
    named = data.model_copy(update={"images": {channel: "{case}_scan.nii"}})
    seen = measure(named).channels[channel]
    assert seen.modality == modality
    assert reason in seen.reason


def test_volumes_and_pieces_of_labels_are_counted_in_the_cases_that_have_them(
    data: DataConfig, write: Write
):
    image, label_map = np.ones((9, 9, 9), dtype=np.int16), np.zeros((9, 9, 9))
    label_map[0, 0, 0] = label_map[1, 1, 1] = label_map[4, 4, 4] = 2  # two of them share a corner
    write("a", image, label_map)
    label_map[4:8, 0, 0] = 1
    label_map[4, 4, 4] = 0
    write("b", image, label_map)
    organ, lesion = measure(data).regions.values()
    assert (organ.cases, organ.median_mm3, organ.components) == (1, 24, 1)
    assert (lesion.cases, lesion.smallest_mm3, lesion.largest_mm3) == (2, 12, 18)
    assert lesion.median_mm3 == 15
    assert lesion.components == 1.5


def test_what_no_case_has_is_not_a_number(data: DataConfig, write: Write):
    write("a", np.ones((4, 4, 4), dtype=np.int16), np.zeros((4, 4, 4)))
    found = measure(data)
    assert found.regions["organ"].cases == 0
    assert np.isnan(found.regions["organ"].median_mm3)
    assert np.isnan(found.channels["scan"].foreground.mean)


def test_all_broken_cases_are_named(data: DataConfig, write: Write, tmp_path: Path):
    image = np.ones((4, 4, 4), dtype=np.int16)
    for name in ("good", "torn", "shifted", "foreign"):
        write(name, image, image)
    (tmp_path / "torn_scan.nii").write_bytes(b"torn")
    write_volume(Volume(image[None], np.eye(4)), tmp_path / "shifted_seg.nii")
    write("foreign", image, image * 7)
    with pytest.raises(FormatError) as refused:
        measure(data)
    message = str(refused.value)
    assert message.startswith("3 of 4 cases cannot be measured:\n  case 'foreign': ")
    assert "case 'torn'" in message
    assert "case 'shifted': 'image' and 'reference' do not lie on one grid" in message
    assert message.endswith("`medseg3d check` says more.")


def test_cases_without_references_are_refused(data: DataConfig, write: Write):
    write("a", np.ones((4, 4, 4), dtype=np.int16), np.ones((4, 4, 4)))
    cases = [replace(case, reference=None) for case in find_cases(data)]
    with pytest.raises(ConfigError, match=r"got no reference for a; set data\.reference"):
        measure_cases(cases, data)
    with pytest.raises(ConfigError, match=r"labelled cases, got no case; set"):
        measure_cases([], data)


def test_grey_values_of_what_is_ignored_or_missing_do_not_count(
    data: DataConfig, write: Write, tmp_path: Path
):
    image, label_map = np.full((4, 5, 6), 7, np.float32), np.ones((4, 5, 6))
    image[0], label_map[0] = 99, 9
    write("a", image, label_map)
    write("b", image, label_map)
    write_volume(Volume(image[None] + 1, LPS), tmp_path / "a_more.nii")
    labels = data.labels.model_copy(update={"ignore": 9})
    images = {"scan": "{case}_scan.nii", "more": "{case}_more.nii"}
    changes = {"labels": labels, "images": images, "missing": "zeros"}
    found = measure(data.model_copy(update=changes)).channels
    assert (found["scan"].foreground.low, found["scan"].foreground.high) == (7, 7)
    assert (found["more"].foreground.low, found["more"].foreground.high) == (8, 8)
