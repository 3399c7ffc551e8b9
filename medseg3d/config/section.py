"""What every section of the configuration is: a frozen model that refuses unknown keys."""

from typing import Any

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """One verb's knobs; the sentence under each field is its documentation."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True
    )

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        """Let a field that only changes a default keep the sentence of the field it overrides."""
        for name, field in cls.model_fields.items():
            parents = (
                parent.model_fields for parent in cls.__mro__[1:] if issubclass(parent, Section)
            )
            inherited = (fields[name].description for fields in parents if name in fields)
            field.description = field.description or next(inherited, None)
