"""Pretraining: it learns from images alone, resumes to the same bits, and fits every network."""

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import interpolate

from medseg3d.config.load import load_config
from medseg3d.config.pretrain import PretrainConfig
from medseg3d.config.recipe import build_recipe
from medseg3d.data.augment.compose import Sample, augment_batch
from medseg3d.data.cases import find_cases, read_cases, write_cases
from medseg3d.data.splits import split_cases
from medseg3d.data.store import StoredCase
from medseg3d.errors import ConfigError, GridError
from medseg3d.io.events import read_events
from medseg3d.nets.bundle import build_recipe_net
from medseg3d.nets.presets import NETS
from medseg3d.pretrain.objectives import build_objective, draw_mask, nt_xent
from medseg3d.pretrain.run import ViewStream, as_training, draw_starts, pretrain_run
from medseg3d.train.checkpoint import load_checkpoint
from medseg3d.train.encoder import load_encoder
from medseg3d.train.run import train_run
from medseg3d.train.transfer import start_from

METHODS = ["masked", "simclr"]
SHORT = ["pretrain.epochs=3", "pretrain.steps_per_epoch=2", "pretrain.batch_size=2"]
NARROW = {"channels": [4, 6, 8], "encoder_blocks": 1, "decoder_blocks": 1}


def unlabelled(config_file: Path) -> Path:
    """Take the reference away from a run."""
    content = yaml.safe_load(config_file.read_text())
    content["data"]["reference"] = None
    config_file.write_text(yaml.safe_dump(content))
    shutil.rmtree(Path(content["data"]["folder"]) / "labels")
    return config_file


def pretrain(config_file: Path, out: Path, *knobs: str, resume: bool = False) -> Path:
    return pretrain_run(load_config(config_file, [*SHORT, *knobs]), out, resume=resume)


@pytest.mark.slow
@pytest.mark.parametrize(("method", "left"), [("masked", 0.9), ("simclr", 0.98)])
def test_images_alone_teach_an_encoder(
    method: str, left: float, config_file: Path, tmp_path: Path
) -> None:
    run, watched = tmp_path / "run", []
    knobs = [f"pretrain.method={method}", "pretrain.epochs=10", "pretrain.steps_per_epoch=8"]
    knobs += ["pretrain.batch_size=4", "pretrain.mask_block=4", "pretrain.learning_rate=0.01"]

    path = pretrain_run(load_config(unlabelled(config_file), knobs), run, watch=watched.append)

    events = read_events(run / "metrics.jsonl")
    assert events == watched
    assert [e.epoch for e in events] == [*range(1, 11)]
    assert np.mean([e.loss for e in events[-3:]]) < left * events[0].loss
    encoder = load_encoder(path)
    assert encoder.recipe.pretrain.method == method
    parts = {name.split(".")[0] for name in encoder.weights}
    assert parts == ({"encoder", "decoder"} if method == "masked" else {"encoder"})


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize("preset", NETS)
def test_what_any_network_learns_is_a_start_for_its_segmentation(
    preset: str, spatial_dims: int, method: str, config_file: Path, tmp_path: Path
) -> None:
    content = yaml.safe_load(config_file.read_text())
    content["network"] = {"kind": preset, **NARROW, "deep_supervision": True}
    content |= {"spatial_dims": spatial_dims, "pretrain": {"method": method, "batch_size": 2}}
    content["train"]["patch_size"] = [16] * spatial_dims
    config_file.write_text(yaml.safe_dump(content))
    config = load_config(config_file, ["pretrain.epochs=1", "pretrain.steps_per_epoch=1"])
    path = pretrain_run(config, tmp_path / "run")
    recipe = build_recipe(config)
    net = build_recipe_net(recipe)

    became = start_from(net, recipe, path)

    assert {name for name in net.state_dict() if name.startswith("encoder.")} <= {*became.taken}
    drawn = {name.split(".")[0] for name in became.fresh}
    assert drawn == ({"heads"} if method == "masked" else {"decoder", "heads"})


@pytest.mark.parametrize("method", ["masked", pytest.param("simclr", marks=pytest.mark.slow)])
def test_a_run_cut_off_goes_on_to_the_same_bytes(
    method: str, config_file: Path, tmp_path: Path
) -> None:
    whole, cut, other = (tmp_path / name for name in ("whole", "cut", "other"))
    knob = f"pretrain.method={method}"

    def kill(event: object) -> None:
        if event.epoch == 2:
            raise InterruptedError

    expected = pretrain(config_file, whole, knob).read_bytes()
    with pytest.raises(InterruptedError):
        pretrain_run(load_config(config_file, [*SHORT, knob]), cut, watch=kill)
    torch.rand(3)

    assert pretrain(config_file, cut, knob, resume=True).read_bytes() == expected
    assert [e.epoch for e in read_events(cut / "metrics.jsonl")] == [1, 2, 3]
    assert pretrain(config_file, other, knob, "train.seed=1").read_bytes() != expected


