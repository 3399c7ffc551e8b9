"""From files to label maps on the files' own grid."""

import gzip
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest

from medseg3d.data.cases import Case
from medseg3d.errors import ConfigError, FormatError, GridError
from medseg3d.io.files import read_volume, write_volume
from medseg3d.nets.bundle import Bundle, save_bundle
from medseg3d.predict.case import predict_case, predict_image
from medseg3d.predict.cases import predict_cases, predict_inputs
from medseg3d.predict.compose import compose_engine
from medseg3d.volume import Volume

LPS = np.diag([-1.2, -0.8, 2.0, 1.0])
Build = Callable[..., Bundle]


def write_image(path: Path, shape: tuple[int, int, int] = (20, 24, 9), seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    image = rng.normal(100, 20, size=(1, *shape)).astype(np.float32)
    write_volume(Volume(image, LPS), path)
    return path


@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize(
    "preprocess",
    [
        {},
        {"orientation": "PIR"},
        {"spacing_mm": (1.0, 1.0, 1.5)},
        {"crop": "nonzero"},
        {"orientation": None, "crop": "nonzero", "spacing_mm": (2.0, 2.0, 2.0)},
    ],
)
def test_a_label_map_lies_on_exactly_the_grid_of_its_image(
    tmp_path: Path, build_bundle: Build, preprocess: dict[str, object], spatial_dims: int
) -> None:
    path = write_image(tmp_path / "a.nii.gz")

    label_map = predict_case(build_bundle("t1", spatial_dims=spatial_dims, **preprocess), [path])

    assert label_map.array_CIJK.shape == (1, 20, 24, 9)
    assert label_map.affine.tobytes() == read_volume(path).affine.tobytes()
    assert set(np.unique(label_map.array_CIJK)) <= {0, 1, 4}
    assert len(np.unique(label_map.array_CIJK)) > 1, "an untrained net is not constant"


def test_turning_the_file_turns_the_result(tmp_path: Path, build_bundle: Build) -> None:
    volume = read_volume(write_image(tmp_path / "a.nii.gz"))
    turned = Volume(volume.array_CIJK[:, ::-1], volume.affine @ _flip_of_first_axis(20))
    bundle = build_bundle("t1")

    straight, again = predict_case(bundle, volume), predict_case(bundle, turned)

    np.testing.assert_array_equal(straight.array_CIJK[:, ::-1], again.array_CIJK)


def _flip_of_first_axis(length: int) -> np.ndarray:
    flip = np.eye(4)
    flip[0, 0], flip[0, 3] = -1, length - 1
    return flip


def test_a_2d_network_sees_one_slice_at_a_time(build_bundle: Build) -> None:
    bundle = build_bundle("t1", spatial_dims=2)
    image = np.random.default_rng(0).normal(size=(1, 20, 24, 5)).astype(np.float32)
    other = image.copy()
    other[..., 3] += 5

    engine = compose_engine([bundle])
    first, second = (predict_image(engine, x, bundle.recipe).values_IJK for x in (image, other))

    changed = (first != second).any(axis=(0, 1))
    assert changed.tolist() == [False, False, False, True, False]


def test_a_single_2d_image_is_segmented(tmp_path: Path, build_bundle: Build) -> None:
    path = write_image(tmp_path / "a.nii.gz", (40, 50, 1))

    assert predict_case(build_bundle("t1", spatial_dims=2), [path]).shape_IJK == (40, 50, 1)


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
    assert "FormatError" in str(done[1].reason)
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

    assert [c.reason for c in predict_cases(build_bundle("t1"), [case], out, overwrite=True)] == [
        None
    ]


def test_channels_on_different_grids_are_refused(tmp_path: Path, build_bundle: Build) -> None:
    paths = [write_image(tmp_path / "a.nii.gz"), write_image(tmp_path / "b.nii.gz", (20, 24, 8))]

    with pytest.raises(GridError, match=r"20×24×9.*\n.*20×24×8"):
        predict_case(build_bundle("t1", "t2"), paths)


def test_a_wrong_number_of_files_is_refused(tmp_path: Path, build_bundle: Build) -> None:
    path = write_image(tmp_path / "a.nii.gz")

    with pytest.raises(ConfigError, match=r"2 files \(t1, t2\), got 1"):
        predict_case(build_bundle("t1", "t2"), [path])
    with pytest.raises(ConfigError, match=r"2 channels \(t1, t2\), got 1"):
        predict_case(build_bundle("t1", "t2"), read_volume(path))


def test_nan_is_refused_unless_asked_to_be_zero(tmp_path: Path, build_bundle: Build) -> None:
    image = np.ones((1, 20, 24, 9), dtype=np.float32)
    image[0, 3:9] = 2
    image[0, 0, 0, 0] = np.nan
    write_volume(Volume(image, LPS), tmp_path / "a.nii.gz")
    model = tmp_path / "m.safetensors"
    save_bundle(build_bundle("t1"), model)

    with pytest.raises(FormatError, match="1 voxels of NaN"):
        predict_case(build_bundle("t1"), [tmp_path / "a.nii.gz"])
    done = predict_inputs(
        model, [tmp_path / "a.nii.gz"], tmp_path / "out", settings=["preprocess.nonfinite=zero"]
    )
    assert [case.reason for case in done] == [None]


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

    with pytest.raises(ConfigError, match="would replace the image it is made from"):
        [*predict_cases(build_bundle("t1"), [Case("a", {"t1": path})], tmp_path, overwrite=True)]

    assert path.read_bytes() == before


def test_a_case_that_fails_leaves_no_result_of_an_earlier_run(
    tmp_path: Path, build_bundle: Build
) -> None:
    case = Case("a", {"t1": write_image(tmp_path / "a.nii.gz")})
    [*predict_cases(build_bundle("t1"), [case], tmp_path / "out")]
    case.images["t1"].write_bytes(b"")

    (done,) = predict_cases(build_bundle("t1"), [case], tmp_path / "out", overwrite=True)

    assert done.reason
    assert not [*(tmp_path / "out").iterdir()]


def test_one_file_is_one_channel(tmp_path: Path, build_bundle: Build) -> None:
    path = write_image(tmp_path / "a.nii.gz")

    assert predict_case(build_bundle("t1"), str(path)).shape_IJK == (20, 24, 9)
