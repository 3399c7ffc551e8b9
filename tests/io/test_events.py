"""The log of a training is read as it was written, up to where a kill cut it off."""

from pathlib import Path

import pytest

from medseg3d.errors import FormatError
from medseg3d.io.events import Event, append_event, read_events, rewrite_events

EVENTS = [
    Event(event="epoch", epoch=1, step=10, loss=1.2, learning_rate=1e-3, seconds=0.5),
    Event(event="epoch", epoch=2, step=20, loss=0.7, learning_rate=5e-4, seconds=0.5),
    Event(event="validation", epoch=2, step=20, dice={"WT": 0.8}, mean_dice=0.8),
]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Give the log of a short training."""
    for event in EVENTS:
        append_event(tmp_path / "metrics.jsonl", event)
    return tmp_path / "metrics.jsonl"


def test_events_come_back_as_they_were_written(log: Path) -> None:
    assert read_events(log) == EVENTS
    assert log.read_text().splitlines()[2] == (
        '{"event":"validation","epoch":2,"step":20,"dice":{"WT":0.8},"mean_dice":0.8}'
    )


def test_a_line_that_a_kill_cut_off_does_not_count(log: Path) -> None:
    log.write_text(log.read_text()[:-5])

    assert read_events(log) == EVENTS[:2]


def test_a_log_can_be_rewound(log: Path) -> None:
    rewrite_events(log, EVENTS[:1])

    assert read_events(log) == EVENTS[:1]


def test_a_folder_without_a_log_is_no_training(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"metrics.jsonl' cannot be read.*folder of a training"):
        read_events(tmp_path / "metrics.jsonl")


def test_a_damaged_line_is_named_by_its_number(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"event": "epoch", "epoch": 1, "step": 9}\n{"event": "epoch"}\n')

    with pytest.raises(FormatError, match=r"line 2: no event of a training: epoch Field required"):
        read_events(path)
