"""Memory in words, and what there is of it."""

import mmap
from pathlib import Path

import pytest

from medseg3d.errors import ConfigError
from medseg3d.predict import limits
from medseg3d.predict.limits import available_bytes, parse_memory, resident_bytes, say_memory


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("8GiB", 8 * 2**30),
        ("8GB", 8 * 10**9),
        ("8192MiB", 2**33),
        ("500M", 5 * 10**8),
        ("1.5 gib", 3 * 2**29),
        ("64KiB", 2**16),
    ],
)
def test_memory_is_read_with_its_unit(text: str, size: int) -> None:
    assert parse_memory(text) == size


@pytest.mark.parametrize("text", ["8", "", "GiB", "-1GiB", "0GB", "8 gigs", "8XiB"])
def test_what_is_no_memory_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=rf"memory '{text}' is no number .* such as 8GiB"):
        parse_memory(text)


def test_what_is_said_can_be_read() -> None:
    assert parse_memory(say_memory(3 * 2**30)) == 3 * 2**30
    assert say_memory(40 * 2**30) == "40.00GiB"
    assert parse_memory(say_memory(10**9 + 1)) > 10**9


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="needs Linux's /proc")
def test_a_process_knows_what_it_takes_and_what_is_left() -> None:
    before = resident_bytes()
    with mmap.mmap(-1, 2**26) as ballast:  # not from the heap, which may hold free memory
        ballast.write(b"1" * 2**26)
        taken = resident_bytes() - before

    assert 2**25 < taken < 2**28
    left = available_bytes()
    assert left is not None
    assert 2**20 < left < 2**50


@pytest.mark.parametrize(
    ("line", "folder", "names"),
    [
        ("0::/job/step", "job/step", ("memory.max", "memory.current")),
        ("4:memory:/job", "memory/job", ("memory.limit_in_bytes", "memory.usage_in_bytes")),
    ],
)
def test_control_groups_limit_what_is_left(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    line: str,
    folder: str,
    names: tuple[str, str],
) -> None:
    proc, group = tmp_path / "proc", tmp_path / "cgroup" / folder
    (proc / "self").mkdir(parents=True)
    group.mkdir(parents=True)
    (proc / "meminfo").write_text("MemTotal: 900 kB\nMemAvailable: 800 kB\n")
    (proc / "self" / "cgroup").write_text(f"{line}\n")
    (group / "memory.stat").write_text("anon 5\ninactive_file 1000\n")
    for name, size in zip(names, (500_000, 200_000), strict=True):
        (group / name).write_text(f"{size}\n")
    monkeypatch.setattr(limits, "PROC", proc)
    monkeypatch.setattr(limits, "GROUPS", tmp_path / "cgroup")

    assert available_bytes() == 301_000
    (group / names[0]).write_text("max\n")
    assert available_bytes() == 800 * 1024


def test_where_the_system_does_not_tell_there_is_no_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "PROC", tmp_path)

    assert (resident_bytes(), available_bytes()) == (0, None)
