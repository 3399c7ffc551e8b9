"""Choices for data sets of many kinds, each with its reason."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medseg3d.config.data import DataConfig
from medseg3d.config.load import load_config
from medseg3d.config.write import write_config
from medseg3d.errors import ConfigError
from medseg3d.geometry.resample import spaced_grid
from medseg3d.plan.frame import choose_frame, choose_mirrors, choose_outputs, choose_preprocess
from medseg3d.plan.machine import Machine, find_machine
from medseg3d.plan.run import RunPlan, find_data, plan_dataset, plan_run, spend_hours
from medseg3d.preprocess.fingerprint import Channel, Extent, Fingerprint, Region, Spread
from medseg3d.volume import Grid, grid_difference

GREY = Spread(low=-57.0, high=164.0, mean=99.482, deviation=39.361)
MR = Channel("MR", "neither called CT", GREY, GREY)
CT = Channel("CT", "called CT", GREY, GREY)
GIB = 2**30


def cases(
    *spacings: tuple[float, float, float],
    shape: tuple[int, int, int] = (64, 64, 64),
    zeros: float = 0.0,
    **channels: Channel,
) -> Fingerprint:
    """Give a fingerprint of a case for each spacing."""
    extents = [
        Extent(f"c{n}", shape, shape, spacing, "RAS", zeros) for n, spacing in enumerate(spacings)
    ]
    region = Region(len(spacings), 1.0, 2.0, 3.0, 1.0)
    return Fingerprint(tuple(extents), channels or {"t1": MR}, {"one": region})


def data(folder: str = "f", **labels: Any) -> DataConfig:
    return DataConfig.model_validate(
        {
            "folder": folder,
            "images": {"t1": "{case}.nii"},
            "reference": "{case}_seg.nii",
            "labels": labels or {"values": {1: "one"}},
        }
    )


def test_the_spacing_is_the_median_of_each_axis():
    frame = choose_frame(cases((1.0, 1.0, 2.0), (1.5, 1.0, 2.5), (1.2, 1.0, 3.0)))
    assert frame.spacing_mm == (1.2, 1.0, 2.5)
    assert frame.shape_IJK == (64, 64, 64)
    assert frame.choices["preprocess.spacing_mm"][1] == (
        "median of the cases, from 1×1×2 to 1.5×1×3"
    )


def test_a_coarse_and_short_axis_takes_its_10th_percentile():
    spacings = [(0.8, 0.8, float(k)) for k in np.linspace(3, 7, 11)]
    thick = choose_frame(cases(*spacings, shape=(512, 512, 60)))
    assert thick.spacing_mm == (0.8, 0.8, 3.4)
    assert "10th percentile instead of 5" in thick.choices["preprocess.spacing_mm"][1]
    assert choose_frame(cases(*spacings, shape=(512, 512, 200))).spacing_mm == (0.8, 0.8, 5)
    fine = choose_frame(cases(*[(1.7, 1.7, k) for _, _, k in spacings], shape=(512, 512, 60)))
    assert fine.spacing_mm == (1.7, 1.7, 5)


def test_a_spacing_is_rounded_so_that_no_grid_needs_another_plane():
    stored, shape = (float(np.float32(0.4688)), 0.9999999, 1.0), (512, 512, 64)
    frame = choose_frame(cases(stored, shape=shape))
    grid = Grid(shape, np.diag([*stored, 1.0]))
    assert frame.spacing_mm == (0.468801, 1.0, 1.0)
    assert grid_difference(grid, spaced_grid(grid, frame.spacing_mm)) is None


def test_images_of_one_slice_make_a_2d_network():
    frame = choose_frame(cases((1.0, 1.0, 1.0), shape=(256, 256, 1)))
    assert frame.spatial_dims == 2
    assert frame.choices["spatial_dims"] == (2, "images are one slice")


def test_slices_of_a_2d_network_are_cut_across_the_coarsest_axis():
    frame = choose_frame(cases((4.0, 0.9, 0.8), shape=(30, 200, 240)), 2)
    assert frame.choices["preprocess.orientation"][0] == "ASR"
    assert frame.spacing_mm == (0.9, 0.8, 4.0)
    assert frame.shape_IJK == (200, 240, 30)
    assert choose_frame(cases((1.0, 1.0, 1.0)), 2).axes == (0, 1, 2)


def test_ct_is_clipped_and_scaled_by_its_labelled_voxels_and_mr_by_each_image():
    mixed = choose_preprocess(cases((1.0, 1.0, 1.0), ct=CT, pet=MR))
    (ct, pet), why = mixed["preprocess.intensity"]
    assert (ct.clip, ct.mean, ct.deviation, pet) == ((-57, 164), 99.482, 39.361, "zscore")
    assert why.startswith("ct: CT (called CT): percentiles 0.5 and 99.5")
    stripped = choose_preprocess(cases((1.0, 1.0, 1.0), zeros=0.6))
    assert stripped["preprocess.intensity"][0] == "zscore_nonzero"
    assert stripped["preprocess.crop"] == (
        "nonzero", "60% of the voxels of the median case are 0 in every channel, as after skull "
        "stripping",
    )  # fmt: skip
    assert (
        choose_preprocess(cases((1.0, 1.0, 1.0), zeros=0.6, ct=CT))["preprocess.crop"][0] == "none"
    )


@pytest.mark.parametrize(
    ("names", "mirrored"),
    [
        (["liver"], (0, 1, 2)),
        (["left_kidney", "kidney-right"], (1, 2)),
        (["Anterior", "Posterior"], (0, 2)),
        (["lung_upper_lobe_left"], (1,)),
        (["cleft", "lower-case l"], (1,)),
    ],
)
def test_nothing_is_mirrored_along_axes_whose_ends_labels_tell_apart(
    names: list[str], mirrored: tuple[int, ...]
):
    labels = data(values=dict(enumerate(names, start=1))).labels
    frame = choose_frame(cases((1.0, 1.0, 1.0)))
    assert choose_mirrors(labels, frame)["train.augment.mirror_axes"][0] == mirrored


def test_regions_are_outputs_where_they_overlap_and_lie_in_one_another():
    values = {1: "core", 2: "edge"}
    nested = data(values=values, regions={"all": [1, 2], "core": [1]}).labels
    assert choose_outputs(nested)["outputs"][0] == "regions"
    assert choose_outputs(data(values=values).labels)["outputs"] == ("values", "")
    crossing = data(values={**values, 3: "x"}, regions={"a": [1, 2], "b": [2, 3]}).labels
    kind, why = choose_outputs(crossing)["outputs"]
    assert kind == "values"
    assert why.startswith("regions overlap, but cannot be the outputs: region 'b' has")


@pytest.fixture(scope="module")
def plan() -> RunPlan:
    """Give the plan for 80 hippocampi."""
    spacings = [(1.0, 1.0, 1.0)] * 80
    return plan_run(data(), cases(*spacings, shape=(36, 50, 35)), Machine(8 * GIB))


def test_a_plan_is_a_run_and_its_yaml_says_why(plan: RunPlan, tmp_path: Path):
    text = write_config(plan.config, plan.reasons)
    (tmp_path / "run.yaml").write_text(text)
    assert load_config(tmp_path / "run.yaml") == plan.config
    assert plan.config.train.patch_size == (40, 56, 40)
    assert plan.config.train.batch_size == 3
    assert "  # 5 % of the data set's voxels are 3 patches; two at least\n  batch_size: 3" in text
    assert "there is no GPU: a small network, half as wide\n  kind: resunet" in text
    for path in plan.reasons:
        assert not path or f"{path.rpartition('.')[2]}:" in text


def test_on_a_gpu_it_is_nnunets_network_in_half_precision():
    spacings = [(1.0, 1.0, 1.0)] * 80
    machine = Machine(8 * GIB, "cuda", "bf16")
    run = plan_run(data(), cases(*spacings, shape=(36, 50, 35)), machine).config
    assert run.network.kind == "resenc_m"
    assert run.train.precision == "bf16"
    assert run.train.epochs * run.train.steps_per_epoch == 250_000


def test_the_epochs_are_what_the_hours_allow(plan: RunPlan):
    short = spend_hours(plan, 1.0, seconds_per_step=2.0)
    train = short.config.train
    assert train.epochs * train.steps_per_epoch == pytest.approx(1800, rel=0.05)
    assert train.learning_rate == 3e-3
    assert "about 1 h here: a step took 2 s" in short.reasons["train.epochs"]
    assert spend_hours(plan, 1e6, seconds_per_step=2.0) == plan
    assert spend_hours(plan, 1e-6, seconds_per_step=2.0).config.train.epochs == 1


def test_a_run_of_few_steps_does_not_take_longer_than_it_may_nor_says_so(plan: RunPlan):
    short = spend_hours(plan, 0.1, seconds_per_step=72.0)
    assert short.config.train.epochs * short.config.train.steps_per_epoch == 5
    assert short.reasons["train.epochs"].startswith("5 steps, about 0.1 h here")
    least = spend_hours(plan, 0.01, seconds_per_step=72.0)
    assert least.reasons["train.epochs"].startswith("1 steps, about 0.02 h here")


def test_a_long_run_is_nnunets_and_a_short_one_learns_faster_from_patches_changed_less(
    plan: RunPlan, tmp_path: Path
):
    for run, expected in (
        (plan, ("sgd", 0.01, 3e-5, "nnunet")),
        (spend_hours(plan, 1.0, seconds_per_step=2.0), ("adamw", 3e-3, 1e-4, "light")),
    ):
        train = run.config.train
        found = (train.optimizer, train.learning_rate, train.weight_decay, train.augment.preset)
        assert found == expected
        assert train.augment.mirror_axes == plan.config.train.augment.mirror_axes
        written = write_config(run.config, run.reasons)
        (tmp_path / "run.yaml").write_text(written)
        assert load_config(tmp_path / "run.yaml") == run.config
        assert "rotation" not in written  # what a preset sets need not be said


@pytest.mark.parametrize("hours", [0.0, -1.0, float("nan")])
def test_no_time_is_no_time_to_train_in(tmp_path: Path, hours: float):
    with pytest.raises(ConfigError, match="expected more than 0, or no --hours at all"):
        plan_dataset(tmp_path, Machine(GIB), hours=hours)


def test_networks_that_do_not_say_how_they_halve_are_refused():
    with pytest.raises(ConfigError, match=r"no plan for 'monai/UNETR': networks of MONAI's do not"):
        plan_run(data(), cases((1.0, 1.0, 1.0)), Machine(GIB), net="monai/UNETR")


def test_a_yaml_without_data_is_refused(tmp_path: Path):
    (tmp_path / "run.yaml").write_text("train: {epochs: 3}")
    with pytest.raises(ConfigError, match="has no section 'data', which says where the cases lie"):
        find_data(tmp_path / "run.yaml")


def test_what_is_found_can_be_set_otherwise(tmp_path: Path):
    (tmp_path / "run.yaml").write_text(
        "data: {folder: f, images: {t1: '{case}.nii.gz'}, labels: brats2021}"
    )
    found = find_data(tmp_path / "run.yaml", ["data.missing=zeros", "data.split.num_folds=3"])
    assert (found.missing, found.split.num_folds) == ("zeros", 3)
    assert found.labels == find_data(tmp_path / "run.yaml").labels
    with pytest.raises(ConfigError, match="train: unknown key"):
        find_data(tmp_path / "run.yaml", ["train.epochs=3"])


def test_memory_is_what_is_asked_for():
    assert find_machine("3GiB").memory == 3 * GIB
    assert find_machine().memory > 0


def test_the_same_fingerprint_gives_the_same_plan(plan: RunPlan):
    again = plan_run(data(), plan.fingerprint, Machine(8 * GIB))
    assert replace(again, fingerprint=plan.fingerprint) == plan
