"""Signals that ask a training to stop: it finishes its step and saves first."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
"""Ctrl-C; what batch systems send before they kill; what Slurm is asked to send before that."""


class Stopped(KeyboardInterrupt):
    """A training was asked to stop and did; with `--resume` it goes on where it left off."""

    def __init__(self, number: signal.Signals) -> None:
        """Name the signal that asked."""
        super().__init__(f"stopped by {number.name}")
        self.signal = number


class StopRequest:
    """Whether a signal has come, for those who ask between two steps."""

    def __init__(self) -> None:
        """Begin without one."""
        self.signal: signal.Signals | None = None
        self._patient = False

    def __bool__(self) -> bool:
        """Tell whether one has come."""
        return self.signal is not None

    @contextmanager
    def awaited(self) -> Iterator[None]:
        """Only note the first signal: the code within asks for it, and saves before it stops."""
        self._patient = True
        try:
            yield
        finally:
            self._patient = False

    def receive(self, number: int, _frame: FrameType | None) -> None:
        """Note a signal, or stop at once: where nobody asks, and when it comes again."""
        if self.signal or not self._patient:
            raise Stopped(signal.Signals(number))
        self.signal = signal.Signals(number)


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Receive signals; outside the main thread, where Python allows it to nobody, none comes."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.signal(number, request.receive) for number in SIGNALS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
