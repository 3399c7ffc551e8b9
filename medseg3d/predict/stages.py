"""Three stages a case: while one case is computed, others are read and written.

Each reading and each writing has a thread of its own, in which nothing is left to be done when it
ends, and which no process waits for when it ends.
"""

import logging
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, wait
from dataclasses import dataclass
from itertools import islice
from threading import Thread
from time import perf_counter
from typing import Any, Final, Generic, TypeVar

from medseg3d.data.cases import Case

log = logging.getLogger(__name__)

T = TypeVar("T")
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
            result = work(self.case, self.result)
        except catch as error:
            log.debug("case '%s', %s", self.case.id, stage, exc_info=True)
            reason = f"{stage}: {type(error).__name__}: {error}"
        return Attempt(self.case, result, reason, self.seconds + perf_counter() - start)


def run_stages(
    cases: Iterable[Case],
    *,
    read: Callable[[Case], Read],
    compute: Callable[[Case, Read], Computed],
    write: Callable[[Case, Computed], Written],
    waiting: Callable[[], int] = lambda: WAITING,
) -> Generator[Attempt[Written], None, None]:
    """Read, compute and write cases, and give them in their order.

    While one case is computed, here in the caller's thread, others are read and as many written:
    what `waiting` says once the first is read, and each time thereafter. A stage that fails, be it
    for want of memory, is the end of its case alone. Stopped by KeyboardInterrupt or closed,
    nothing more is begun; what is being written is finished, and told in the first case.
    """
    left = iter(cases)
    reading: deque[Future[Attempt[Read]]] = deque()
    writing: deque[Future[Attempt[Written]]] = deque()

    def begin(case: Case) -> Future[Attempt[Read]]:
        first = Attempt(case, case)
        return in_thread(
            lambda: first.then("reading", lambda case, _: read(case), catch=BaseException)
        )

    def finish(computed: Attempt[Computed]) -> Future[Attempt[Written]]:
        return in_thread(lambda: computed.then("writing", write, catch=BaseException))

    try:
        reading.extend(map(begin, islice(left, 1)))
        while reading:
            prepared = reading.popleft().result()
            reading.extend(map(begin, islice(left, max(waiting() - len(reading), 0))))
            computed = prepared.then("computing", compute)
            del prepared  # images are large, and the next one is on its way
            writing.append(finish(computed))
            del computed
            while writing and (len(writing) >= max(waiting(), 1) or writing[0].done()):
                yield writing.popleft().result()
            if not reading:
                reading.extend(map(begin, islice(left, 1)))
        while writing:
            yield writing.popleft().result()
    except KeyboardInterrupt:
        wait(writing, GRACE_S)
        yield from (future.result() for future in writing if future.done())
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
