"""Three stages a case: while one case is computed, others are read and written.

Each reading and each writing has a thread of its own, in which nothing is left to be done when it
ends, and which no process waits for when it ends.
"""

import logging
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, wait
from dataclasses import dataclass
from itertools import takewhile
from threading import Thread
from time import perf_counter
from typing import Any, Final, Generic, TypeVar

from medseg3d.data.case_log import named_in_log
from medseg3d.data.cases import Case

log = logging.getLogger(__name__)

T = TypeVar("T")
Plan = TypeVar("Plan")
Read = TypeVar("Read")
Computed = TypeVar("Computed")
Written = TypeVar("Written")

WAITING: Final = 2
"""Cases that are read ahead, and results that wait to be written, where memory suffices."""

GRACE_S: Final = 10.0
"""How long threads that are at work are waited for by a process that is stopped."""


@dataclass(frozen=True, slots=True, eq=False)
class Attempt(Generic[T]):
    """How far a case has come: what the last stage gave, or which stage failed and why."""

    case: Case
    result: T | None = None
    reason: str | None = None
    seconds: float = 0.0
    """Spent on all stages, without waiting in between."""

    def then(
        self,
        stage: str,
        work: Callable[[Case, T], Read],
        *,
        catch: type[BaseException] = Exception,
    ) -> "Attempt[Read]":
        """Take a case one stage further, unless it failed before."""
        if self.result is None:
            return Attempt(self.case, None, self.reason, self.seconds)
        start, result, reason = perf_counter(), None, None
        try:
            with named_in_log(self.case):
                result = work(self.case, self.result)
        except catch as error:
            log.debug("case '%s', %s", self.case.id, stage, exc_info=True)
            reason = f"{stage}: {type(error).__name__}: {error}"
        return Attempt(self.case, result, reason, self.seconds + perf_counter() - start)


def run_stages(
    cases: Iterable[Case],
    *,
    plan: Callable[[Case], Plan],
    read: Callable[[Case, Plan], Read],
    compute: Callable[[Case, Read], Computed],
    write: Callable[[Case, Computed], Written],
    waiting: Callable[[], int] = lambda: WAITING,
) -> Generator[Attempt[Written], None, None]:
    """Plan, read, compute and write cases, and give them in their order.

    While one case is computed, here in the caller's thread, up to `waiting` others are read and as
    many written. A case is planned, in this thread too, before `waiting` is asked whether it may be
    begun; the first is read alone. A stage that fails, be it for want of memory, is the end of its
    case alone; planning is told as reading. Stopped by KeyboardInterrupt or closed, nothing more is
    begun; what is being written is finished, and told in the first case.
    """
    left = (Attempt(case, case).then("reading", lambda case, _: plan(case)) for case in cases)
    reading: deque[Future[Attempt[Read]]] = deque()
    writing: deque[Future[Attempt[Written]]] = deque()

    def begin(planned: Attempt[Plan]) -> Attempt[Plan] | None:
        reading.append(in_thread(lambda: planned.then("reading", read, catch=BaseException)))
        return next(left, None)

    def finish(computed: Attempt[Computed]) -> None:
        writing.append(in_thread(lambda: computed.then("writing", write, catch=BaseException)))

    try:
        coming = next(left, None)
        while reading or coming:
            if coming and not reading:
                coming = begin(coming)
            prepared = reading[0].result()
            reading.popleft()
            while coming and len(reading) < waiting():
                coming = begin(coming)
            computed = prepared.then("computing", compute)
            del prepared  # images are large, and the next one is on its way
            finish(computed)
            del computed
            while writing and (len(writing) > waiting() or writing[0].done()):
                wait([writing[0]])  # while it is among them: here an interrupt is likely
                yield writing.popleft().result()
        while writing:
            wait([writing[0]])
            yield writing.popleft().result()
    except KeyboardInterrupt:
        wait(writing, GRACE_S)
        yield from (future.result() for future in takewhile(Future.done, writing))
        raise
    finally:
        at_work: list[Future[Any]] = [*reading, *writing]
        wait(at_work, GRACE_S)


def in_thread(work: Callable[[], T]) -> Future[T]:
    """Do something in a thread that the end of the process does not wait for.

    Those of `ThreadPoolExecutor` are waited for, so that one that hangs would keep the process.
    """
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001  it is raised where the result is asked for
            future.set_exception(error)

    Thread(target=run, daemon=True).start()
    return future
