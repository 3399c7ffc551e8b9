"""The command line in this process, a model to predict with, and scans."""

import logging
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from medseg3d.cli import main
from medseg3d.io.files import write_volume
from medseg3d.nets.bundle import Bundle, save_bundle
from medseg3d.volume import Volume

AFFINE = np.diag([-1.0, -1.0, 2.0, 1.0])


@dataclass(frozen=True)
class Ended:
    """What a command left: exit code and what it printed."""

    code: int
    out: str
    err: str


Run = Callable[..., Ended]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Give a function that runs the command line in this process."""
    log = logging.getLogger("medseg3d")

    def call(*arguments: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["medseg3d", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as stopped:
            code = int(stopped.code or 0)
        printed = capsys.readouterr()
        return Ended(code, printed.out, " ".join(printed.err.split()))

    handlers = [*log.handlers]
    yield call
    log.handlers[:] = handlers


@pytest.fixture
def model(tmp_path: Path, build_bundle: Callable[..., Bundle]) -> Path:
    """Give the file of a small untrained model of one channel."""
    save_bundle(build_bundle("t1"), tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """Give a folder of two scans."""
    folder = tmp_path / "scans"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        image = rng.normal(100, 20, size=(1, 20, 24, 9)).astype(np.int16)
        write_volume(Volume(image, AFFINE), folder / f"{name}.nii.gz")
    return folder
