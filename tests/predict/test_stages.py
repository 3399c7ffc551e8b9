"""Reading, computing and writing at once: order, failures, and how it ends."""

import subprocess
import sys
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event

import pytest

from medseg3d.data.cases import Case
from medseg3d.predict.stages import Attempt, run_stages

CASES = [Case(str(number), {}) for number in range(6)]

HANGS = """
import sys, time
from medseg3d.data.cases import Case
from medseg3d.predict import stages

stages.GRACE_S = 0.2
cases = [Case(str(number), {}) for number in range(4)]

def read(case):
    return case.id if case.id == "0" else time.sleep(1e6)

def compute(case, read):
    raise KeyboardInterrupt

try:
    list(stages.run_stages(cases, read=read, compute=compute, write=compute))
except KeyboardInterrupt:
    sys.exit(7)
"""


def read(case: Case) -> str:
    return f"read {case.id}"


def follow(_: Case, so_far: str) -> str:
    return f"{so_far}, done"


def results(attempts: Iterator[Attempt[str]]) -> list[str]:
    return [str(attempt.result or attempt.reason) for attempt in attempts]


def test_results_come_in_the_order_of_the_cases() -> None:
    last = Event()

    def read_second_last(case: Case) -> str:
        if case.id == "1":
            assert last.wait(20), "the case ahead is read meanwhile"
        if case.id == "2":
            last.set()
        return read(case)

    told = results(run_stages(CASES, read=read_second_last, compute=follow, write=follow))

    assert told == [f"read {case.id}, done, done" for case in CASES]


def test_two_cases_are_read_ahead_and_no_third() -> None:
    begun = {case.id: Event() for case in CASES}

    def note(case: Case) -> str:
        begun[case.id].set()
        return read(case)

    def compute(case: Case, so_far: str) -> str:
        if case.id == "0":
            assert begun["1"].wait(20)
            assert begun["2"].wait(20)
            assert not begun["3"].wait(0.1)
        return so_far

    assert len(results(run_stages(CASES, read=note, compute=compute, write=follow))) == 6


def test_the_caller_computes_while_two_results_are_written() -> None:
    computed = {case.id: Event() for case in CASES}

    def compute(case: Case, so_far: str) -> str:
        computed[case.id].set()
        return so_far

    def write(case: Case, so_far: str) -> str:
        if case.id == "0":
            assert computed["1"].wait(20)
            assert not computed["2"].wait(0.1), "there is room for two results"
        return so_far

    told = results(run_stages(CASES, read=read, compute=compute, write=write))

    assert told == [f"read {case.id}" for case in CASES]


def test_no_more_is_kept_than_what_is_worked_on() -> None:
    class Image:
        pass

    alive: list[weakref.ref[Image]] = []
    most = []

    def read_image(case: Case) -> Image:
        image = Image()
        alive.append(weakref.ref(image))
        return image

    def compute(_: Case, image: Image) -> int:
        most.append(sum(reference() is not None for reference in alive))
        return 1

    assert len([*run_stages(CASES, read=read_image, compute=compute, write=lambda *_: 1)]) == 6
    assert max(most) <= 3


def test_where_nothing_may_wait_one_case_follows_the_other() -> None:
    told = []

    def tell(stage: str) -> Callable[..., str]:
        return lambda case, *_: told.append(case.id + stage) or case.id

    stages = {stage: tell(stage) for stage in ("read", "compute", "write")}
    results(run_stages(CASES, **stages, waiting=lambda: 0))

    assert told == [case.id + stage for case in CASES for stage in ("read", "compute", "write")]


@pytest.mark.parametrize(
    ("stage", "error"),
    [("reading", SystemExit), ("computing", MemoryError), ("writing", SystemExit)],
)
def test_a_stage_that_fails_is_named_and_fails_its_case_alone(
    stage: str, error: type[BaseException]
) -> None:
    def fail(case: Case, *_: str) -> str:
        if case.id == "2":
            raise error("no luck")
        return case.id

    stages: dict[str, Callable[..., str]] = {
        "read": fail if stage == "reading" else read,
        "compute": fail if stage == "computing" else follow,
        "write": fail if stage == "writing" else follow,
    }

    told = results(run_stages(CASES, **stages))

    assert told[2] == f"{stage}: {error.__name__}: no luck"
    assert sum("no luck" in text for text in told) == 1


def test_an_interrupt_lets_writes_end_tells_of_them_and_begins_nothing() -> None:
    interrupted = Event()
    begun: list[str] = []
    told: deque[Attempt[str]] = deque()

    def note(case: Case) -> str:
        begun.append(case.id)
        return read(case)

    def compute(case: Case, so_far: str) -> str:
        if case.id == "1":
            interrupted.set()
            raise KeyboardInterrupt
        return so_far

    def write(_: Case, so_far: str) -> str:
        assert interrupted.wait(20)
        return so_far

    with pytest.raises(KeyboardInterrupt):
        told.extend(run_stages(CASES, read=note, compute=compute, write=write))
    assert [attempt.case.id for attempt in told] == ["0"]
    assert sorted(begun) == ["0", "1", "2", "3"]


def test_closed_early_nothing_more_is_begun() -> None:
    begun = []

    def note(case: Case) -> str:
        begun.append(case.id)
        return read(case)

    attempts = run_stages(CASES, read=note, compute=follow, write=follow)
    assert next(attempts).case.id == "0"
    before = len(begun)
    attempts.close()

    assert before < len(CASES)
    assert len(begun) == before


def test_a_reader_that_hangs_does_not_keep_a_stopped_process(tmp_path: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", HANGS], timeout=60, check=False)

    assert ended.returncode == 7
