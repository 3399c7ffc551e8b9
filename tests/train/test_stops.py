"""A training that is asked to stop finishes its step, saves, and goes on as if nothing had been."""

import os
import signal
from collections.abc import Callable
from multiprocessing import active_children
from pathlib import Path

import pytest

from medseg3d.config.load import load_config
from medseg3d.io.events import Event, read_events
from medseg3d.nets.bundle import load_bundle
from medseg3d.train.checkpoint import load_checkpoint
from medseg3d.train.run import train_run
from medseg3d.train.signals import Stopped, stop_requests

SHORT = ["train.epochs=3", "train.validate_every=1"]
TIMES = {"seconds": None, "patches_per_second": None, "waiting_share": None, "memory_mib": None}


def signal_at(step: int, number: signal.Signals) -> Callable[[str, int, int], None]:
    """Give a progress function that sends a signal to this process when a step is reached."""

    def progress(what: str, done: int, _total: int) -> None:
        if what == "training" and done == step:
            os.kill(os.getpid(), number)

    return progress


def assert_same_run(first: Path, second: Path) -> None:
    for name in ("model.safetensors", "best.safetensors"):
        assert (first / name).read_bytes() == (second / name).read_bytes()
    logs = [
        [e.model_copy(update=TIMES) for e in read_events(run / "metrics.jsonl")]
        for run in (first, second)
    ]
    assert logs[0] == logs[1]


@pytest.fixture
def whole(config_file: Path, tmp_path: Path) -> Path:
    """Give the folder of a run that nobody stopped."""
    train_run(load_config(config_file, SHORT), tmp_path / "whole")
    return tmp_path / "whole"


@pytest.mark.parametrize("step", [11, 16], ids=["mid epoch", "last step of an epoch"])
def test_a_signal_saves_the_very_step_and_the_run_goes_on_from_there(
    config_file: Path, tmp_path: Path, whole: Path, step: int
) -> None:
    run, config = tmp_path / "stopped", load_config(config_file, SHORT)

    with pytest.raises(Stopped, match="SIGTERM"):
        train_run(config, run, progress=signal_at(step, signal.SIGTERM))

    facts = load_checkpoint(run / "checkpoint.safetensors").facts
    assert facts["step"] == step
    assert len(facts["tally"][0]) == step - 8
    train_run(config, run, resume=True)
    assert_same_run(whole, run)


@pytest.mark.slow
def test_the_scale_of_fp16_and_the_mean_of_weights_go_on_from_where_they_were(
    config_file: Path, tmp_path: Path
) -> None:
    knobs = ["train.epochs=1", "train.precision=fp16", "train.ema_decay=0.9"]
    config = load_config(config_file, knobs)
    train_run(config, tmp_path / "whole")

    with pytest.raises(Stopped):
        train_run(config, tmp_path / "cut", progress=signal_at(5, signal.SIGTERM))
    train_run(config, tmp_path / "cut", resume=True)

    assert_same_run(tmp_path / "whole", tmp_path / "cut")


@pytest.mark.slow
def test_workers_that_get_the_signal_too_let_the_step_be_finished(
    config_file: Path, tmp_path: Path, whole: Path
) -> None:
    run, config = tmp_path / "stopped", load_config(config_file, [*SHORT, "train.num_workers=1"])

    def progress(what: str, done: int, _total: int) -> None:
        if what == "training" and done == 11:
            (worker,) = active_children()
            for process in (worker.pid, os.getpid()):  # as shells and Slurm do
                os.kill(process, signal.SIGTERM)

    with pytest.raises(Stopped, match="SIGTERM"):
        train_run(config, run, progress=progress)

    assert load_checkpoint(run / "checkpoint.safetensors").facts["step"] == 11
    train_run(load_config(config_file, SHORT), run, resume=True)
    assert_same_run(whole, run)


@pytest.mark.slow
def test_a_signal_during_validation_leaves_the_epoch_open(
    config_file: Path, tmp_path: Path, whole: Path
) -> None:
    run, config = tmp_path / "stopped", load_config(config_file, SHORT)

    def watch(event: Event) -> None:
        if event.event == "epoch" and event.epoch == 2:
            os.kill(os.getpid(), signal.SIGUSR1)

    with pytest.raises(Stopped) as stopped:
        train_run(config, run, watch=watch)

    assert stopped.value.signal == signal.SIGUSR1
    assert [e.epoch for e in read_events(run / "metrics.jsonl") if e.event == "validation"] == [1]
    train_run(config, run, resume=True)
    assert_same_run(whole, run)


def test_a_signal_while_nothing_can_be_saved_stops_at_once(
    config_file: Path, tmp_path: Path
) -> None:
    def progress(what: str, done: int, _total: int) -> None:
        if what == "preprocessing" and done == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Stopped):
        train_run(load_config(config_file, SHORT), tmp_path / "run", progress=progress)

    assert not (tmp_path / "run" / "checkpoint.safetensors").exists()


def test_handlers_are_the_callers_again() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with stop_requests() as stop:
        assert signal.getsignal(signal.SIGTERM) == stop.receive
        assert not stop
    assert signal.getsignal(signal.SIGTERM) == before


def test_the_second_signal_does_not_wait() -> None:
    with stop_requests() as stop, stop.awaited():
        os.kill(os.getpid(), signal.SIGINT)
        assert stop
        with pytest.raises(Stopped, match="SIGINT"):
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.slow
def test_training_ends_early_when_validation_brings_nothing(
    config_file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = load_config(
        config_file,
        ["train.epochs=9", "train.validate_every=1", "train.patience=2", "train.ship=best",
         "train.learning_rate=1.0e-12"],
    )  # fmt: skip

    trained = train_run(config, tmp_path / "run")

    events = read_events(tmp_path / "run" / "metrics.jsonl")
    epochs = [e.epoch for e in events if e.event == "epoch"]
    means = [e.mean_dice for e in events if e.event == "validation"]
    best = max(range(len(means)), key=means.__getitem__)
    assert len(epochs) == best + 3 < 9
    assert f"ended after epoch {best + 3} of 9: 2 validations brought no better" in caplog.text
    shipped, best_bundle = (tmp_path / "run" / f"{n}.safetensors" for n in ("model", "best"))
    assert shipped.read_bytes() == best_bundle.read_bytes()
    assert load_bundle(trained.model).recipe.labels.name == "balls"
    assert events[-1].mean_dice == pytest.approx(means[best], abs=1e-9)
    train_run(config, tmp_path / "run", resume=True)
    assert read_events(tmp_path / "run" / "metrics.jsonl") == events
