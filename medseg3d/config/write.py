"""From a typed configuration to YAML that says why."""

import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import BaseModel

from medseg3d.config.augment import AugmentConfig
from medseg3d.config.run import RunConfig
from medseg3d.datasets import DATASETS
from medseg3d.labels import LabelScheme

WIDTH: Final = 100
"""Most columns of a line, but for names that are longer."""

NAMING: Final = ("kind", "preset")
"""Knobs that say what a section is; they come first, and are written whatever they are."""


def write_config(config: RunConfig, reasons: Mapping[str, str]) -> str:
    """Write a run as YAML; `load_config` gives the same run back.

    `reasons` are comments: of a knob, before it, by its path such as `train.patch_size`; of the
    whole file, at its top, under "". What has no reason and is its default is left out.
    """
    content = _plain(config, "", reasons)
    lines = _comment(reasons.get("", ""), "")
    for number, (section, knobs) in enumerate(content.items()):
        lines += [""] if number else []
        lines += _entry(section, knobs, section, reasons, indent="")
    return "\n".join(lines) + "\n"


def _plain(value: Any, path: str, reasons: Mapping[str, str]) -> Any:
    """Turn a section into what YAML has, without what need not be said."""
    if isinstance(value, LabelScheme) and DATASETS.get(value.name) == value:
        return value.name
    if isinstance(value, BaseModel):
        names = sorted(type(value).model_fields, key=lambda name: name not in NAMING)
        places = {name: f"{path}.{name}".strip(".") for name in names}
        return {
            name: _plain(getattr(value, name), place, reasons)
            for name, place in places.items()
            if _is_said(value, name) or place in reasons
        }
    if isinstance(value, Mapping):
        return {key: _plain(inner, f"{path}.{key}", reasons) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner, path, {}) for inner in value]
    return str(value) if isinstance(value, Path) else value


def _is_said(section: BaseModel, name: str) -> bool:
    """Tell whether a knob must be written: it is set to something else than its default."""
    if name in NAMING:
        return True
    if isinstance(section, AugmentConfig):
        return getattr(section, name) != getattr(AugmentConfig(preset=section.preset), name)
    field = type(section).model_fields[name]
    default = field.get_default(call_default_factory=True)
    return name in section.model_fields_set and getattr(section, name) != default


def _entry(
    key: Any, value: Any, path: str, reasons: Mapping[str, str], *, indent: str
) -> Iterator[str]:
    """Write a key with its value: on one line if it fits, else one line for each part."""
    yield from _comment(reasons.get(path, ""), indent)
    name = f"{indent}{_flow(key)}:"
    line = f"{name} {_flow(value)}"
    told = any(reason.startswith(f"{path}.") for reason in reasons)
    deep = isinstance(value, Mapping) and any(isinstance(v, Mapping) for v in value.values())
    fits = len(line) <= WIDTH and not told and not deep and bool(indent)
    if fits or not isinstance(value, Mapping | list) or not value:
        yield line
        return
    yield name
    if isinstance(value, Mapping):
        for inner, content in value.items():
            yield from _entry(inner, content, f"{path}.{inner}", reasons, indent=indent + "  ")
    else:
        yield from (f"{indent}  - {_flow(item)}" for item in value)


def _comment(text: str, indent: str) -> list[str]:
    width = WIDTH - len(indent) - 2
    lines = [part for line in text.splitlines() for part in textwrap.wrap(line, width) or [""]]
    return [f"{indent}# {line}".rstrip() for line in lines]


class _Flow(yaml.SafeDumper):
    """YAML's safe dumper that quotes patterns, whose braces would begin a mapping."""


def _quote_braces(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = '"' if "{" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Flow.add_representer(str, _quote_braces)


def _flow(value: Any) -> str:
    """Write a value on one line."""
    text = yaml.dump(
        value,
        Dumper=_Flow,
        default_flow_style=True,
        sort_keys=False,
        allow_unicode=True,
        width=float("inf"),
    )
    return text.removesuffix("\n").removesuffix("\n...")
