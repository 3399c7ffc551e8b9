"""DICOM into NIfTI: each volume a file, and beside it a JSON that says what was done."""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import Final

import numpy as np

from medseg3d import __version__
from medseg3d.errors import ConfigError, MedSegError
from medseg3d.io.atomic import prepare_folder, write_atomically
from medseg3d.io.dicom.read import read_series, read_stacks
from medseg3d.io.dicom.series import Series, find_series, read_headers, require_sound
from medseg3d.io.dicom.stacks import Stack
from medseg3d.io.files import Gaps, Tilt, require_known
from medseg3d.io.nifti import write_nifti
from medseg3d.volume import Volume

FIELDS: Final = {
    "modality": "Modality",
    "number": "SeriesNumber",
    "description": "SeriesDescription",
    "protocol": "ProtocolName",
    "patient": "PatientID",
    "date": "StudyDate",
    "study": "StudyInstanceUID",
    "series": "SeriesInstanceUID",
}
"""What a name may be made of -> DICOM's attribute; all but the first two may tell who it is."""

FIELD: Final = r"{(.*?)}"
"""A field in a name."""

NEUTRAL: Final = "{modality}-{number}"
"""Names that tell nobody's identity."""


@dataclass(frozen=True, slots=True)
class Converted:
    """What became of one volume, or of a series without any."""

    series: str
    """Number and modality."""
    volume: str
    path: Path | None
    reason: str | None
    """Why there is no file."""
    failed: bool
    remarks: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Series and volume, for messages."""
        return f"{self.series}, {self.volume}" if self.volume else self.series


@dataclass(frozen=True, slots=True)
class _Job:
    series: Series
    stack: Stack | None
    """None for all volumes of the series as one file of four axes."""
    target: Path
    study: int
    """Which study it is of, from 1 in the order of their UIDs."""


def convert_series(
    source: str | Path,
    out: str | Path,
    *,
    names: str = NEUTRAL,
    tilt: Tilt = "refuse",
    gaps: Gaps = "refuse",
    channels: bool = False,
    overwrite: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
) -> Iterator[Converted]:
    """Write every volume of every DICOM series below a folder as `out`/NAME.nii.gz.

    A name is made of `names`, with the fields of `FIELDS` in braces, what the series is if it is
    a localizer, and what sets the volume apart from others of its series. Equal names are numbered
    in the order of the series. NAME.json says what was done; it holds no more about the patient
    than the name. With `channels`, the volumes of a series become one file of four axes. A volume
    that cannot be read stops no other. `tilt` and `gaps` are those of `read_series`.

    Raises:
        ConfigError: an unknown field, or `out` cannot be written to or holds a result already and
            not `overwrite`.
        FormatError: as `find_series`.
    """
    require_known("tilt", tilt, Tilt)
    require_known("gaps", gaps, Gaps)
    if unknown := {*re.findall(FIELD, names)} - {*FIELDS}:
        raise ConfigError(
            f"names '{names}' has the field {', '.join(sorted(unknown))}; known are "
            f"{', '.join(FIELDS)}"
        )
    every, out = find_series(source), Path(out)
    jobs = [*_jobs(every, out, names, channels)]
    kept = [target for job in jobs for target in (job.target, _json_of(job.target))]
    prepare_folder(out, keep=[] if overwrite else kept)
    for series in every:
        if not series.stacks:
            said = "; ".join((*series.remarks, *series.faults))
            yield Converted(series.name, "", None, said, failed=bool(series.faults))
    for done, job in enumerate(jobs):
        if progress:
            progress("converting", done, len(jobs))
        yield _convert(job, tilt, gaps)
    if progress and jobs:
        progress("converting", len(jobs), len(jobs))


def _jobs(every: Sequence[Series], out: Path, names: str, channels: bool) -> Iterator[_Job]:
    taken: set[str] = set()
    studies = [*dict.fromkeys(series.study_uid for series in every)]
    for series in every:
        whole = channels and len(series.stacks) > 1
        for stack in (None,) if whole else series.stacks:
            name = _name(series, stack or series.stacks[0], names, whole)
            numbered = (f"{name}_{n}" for n in count(2))
            free = next(one for one in chain([name], numbered) if one.lower() not in taken)
            taken.add(free.lower())  # some disks take A and a for one
            yield _Job(series, stack, out / f"{free}.nii.gz", studies.index(series.study_uid) + 1)


def _name(series: Series, stack: Stack, names: str, whole: bool) -> str:
    values = {"modality": series.modality.lower(), "number": f"{series.number or 0:03d}"}
    if {*re.findall(FIELD, names)} - {*values}:
        [header, *_] = read_headers(stack)
        said = {field: str(header.get(keyword) or "") for field, keyword in FIELDS.items()}
        values = {**said, **values}
    kind = "localizer" if stack.is_localizer and "localizer" not in stack.name else ""
    parts = [
        re.sub(FIELD, lambda match: values[match[1]], names),
        kind,
        "" if whole else stack.name,
    ]
    return re.sub(r"[^\w.+-]+", "-", "_".join(filter(None, parts))).strip(".-") or "volume"


def _convert(job: _Job, tilt: Tilt, gaps: Gaps) -> Converted:
    series, stack = job.series, job.stack
    name = stack.name if stack else ""
    remarks = tuple(stack.remarks()) if stack else ()
    for path in (job.target, _json_of(job.target)):
        path.unlink(missing_ok=True)  # what lay there is no result of this run
    try:
        if stack:
            require_sound(series)
            [volume] = read_stacks([stack], tilt=tilt, gaps=gaps)
        else:
            volume = read_series(series, fourth_axis="channels", tilt=tilt, gaps=gaps)
        write_nifti(volume, job.target)
        write_atomically(_json_of(job.target), _account(job, volume, tilt, gaps).encode())
    except MedSegError as error:
        return Converted(series.name, name, None, str(error), failed=True, remarks=remarks)
    return Converted(series.name, name, job.target, None, failed=False, remarks=remarks)


def _account(job: _Job, volume: Volume, tilt: Tilt, gaps: Gaps) -> str:
    """Say where a volume comes from, what was done to it, and where it lies."""
    stacks = [job.stack] if job.stack else [*job.series.stacks]
    tilted, uneven = any(s.tilted for s in stacks), any([*s.gaps()] for s in stacks)
    steps = np.diff(stacks[0].positions_mm)
    done = {
        "gantry tilt": f"{stacks[0].tilt_degrees:.3f} degrees: {tilt}" if tilted else None,
        "uneven slices": f"{steps.min():.3f} to {steps.max():.3f} mm: {gaps}" if uneven else None,
    }
    account = {
        "medseg3d": __version__,
        "study": job.study,
        "modality": job.series.modality,
        "series_number": job.series.number,
        "volumes": [stack.name for stack in stacks],
        "slices": [len(stack.frames) for stack in stacks],
        "remarks": [*(said for stack in stacks for said in stack.oddities())],
        "done": {what: how for what, how in done.items() if how},
        "shape": volume.shape_IJK,
        "channels": volume.num_channels,
        "spacing_mm": volume.spacing_mm,
        "orientation": volume.orientation,
        "affine": volume.affine.tolist(),
        "dtype": str(volume.array_CIJK.dtype),
    }
    return json.dumps(account, indent=2) + "\n"


def _json_of(target: Path) -> Path:
    return target.with_name(target.name.removesuffix(".nii.gz") + ".json")
