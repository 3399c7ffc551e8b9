"""What a run was made with and on: versions, devices, the state of the code."""

import json
import platform
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from os import cpu_count
from pathlib import Path
from typing import Any, Final

import torch

from medseg3d import __version__
from medseg3d.io.atomic import write_atomically
from medseg3d.train.ranks import Ranks

PACKAGES: Final = ("torch", "numpy", "scipy", "lightning-fabric", "nibabel", "safetensors")
SECRETS: Final = re.compile("key|password|secret|token", re.IGNORECASE)
"""What in the name of an option says that its value is not to be written down."""


def write_surroundings(path: Path, *, source: Path | None, ranks: Ranks) -> None:
    """Add to a file what this start of a run is made with; a restart of the same adds nothing.

    No name of a host or a user is in it, and no environment variable.
    """
    starts = json.loads(path.read_bytes()) if path.exists() else []
    now = describe_surroundings(source=source, processes=ranks.count)
    if starts[-1:] != [now]:
        write_atomically(path, (json.dumps([*starts, now], indent=1) + "\n").encode())


def describe_surroundings(*, source: Path | None, processes: int = 1) -> dict[str, Any]:
    """Give versions, devices, arguments, and the commits of medseg3d and of `source`'s folder."""
    gpus = range(torch.cuda.device_count())
    return {
        "medseg3d": __version__,
        "python": platform.python_version(),
        **{package: _version_of(package) for package in PACKAGES},
        "system": f"{platform.system()} {platform.machine()}",
        "cores": cpu_count(),
        "processes": processes,
        "gpus": [torch.cuda.get_device_name(gpu) for gpu in gpus],
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
        "arguments": hide_secrets(sys.argv[1:]),
        "git": {
            "medseg3d": describe_checkout(Path(__file__).parent),
            "config": describe_checkout(source.resolve().parent) if source else None,
        },
    }


def describe_checkout(folder: Path) -> dict[str, Any] | None:
    """Give the commit of the checkout around a folder and whether files differ from it.

    None where the folder is in none, or git is not installed.
    """
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return None
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "changed": bool(changed)}


def hide_secrets(command: list[str]) -> list[str]:
    """Replace values of options that look like secrets, the home folder, and the user in paths.

    Both `--token=x` and `--token x` are known.
    """
    shown, hide = [], False
    for part in command:
        known = re.sub(rf"(?i)^(.*?(?:{SECRETS.pattern})[^=]*)=.*", r"\1=***", part)
        shown.append("***" if hide else known)
        hide = part.startswith("-") and "=" not in part and bool(SECRETS.search(part))
    home = re.compile(rf"(?<![^=]){re.escape(str(Path.home()))}(?=/|$)")
    user = re.compile(rf"(?<=/){re.escape(Path.home().name)}(?=/|$)")
    return [user.sub("***", home.sub("~", part)) for part in shown]


def _version_of(package: str) -> str | None:
    try:
        return str(version(package))
    except PackageNotFoundError:
        return None


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
