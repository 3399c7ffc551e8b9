"""From YAML and `--set` to a typed configuration, with every fault named at once."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from medseg3d.config.augment import AugmentConfig
from medseg3d.config.run import RunConfig
from medseg3d.errors import ConfigError

AnySection = TypeVar("AnySection", bound=BaseModel)


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a run from YAML, then apply overrides such as `train.epochs=20`.

    Raises:
        ConfigError: not readable, not YAML, or any number of unknown keys and impossible values;
            each with its path and, for an unknown key, the nearest known one.
    """
    content = _overridden(read_yaml(Path(path)), overrides)
    return parse_section(RunConfig, content, source=str(path))


def read_yaml(path: Path) -> dict[str, Any]:
    """Read keys and values from a YAML file.

    Raises:
        ConfigError: not readable, not YAML, or something else than keys with values.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_StrictLoader)  # noqa: S506
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"'{path}' cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"'{path}' is not YAML: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(
            f"'{path}' holds {type(content).__name__}, expected keys with values ('key: value')"
        )
    return content


class _StrictLoader(yaml.SafeLoader):
    """YAML's safe loader that refuses a key given twice instead of taking the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        if doubled := sorted({str(key) for key in keys if keys.count(key) > 1}):
            raise yaml.YAMLError(f"{', '.join(doubled)} stands there twice{node.start_mark}")
        return super().construct_mapping(node, deep)


def override_section(section: AnySection, overrides: Sequence[str]) -> AnySection:
    """Give a copy of a section with knobs set as `key.key=value`.

    Raises:
        ConfigError: as `load_config`.
    """
    content = _overridden(section.model_dump(mode="json"), overrides)
    return parse_section(type(section), content, source="--set")


def parse_section(
    section: type[AnySection], content: Mapping[str, Any], *, source: str
) -> AnySection:
    """Check plain data against a section.

    Raises:
        ConfigError: lists every fault; `source` says where the data came from.
    """
    try:
        return section.model_validate(content)
    except ValidationError as error:
        faults = [_fault(section, dict(detail)) for detail in error.errors()]
        raise ConfigError(f"{source}: {len(faults)} fault(s)\n  " + "\n  ".join(faults)) from error


def _overridden(content: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    changed = dict(content)
    for override in overrides:
        path, separator, text = override.partition("=")
        if not separator or not path:
            raise ConfigError(f"--set '{override}': expected section.key=value")
        try:
            value = text if text.startswith("#") else yaml.safe_load(text)  # a colour, no comment
        except yaml.YAMLError:
            value = text  # a pattern such as {case}.nii.gz
        *sections, key = path.strip().split(".")
        place = changed
        for name in sections:
            inner = place.get(name)
            if isinstance(inner, str):
                raise ConfigError(
                    f"--set '{override}': {name} is only the name '{inner}' so far, which has no "
                    f"keys to set; in YAML, give it keys of its own, such as {{preset: {inner}}}"
                )
            place[name] = dict(inner) if isinstance(inner, dict) else {}
            place = place[name]
        if (
            key == "preset"
            and place.get(key) != value
            and {*AugmentConfig.model_fields} <= {*place}
        ):
            whole = ".".join(sections)
            raise ConfigError(
                f"--set '{override}': every knob of {whole} is given already, as in a run's "
                f"config.yaml, so that a preset would change none; begin anew with {whole}={value}"
            )
        place[key] = value
    return changed


def _fault(section: type[BaseModel], detail: dict[str, Any]) -> str:
    steps, known = _walk(section, detail["loc"])
    path = ".".join(map(str, steps)) or "(top)"
    if detail["type"] == "extra_forbidden":
        return f"{path}: unknown key; {_nearest(str(steps[-1]), known)}"
    if detail["type"] == "union_tag_invalid":
        kinds = [kind.strip("'") for kind in detail["ctx"]["expected_tags"].split(", ")]
        kind = str(detail["ctx"]["tag"])
        return f"{path}.kind: unknown '{kind}'; {_nearest(kind, kinds)}"
    if detail["type"] == "union_tag_not_found":
        return f"{path}.kind: required, but not set"
    if detail["type"] == "missing":
        return f"{path}: required, but not set"
    message = detail["msg"].removeprefix("Value error, ")
    got = "" if isinstance(detail["input"], dict) else f" (got {detail['input']!r})"
    return f"{path}: {message[0].lower()}{message[1:]}{got}"


def _nearest(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean '{near[0]}'?" if near else f"known here: {', '.join(known)}"


def _walk(section: type[BaseModel], location: Sequence[Any]) -> tuple[list[Any], list[str]]:
    """Follow a fault's location: its path without union tags, and the keys known at its end."""
    path: list[Any] = []
    known: list[str] = []
    sections = [section]
    for step in location:
        holders = [s for s in sections if step in s.model_fields]
        tagged = [
            s
            for s in sections
            if "kind" in s.model_fields
            and not holders
            and step in get_args(s.model_fields["kind"].annotation)
        ]
        if tagged:
            sections = tagged
            continue
        path.append(step)
        known = [field for s in sections for field in s.model_fields]
        if holders:  # else a key or index of what the field holds
            sections = [i for s in holders for i in _sections_in(s.model_fields[step].annotation)]
    return path, known


def _sections_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _sections_in(argument)