@pytest.mark.slow
def test_workers_do_not_change_what_is_seen(config_file: Path, tmp_path: Path) -> None:
    one = pretrain(config_file, tmp_path / "one", "pretrain.method=simclr")
    two = pretrain(config_file, tmp_path / "two", "pretrain.method=simclr", "train.num_workers=1")

    first, second = load_encoder(one).weights, load_encoder(two).weights
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_held_out_images_stay_unseen_but_without_references_all_are_used(
    config_file: Path, tmp_path: Path
) -> None:
    pretrain(config_file, tmp_path / "labelled")
    pretrain(unlabelled(config_file), tmp_path / "unlabelled")

    rows = [
        (tmp_path / n / "images.csv").read_text().splitlines() for n in ("labelled", "unlabelled")
    ]
    assert [len(table) - 1 for table in rows] == [4, 6]


def held_out(config_file: Path, *settings: str) -> set[str]:
    data = load_config(config_file, settings).data
    return {
        case.id for case in split_cases(find_cases(data), data.split, folder=data.folder).validation
    }


def seen(run: Path) -> set[str]:
    return {case.id for case in read_cases(run / "images.csv")}


def test_what_training_holds_out_stays_unseen_where_a_table_names_references(
    config_file: Path, tmp_path: Path
) -> None:
    write_cases(tmp_path / "cases.csv", find_cases(load_config(config_file).data))
    knobs = ["data.reference=null", f"data.table={tmp_path / 'cases.csv'}"]

    pretrain(config_file, tmp_path / "run", *knobs)

    assert len(seen(tmp_path / "run")) == 4
    assert not seen(tmp_path / "run") & held_out(config_file, *knobs)


def test_unlabelled_cases_are_seen_and_change_nothing_of_who_is_held_out(
    config_file: Path, tmp_path: Path
) -> None:
    for number in (0, 1):
        (tmp_path / "data" / "labels" / f"ball_{number}.nii.gz").unlink()
    knobs = ["data.missing=drop", "data.split.num_folds=2"]

    pretrain(config_file, tmp_path / "run", *knobs)

    everyone = {f"ball_{number}" for number in range(6)}
    assert seen(tmp_path / "run") == everyone - held_out(config_file, *knobs)


