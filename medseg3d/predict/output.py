"""What is written of a predicted case: the label map and what goes with it."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal, TypeAlias

import numpy as np
from jaxtyping import Float32

from medseg3d.config.recipe import Recipe
from medseg3d.data.cases import Case
from medseg3d.errors import ConfigError
from medseg3d.io.files import is_dicom_source, require_known, write_volume
from medseg3d.predict.case import Predicted, Prepared
from medseg3d.volume import Volume

Format: TypeAlias = Literal["nifti", "dicom-seg", "rtstruct"]
"""A NIfTI file, or DICOM that belongs to the series it was made from."""

SUFFIXES: Final[dict[Format, str]] = {
    "nifti": ".nii.gz",
    "dicom-seg": ".seg.dcm",
    "rtstruct": ".rtstruct.dcm",
}
"""Format -> how names of results end."""

Existing: TypeAlias = Literal["refuse", "replace", "skip"]
"""What to do where a case's result is there already."""


@dataclass(frozen=True, slots=True)
class CaseFiles:
    """Where the results of a case lie; some are not asked for."""

    label_map: Path
    uncertainty: Path | None = None
    probabilities: Path | None = None
    stale: tuple[Path, ...] = ()
    """Maps of an earlier run that are not asked for now: they go with its label map."""

    @property
    def paths(self) -> list[Path]:
        """Those asked for, the label map first."""
        return [path for path in (self.label_map, self.uncertainty, self.probabilities) if path]

    def remove(self) -> None:
        """Remove what is there, the label map first: it stands for all."""
        for path in (*self.paths, *self.stale):
            path.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Output:
    """What is written of each case, and how."""

    format: Format = "nifti"
    existing: Existing = "refuse"
    uncertainty: bool = False
    """Also where several opinions disagree, in bits: `CASE_uncertainty.nii.gz`."""
    probabilities: bool = False
    """Also the probability of each output channel: `CASE_probabilities.nii.gz`, of four axes."""
    volumes: bool = False
    """Also a table of how large each value and region is: `volumes.csv`."""
    model: str = ""
    """SHA-256 of the model's file, for DICOM SEG to name it by."""

    def files(self, folder: Path, case: Case) -> CaseFiles:
        """Give the files of a case."""
        uncertainty = folder / f"{case.id}_uncertainty.nii.gz"
        probabilities = folder / f"{case.id}_probabilities.nii.gz"
        asked = {uncertainty: self.uncertainty, probabilities: self.probabilities}
        return CaseFiles(
            folder / f"{case.id}{SUFFIXES[self.format]}",
            uncertainty if self.uncertainty else None,
            probabilities if self.probabilities else None,
            stale=tuple(path for path in asked if not asked[path] and self.existing == "replace"),
        )


AS_NIFTI: Final = Output()
"""One NIfTI file a case."""


def plan_output(output: Output, models: Sequence[Path], recipe: Recipe) -> Output:
    """Check that a model's labels can be written so, before anything is computed; name the model.

    Raises:
        ConfigError: no such format, or DICOM SEG is asked for and a label has no code.
    """
    require_known("output format", output.format, Format)
    if output.format != "dicom-seg":
        return output
    for label in recipe.labels.values.values():
        recipe.labels.term_of(label)
    return replace(output, model=digest_models(models))


def digest_models(models: Sequence[Path]) -> str:
    """Give the SHA-256 of a file; of several, that of a list of theirs in hexadecimal, one a line.

    The latter is what `sha256sum MODELS | cut -c -64 | sha256sum` prints.
    """
    digests = []
    for model in models:
        with model.open("rb") as stream:
            digests.append(hashlib.file_digest(stream, "sha256").hexdigest())
    if len(digests) == 1:
        return digests[0]
    return hashlib.sha256("".join(f"{digest}\n" for digest in digests).encode()).hexdigest()


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


def write_case(
    label_map: Volume,
    files: CaseFiles,
    *,
    predicted: Predicted,
    prepared: Prepared,
    image: Path,
    recipe: Recipe,
    output: Output,
) -> bool:
    """Write all files of a case or none; else as `write_result`.

    Uncertainty and probabilities lie on the grid of the image too. The label map is written last,
    so that where it is there, all is. The background of `predicted.probs_LIJK` is changed.

    Raises:
        ConfigError: a file cannot be written.
    """
    files.remove()
    like = None if is_dicom_source(image) else image
    maps_IJK, probs_LIJK = predicted.uncertainty_IJK, predicted.probs_LIJK
    try:
        if files.uncertainty and maps_IJK is not None:
            restored = prepared.preprocessed.restore_image(maps_IJK[np.newaxis])
            write_volume(restored, files.uncertainty, like=like)
        if files.probabilities and probs_LIJK is not None:
            restored = restore_probs(probs_LIJK, prepared, recipe)
            write_volume(restored, files.probabilities, like=like)
        return write_result(label_map, files.label_map, image=image, recipe=recipe, output=output)
    except BaseException:
        files.remove()
        raise


def restore_probs(
    probs_LIJK: Float32[np.ndarray, "L I J K"], prepared: Prepared, recipe: Recipe
) -> Volume:
    """Bring probabilities onto the grid of the images; outside the crop all is background.

    Those of background are changed, to spare memory.
    """
    if recipe.outputs == "values":
        probs_LIJK[0] -= 1  # what background lacks to be certain is 0 outside the crop
    restored = prepared.preprocessed.restore_image(probs_LIJK)
    if recipe.outputs == "values":
        restored.array_CIJK[0] += 1
    return restored


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
