"""Whose case a line of the log is about."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

from medseg3d.data.cases import Case

CASE: Final = ContextVar[str]("CASE")
"""Of the case that a thread is at work on, the name."""


@contextmanager
def named_in_log(case: Case) -> Iterator[None]:
    """Let what the package logs in this thread begin with a case's name."""
    for name in [*logging.root.manager.loggerDict]:
        if name.startswith("medseg3d."):
            logging.getLogger(name).addFilter(_put_name)  # once, however often it is called
    before = CASE.set(case.id)
    try:
        yield
    finally:
        CASE.reset(before)


def _put_name(record: logging.LogRecord) -> bool:
    if name := CASE.get(None):
        record.msg, record.args = f"case '{name}': {record.getMessage()}", ()
    return True
