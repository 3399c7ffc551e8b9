"""Whatever is read, no line of the log tells whose scan it is."""

import logging
from collections.abc import Iterator
from itertools import count

import pytest

from . import phantom
from .phantom import CANARY_ID, CANARY_NAME


@pytest.fixture(autouse=True)
def counted_afresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the files of a test the same identifiers whatever test ran before."""
    monkeypatch.setattr(phantom, "instances", count())


@pytest.fixture(autouse=True)
def nameless_log(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Fail a test whose log holds the patient's name or ID."""
    caplog.set_level(logging.DEBUG)
    yield
    said = "".join(f"{r.getMessage()} {r.exc_text}" for r in caplog.get_records("call"))
    told = [canary for canary in (CANARY_NAME, CANARY_ID) if canary in said]
    assert not told, f"the log tells {told}"
