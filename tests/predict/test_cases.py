"""From cases to files: what is written, what is left alone, and what a failure leaves."""

import csv
import gzip
import logging
import subprocess
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from torch import Tensor

from medseg3d.data.cases import Case
from medseg3d.errors import ConfigError, FormatError, GridError
from medseg3d.io.files import read_volume, write_volume
from medseg3d.nets.bundle import Bundle, save_bundle
from medseg3d.predict.case import predict_case
from medseg3d.predict.cases import predict_cases, predict_inputs
from medseg3d.predict.output import Output, digest_models
from medseg3d.predict.volumes import read_volumes
from medseg3d.volume import Volume

from .conftest import LPS, write_image

REPLACE = Output(existing="replace")
Build = Callable[..., Bundle]


def table(out: Path) -> list[dict[str, str]]:
    return [*csv.DictReader((out / "volumes.csv").read_text().splitlines())]


@pytest.fixture
def cases(tmp_path: Path) -> list[Case]:
    """Give three cases of one channel, in an order that is not alphabetical."""
    (tmp_path / "in").mkdir()
    return [
        Case(name, {"t1": write_image(tmp_path / "in" / f"{name}.nii.gz", seed=seed)})
        for seed, name in enumerate("cab")
    ]


@pytest.mark.slow
def test_brats_cases_come_back_on_their_own_header(
    brats: Path, tmp_path: Path, build_bundle: Build
) -> None:
    bundle = build_bundle("Flair", "T1c", tile=64)
    save_bundle(bundle, tmp_path / "m.safetensors")
    case = "brats_2013_pat0001_1"

    done = [*predict_inputs(tmp_path / "m.safetensors", [brats / case], tmp_path / "out")]

    assert [(d.id, d.reason) for d in done] == [(case, None)]
    source = nibabel.load(brats / case / "Flair_subtrMeanDivStd.nii.gz")
    result = nibabel.load(tmp_path / "out" / f"{case}.nii.gz")
    assert result.shape == source.shape == (240, 240, 155)
    assert result.affine.tobytes() == source.affine.tobytes()
    for field in ("qform_code", "sform_code", "srow_x", "srow_y", "srow_z", "quatern_b", "pixdim"):
        np.testing.assert_array_equal(result.header[field], source.header[field])
    assert result.get_data_dtype() == np.uint8


def test_a_failing_case_is_named_and_stops_no_other(tmp_path: Path, build_bundle: Build) -> None:
    good = [write_image(tmp_path / f"{name}.nii.gz") for name in "ac"]
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress(b"no volume at all"))
    cases = [Case(n, {"t1": tmp_path / f"{n}.nii.gz"}) for n in "abc"]

    done = [*predict_cases(build_bundle("t1"), cases, tmp_path / "out")]

    assert [case.id for case in done if case.reason is None] == ["a", "c"]
    assert str(done[1].reason).startswith("reading: FormatError: ")
    assert "b.nii.gz" in str(done[1].reason)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.nii.gz", "c.nii.gz"]
    assert len(good) == 2


def test_two_runs_give_the_same_bytes(tmp_path: Path, build_bundle: Build) -> None:
    case = Case("a", {"t1": write_image(tmp_path / "a.nii.gz")})

    for out in ("one", "two"):
        [*predict_cases(build_bundle("t1"), [case], tmp_path / out)]

    one, two = ((tmp_path / out / "a.nii.gz").read_bytes() for out in ("one", "two"))
    assert one == two


def test_results_are_not_overwritten_unasked(tmp_path: Path, build_bundle: Build) -> None:
    case = Case("a", {"t1": write_image(tmp_path / "a.nii.gz")})
    out = tmp_path / "out"
    [*predict_cases(build_bundle("t1"), [case], out)]

    with pytest.raises(ConfigError, match=r"already holds a\.nii\.gz.*--overwrite"):
        [*predict_cases(build_bundle("t1"), [case], out)]

    (done,) = predict_cases(build_bundle("t1"), [case], out, output=REPLACE)
    assert done.reason is None


