"""The log of a run is rewound by epochs, and drawn for TensorBoard where that is asked for."""

import importlib.util
from pathlib import Path

import pytest

from medseg3d.config.train import TrainConfig
from medseg3d.errors import MissingExtraError
from medseg3d.io.events import Event, read_events
from medseg3d.train.log import RunLog

EVENTS = [
    Event(event="epoch", epoch=1, step=8, loss=1.0, gradient_norms={"encoder.0": 0.5}),
    Event(event="validation", epoch=1, step=8, dice={"core": 0.4, "ball": None}, mean_dice=0.4),
    Event(event="epoch", epoch=2, step=16, loss=0.5),
    Event(event="end", epoch=2, step=16, mean_dice=0.5),
]
BOARD = pytest.mark.skipif(
    importlib.util.find_spec("tensorboard") is None,
    reason='needs pip install "medseg3d[tensorboard]"',
)


def test_what_comes_after_an_epoch_is_written_again(tmp_path: Path) -> None:
    seen: list[Event] = []
    log = RunLog(tmp_path, TrainConfig(), watch=seen.append)
    for event in EVENTS:
        log.write(event)

    log.rewind(2)
    assert read_events(log.path) == EVENTS[:3]
    log.rewind(1)
    assert read_events(log.path) == EVENTS[:2]
    assert seen == EVENTS


def test_numbers_have_names_with_their_parts() -> None:
    assert EVENTS[0].numbers() == {"loss": 1.0, "gradient_norms/encoder.0": 0.5}
    assert EVENTS[1].numbers() == {"dice/core": 0.4, "mean_dice": 0.4}


def test_tensorboard_without_its_package_gives_the_pip_line(tmp_path: Path) -> None:
    if importlib.util.find_spec("tensorboard"):
        pytest.skip("tensorboard is installed")
    with pytest.raises(MissingExtraError, match=r"pip install \"medseg3d\[tensorboard\]\""):
        RunLog(tmp_path, TrainConfig(tensorboard=True))


@BOARD
def test_tensorboard_shows_what_the_log_holds_also_after_a_rewind(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import (  # noqa: PLC0415
        EventAccumulator,
    )

    log = RunLog(tmp_path, TrainConfig(tensorboard=True))
    for event in EVENTS:
        log.write(event)
    again = RunLog(tmp_path, TrainConfig(tensorboard=True))
    again.rewind(1)
    again.write(EVENTS[2])

    shown = EventAccumulator(str(tmp_path / "tensorboard"))
    shown.Reload()
    assert [(e.step, e.value) for e in shown.Scalars("epoch/loss")] == [(8, 1.0), (16, 0.5)]
    assert [e.step for e in shown.Scalars("validation/dice/core")] == [8]
    assert "end/mean_dice" not in shown.Tags()["scalars"]
