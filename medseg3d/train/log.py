"""What a run leaves behind besides weights: its configuration and one JSON line per event.

`metrics.jsonl` holds `{"event": "epoch" | "validation" | "end", "epoch": …, "step": …, …}`.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from medseg3d.config.run import RunConfig
from medseg3d.errors import ConfigError
from medseg3d.io.atomic import prepare_folder, write_atomically

Event: TypeAlias = dict[str, Any]


class RunLog:
    """The events of one run, each written to disk when it happens."""

    def __init__(self, path: Path, *, watch: Callable[[Event], None] | None = None) -> None:
        """Append to `path`, and tell `watch` of each event as well."""
        self.path = path
        self.watch = watch

    def write(self, event: str, **content: Any) -> None:
        """Add one event."""
        line: Event = {"event": event, **content}
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")
        if self.watch:
            self.watch(line)

    def rewind(self, step: int) -> None:
        """Drop what comes after `step`: a killed run wrote it after its last checkpoint."""
        kept = [e for e in read_events(self.path) if e["step"] <= step and e["event"] != "end"]
        write_atomically(self.path, "".join(json.dumps(line) + "\n" for line in kept).encode())


def read_events(path: Path) -> list[Event]:
    """Read the events of a run; a last line that a kill cut off does not count."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1] if line]


def prepare_run(config: RunConfig, folder: Path, *, resume: bool) -> None:
    """Make a run's folder, or see that the one to resume is of this configuration.

    Raises:
        ConfigError: the folder holds a run and `resume` is off, or a run of another configuration.
    """
    path = folder / "config.yaml"
    content = config.model_dump(mode="json")
    prepare_folder(folder)
    for unfinished in folder.rglob(".*.part"):
        unfinished.unlink()
    if not path.exists():
        write_atomically(path, yaml.safe_dump(content, sort_keys=False).encode())
        return
    if not resume:
        raise ConfigError(
            f"'{folder}' holds a run already. Go on with it by --resume, or choose another --out."
        )
    before = yaml.safe_load(path.read_text(encoding="utf-8"))
    if changed := sorted(_differences(before, content)):
        raise ConfigError(
            f"'{folder}' was begun with another configuration; it differs in "
            f"{', '.join(changed)}. Resume with the same, or choose another --out."
        )


def _differences(first: Any, second: Any, path: str = "") -> list[str]:
    if not (isinstance(first, dict) and isinstance(second, dict)):
        return [] if first == second else [path]
    return [
        difference
        for key in first.keys() | second.keys()
        for difference in _differences(first.get(key), second.get(key), f"{path}.{key}".strip("."))
    ]