def test_what_a_model_was_trained_to_be_cannot_be_set(tmp_path: Path, build_bundle: Build) -> None:
    path = write_image(tmp_path / "a.nii.gz")
    model = tmp_path / "m.safetensors"
    save_bundle(build_bundle("t1"), model)

    for setting in (
        "network.channels=[4, 16]",
        "labels.values={1: a}",
        "spatial_dims=2",
        "preprocess.orientation=PIR",
    ):
        with pytest.raises(ConfigError, match="the model was trained so; free are images"):
            [*predict_inputs(model, [path], tmp_path / "out", settings=[setting])]


def test_a_result_never_replaces_the_image_it_is_made_from(
    tmp_path: Path, build_bundle: Build
) -> None:
    path = write_image(tmp_path / "a.nii.gz")
    before = path.read_bytes()

    with pytest.raises(ConfigError, match="would replace an image or a reference of that name"):
        [*predict_cases(build_bundle("t1"), [Case("a", {"t1": path})], tmp_path, output=REPLACE)]

    assert path.read_bytes() == before


def test_a_case_that_fails_leaves_no_result_of_an_earlier_run(
    tmp_path: Path, build_bundle: Build
) -> None:
    case = Case("a", {"t1": write_image(tmp_path / "a.nii.gz")})
    [*predict_cases(build_bundle("t1"), [case], tmp_path / "out")]
    case.images["t1"].write_bytes(b"")

    (done,) = predict_cases(build_bundle("t1"), [case], tmp_path / "out", output=REPLACE)

    assert done.reason
    assert not [*(tmp_path / "out").iterdir()]


def test_files_are_those_of_cases_one_by_one(
    tmp_path: Path, build_bundle: Build, cases: list[Case]
) -> None:
    bundle = build_bundle("t1", spacing_mm=(1.0, 1.0, 1.5))

    done = [*predict_cases(bundle, cases, tmp_path / "out")]

    assert [case.id for case in done] == ["c", "a", "b"]
    for case in cases:
        image = case.images["t1"]
        write_volume(predict_case(bundle, image), tmp_path / "alone.nii.gz", like=image)
        written = (tmp_path / "out" / f"{case.id}.nii.gz").read_bytes()
        assert written == (tmp_path / "alone.nii.gz").read_bytes()


@pytest.mark.parametrize("error", [MemoryError("no room"), RuntimeError("boom")])
def test_a_network_that_raises_fails_the_case_alone(
    tmp_path: Path, build_bundle: Build, cases: list[Case], error: Exception
) -> None:
    bundle, runs = build_bundle("t1"), []

    def raise_once(_: object, inputs: tuple[Tensor], __: object) -> None:
        runs.extend([1] * (inputs[0].shape[2] == 32))  # smaller ones are run to plan memory
        if len(runs) == 2:
            raise error

    bundle.net.register_forward_hook(raise_once)

    done = [*predict_cases(bundle, cases, tmp_path / "out")]

    reasons = [None, f"computing: {type(error).__name__}: {error}", None]
    assert [case.reason for case in done] == reasons
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["b.nii.gz", "c.nii.gz"]


def test_results_that_are_there_can_be_passed_over(
    tmp_path: Path, build_bundle: Build, cases: list[Case]
) -> None:
    out, skip = tmp_path / "out", Output(existing="skip", volumes=True)
    out.mkdir()
    earlier = Volume(np.full((1, 20, 24, 9), 4, np.uint8), LPS)
    write_volume(earlier, out / "a.nii.gz")
    before = (out / "a.nii.gz").stat().st_mtime_ns

    done = [*predict_cases(build_bundle("t1"), cases, out, output=skip)]

    assert [(case.id, case.skipped, case.reason) for case in done] == [
        ("c", False, None),
        ("a", True, None),
        ("b", False, None),
    ]
    assert [case.path for case in done] == [out / f"{name}.nii.gz" for name in "cab"]
    assert (out / "a.nii.gz").stat().st_mtime_ns == before
    rows = table(out)
    assert [row["case"] for row in rows] == [*"ccaabb"]
    assert rows[3] == {
        "case": "a", "label": "four", "voxels": "4320", "mm3": "8294.4", "ml": "8.2944"
    }  # fmt: skip


