"""What a predicted label map is written as."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

from medseg3d.config.recipe import Recipe
from medseg3d.data.cases import Case
from medseg3d.errors import ConfigError
from medseg3d.io.files import is_dicom_source, write_volume
from medseg3d.volume import Volume

Format: TypeAlias = Literal["nifti", "dicom-seg", "rtstruct"]
"""A NIfTI file, or DICOM that belongs to the series it was made from."""

SUFFIXES: Final[dict[Format, str]] = {
    "nifti": ".nii.gz",
    "dicom-seg": ".seg.dcm",
    "rtstruct": ".rtstruct.dcm",
}
"""Format -> how names of results end."""


@dataclass(frozen=True, slots=True)
class Output:
    """How results are written."""

    format: Format = "nifti"
    model: str = ""
    """SHA-256 of the model's file, for DICOM SEG to name it by."""

    def target(self, folder: Path, case: Case) -> Path:
        """Give the file of a case's result."""
        return folder / f"{case.id}{SUFFIXES[self.format]}"


AS_NIFTI: Final = Output()
"""One NIfTI file a case."""


def plan_output(format_name: str, model: Path, recipe: Recipe) -> Output:
    """Check that a model's labels can be written in a format, before anything is computed.

    Raises:
        ConfigError: no such format, or DICOM SEG is asked for and a label has no code.
    """
    known = {name: name for name in SUFFIXES}
    if format_name not in known:
        raise ConfigError(f"output format '{format_name}' is none of {', '.join(known)}")
    if format_name != "dicom-seg":
        return Output(known[format_name])
    for label in recipe.labels.values.values():
        recipe.labels.term_of(label)
    with model.open("rb") as stream:
        return Output("dicom-seg", hashlib.file_digest(stream, "sha256").hexdigest())


def require_source(image: Path, output: Output) -> None:
    """Check that a result can belong to an image, before anything is computed.

    Raises:
        ConfigError: DICOM is asked for and the image is none.
    """
    if output.format != "nifti" and not is_dicom_source(image):
        raise ConfigError(
            f"{output.format} belongs to the DICOM it is made from, and '{image.name}' is none; "
            "take --output-format nifti"
        )


def write_result(
    label_map: Volume, path: Path, *, image: Path, recipe: Recipe, output: Output
) -> bool:
    """Write a label map; `image` is the case's first channel. False where there is no file.

    NIfTI takes its very place in the world from the image, DICOM refers to it and lies on its
    slices, also where it was read with tilt or gaps resampled. DICOM cannot say that nothing was
    found: an empty label map gives no file.

    Raises:
        ConfigError: the file cannot be written.
    """
    if output.format == "nifti":
        write_volume(label_map, path, like=None if is_dicom_source(image) else image)
        return True
    if not label_map.array_CIJK.any():
        return False
    resample = recipe.preprocess.tilt == "correct" or recipe.preprocess.gaps == "resample"
    if output.format == "dicom-seg":
        from medseg3d.io.dicom.seg import Algorithm, write_dicom_seg  # noqa: PLC0415 # an extra

        write_dicom_seg(
            label_map,
            path,
            series=image,
            scheme=recipe.labels,
            volume=recipe.preprocess.volume,
            algorithm=Algorithm(model=output.model),
            resample=resample,
        )
        return True
    from medseg3d.io.dicom.rtstruct import write_rtstruct  # noqa: PLC0415 # an extra

    write_rtstruct(
        label_map,
        path,
        series=image,
        scheme=recipe.labels,
        volume=recipe.preprocess.volume,
        resample=resample,
    )
    return True
