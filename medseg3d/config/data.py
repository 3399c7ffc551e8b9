"""Where the cases lie and what their labels mean."""

from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, Field, model_validator

from medseg3d.config.section import Section
from medseg3d.datasets import DATASETS
from medseg3d.labels import LabelScheme, ready_made


def _fits_cases_below_a_folder(pattern: str) -> str:
    if "{case}" not in pattern:
        raise ValueError("a pattern holds '{case}' where the case's name stands")
    if pattern.startswith("/"):
        raise ValueError("a pattern begins below the folder, without '/'")
    return pattern


LabelsByName: TypeAlias = Annotated[
    LabelScheme, ready_made(DATASETS, "label scheme", "Else give its values and names")
]

Pattern: TypeAlias = Annotated[str, AfterValidator(_fits_cases_below_a_folder)]
"""A path below a folder in which `{case}` stands for the case's name, `*` for anything."""


class SplitConfig(Section):
    """Which cases are trained on and which are held out."""

    source: Literal["folds", "dataset.json"] = "folds"
    """`folds`: seeded k-fold split; `dataset.json`: its lists `training` and `validation`."""
    num_folds: int = Field(default=5, ge=2)
    """Number of folds of a k-fold split."""
    fold: int = Field(default=0, ge=0)
    """The held-out fold, counted from 0."""
    seed: int = Field(default=0, ge=0)
    """Seed of the shuffle before the folds are cut."""

    @model_validator(mode="after")
    def _fold_exists(self) -> "SplitConfig":
        if self.fold >= self.num_folds:
            raise ValueError(f"fold {self.fold} of {self.num_folds} folds; they count from 0")
        return self


class DataConfig(Section):
    """A data set on disk: one path pattern per channel, and one for the reference.

    A pattern is a path below `folder` in which `{case}` stands for the case's name and `*` for
    anything within one path part: `imagesTr/{case}_0000.nii.gz`, `{case}/Flair_*.nii.gz`.
    """

    folder: Annotated[Path, AfterValidator(Path.expanduser)]
    """The data set's folder; a relative path starts at the current folder."""
    images: dict[str, Pattern] = Field(min_length=1)
    """Channel name -> pattern, in the order in which the network takes the channels."""
    reference: Pattern | None = None
    """Pattern of the reference label maps."""
    labels: LabelsByName
    """Values, names and regions of the label maps, or the name of a ready-made scheme: `btcv`."""
    split: SplitConfig = SplitConfig()
    """Training and validation cases."""
    store: Annotated[Path, AfterValidator(Path.expanduser)] | None = None
    """Where preprocessed cases are kept; null takes the run's folder. Runs may share one."""