def test_maps_that_a_result_that_is_there_lacks_are_told_of(
    tmp_path: Path, build_bundle: Build, cases: list[Case], caplog: pytest.LogCaptureFixture
) -> None:
    bundle, out = build_bundle("t1"), tmp_path / "out"
    [*predict_cases(bundle, cases[:1], out)]
    [*predict_cases(bundle, cases[1:2], out, output=Output(probabilities=True))]
    caplog.clear()

    [*predict_cases(bundle, cases, out, output=Output(existing="skip", probabilities=True))]

    (told,) = [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]
    assert told.startswith("case 'c': '")
    assert "c.nii.gz' was there already, c_probabilities.nii.gz not: remove" in told


def test_a_damaged_result_that_is_there_is_named_where_its_volume_is_asked_for(
    tmp_path: Path, build_bundle: Build, cases: list[Case]
) -> None:
    out, skip = tmp_path / "out", Output(existing="skip", volumes=True)
    out.mkdir()
    (out / "a.nii.gz").write_bytes(b"half")

    done = [*predict_cases(build_bundle("t1"), cases, out, output=skip)]

    assert [case.reason is None for case in done] == [True, False, True]
    assert str(done[1].reason).startswith("reading: FormatError: ")
    assert (out / "a.nii.gz").read_bytes() == b"half", "it is not ours to remove"


def test_the_table_of_volumes_is_of_what_was_written(
    tmp_path: Path, build_bundle: Build, cases: list[Case]
) -> None:
    cases[0].images["t1"].write_bytes(b"")

    done = [
        *predict_cases(build_bundle("t1"), cases, tmp_path / "out", output=Output(volumes=True))
    ]

    rows = table(tmp_path / "out")
    assert [(row["case"], row["label"]) for row in rows] == [
        ("a", "one"), ("a", "four"), ("b", "one"), ("b", "four")
    ]  # fmt: skip
    for row in rows:
        label_map = read_volume(tmp_path / "out" / f"{row['case']}.nii.gz").array_CIJK
        count = np.count_nonzero(label_map == {"one": 1, "four": 4}[row["label"]])
        assert int(row["voxels"]) == count
        assert float(row["mm3"]) == pytest.approx(count * 1.2 * 0.8 * 2, abs=1e-3)
        assert float(row["ml"]) == pytest.approx(float(row["mm3"]) / 1000)
    assert [case.reason is None for case in done] == [False, True, True]


def test_several_models_are_averaged_and_one_alone_is_not_uncertain(
    tmp_path: Path, build_bundle: Build, cases: list[Case]
) -> None:
    first, second = build_bundle("t1"), build_bundle("t1")
    for weights in second.net.parameters():
        torch.nn.init.normal_(weights, std=0.3)
    asked = Output(uncertainty=True, probabilities=True)

    (done,) = predict_cases([first, second], cases[:1], tmp_path / "out", output=asked)

    image = cases[0].images["t1"]
    expected = predict_case([first, second], image)
    assert done.path
    np.testing.assert_array_equal(read_volume(done.path).array_CIJK, expected.array_CIJK)
    assert not np.array_equal(expected.array_CIJK, predict_case(first, image).array_CIJK)
    bits = read_volume(tmp_path / "out" / "c_uncertainty.nii.gz")
    probs = read_volume(tmp_path / "out" / "c_probabilities.nii.gz", fourth_axis="channels")
    assert bits.array_CIJK.dtype == probs.array_CIJK.dtype == np.float32
    assert bits.affine.tobytes() == probs.affine.tobytes() == read_volume(image).affine.tobytes()
    assert 0 <= bits.array_CIJK.min() < bits.array_CIJK.max() <= 1.6
    values = np.array([0, 1, 4])[probs.array_CIJK.argmax(0)]
    np.testing.assert_array_equal(values, expected.array_CIJK[0])
    with pytest.raises(ConfigError, match=r"give more models, or --set predict\.mirror=\[i\]"):
        [*predict_cases(first, cases, tmp_path / "alone", output=asked)]


