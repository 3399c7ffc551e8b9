"""A cross-validation holds out each case once, goes on where it was cut off, and is summed up."""

import csv
import json
import signal
from pathlib import Path

import pytest

from medseg3d.config.load import load_config
from medseg3d.errors import BundleError, ConfigError
from medseg3d.io.events import Event, read_events
from medseg3d.train.folds import train_folds
from medseg3d.train.signals import Stopped

QUICK = ["train.epochs=1", "train.steps_per_epoch=4"]


@pytest.mark.slow
def test_every_case_is_held_out_once_and_summed_up(config_file: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"

    validated = train_folds(load_config(config_file, QUICK), run)

    cases = [case.pair.case for case in validated.scores.cases]
    assert cases == [f"ball_{n}" for n in range(6)]
    assert [p.name for p in validated.folders] == ["fold_0", "fold_1", "fold_2"]
    assert not (run / "fold_0" / "store").exists(), "folds share one store"
    summary = json.loads((run / "summary.json").read_text())
    dice = [
        json.loads((run / f"fold_{n}" / "validation" / "scores.json").read_text())["summary"]
        for n in range(3)
    ]
    means = [fold["ball"]["dice"]["mean"] for fold in dice]
    row = summary["folds"][0]
    assert (row["region"], row["measure"]) == ("ball", "dice")
    assert [row[f"fold_{n}"] for n in range(3)] == pytest.approx(means)
    assert row["mean_of_folds"] == pytest.approx(sum(means) / 3)
    assert row["sd_of_folds"] > 0
    assert summary["summary"]["ball"]["dice"]["n"] == 6
    with (run / "summary.csv").open() as stream:
        assert float(next(csv.DictReader(stream))["mean_of_cases"]) == row["mean_of_cases"]
    assert "mean_of_folds" in str(validated)


def test_folds_that_start_from_one_file_are_warned_of(
    config_file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = load_config(config_file, [*QUICK, "train.start_from=absent.safetensors"])

    with pytest.raises(BundleError, match="no model file"):
        train_folds(config, tmp_path / "run")

    assert "every fold starts from 'absent.safetensors'" in caplog.messages[0]


@pytest.mark.slow
def test_a_resumed_cross_validation_passes_over_what_is_done(
    config_file: Path, tmp_path: Path
) -> None:
    run, config = tmp_path / "run", load_config(config_file, QUICK)
    seen: list[Event] = []

    def stop_in_second_fold(event: Event) -> None:
        seen.append(event)
        if event.event == "epoch" and len([e for e in seen if e.event == "end"]) == 1:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Stopped):
        train_folds(config, run, watch=stop_in_second_fold)
    assert not (run / "fold_2").exists()
    before = (run / "fold_0" / "metrics.jsonl").stat().st_mtime_ns
    with pytest.raises(ConfigError, match=r"holds a run already.*--resume"):
        train_folds(config, run)

    validated = train_folds(config, run, resume=True)

    assert (run / "fold_0" / "metrics.jsonl").stat().st_mtime_ns == before
    assert len(validated.scores.cases) == 6
    assert read_events(run / "fold_2" / "metrics.jsonl")[-1].event == "end"


def test_folds_that_hold_out_a_case_twice_are_no_cross_validation(
    config_file: Path, tmp_path: Path
) -> None:
    names = [f"ball_{n}" for n in range(6)]
    folds = [{"train": names[1:], "val": names[:1]}, {"train": names[2:], "val": names[:2]}]
    (tmp_path / "data" / "splits.json").write_text(json.dumps(folds))
    once = [{"train": names[1:], "val": names[:1]}]
    (tmp_path / "data" / "once.json").write_text(json.dumps(once))

    for file, why in {
        "splits.json": "hold out ball_0 twice",
        "once.json": "gives one fold",
    }.items():
        config = load_config(config_file, [f"data.split.source={file}"])
        with pytest.raises(ConfigError, match=why):
            train_folds(config, tmp_path / "run")
