"""Volumes from files and back; the suffix of a name says who reads it."""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, Literal, TypeAlias, TypeVar, get_args

import numpy as np

from medseg3d.errors import ConfigError, FormatError
from medseg3d.io.itk import read_image, write_image
from medseg3d.io.metaimage import read_metaimage, write_metaimage
from medseg3d.io.nifti import NIFTI_SUFFIXES, read_nifti, write_nifti
from medseg3d.io.nrrd import read_nrrd, write_nrrd
from medseg3d.labels import LabelScheme, as_label_map, require_values
from medseg3d.volume import Volume, require_one_grid

READERS: Final[dict[str, Callable[[Path], Volume]]] = {
    **dict.fromkeys(NIFTI_SUFFIXES, read_nifti),
    **dict.fromkeys((".nrrd", ".nhdr"), read_nrrd),
    **dict.fromkeys((".mha", ".mhd"), read_metaimage),
    **dict.fromkeys((".png", ".tif", ".tiff", ".jpg", ".jpeg"), read_image),
}
"""Suffix of a file's name -> who reads it, all channels the file has."""

WRITERS: Final[dict[str, Callable[[Volume, Path], None]]] = {
    ".nii": write_nifti,
    ".nii.gz": write_nifti,
    ".nrrd": write_nrrd,
    ".mha": write_metaimage,
    ".mhd": write_metaimage,
    ".png": write_image,
    ".tif": write_image,
}
"""Suffix of a file's name -> who writes it."""

Entry = TypeVar("Entry")

Nonfinite: TypeAlias = Literal["refuse", "zero", "keep"]
"""What to do with NaN and infinity."""

FourthAxis: TypeAlias = Literal["refuse", "channels"]
"""What to do with a file or series of several volumes."""

Tilt: TypeAlias = Literal["refuse", "correct", "keep"]
"""What to do with DICOM slices that do not follow each other along their normal."""

Gaps: TypeAlias = Literal["refuse", "resample"]
"""What to do with DICOM slices that are not evenly spaced."""

DICOM_SUFFIXES: Final = (".dcm", ".dicom", ".ima")
"""Suffixes that promise DICOM; most files of hospitals have none."""

MOST_LOOKED_AT: Final = 16
"""Files of a folder in which the mark of DICOM is looked for."""

log = logging.getLogger(__name__)


def read_volume(
    source: str | Path | Sequence[str | Path],
    *,
    nonfinite: Nonfinite = "refuse",
    fourth_axis: FourthAxis = "refuse",
    volume: str | None = None,
    tilt: Tilt = "refuse",
    gaps: Gaps = "refuse",
) -> Volume:
    """Read a volume from one file or folder of DICOM, or from one per channel, in order.

    NaN and infinity are refused, replaced by 0 (one WARNING with their number), or kept. A file of
    four axes is refused, or its last axis is taken for channels. Channels of different dtypes
    take the smallest that holds them all. DICOM is a folder, a `.zip` of it, or a file, with one
    series of images in it; `volume`, `tilt` and `gaps` are as in `read_series`.

    Raises:
        FormatError: a file is missing, damaged, of an unknown kind, or holds what is refused.
        SeriesError: DICOM that is not one regular stack of slices; see `read_series`.
        GridError: the files do not lie on one grid; prints both grids.
        ConfigError: the sequence is empty.
    """
    paths = [Path(p) for p in ([source] if isinstance(source, str | Path) else source)]
    if not paths:
        raise ConfigError("no file to read a volume from; name at least one")
    choices = {"nonfinite": Nonfinite, "fourth_axis": FourthAxis, "tilt": Tilt, "gaps": Gaps}
    for value, (name, choice) in zip(
        (nonfinite, fourth_axis, tilt, gaps), choices.items(), strict=True
    ):
        require_known(name, value, choice)
    volumes = [
        _read_dicom(path, fourth_axis, volume, tilt, gaps)
        if is_dicom_source(path)
        else _read_file(path, nonfinite, fourth_axis)
        for path in paths
    ]
    require_one_grid([volume.grid for volume in volumes], [str(path) for path in paths])
    return volumes[0] if len(volumes) == 1 else stack_channels(volumes)


def read_label_map(path: str | Path, scheme: LabelScheme | None = None) -> Volume:
    """Read a label map as unsigned integers, whatever dtype the file stores them in.

    Raises:
        FormatError: a file is missing, damaged, or has more than one channel.
        LabelError: no integers (within 0.001), or values that `scheme` does not know.
    """
    volume = read_volume(path)
    label_map_IJK = as_label_map(volume.array_CIJK[0], source=f"'{path}'")
    if scheme is not None:
        require_values(label_map_IJK, scheme, source=f"'{path}'", reference=True)
    return Volume(label_map_IJK[np.newaxis], volume.affine)


