"""Memory is kept by processes that ask for it, and by no others."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest

from medseg3d.predict.allocator import keep_memory

ROOT = Path(__file__).parents[2]
GLIBC = platform.libc_ver()[0] == "glibc"

FAULTS = """
import sys, torch
from resource import RUSAGE_SELF, getrusage
from medseg3d.predict import allocator

if sys.argv[1] == "keep":
    assert allocator.keep_memory()
torch.set_num_threads(1)
torch.ones(2**25)
before = getrusage(RUSAGE_SELF).ru_minflt
for _ in range(16):
    torch.ones(3 * 2**22)  # 48 MiB
print(getrusage(RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not GLIBC, reason="the C library is not glibc")
def test_only_who_asks_keeps_memory_for_the_next_tensor():
    def count_faults(how: str) -> int:
        done = subprocess.run(
            [sys.executable, "-c", FAULTS, how],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        return int(done.stdout)

    assert count_faults("keep") < count_faults("leave") / 2


def test_other_systems_cannot(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    assert not keep_memory()


def test_other_c_libraries_cannot(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert not keep_memory()
