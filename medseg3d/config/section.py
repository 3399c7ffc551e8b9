"""What every section of the configuration is: a frozen model that refuses unknown keys."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """One verb's knobs; the sentence under each field is its documentation."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True
    )