def write_volume(volume: Volume, path: str | Path, *, like: str | Path | None = None) -> None:
    """Write a volume as the suffix of `path` says (`WRITERS`), whole or not at all.

    The same volume gives the same bytes; several channels become a fourth axis, or colours. With
    `like`, the volume must lie on that file's grid. Where both are NIfTI, the file is then placed
    in the world by the very header fields of `like`; else by its affine, to the last bit that the
    kind of file keeps. Pictures (`.png`, `.tif`) keep the size of pixels alone.

    Raises:
        FormatError: the suffix is unknown, or `like` cannot be read.
        GridError: `like` does not lie on the volume's grid; prints both.
        ConfigError: the folder is missing or not writable, the disk is full, or the kind of file
            has no such dtype.
    """
    path = Path(path)
    write = _by_suffix(WRITERS, path, "written")
    if like is None:
        write(volume, path)
    elif write is write_nifti and _by_suffix(READERS, Path(like)) is read_nifti:
        write_nifti(volume, path, like=Path(like))
    else:
        source = read_volume(like, nonfinite="keep", fourth_axis="channels")
        require_one_grid([source.grid, volume.grid], [str(like), "volume to write"])
        write(Volume(volume.array_CIJK, source.affine), path)


def require_known(name: str, value: str, choice: object) -> None:
    """Check that a knob has one of the values of a Literal.

    Raises:
        ConfigError: it has not.
    """
    if value not in get_args(choice):
        raise ConfigError(f"{name} '{value}' is none of {', '.join(get_args(choice))}")


def is_dicom_source(path: Path) -> bool:
    """Tell whether a path is read as DICOM: a folder, by its suffix, or by its mark."""
    if path.is_dir() or path.name.lower().endswith((*DICOM_SUFFIXES, ".zip")):
        return True
    return not path.name.lower().endswith(tuple(READERS)) and path.is_file() and _is_marked(path)


def holds_dicom(folder: Path) -> bool:
    """Look whether a folder, or one below it, has a file with the mark of DICOM."""
    for root, _, names in os.walk(folder, followlinks=True):
        for path in (Path(root, name) for name in sorted(names)[:MOST_LOOKED_AT]):
            if path.is_file() and (path.suffix.lower() == ".zip" or _is_marked(path)):
                return True
    return False


def _is_marked(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(132)[128:] == b"DICM"


def _read_dicom(
    path: Path, fourth_axis: FourthAxis, volume: str | None, tilt: Tilt, gaps: Gaps
) -> Volume:
    from medseg3d.io.dicom.read import read_series  # noqa: PLC0415 # needs an extra

    return read_series(path, volume=volume, fourth_axis=fourth_axis, tilt=tilt, gaps=gaps)


def _by_suffix(table: Mapping[str, Entry], path: Path, done: str = "read") -> Entry:
    for suffix, entry in table.items():
        if path.name.lower().endswith(suffix):
            return entry
    raise FormatError(
        f"'{path}' is of no kind that is {done}; those are {', '.join(table)}. Convert it first."
    )


def _read_file(path: Path, nonfinite: str, fourth_axis: str) -> Volume:
    volume = _by_suffix(READERS, path)(path)
    if volume.num_channels > 1 and fourth_axis != "channels":
        raise FormatError(
            f"'{path}' has four axes, {volume.num_channels} volumes of {volume.shape_IJK} voxels; "
            "expected three axes. Split the file, or read it with fourth_axis='channels' if the "
            "last axis holds channels."
        )
    if nonfinite == "keep" or volume.array_CIJK.dtype.kind != "f":
        return volume
    return _finite(volume, path, nonfinite)


def _finite(volume: Volume, path: Path, nonfinite: str) -> Volume:
    finite = np.isfinite(volume.array_CIJK)
    count = finite.size - int(np.count_nonzero(finite))
    if count == 0:
        return volume
    if nonfinite != "zero":
        raise FormatError(
            f"'{path}' holds {count} voxels of NaN or infinity; repair it, or read it with "
            "nonfinite='zero' (--set preprocess.nonfinite=zero) to put 0 in their place"
        )
    log.warning("'%s': %d voxels of NaN or infinity are read as 0", path, count)
    return Volume(np.where(finite, volume.array_CIJK, 0), volume.affine)


def stack_channels(volumes: Sequence[Volume]) -> Volume:
    """Join the channels of volumes on one grid, each in the order of its file.

    `np.concatenate` would interleave them in memory.
    """
    channels = [channel for volume in volumes for channel in volume.array_CIJK]
    shape_CKJI = (len(channels), *volumes[0].shape_IJK[::-1])
    stacked = np.empty(shape_CKJI, dtype=np.result_type(*channels)).transpose(0, 3, 2, 1)
    for target, channel in zip(stacked, channels, strict=True):
        target[...] = channel
    return Volume(stacked, volumes[0].affine)
