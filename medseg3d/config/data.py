"""Where the cases lie, whose they are, and what their labels mean."""

import re
from pathlib import Path
from typing import Annotated, Final, Literal, TypeAlias

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


def _at_home(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise ValueError(f"'~' stands for no home here; write the path in full ({error})") from None


def _finds_one_group(expression: str) -> str:
    try:
        groups = re.compile(expression).groups
    except re.error as error:
        raise ValueError(f"no regular expression: {error}") from error
    if groups != 1:
        raise ValueError(
            f"{groups} groups; a regular expression with one, such as '(.+)_scan[0-9]+', says "
            "which part of a case's name is the patient"
        )
    return expression


def _leaves_columns_free(images: dict[str, str]) -> dict[str, str]:
    if taken := [name for name in COLUMNS if name in images]:
        raise ValueError(f"no channel can be called {', '.join(taken)}: tables have such columns")
    return images


COLUMNS: Final = ("case", "patient", "reference")
"""Columns of a table of cases that are not channels."""

Missing: TypeAlias = Literal["refuse", "drop", "zeros"]
"""What is done with cases that lack a channel."""

LabelsByName: TypeAlias = Annotated[
    LabelScheme, ready_made(DATASETS, "label scheme", "Else give its values and names")
]

Pattern: TypeAlias = Annotated[str, AfterValidator(_fits_cases_below_a_folder)]
"""A path below a folder in which `{case}` stands for the case's name, `*` for anything."""

Patterns: TypeAlias = Annotated[
    dict[str, Pattern], Field(min_length=1), AfterValidator(_leaves_columns_free)
]
"""Channel name -> pattern, in the network's order."""

PathFromHome: TypeAlias = Annotated[Path, AfterValidator(_at_home)]
"""A path that may begin with `~`."""


class SplitConfig(Section):
    """Which cases are trained on and which are held out."""

    source: Literal["folds", "dataset.json"] | PathFromHome = "folds"
    """`folds`: seeded k-fold split by patients; `dataset.json`: its lists `training` and
    `validation`; else a file of splits as nnU-Net's `splits_final.json`, below `data.folder`."""
    num_folds: int = Field(default=5, ge=2)
    """Number of folds of a k-fold split."""
    fold: int = Field(default=0, ge=0)
    """The held-out fold, counted from 0."""
    seed: int = Field(default=0, ge=0)
    """Seed of the shuffle before the folds are cut."""

    @model_validator(mode="after")
    def _fold_exists(self) -> "SplitConfig":
        if self.source == "folds" and self.fold >= self.num_folds:
            raise ValueError(f"fold {self.fold} of {self.num_folds} folds; they count from 0")
        return self


class DataConfig(Section):
    """A data set on disk: one path pattern per channel, and one for the reference.

    A pattern is a path below `folder` in which `{case}` stands for the case's name and `*` for
    anything within one path part: `imagesTr/{case}_0000.nii.gz`, `{case}/Flair_*.nii.gz`.
    """

    folder: PathFromHome
    """The data set's folder; a relative path starts at the current folder."""
    images: Patterns
    """Channel name -> pattern, in the order in which the network takes the channels. The same
    pattern several times: files with these channels on their fourth axis, in this order."""
    reference: Pattern | None = None
    """Pattern of the reference label maps."""
    table: PathFromHome | None = None
    """A CSV with the columns `case`, one per channel, `reference` and perhaps `patient`, which
    says what training takes instead of the patterns; a relative path starts at `folder`."""
    missing: Missing = "refuse"
    """What to do with cases that lack a channel: an error; `drop` those that lack one or the
    reference; or an image of `zeros` in its place, then also in prediction."""
    patient: Annotated[str, AfterValidator(_finds_one_group)] | None = None
    """Regular expression whose one group, found in a case's name, is the patient; cases of one
    patient stay on one side of a split. Null: each case is a patient's only one."""
    labels: LabelsByName
    """Values, names and regions of the label maps, or the name of a ready-made scheme: `btcv`."""
    split: SplitConfig = SplitConfig()
    """Training and validation cases."""
