"""How much memory there is: asked for in words, taken by this process, left on this machine."""

import re
from contextlib import suppress
from math import ceil
from pathlib import Path
from typing import Final

from medseg3d.errors import ConfigError

UNITS: Final = {
    prefix + ending: base**power
    for power, prefix in enumerate("KMGT", start=1)
    for ending, base in (("iB", 1024), ("B", 1000), ("", 1000))
}
"""Unit -> bytes; without a B as with it."""

NO_LIMIT: Final = 2**60
"""What the first kind of control groups says where there is none is beyond this."""

PROC: Final = Path("/proc")
GROUPS: Final = Path("/sys/fs/cgroup")


def parse_memory(text: str) -> int:
    """Read a number of bytes such as 8GiB, 8GB, 1.5G or 500MiB; `G` alone is `GB`, 10⁹.

    Raises:
        ConfigError: it is none.
    """
    units = {unit.lower(): size for unit, size in UNITS.items()}
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]+)", text.strip().lower())
    if match is None or match[2] not in units or not float(match[1]):
        raise ConfigError(
            f"memory '{text}' is no number of bytes; write a number and a unit, such as 8GiB "
            f"(1024³), 8GB (1000³) or 500MiB; units are {', '.join(UNITS)}"
        )
    return int(float(match[1]) * units[match[2]])


def say_memory(size: int) -> str:
    """Write a number of bytes, rounded up, so that `parse_memory` reads it."""
    if size < 2**30:
        return f"{ceil(size / 2**20)}MiB"
    return f"{ceil(size / 2**30 * 100) / 100:.2f}GiB"


def resident_bytes() -> int:
    """Count the memory that this process takes now; 0 where the system does not tell."""
    with suppress(OSError):
        return _field(PROC / "self" / "status", "VmRSS:")
    return 0


def available_bytes() -> int | None:
    """Count what this process may still take, of the machine and of its control groups.

    None where the system does not tell: without Linux's /proc.
    """
    try:
        left = [_field(PROC / "meminfo", "MemAvailable:")]
    except OSError:
        return None
    for line in (PROC / "self" / "cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            left += _left_of_groups(GROUPS, path, most="memory.max", taken="memory.current")
        elif "memory" in controllers.split(","):
            left += _left_of_groups(
                GROUPS / "memory",
                path,
                most="memory.limit_in_bytes",
                taken="memory.usage_in_bytes",
            )
    return max(min(left), 0)


def _left_of_groups(root: Path, path: str, *, most: str, taken: str) -> list[int]:
    """Count what is left of a control group and of those around it; files kept in memory yield.

    In a container the path may be that of the machine, while its own group is the root.
    """
    group = root / path.lstrip("/")
    left = []
    for folder in (parent for parent in (group, *group.parents) if parent.is_relative_to(root)):
        with suppress(OSError, ValueError):
            limit = int((folder / most).read_text())
            files = _field(folder / "memory.stat", "inactive_file", unit=1)
            if limit < NO_LIMIT:
                left.append(limit - int((folder / taken).read_text()) + files)
    return left


def _field(path: Path, name: str, *, unit: int = 1024) -> int:
    """Give the number after a name in a file of the system, 0 where the name is missing."""
    lines = (line.split() for line in path.read_text().splitlines())
    return next((int(words[1]) * unit for words in lines if words and words[0] == name), 0)