def test_outside_the_crop_background_is_certain(tmp_path: Path, build_bundle: Build) -> None:
    image = np.zeros((1, 20, 24, 9), np.float32)
    image[0, 3:9, 4:20, 2:7] = np.random.default_rng(0).normal(100, 20, size=(6, 16, 5))
    write_volume(Volume(image, LPS), tmp_path / "a.nii.gz")
    bundle = build_bundle("t1", crop="nonzero", spacing_mm=(1.0, 1.0, 1.5), orientation="PIR")
    case = Case("a", {"t1": tmp_path / "a.nii.gz"})

    [*predict_cases(bundle, [case], tmp_path / "out", output=Output(probabilities=True))]

    path = tmp_path / "out" / "a_probabilities.nii.gz"
    probs = read_volume(path, fourth_axis="channels").array_CIJK
    assert probs.shape == (3, 20, 24, 9)
    np.testing.assert_allclose(probs.sum(0), 1, atol=1e-6)
    outside = image[0] == 0
    assert (probs[0][outside] == 1).all()
    assert (probs[0][~outside] < 1).all()


def test_two_results_never_share_a_file(tmp_path: Path, build_bundle: Build) -> None:
    cases = [
        Case(name, {"t1": write_image(tmp_path / f"{name}.nii.gz")})
        for name in ("a", "a_probabilities")
    ]

    with pytest.raises(ConfigError, match="two cases would both be written to 'a_prob"):
        [
            *predict_cases(
                build_bundle("t1"), cases, tmp_path / "out", output=Output(probabilities=True)
            )
        ]


def test_what_a_killed_run_left_half_done_is_cleared_away(
    tmp_path: Path, build_bundle: Build, cases: list[Case]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / ".a.nii.gz.0123abcd.part").touch()
    (out / ".other.nii.gz.0123abcd.part").touch()

    [*predict_cases(build_bundle("t1"), cases, out)]

    names = [".other.nii.gz.0123abcd.part", "a.nii.gz", "b.nii.gz", "c.nii.gz"]
    assert sorted(p.name for p in out.iterdir()) == names


def test_closed_early_what_was_written_is_whole_and_in_the_table(
    tmp_path: Path, build_bundle: Build, cases: list[Case]
) -> None:
    out, asked = tmp_path / "out", Output(volumes=True)
    with closing(predict_cases(build_bundle("t1"), cases, out, output=asked)) as done:
        next(done)

    written = sorted(p.name.partition(".")[0] for p in out.glob("*.nii.gz"))
    assert "c" in written
    assert sorted({row["case"] for row in table(out)}) == written
    assert not [*out.glob(".*")]


def test_progress_is_of_tiles_and_of_all_cases(
    tmp_path: Path, build_bundle: Build, cases: list[Case]
) -> None:
    bundle, told = build_bundle("t1", tile=16), []

    def report(what: str, done: float, total: int) -> None:
        told.append((what, float(done), total))

    [*predict_cases(bundle, cases, tmp_path / "out", progress=report)]

    of_cases = [done for what, done, total in told if what == "cases" and total == 3]
    assert of_cases == sorted(of_cases)
    assert (of_cases[0], of_cases[-1]) == (0, 3)
    assert 0.25 in of_cases
    assert ("a", 4, 4) in told
    assert [what for what, *_ in told if what != "cases"] == sorted(
        (what for what, *_ in told if what != "cases"), key="cab".index
    )


