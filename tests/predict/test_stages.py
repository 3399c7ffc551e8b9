"""Reading, computing and writing at once: order, failures, and how it ends."""

import logging
import os
import signal
import subprocess
import sys
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from threading import Barrier, Event, Timer

import pytest

from medseg3d.data.cases import Case
from medseg3d.predict import stages
from medseg3d.predict.stages import Attempt

run_stages = partial(stages.run_stages, plan=lambda case: case)
CASES = [Case(str(number), {}) for number in range(6)]

HANGS = """
import sys, time
from medseg3d.data.cases import Case
from medseg3d.predict import stages

stages.GRACE_S = 0.2
cases = [Case(str(number), {}) for number in range(4)]

def read(case, _):
    return case.id if case.id == "0" else time.sleep(1e6)

def compute(case, read):
    raise KeyboardInterrupt

try:
    list(stages.run_stages(cases, plan=str, read=read, compute=compute, write=compute))
except KeyboardInterrupt:
    sys.exit(7)
"""


def read(case: Case, _: object = None) -> str:
    return f"read {case.id}"


def follow(_: Case, so_far: str) -> str:
    return f"{so_far}, done"


def results(attempts: Iterator[Attempt[str]]) -> list[str]:
    return [str(attempt.result or attempt.reason) for attempt in attempts]


def test_results_come_in_the_order_of_the_cases() -> None:
    last = Event()

    def read_second_last(case: Case, _: Case) -> str:
        if case.id == "1":
            assert last.wait(20), "the case ahead is read meanwhile"
        if case.id == "2":
            last.set()
        return read(case)

    told = results(run_stages(CASES, read=read_second_last, compute=follow, write=follow))

    assert told == [f"read {case.id}, done, done" for case in CASES]


def test_two_cases_are_read_ahead_and_no_third() -> None:
    begun = {case.id: Event() for case in CASES}

    def note(case: Case, _: Case) -> str:
        begun[case.id].set()
        return read(case)

    def compute(case: Case, so_far: str) -> str:
        if case.id == "0":
            assert begun["1"].wait(20)
            assert begun["2"].wait(20)
            assert not begun["3"].wait(0.1)
        return so_far

    assert len(results(run_stages(CASES, read=note, compute=compute, write=follow))) == 6


@pytest.mark.parametrize("waiting", [1, 2])
def test_the_caller_computes_while_as_many_results_are_written(waiting: int) -> None:
    computed = {case.id: Event() for case in CASES}
    last = str(waiting)

    def compute(case: Case, so_far: str) -> str:
        computed[case.id].set()
        return so_far

    def write(case: Case, so_far: str) -> str:
        if case.id == "0":
            assert computed[last].wait(20)
            assert not computed[str(waiting + 1)].wait(0.1), "there is no room for its result"
        return so_far

    told = results(
        run_stages(CASES, read=read, compute=compute, write=write, waiting=lambda: waiting)
    )

    assert told == [f"read {case.id}" for case in CASES]


def test_no_more_is_kept_than_what_is_worked_on() -> None:
    class Image:
        pass

    alive: list[weakref.ref[Image]] = []
    most = []

    def read_image(*_: Case) -> Image:
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


def test_a_case_is_planned_before_it_is_read_beside_others() -> None:
    plans, held, beside_large = [], set(), []
    large = {"1", "2", "4"}

    def plan(case: Case) -> int:
        plans.append(0 if case.id in large else 2)
        return plans[-1]

    def begin(case: Case, plan: int) -> int:
        held.add(case.id)
        return plan

    def end(case: Case, _: int) -> str:
        held.remove(case.id)
        return case.id

    def compute(_: Case, plan: int) -> int:
        beside_large.extend([] if plan else [len(held)])
        return plan

    done = stages.run_stages(
        CASES, plan=plan, read=begin, compute=compute, write=end, waiting=lambda: min(plans)
    )

    assert results(done) == [case.id for case in CASES]
    assert beside_large == [1, 1, 1]


def test_a_case_that_cannot_be_planned_is_not_read_and_fails_alone() -> None:
    read_ids = []

    def plan(case: Case) -> str:
        if case.id == "2":
            raise MemoryError("too large")
        return case.id

    def note(case: Case, _: str) -> str:
        read_ids.append(case.id)
        return case.id

    told = results(stages.run_stages(CASES, plan=plan, read=note, compute=follow, write=follow))

    assert told[2] == "reading: MemoryError: too large"
    assert sorted(read_ids) == [*"01345"]


def test_warnings_name_their_case_while_several_are_at_work(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log, both = logging.getLogger("medseg3d.preprocess.pipeline"), Barrier(2)
    cases = [Case("first", {}), Case("50%", {}), Case("50%d", {})]

    def warn(case: Case, so_far: Case) -> Case:
        if case.id != "first":
            both.wait(20)
            log.warning("channel %d is empty", 1)
        return so_far

    results(run_stages(cases, read=warn, compute=follow, write=follow))
    log.warning("nobody's")

    told = ["case '50%': channel 1 is empty", "case '50%d': channel 1 is empty", "nobody's"]
    assert sorted(caplog.messages) == told


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

    def note(case: Case, _: Case) -> str:
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


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_while_a_write_is_waited_for_loses_none_and_tells_none_before_it() -> None:
    written: list[str] = []
    told: deque[Attempt[str]] = deque()
    later = Event()

    def write(case: Case, so_far: str) -> str:
        if case.id == "0":
            assert later.wait(20)
        written.append(case.id)
        return so_far

    def interrupt() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        Timer(0.2, later.set).start()

    def compute(case: Case, so_far: str) -> str:
        if case.id == "2":  # its result has to wait for that of 0
            Timer(0.3, interrupt).start()
        return so_far

    with pytest.raises(KeyboardInterrupt):
        told.extend(run_stages(CASES, read=read, compute=compute, write=write))

    assert sorted(written) == [*"012"]
    assert [attempt.case.id for attempt in told] == [*"012"]


@pytest.mark.slow
@pytest.mark.usefixtures("interruptible")
def test_a_write_that_hangs_is_told_as_little_as_those_behind_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stages, "GRACE_S", 0.2)
    released = Event()

    def write(case: Case, so_far: str) -> str:
        if case.id == "0":
            released.wait(20)
        return so_far

    told: deque[Attempt[str]] = deque()
    Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    try:
        with pytest.raises(KeyboardInterrupt):
            told.extend(run_stages(CASES, read=read, compute=follow, write=write))
    finally:
        released.set()
    assert not told


def test_closed_early_nothing_more_is_begun() -> None:
    begun = []

    def note(case: Case, _: Case) -> str:
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
