"""Training: it learns, repeats itself, survives being killed, and says what is wrong."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from medseg3d.config.load import load_config
from medseg3d.data.cases import find_cases, read_cases, write_cases
from medseg3d.data.splits import split_cases
from medseg3d.errors import BundleError, ConfigError, GridError, LabelError
from medseg3d.io.events import Event, read_events
from medseg3d.io.files import read_volume, write_volume
from medseg3d.nets.bundle import load_bundle
from medseg3d.train.checkpoint import load_checkpoint, save_checkpoint
from medseg3d.train.folder import claim_run
from medseg3d.train.run import train_run
from medseg3d.train.trainer import Trainer
from medseg3d.volume import Volume

QUICK = ["train.epochs=1", "train.steps_per_epoch=4"]
TIMES = {"seconds": None, "patches_per_second": None, "waiting_share": None, "memory_mib": None}


def train(config_file: Path, out: Path, *settings: str, resume: bool = False) -> None:
    train_run(load_config(config_file, settings), out, resume=resume)


def start_training(config_file: Path, out: Path, *options: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "medseg3d", "train", str(config_file), "--out", str(out)]
    return subprocess.Popen([*command, *options], stderr=subprocess.DEVNULL)


def wait_for(condition: object, process: subprocess.Popen[bytes], seconds: float = 90) -> None:
    """Wait until `condition()` holds; fail if the process ends first, or time runs out."""
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert process.poll() is None, "the training ended before it could be killed"
        assert time.monotonic() < end, "the training took too long"
        time.sleep(0.005)


def test_a_network_learns_and_its_log_says_what_evaluate_says(
    config_file: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"

    trained = train_run(load_config(config_file, ["train.epochs=14"]), run)

    events = read_events(run / "metrics.jsonl")
    assert [e.event for e in events].count("epoch") == 14
    assert events[0].loss > events[-3].loss
    assert events[-1].event == "end"
    assert events[-1].mean_dice > 0.8
    scores = json.loads((run / "validation" / "scores.json").read_text())
    for region, value in events[-1].dice.items():
        assert value == pytest.approx(scores["summary"][region]["dice"]["mean"])
    assert trained.model == run / "model.safetensors"
    bundle = load_bundle(trained.model)
    assert bundle.recipe.predict.tile_size == (16, 16, 16)


def test_2d_networks_train_too(config_file: Path, tmp_path: Path) -> None:
    settings = ["spatial_dims=2", "train.patch_size=[16, 16]", "train.epochs=2"]

    train(config_file, tmp_path / "run", *settings)

    assert load_bundle(tmp_path / "run" / "model.safetensors").recipe.spatial_dims == 2


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes_whatever_the_workers(
    config_file: Path, tmp_path: Path
) -> None:
    train(config_file, tmp_path / "a", *QUICK)
    torch.rand(3)
    train(config_file, tmp_path / "b", *QUICK, "train.num_workers=2")
    train(config_file, tmp_path / "c", *QUICK, "train.seed=1")

    a, b, c = ((tmp_path / n / "model.safetensors").read_bytes() for n in "abc")
    assert a == b
    assert a != c


def test_training_leaves_the_callers_random_state_alone(config_file: Path, tmp_path: Path) -> None:
    torch.manual_seed(7)
    before = torch.random.get_rng_state()

    train(config_file, tmp_path / "run", *QUICK)

    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.slow
def test_a_training_killed_in_mid_epoch_resumes_to_the_same_weights(
    config_file: Path, tmp_path: Path
) -> None:
    settings = ["--set", "train.epochs=12", "--set", "train.steps_per_epoch=12"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert start_training(config_file, whole, *settings).wait(120) == 0
    log = killed / "metrics.jsonl"
    for epochs in (2, 5):
        resume = ["--resume"] if log.exists() else []
        process = start_training(config_file, killed, *settings, *resume)
        wait_for(lambda n=epochs: log.exists() and len(read_events(log)) > n, process)
        time.sleep(0.02)  # into the next epoch
        process.send_signal(signal.SIGKILL)
        process.wait()

    assert start_training(config_file, killed, *settings, "--resume").wait(120) == 0

    assert_same_run(whole, killed)


@pytest.mark.slow
def test_a_training_killed_in_mid_write_resumes_to_the_same_weights(
    config_file: Path, tmp_path: Path
) -> None:
    settings = [
        "--set",
        "train.epochs=30",
        "--set",
        "train.steps_per_epoch=1",
        "--set",
        "network.channels=[8, 256]",
        "--set",
        "train.validate_every=30",
    ]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert start_training(config_file, whole, *settings).wait(120) == 0
    caught = 0
    for _ in range(2):
        resume = ["--resume"] if (killed / "metrics.jsonl").exists() else []
        process = start_training(config_file, killed, *settings, *resume)
        # the temporary file of a checkpoint is there only while it is written
        wait_for(lambda: killed.exists() and any(killed.glob(".checkpoint.*.part")), process)
        process.send_signal(signal.SIGKILL)
        process.wait()
        caught += any(killed.glob(".checkpoint.*.part"))
    assert caught, "no kill hit a write"

    assert start_training(config_file, killed, *settings, "--resume").wait(120) == 0

    assert_same_run(whole, killed)
    assert not [*killed.glob(".*.part")], "an interrupted write was left behind"


def assert_same_run(first: Path, second: Path) -> None:
    one, two = ((run / "model.safetensors").read_bytes() for run in (first, second))
    assert one == two
    events = [
        [e.model_copy(update=TIMES) for e in read_events(run / "metrics.jsonl")]
        for run in (first, second)
    ]
    assert events[0] == events[1]


def test_a_folder_with_a_run_is_not_taken_for_another(config_file: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(config_file, run, "train.epochs=1")

    with pytest.raises(ConfigError, match=r"holds a run already.*--resume"):
        train(config_file, run, "train.epochs=1")
    with pytest.raises(ConfigError, match=r"differs in train\.epochs, train\.seed"):
        train(config_file, run, "train.epochs=2", "train.seed=3", resume=True)
    (tmp_path / "folds" / "fold_0").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"holds a cross-validation.*--fold all --resume"):
        train(config_file, tmp_path / "folds", "train.epochs=1")


@pytest.mark.slow
def test_resuming_a_finished_run_changes_nothing(config_file: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(config_file, run, *QUICK)
    before = [(run / name).read_bytes() for name in ("model.safetensors", "metrics.jsonl")]

    train(config_file, run, *QUICK, resume=True)

    assert before == [(run / n).read_bytes() for n in ("model.safetensors", "metrics.jsonl")]


def test_a_damaged_checkpoint_is_refused(config_file: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(config_file, run, *QUICK)
    checkpoint = run / "checkpoint.safetensors"
    checkpoint.write_bytes(checkpoint.read_bytes()[:-100])

    with pytest.raises(BundleError, match=r"cannot be resumed from.*Delete it"):
        train(config_file, run, *QUICK, resume=True)


def test_a_patch_that_the_network_cannot_halve_is_refused(
    config_file: Path, tmp_path: Path
) -> None:
    with pytest.raises(
        GridError, match=r"train\.patch_size \(16, 15, 16\).*\(2, 2, 2\).*\(16, 16, 16\)"
    ):
        train(config_file, tmp_path / "run", "train.patch_size=[16, 15, 16]")


def test_training_without_references_is_refused(config_file: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"6 cases have none, e\.g\. 'ball_0'.*data\.reference"):
        train(config_file, tmp_path / "run", "data.reference=null")


@pytest.mark.slow
def test_a_table_may_say_where_references_are(config_file: Path, tmp_path: Path) -> None:
    config = load_config(config_file)
    write_cases(tmp_path / "cases.csv", find_cases(config.data))
    table = ["data.reference=null", f"data.table={tmp_path / 'cases.csv'}", *QUICK]

    train(config_file, tmp_path / "by table", *table)
    train(config_file, tmp_path / "by pattern", *QUICK)

    by_table, by_pattern = (
        load_bundle(tmp_path / f"by {n}" / "model.safetensors").net.state_dict()
        for n in ("table", "pattern")
    )
    assert all(torch.equal(by_table[name], by_pattern[name]) for name in by_table)


def test_a_foreign_label_is_named_with_its_case(config_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "data" / "labels" / "ball_3.nii.gz"
    volume = read_volume(path)
    foreign = volume.array_CIJK.copy()
    foreign[0, :2, 0, 0] = 9
    write_volume(Volume(foreign, volume.affine), path)

    with pytest.raises(LabelError, match=r"case 'ball_3'.*9 \(2 voxels\)"):
        train(config_file, tmp_path / "run")


def test_divergence_stops_the_training_and_says_so(config_file: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"loss became (nan|inf) at step \d+: training diverged"):
        train(
            config_file,
            tmp_path / "run",
            "train.learning_rate=1.0e+30",
            "train.clip_norm=null",
            "network.norm=none",
        )


def test_divergence_that_validation_sees_first_says_so_too(
    config_file: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"case 'ball_\d' cannot be validated: .*NaN.*diverged"):
        train(
            config_file,
            tmp_path / "run",
            "train.epochs=1",
            "train.steps_per_epoch=1",
            "train.optimizer=sgd",
            "train.learning_rate=1.0e+36",
            "train.clip_norm=null",
        )


def test_cuda_is_refused_where_there_is_none(config_file: Path, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(ConfigError, match="torch finds no GPU"):
        train(config_file, tmp_path / "run", "train.device=cuda")


@pytest.mark.slow
def test_validation_while_training_measures_what_evaluate_measures_at_the_end(
    config_file: Path, tmp_path: Path
) -> None:
    config = load_config(config_file, ["preprocess.orientation=PIR", "train.epochs=2"])
    train_run(config, tmp_path / "run")
    events = tmp_path / "run" / "metrics.jsonl"
    end = read_events(events)[-1]
    cases = find_cases(config.data)
    split = split_cases(cases, config.data.split, folder=config.data.folder)

    Trainer(config, split, tmp_path / "run").validate()

    assert read_events(events)[-1].event == "validation"
    assert read_events(events)[-1].dice == pytest.approx(end.dice, abs=1e-9)


def test_a_data_set_that_changed_is_not_resumed_on(config_file: Path, tmp_path: Path) -> None:
    train(config_file, tmp_path / "run", *QUICK)
    for kind in ("images", "labels"):
        folder = tmp_path / "data" / kind
        (folder / "ball_0a.nii.gz").write_bytes((folder / "ball_0.nii.gz").read_bytes())

    with pytest.raises(ConfigError, match=r"the cases of 'training.csv' differ: [+-]ball_"):
        train(config_file, tmp_path / "run", *QUICK, resume=True)


def test_a_run_is_trained_by_one_process_at_a_time(config_file: Path, tmp_path: Path) -> None:
    config = load_config(config_file)
    with (
        claim_run(config, tmp_path / "run", resume=False),
        pytest.raises(ConfigError, match="is being trained in by another process"),
    ):
        train_run(config, tmp_path / "run", resume=True)


def test_files_that_changed_are_not_resumed_on(config_file: Path, tmp_path: Path) -> None:
    train(config_file, tmp_path / "run", *QUICK)
    case = read_cases(tmp_path / "run" / "training.csv")[0]
    assert case.reference is not None
    others = read_cases(tmp_path / "run" / "validation.csv")
    assert others[0].reference is not None
    case.reference.write_bytes(others[0].reference.read_bytes())

    with pytest.raises(ConfigError, match=f"files of {case.id} changed since the run began"):
        train(config_file, tmp_path / "run", *QUICK, resume=True)


def test_a_run_that_failed_before_its_first_checkpoint_is_begun_again(
    config_file: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="is not a folder"):
        train(config_file, tmp_path / "run", "data.folder=/nowhere")

    train(config_file, tmp_path / "run", *QUICK, resume=True)

    assert (tmp_path / "run" / "model.safetensors").exists()


def test_a_checkpoint_with_a_flipped_bit_is_refused(config_file: Path, tmp_path: Path) -> None:
    train(config_file, tmp_path / "run", *QUICK)
    checkpoint = tmp_path / "run" / "checkpoint.safetensors"
    content = bytearray(checkpoint.read_bytes())
    content[-50] ^= 1
    checkpoint.write_bytes(content)

    with pytest.raises(BundleError, match=r"cannot be resumed from: its SHA-256"):
        train(config_file, tmp_path / "run", *QUICK, resume=True)


@pytest.mark.slow
def test_a_checkpoint_of_an_older_version_is_refused(config_file: Path, tmp_path: Path) -> None:
    train(config_file, tmp_path / "run", *QUICK)
    checkpoint = tmp_path / "run" / "checkpoint.safetensors"
    saved = load_checkpoint(checkpoint)

    for part in ("facts.scaler", "facts.tally", "parts.gradients", "parts.net"):
        kind, name = part.split(".")
        kept = {key: value for key, value in getattr(saved, kind).items() if key != name}
        save_checkpoint(checkpoint, replace(saved, **{kind: kept}))
        with pytest.raises(BundleError, match=rf"another medseg3d \(KeyError\('{name}.*Delete it"):
            train(config_file, tmp_path / "run", *QUICK, resume=True)


def test_the_best_weights_are_those_of_the_checkpoint_that_knows_of_them(
    config_file: Path, tmp_path: Path
) -> None:
    run, often = tmp_path / "run", ["train.checkpoint_every=6", "train.validate_every=1"]

    def fail(event: Event) -> None:
        if event.event == "epoch" and event.epoch == 2:
            raise InterruptedError

    config = load_config(config_file, often)
    with pytest.raises(InterruptedError):
        train_run(config, run, watch=fail)

    assert (run / "best.safetensors").exists()
    facts = load_checkpoint(run / "checkpoint.safetensors").facts
    (validated,) = (e for e in read_events(run / "metrics.jsonl") if e.event == "validation")
    assert (facts["epochs_closed"], facts["best"]) == (1, validated.mean_dice)
    split = split_cases(find_cases(config.data), config.data.split, folder=config.data.folder)
    resumed = Trainer(config, split, run)
    assert (resumed.best, resumed.fruitless) == (validated.mean_dice, 0)


def test_dropout_differs_from_step_to_step_and_is_the_same_for_the_same(
    config_file: Path, tmp_path: Path
) -> None:
    config = load_config(config_file, QUICK)
    train_run(config, tmp_path / "run")
    split = split_cases(find_cases(config.data), config.data.split, folder=config.data.folder)
    drawn = []
    with torch.random.fork_rng():
        trainer = Trainer(config, split, tmp_path / "run")
        for step in (0, 1, 0):
            trainer._seed(step)
            drawn.append(torch.rand(4))

    assert torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn[0], drawn[1])


def test_a_patch_too_small_for_the_norm_is_refused_before_any_work(
    config_file: Path, tmp_path: Path
) -> None:
    with pytest.raises(GridError, match="leaves one voxel in the deepest level"):
        train(config_file, tmp_path / "run", "train.patch_size=[2, 2, 2]")
    assert not (tmp_path / "run").exists()