def test_a_digest_of_several_models_is_that_of_a_list_of_theirs(tmp_path: Path) -> None:
    models = [tmp_path / "one", tmp_path / "two"]
    for model in models:
        model.write_text(model.name)
    list_of_sums = "cut -c -64 | sha256sum | cut -c -64"
    command = f"sha256sum {models[0]} {models[1]} | {list_of_sums}"

    printed = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)

    assert digest_models(models) == printed.stdout.strip()


def test_a_result_never_replaces_a_reference(
    tmp_path: Path, build_bundle: Build, cases: list[Case]
) -> None:
    (tmp_path / "labels").mkdir()
    write_volume(Volume(np.ones((1, 20, 24, 9), np.uint8), LPS), tmp_path / "labels" / "a.nii.gz")
    case = replace(cases[1], reference=tmp_path / "labels" / "a.nii.gz")
    before = case.reference.read_bytes()

    with pytest.raises(ConfigError, match=r"'a\.nii\.gz' would replace an image or a reference"):
        [*predict_cases(build_bundle("t1"), [case], tmp_path / "labels", output=REPLACE)]

    assert case.reference.read_bytes() == before


def test_maps_of_an_earlier_run_go_with_their_label_map(
    tmp_path: Path, build_bundle: Build, cases: list[Case]
) -> None:
    out, bundle = tmp_path / "out", build_bundle("t1")
    [*predict_cases(bundle, cases, out, output=Output(probabilities=True))]
    twin = [Case("a", cases[0].images), Case("a_probabilities", cases[0].images)]

    [*predict_cases(bundle, cases[2:], out, output=REPLACE)]
    [*predict_cases(bundle, twin, out, output=REPLACE)]

    assert sorted(path.name for path in out.iterdir()) == [
        "a.nii.gz", "a_probabilities.nii.gz", "b.nii.gz", "c.nii.gz", "c_probabilities.nii.gz",
    ]  # fmt: skip
    assert read_volume(out / "a_probabilities.nii.gz").num_channels == 1, "a case of that name"


def test_the_table_of_volumes_keeps_earlier_cases(
    tmp_path: Path, build_bundle: Build, cases: list[Case]
) -> None:
    out, skip = tmp_path / "out", Output(existing="skip", volumes=True)
    for some in (cases[:1], cases[1:]):
        [*predict_cases(build_bundle("t1"), some, out, output=skip)]

    assert [*read_volumes(out)] == ["c", "a", "b"]
    (out / "volumes.csv").write_text("case;label\n1;2\n")
    with pytest.raises(FormatError, match=r"volumes\.csv' is no table of volumes.*move it"):
        [*predict_cases(build_bundle("t1"), cases, out, output=skip)]


def test_a_damaged_result_that_is_there_is_no_result(
    tmp_path: Path, build_bundle: Build, cases: list[Case]
) -> None:
    out = tmp_path / "out"
    [*predict_cases(build_bundle("t1"), cases, out)]
    whole = (out / "a.nii.gz").read_bytes()
    (out / "a.nii.gz").write_bytes(whole[:100])

    done = [*predict_cases(build_bundle("t1"), cases, out, output=Output(existing="skip"))]

    assert [(case.skipped, case.reason is None) for case in done] == [
        (True, True), (True, False), (True, True),
    ]  # fmt: skip
    assert "reading: FormatError" in str(done[1].reason)


def test_a_tile_that_does_not_fit_is_refused_before_any_case(
    tmp_path: Path, build_bundle: Build, cases: list[Case]
) -> None:
    with pytest.raises(GridError, match=r"predict\.tile_size \(31, 31, 31\) is no multiple"):
        [*predict_cases(build_bundle("t1", tile=31), cases, tmp_path / "out")]


def test_a_model_given_twice_is_told_of(
    tmp_path: Path, build_bundle: Build, cases: list[Case], caplog: pytest.LogCaptureFixture
) -> None:
    save_bundle(build_bundle("t1"), tmp_path / "m.safetensors")

    [*predict_inputs([tmp_path / "m.safetensors"] * 2, [cases[0].images["t1"]], tmp_path / "out")]

    assert "a model is given twice" in caplog.text