def test_references_are_no_images(config_file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data" / "images"
    for path in (tmp_path / "data" / "labels").iterdir():
        shutil.copy(path, folder / path.name.replace(".nii", "_seg.nii"))
    knobs = ["data.reference=images/{case}_seg.nii.gz"]

    pretrain(config_file, tmp_path / "run", *knobs)

    assert len(seen(tmp_path / "run")) == 4
    assert not any("_seg" in case for case in seen(tmp_path / "run"))


def test_a_run_of_training_is_none_to_go_on_with(config_file: Path, tmp_path: Path) -> None:
    config = load_config(config_file, [*SHORT, "train.epochs=1"])
    train_run(config, tmp_path / "run")

    with pytest.raises(ConfigError, match=r"holds a run of another kind: it has no 'images\.csv'"):
        pretrain_run(config, tmp_path / "run", resume=True)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_learns_the_same_and_goes_on_as_it_was(
    precision: str, config_file: Path, tmp_path: Path
) -> None:
    knobs = ["network.dropout=0", "train.clip_norm=0.001", "pretrain.learning_rate=0.01"]
    knobs += ["pretrain.steps_per_epoch=4", "pretrain.batch_size=4"]

    pretrain(config_file, tmp_path / "exact", *knobs)
    pretrain(config_file, tmp_path / "half", *knobs, f"train.precision={precision}")

    exact, half = (
        [e.loss for e in read_events(tmp_path / run / "metrics.jsonl")] for run in ("exact", "half")
    )
    assert half[-1] == pytest.approx(exact[-1], rel=0.1), "but for the first steps in fp16"
    facts = load_checkpoint(tmp_path / "half" / "checkpoint.safetensors").facts
    assert ("scale" in facts["scaler"]) == (precision == "fp16")


def test_a_run_goes_on_with_its_own_images_only(config_file: Path, tmp_path: Path) -> None:
    pretrain(unlabelled(config_file), tmp_path / "run")
    folder = tmp_path / "data" / "images"
    shutil.copy(folder / "ball_0.nii.gz", folder / "ball_9.nii.gz")

    with pytest.raises(ConfigError, match=r"the cases of 'images\.csv' differ: \+ball_9.*--out"):
        pretrain(config_file, tmp_path / "run", resume=True)
    (folder / "ball_9.nii.gz").unlink()
    shutil.copy(folder / "ball_0.nii.gz", folder / "ball_1.nii.gz")
    with pytest.raises(ConfigError, match=r"files of ball_1 changed since the run began"):
        pretrain(config_file, tmp_path / "run", resume=True)


def test_networks_of_monais_are_refused_by_name(config_file: Path, tmp_path: Path) -> None:
    content = yaml.safe_load(config_file.read_text())
    content["network"] = {"kind": "monai", "name": "SegResNet"}
    config_file.write_text(yaml.safe_dump(content))

    with pytest.raises(ConfigError, match=r"'monai/SegResNet' cannot be pretrained.*unet, "):
        pretrain(config_file, tmp_path / "run")


def test_crops_the_network_cannot_take_are_refused_before_anything_is_read(
    config_file: Path, tmp_path: Path
) -> None:
    with pytest.raises(GridError, match=r"pretrain\.patch_size \(16, 16, 15\) is no multiple"):
        pretrain(config_file, tmp_path / "run", "pretrain.patch_size=[16, 16, 15]")
    with pytest.raises(GridError, match="one voxel in the deepest level"):
        pretrain(config_file, tmp_path / "run", "pretrain.patch_size=[2, 2, 2]")
    with pytest.raises(ConfigError, match=r"pretrain\.patch_size has 2 numbers, a 3D network"):
        load_config(config_file, ["pretrain.patch_size=[16, 16]"])
    assert not (tmp_path / "run").exists()


def test_several_devices_are_refused(config_file: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"one process on one device, not as 2; set train.devices=1"
    ):
        pretrain(config_file, tmp_path / "run", "train.devices=2")


def test_a_loss_that_is_not_finite_stops(config_file: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"loss became nan at step \d+: training diverged"):
        pretrain(config_file, tmp_path / "run", "pretrain.learning_rate=1e30")


class TestContrast:
    @pytest.mark.slow
    @pytest.mark.parametrize("temperature", [0.1, 0.5, 1.0])
    def test_it_is_the_formula_and_monais(self, temperature: float) -> None:
        from monai.losses import ContrastiveLoss  # noqa: PLC0415 # takes seconds

        torch.manual_seed(0)
        first, second = torch.randn(5, 7), torch.randn(5, 7)

        loss = nt_xent(first, second, temperature=temperature)

        assert loss.item() == pytest.approx(by_hand(first, second, temperature), rel=1e-5)
        assert loss.item() == pytest.approx(
            ContrastiveLoss(temperature=temperature)(first, second).item(), rel=1e-5
        )

    @settings(deadline=None, max_examples=20)
    @given(st.integers(2, 6), st.integers(0, 2**31))
    def test_neither_side_nor_length_nor_order_of_places_matter(
        self, batch: int, seed: int
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        first, second = torch.randn(2, batch, 4, generator=generator, dtype=torch.float64)
        order = torch.randperm(batch, generator=generator)
        loss = nt_xent(first, second, temperature=0.2)
        assert torch.isclose(nt_xent(second, 3 * first, temperature=0.2), loss)
        assert torch.isclose(nt_xent(first[order], second[order], temperature=0.2), loss)

    def test_partners_that_are_alike_and_others_that_are_not_lose_least(self) -> None:
        places = torch.eye(4)
        found = nt_xent(places, places, temperature=0.1)
        lost = nt_xent(places, places.roll(1, 0), temperature=0.1)
        assert found < 0.01
        assert lost > 5

    def test_the_encoder_learns_to_tell_places_apart(self, config_file: Path) -> None:
        knobs = ["pretrain.method=simclr", "network.dropout=0", "network.channels=[4, 8, 16]"]
        with torch.random.fork_rng():
            torch.manual_seed(0)
            objective = build_objective(load_config(config_file, knobs))
            smooth = [torch.randn(1, 1, *(size,) * 3) for size in (2, 4, 8, 16)]
            places = torch.cat([interpolate(image, size=(16, 16, 16)) for image in smooth])
            optimizer = torch.optim.AdamW(objective.parameters(), lr=0.01)
            losses = []
            for _ in range(25):
                views = places.repeat(2, 1, 1, 1, 1)
                loss = objective(views + 0.1 * torch.randn_like(views))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
        assert np.mean(losses[-5:]) < 0.3 * losses[0]

    def test_only_the_encoder_learns(self, config_file: Path, tmp_path: Path) -> None:
        config = load_config(config_file, ["pretrain.method=simclr"])
        objective = build_objective(config)
        objective(torch.randn(4, 1, 16, 16, 16)).backward()
        learning = {n for n, p in objective.named_parameters() if p.grad is not None}
        everything = {n for n, _ in objective.named_parameters()}
        assert learning == {n for n in everything if n.startswith(("net.encoder", "projection"))}


def by_hand(first: torch.Tensor, second: torch.Tensor, temperature: float) -> float:
    """Add up eq. 1 of Chen et al., 2020, pair by pair."""
    views = [*first.double().tolist(), *second.double().tolist()]

    def alike(a: list[float], b: list[float]) -> float:
        dot = sum(x * y for x, y in zip(a, b, strict=True))
        return math.exp(dot / math.hypot(*a) / math.hypot(*b) / temperature)

    total = 0.0
    for i, view in enumerate(views):
        partner = views[(i + len(first)) % len(views)]
        others = sum(alike(view, other) for k, other in enumerate(views) if k != i)
        total -= math.log(alike(view, partner) / others)
    return total / len(views)


class TestMasks:
    @settings(deadline=None, max_examples=30)
    @given(
        st.lists(st.integers(1, 20), min_size=2, max_size=3),
        st.integers(1, 7),
        st.floats(0.05, 0.95),
    )
    def test_whole_blocks_as_many_as_asked(self, size: list[int], block: int, ratio: float) -> None:
        config = PretrainConfig(mask_ratio=ratio, mask_block=block)
        mask = draw_mask(3, tuple(size), config)
        assert mask.shape == (3, *size)
        blocks = math.prod(-(-length // block) for length in size)
        corners = mask[(slice(None), *(slice(None, None, block) for _ in size))]
        whole = corners
        for axis, length in enumerate(size, start=1):
            whole = whole.repeat_interleave(block, axis).narrow(axis, 0, length)
        assert torch.equal(whole, mask)
        if blocks > 1:
            masked = corners.flatten(1).sum(1)
            assert (masked == min(max(round(ratio * blocks), 1), blocks - 1)).all()

    def test_what_is_masked_is_not_seen_and_alone_counts(self, config_file: Path) -> None:
        knobs = ["pretrain.mask_loss=l1", "pretrain.mask_block=4", "network.dropout=0"]
        config = load_config(config_file, knobs)
        objective = build_objective(config)
        image = torch.randn(2, 1, 16, 16, 16)
        torch.manual_seed(3)
        mask = draw_mask(2, (16, 16, 16), config.pretrain)[:, None]
        with torch.no_grad():
            restored = objective.net.train()(image * ~mask)
            torch.manual_seed(3)
            loss = objective(image)
        assert loss.item() == pytest.approx((restored - image).abs()[mask].mean().item(), rel=1e-5)


class TestViews:
    @settings(deadline=None, max_examples=50)
    @given(st.integers(0, 1000), st.integers(1, 30), st.integers(1, 30))
    def test_crops_lie_in_the_case_and_near_each_other(
        self, seed: int, length: int, size: int
    ) -> None:
        rng = np.random.default_rng(seed)
        starts = np.array(draw_starts(rng, (length,) * 3, (size,) * 3, count=2))
        assert starts.shape == (2, 3)
        if size <= length:
            assert starts.min() >= 0
            assert starts.max() + size <= length
        else:
            assert (starts == -((size - length) // 2)).all()
        assert abs(starts[0] - starts[1]).max() <= size // 4

    def test_each_view_is_changed_on_its_own(self, config_file: Path) -> None:
        knobs = ["pretrain.augment={noise_probability: 1}", "pretrain.patch_size=[20, 24, 18]"]
        config = load_config(config_file, knobs)
        stream = ViewStream([stored_case()], as_training(config), num_views=2)
        views, again, others = (drawn(stream[n]) for n in (5, 5, 6))
        assert views.shape == (2, 1, 20, 24, 18)
        assert not torch.equal(views[0], views[1])
        assert torch.equal(again, views)
        assert not torch.equal(others, views)

    def test_every_case_is_seen_before_any_is_seen_again(self, config_file: Path) -> None:
        cases = [stored_case(float(n)) for n in range(5)]
        grey = dict.fromkeys(("noise_probability", "brightness_probability"), 0)
        config = load_config(config_file, [f"pretrain.augment={grey}", "pretrain.patch_size=null"])
        stream = ViewStream(cases, as_training(config), num_views=1)
        seen = [round(drawn(stream[n]).mean().item(), 3) for n in range(10)]
        assert sorted(seen[:5]) == sorted(seen[5:]) == [0, 1, 2, 3, 4]


def drawn(samples: list[Sample]) -> torch.Tensor:
    return augment_batch(samples, torch.device("cpu"))[0]


def stored_case(value: float = 0.0) -> StoredCase:
    image = np.full((1, 20, 24, 18), value, dtype=np.float32)
    nothing = np.zeros(image.shape[1:], dtype=np.uint8)
    return StoredCase.of_arrays("case", image, channels_IJK=nothing, spacing_mm=(1.0, 1.0, 1.0))


def test_pretraining_leaves_the_callers_random_state_alone(
    config_file: Path, tmp_path: Path
) -> None:
    torch.manual_seed(7)
    before = torch.random.get_rng_state()

    pretrain(config_file, tmp_path / "run")

    assert torch.equal(before, torch.random.get_rng_state())
