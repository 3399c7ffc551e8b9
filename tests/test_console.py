"""How verbs speak: results on stdout, everything else on stderr, and nothing is markup."""

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from medseg3d import console
from medseg3d.io.events import Event
from medseg3d.volume import Grid

Capture = pytest.CaptureFixture[str]


@dataclass(frozen=True)
class Result:
    """A result as verbs give them."""

    path: Path | None
    scores: dict[int, float]
    grid: Grid


def test_json_is_one_document_on_stdout_with_null_for_what_is_no_number(capsys: Capture):
    scores = {1: 0.5, 2: float("nan"), 3: float("inf")}
    grid = Grid((2, 3, 4), np.diag([1.0, 1, 2, 1]))
    extra = {"array": np.float32([1, np.nan]), "count": np.int64(3), "ok": True, "none": None}
    console.print_json([Result(Path("a/b"), scores, grid), extra])
    said = capsys.readouterr()
    first, second = json.loads(said.out, parse_constant=pytest.fail)
    assert first["path"] == "a/b"
    assert first["scores"] == {"1": 0.5, "2": None, "3": None}
    assert first["grid"]["shape_IJK"] == [2, 3, 4]
    assert first["grid"]["affine"][2] == [0, 0, 2, 0]
    assert second == {"array": [1, None], "count": 3, "ok": True, "none": None}
    assert said.err == ""


def test_people_are_told_on_stderr(capsys: Capture):
    console.say("reading [bold]x[/bold]")
    console.say_error("'[/tmp]' is " + "long " * 60)
    said = capsys.readouterr()
    assert said.out == ""
    first, second = said.err.splitlines()  # long messages are not cut into lines
    assert first == "reading [bold]x[/bold]"
    assert second.startswith("error: '[/tmp]' is long long")


def test_a_table_has_numbers_with_three_decimals_and_names_as_they_are(capsys: Capture):
    console.print_table("Scores [x]", ["case", "Dice"], [("[red]p1", 0.98765), ("p2", 1)])
    said = capsys.readouterr().out.splitlines()
    assert [line.split() for line in said] == [
        ["Scores", "[x]"],
        ["case", "Dice"],
        ["[red]p1", "0.988"],
        ["p2", "1"],
    ]


def test_facts_are_a_line_each_however_long(capsys: Capture):
    console.print_facts({"model": Path("/x" * 80), "labels": {1: "[b]"}})
    assert capsys.readouterr().out.splitlines() == [
        "model   " + "/x" * 80,
        "labels  {1: '[b]'}",
    ]


def test_a_laid_out_text_is_printed_as_it_is(capsys: Capture):
    text = "Dice  " + "0.123  " * 30 + "\n[1.0]  :smile:"
    console.print_text(text)
    assert capsys.readouterr().out == text + "\n"


def test_an_event_of_a_training_is_a_line(capsys: Capture):
    dice = {"ET": 0.5, "WT": 1.0}
    console.show_event(Event(event="epoch", epoch=3, step=9, loss=0.25, seconds=1.26))
    console.show_event(Event(event="validation", epoch=3, step=9, dice=dice, mean_dice=0.75))
    assert capsys.readouterr().err.splitlines() == [
        "epoch    3   loss 0.2500   1.3 s",
        "validation Dice   ET 0.5000   WT 1.0000   mean 0.7500",
    ]


def test_progress_leaves_stdout_alone(capsys: Capture):
    with console.progress_bars() as report:
        for done in range(1, 4):
            report("[cases]", done, 3)
        report("others", 1, 2)
    assert capsys.readouterr().out == ""


@pytest.fixture
def unchanged_log() -> Iterator[logging.Logger]:
    """Give medseg3d's logger, and take away what the test adds to it."""
    log = logging.getLogger("medseg3d")
    before = [*log.handlers]
    yield log
    log.handlers[:] = before


def test_warnings_are_shown_on_stderr_once(capsys: Capture, unchanged_log: logging.Logger):
    console.show_warnings()
    logging.getLogger("medseg3d.io").warning("sform [bold]disagrees[/bold]")
    logging.getLogger("medseg3d.io").info("nothing of interest")
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("sform [bold]disagrees[/bold]") == 1
    assert "nothing of interest" not in said.err
