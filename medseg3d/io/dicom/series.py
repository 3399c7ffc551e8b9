"""Every series below a folder, and the one that is meant."""

import re
from collections import defaultdict
from dataclasses import dataclass, field
from os.path import commonpath
from pathlib import Path

from pydicom import Dataset
from pydicom.uid import UID

from medseg3d.errors import FormatError, SeriesError
from medseg3d.io.dicom.attributes import frames_of
from medseg3d.io.dicom.frames import Frame
from medseg3d.io.dicom.headers import (
    DicomFile,
    find_files,
    guarded,
    is_dicom,
    is_directory,
    is_segmentation,
    read_header,
)
from medseg3d.io.dicom.split import split_frames
from medseg3d.io.dicom.stacks import Stack, listed


@dataclass(frozen=True, slots=True)
class Series:
    """What shares a SeriesInstanceUID: one volume, several, or no image at all."""

    uid: str
    study_uid: str
    number: int | None
    modality: str
    description: str
    """As the scanner or its operator wrote it; it may name the patient."""
    stacks: tuple[Stack, ...]
    """Its volumes."""
    faults: tuple[str, ...]
    """Why none of it can be trusted."""
    remarks: tuple[str, ...]
    """What else is odd about it as a whole."""

    @property
    def name(self) -> str:
        """Name for messages: number and modality."""
        return f"series {'?' if self.number is None else self.number} ({self.modality})"

    @property
    def content(self) -> str:
        """Number, modality and sizes, to tell it from others."""
        sizes = listed([*dict.fromkeys(stack.size for stack in self.stacks)]) or "no image"
        return f"{self.name}, {sizes}"

    @property
    def is_localizer(self) -> bool:
        """Whether all it holds is for planning other scans."""
        return all(stack.is_localizer for stack in self.stacks)


def find_series(source: str | Path) -> list[Series]:
    """Find every series in a folder, the folders and zip archives below it, or in one file.

    Files are known by their content, not by their names; what is no DICOM is passed over, and so
    is a DICOMDIR. A DICOM file that cannot be read is a fault of every series that has a file in
    the same folder, or of all where none has: it may be one of their slices.

    Raises:
        FormatError: no such file or folder, or an archive is damaged, or no DICOM file is sound.
    """
    findings: dict[str, _Finding] = {}
    broken: dict[Path, list[str]] = defaultdict(list)
    for file in find_files(Path(source)):
        try:
            if is_dicom(file):
                _sort_in(file, findings)
        except FormatError as error:
            broken[file.folder].append(str(error))
    if broken and not findings:
        raise FormatError(listed([error for errors in broken.values() for error in errors]))
    held = {file.folder for one in findings.values() for file in one.files.values()}
    astray = [error for folder in broken if folder not in held for error in broken[folder]]
    for finding in findings.values():
        for folder in sorted({file.folder for file in finding.files.values()}):
            finding.faults += broken[folder]
        finding.faults += astray
    series = [finding.series(uid) for uid, finding in findings.items()]
    return sorted(series, key=lambda one: (one.study_uid, one.number or 0, one.uid))


def find_image_folders(source: str | Path) -> list[Path]:
    """Find for each series of images the folder that holds all of it; localizers do not count.

    Raises:
        FormatError: as `find_series`.
    """
    images = [one for one in find_series(source) if one.stacks and not one.is_localizer]
    folders = [
        {frame.file.folder for stack in one.stacks for frame in stack.frames} for one in images
    ]
    return sorted({Path(commonpath(every)) for every in folders})


def find_image_series(source: str | Path) -> Series:
    """Find the one series of volumes in a folder, an archive or a file; localizers do not count.

    Raises:
        FormatError: as `find_series`.
        SeriesError: there is none, or more than one; lists them.
    """
    every = find_series(source)
    images = [series for series in every if series.stacks]
    series = [one for one in images if not one.is_localizer] or images
    if len(series) == 1:
        return series[0]
    held = "; ".join(one.content for one in series or every) or "no DICOM"
    raise SeriesError(
        f"'{Path(source).name}' holds {held}; expected one series of images. Give the folder of "
        "one series, or one of find_series(…); `medseg3d info FOLDER` lists them and `medseg3d "
        "convert` takes them all."
    )


