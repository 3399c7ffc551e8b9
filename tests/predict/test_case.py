"""From files to label maps on the files' own grid."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from medseg3d.errors import ConfigError, FormatError, GridError
from medseg3d.io.files import read_volume, write_volume
from medseg3d.nets.bundle import Bundle, save_bundle
from medseg3d.predict.case import predict_case, predict_image
from medseg3d.predict.cases import predict_inputs
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


def test_one_file_is_one_channel(tmp_path: Path, build_bundle: Build) -> None:
    path = write_image(tmp_path / "a.nii.gz")

    assert predict_case(build_bundle("t1"), str(path)).shape_IJK == (20, 24, 9)
