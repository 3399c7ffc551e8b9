"""Write the pages under docs/reference that are made from the code.

python docs/generate.py
"""

from collections.abc import Iterator
from inspect import cleandoc
from pathlib import Path
from typing import get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from medseg3d.config.evaluate import EvaluateConfig
from medseg3d.config.run import RunConfig

REFERENCE = Path(__file__).parent / "reference"
HEADER = """# Every knob

Made from `medseg3d/config/` by `python docs/generate.py`. A run's YAML has these sections; any knob
can be set on the command line with `--set section.key=value`. Unknown keys are refused.
"""


def describe_config() -> str:
    """Give the page on the configuration."""
    lines = [HEADER, *_section("", RunConfig), *_section("evaluate", EvaluateConfig)]
    return "\n".join(lines)


def _section(path: str, section: type[BaseModel]) -> Iterator[str]:
    nested: list[tuple[str, type[BaseModel]]] = []
    if path:
        yield f"## `{path}`\n"
        yield f"{cleandoc(section.__doc__ or '')}\n"
    else:
        yield "## Top level\n"
    yield "| knob | default | meaning |"
    yield "|---|---|---|"
    for name, field in section.model_fields.items():
        inner = [*_sections_in(field.annotation)]
        default = "" if inner else _default(field)
        meaning = " ".join((field.description or "").split()).replace("|", "\\|")
        yield f"| `{name}` | {default} | {meaning} |"
        nested += [(_nested_path(path, name, part, len(inner)), part) for part in inner]
    yield ""
    for inner_path, part in nested:
        yield from _section(inner_path, part)


def _nested_path(path: str, name: str, section: type[BaseModel], options: int) -> str:
    inner = f"{path}.{name}".strip(".")
    return f"{inner} (kind: {section.model_fields['kind'].default})" if options > 1 else inner


def _sections_in(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _sections_in(argument)


def _default(field: FieldInfo) -> str:
    return "required" if field.is_required() else f"`{field.default!r}`"


if __name__ == "__main__":
    (REFERENCE / "config.md").write_text(describe_config(), encoding="utf-8")
