"""Folders of empty files in the layouts that are known."""

from pathlib import Path

BRATS = {"t1": "{case}/{case}-t1.nii.gz", "t2": "{case}/{case}-t2.nii.gz"}
NNUNET = {"t1": "imagesTr/{case}_0000.nii.gz", "t2": "imagesTr/{case}_0001.nii.gz"}


def touch(folder: Path, *names: str) -> None:
    """Make empty files; what a case consists of is told by names alone."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