def find_stack(source: str | Path | Series, volume: str | None = None) -> Stack:
    """Find the one volume of a series, or that of a name; localizers do not count unasked.

    Raises:
        FormatError, SeriesError: as `find_image_series`; a series that cannot be trusted, without
            a volume of this name, or with more than one volume; lists their names.
    """
    series = require_sound(source if isinstance(source, Series) else find_image_series(source))
    named = [stack for stack in series.stacks if volume in (None, stack.name)]
    if volume is None:
        named = [stack for stack in named if not stack.is_localizer] or named
    if len(named) == 1:
        return named[0]
    names = [f"'{stack.name}' ({stack.size})" for stack in series.stacks]
    if volume is not None:
        raise SeriesError(f"{series.name} has no volume '{volume}'; it holds {', '.join(names)}")
    raise SeriesError(
        f"{series.name} holds {len(names)} volumes: {listed(names, most=12)}. Ask for one by its "
        "name (volume=…, --set preprocess.volume=…), or for all on one grid with "
        "fourth_axis='channels'; `medseg3d convert` writes each to a file."
    )


def require_sound(series: Series) -> Series:
    """Give a series back that has volumes and no faults.

    Raises:
        SeriesError: names what is wrong.
    """
    if series.faults or not series.stacks:
        said = listed([*series.faults]) or "holds no image"
        raise SeriesError(f"{series.name}: {said}")
    return series


def read_headers(stack: Stack) -> list[Dataset]:
    """Read the attributes of each file of a stack, in the order of its slices, without pixels.

    Raises:
        FormatError: a file has gone or changed for the worse.
    """
    return [read_header(file) for file in dict.fromkeys(frame.file for frame in stack.frames)]


@dataclass(slots=True)
class _Finding:
    """What the files of one series have been found to hold."""

    study_uid: str
    number: int | None
    modality: str
    description: str
    kind: str
    owners: set[tuple[str, str]] = field(default_factory=set)
    files: dict[str, DicomFile] = field(default_factory=dict)
    """By the UID of the SOP instance."""
    frames: list[Frame] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    imageless: list[str] = field(default_factory=list)
    """Names of files without pixels."""
    copies: int = 0

    def series(self, uid: str) -> Series:
        remarks = [f"{self.copies} files are there twice"] if self.copies else []
        if not self.frames:
            remarks.append(f"no image: {self.kind}")
        unplaced = [frame for frame in self.frames if frame.plane is None]
        placed = {frame.class_uid for frame in self.frames if frame.plane}
        if doubtful := [
            f"{frame.name} {frame.fault}" for frame in unplaced if frame.class_uid in placed
        ]:
            self.faults.append(listed(doubtful))
        if self.frames and self.imageless:
            self.faults.append(f"{listed(self.imageless)}: no image, where others are")
        if len(self.owners) > 1:
            self.faults.append("its files come from different patients or studies")
        return Series(
            uid=uid,
            study_uid=self.study_uid,
            number=self.number,
            modality=self.modality,
            description=self.description,
            stacks=split_frames(self.frames) if self.frames else (),
            faults=tuple(self.faults),
            remarks=tuple(remarks),
        )


def _sort_in(file: DicomFile, findings: dict[str, _Finding]) -> None:
    """Add what a file holds to its series.

    Raises:
        FormatError: the file is damaged.
    """
    header = read_header(file)
    with guarded(file):
        if is_directory(header):
            return
        frames = [] if is_segmentation(header) else frames_of(file, header)
        uid = str(header.get("SeriesInstanceUID") or "")
        if not uid or not header.get("SOPInstanceUID"):
            raise FormatError("has no Series or SOP Instance UID")
        image_uid, number = str(header.SOPInstanceUID), header.get("SeriesNumber")
        owner = str(header.get("StudyInstanceUID") or ""), str(header.get("PatientID") or "")
        finding = findings.get(uid) or _Finding(
            study_uid=owner[0],
            number=None if number is None else int(number),
            modality=_modality(header),
            description=str(header.get("SeriesDescription") or ""),
            kind=UID(header.SOPClassUID).name,
        )
    findings[uid] = finding
    finding.owners.add(owner)
    if not frames:
        finding.imageless.append(f"'{file.name}'")
    same = finding.files.setdefault(image_uid, file)
    if same is file:
        finding.frames += frames
    elif _content(same) == _content(file):
        finding.copies += 1
    else:
        finding.faults.append(
            f"'{same.folder.name}/{same.name}' and '{file.folder.name}/{file.name}' differ and say "
            "they are one (SOP Instance UID)"
        )


def _modality(header: Dataset) -> str:
    """Give the modality where it is a code, and no name that has strayed there."""
    said = str(header.get("Modality") or "")
    return said if re.fullmatch("[A-Z]{2,8}", said) else "OT"


def _content(file: DicomFile) -> bytes:
    with file.open() as stream:
        return stream.read()
