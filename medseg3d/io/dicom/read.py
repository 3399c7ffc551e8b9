"""One volume of a series, whatever has to be done about tilt and gaps said by the reader."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from medseg3d.errors import FormatError, SeriesError
from medseg3d.geometry.resample import LARGEST_GRID, resample_volume
from medseg3d.io.dicom.pixels import read_pixels
from medseg3d.io.dicom.series import Series, find_image_series, find_stack, require_sound
from medseg3d.io.dicom.stacks import Stack
from medseg3d.io.files import FourthAxis, Gaps, Tilt, require_known, stack_channels
from medseg3d.volume import Grid, Volume, require_one_grid

REMEDY: Final = {
    "tilt": "tilt='correct' resamples them on an orthogonal grid, tilt='keep' gives sheared axes; "
    "convert --tilt, predict --set preprocess.tilt=",
    "gaps": "gaps='resample' interpolates between them; convert --gaps, predict --set "
    "preprocess.gaps=",
}
"""What the user may ask for."""


def read_series(
    source: str | Path | Series,
    *,
    volume: str | None = None,
    fourth_axis: FourthAxis = "refuse",
    tilt: Tilt = "refuse",
    gaps: Gaps = "refuse",
) -> Volume:
    """Read one volume of a DICOM series: array axes are column, row, slice along the normal.

    `source` is a Series, or whatever holds just one with images, localizers left out. A series of
    several volumes (time points, echoes, orientations) needs the name of one, or all that lie on
    one grid become channels, in the order of their names. A tilted stack is refused, resampled
    linearly on an orthogonal grid that holds all of it (the rest gets its lowest value), or kept,
    with exact, sheared axes. Uneven slices are refused, or interpolated linearly at the smallest
    distance between two of them. What was resampled is float32. Values are those of the rescale
    slope and intercept; see `pixels.read_pixels`.

    Raises:
        SeriesError: slices missing, doubled, of mixed orientation or size, tilted; or there is no
            series, more than one, or more than one volume; says which slices, where, in mm.
        FormatError: damaged files, colours, or pixels that no codec here reads.
        GridError: volumes asked for as channels do not lie on one grid.
        ConfigError: `tilt` or `gaps` is none of what they may be.
    """
    series = source if isinstance(source, Series) else find_image_series(source)
    require_known("fourth_axis", fourth_axis, FourthAxis)
    whole = fourth_axis == "channels" and volume is None
    stacks = require_sound(series).stacks if whole else (find_stack(series, volume),)
    try:
        volumes = read_stacks(stacks, tilt=tilt, gaps=gaps)
    except FormatError as error:
        raise type(error)(f"{series.name}: {error}") from error
    if len(volumes) == 1:
        return volumes[0]
    require_one_grid([one.grid for one in volumes], [stack.name for stack in stacks])
    return stack_channels(volumes)


def read_stacks(
    stacks: Sequence[Stack], *, tilt: Tilt = "refuse", gaps: Gaps = "refuse"
) -> list[Volume]:
    """Read volumes of one size as `read_series` does, each of their files once.

    Raises:
        SeriesError, FormatError, ConfigError: as `read_series`.
    """
    require_known("tilt", tilt, Tilt)
    require_known("gaps", gaps, Gaps)
    for stack in stacks:
        _require_regular(stack, tilt, gaps)
    if len({stack.frames[0].shape_IJ for stack in stacks}) > 1:
        raise SeriesError(f"volumes differ in size: {', '.join(stack.size for stack in stacks)}")
    frames = [frame for stack in stacks for frame in stack.frames]
    ends = np.cumsum([len(stack.frames) for stack in stacks])[:-1]
    volumes = []
    for stack, array_IJK in zip(stacks, np.split(read_pixels(frames), ends, axis=2), strict=True):
        volume = Volume(array_IJK[np.newaxis], stack.mean_grid.affine)
        if [*stack.gaps()]:
            volume = _evened(volume, stack)
        correct = stack.tilted and tilt == "correct"
        volumes.append(_straightened(volume) if correct else volume)
    return volumes


def _require_regular(stack: Stack, tilt: Tilt, gaps: Gaps) -> None:
    """Refuse what is wrong with a stack, all of it at once, but for what is to be mended."""
    faults, uneven = [*stack.faults()], [*stack.gaps()]
    if gaps == "refuse" or faults:
        faults += [f"{said} ({REMEDY['gaps']})" for said in uneven]
    if stack.tilted and tilt == "refuse":
        faults.append(f"slices are tilted by {stack.tilt_degrees:.2f} degrees ({REMEDY['tilt']})")
    if faults:
        raise SeriesError("; ".join(faults))


def _evened(volume: Volume, stack: Stack) -> Volume:
    """Interpolate between slices, at the smallest distance between two of them."""
    places = stack.positions_mm
    steps = np.diff(places)
    spacing = float(steps.min())
    if spacing < float(steps.mean()) / 4:
        raise SeriesError(
            f"slices lie {spacing:.3f} mm apart in one place and {steps.max():.2f} mm in another: "
            "more than one volume? It is not resampled"
        )
    even = places[0] + spacing * np.arange(int(np.ptp(places) / spacing + 1e-6) + 1)
    if even.size * np.prod(volume.shape_IJK[:2]) > LARGEST_GRID:
        raise SeriesError(f"{stack.said(0)}: spacing of {spacing:g} mm makes {even.size} slices")
    after = np.clip(np.searchsorted(places, even), 1, len(places) - 1)
    share = ((even - places[after - 1]) / np.diff(places)[after - 1]).clip(0, 1)
    array_KJI = volume.array_CIJK[0].T
    evened = np.empty((even.size, *array_KJI.shape[1:]), dtype=np.float32)
    for k, (right, weight) in enumerate(zip(after, share, strict=True)):
        evened[k] = array_KJI[right - 1] * (1 - weight) + array_KJI[right] * weight
    affine = volume.affine.copy()
    affine[:3, 2] *= spacing * (len(places) - 1) / (places[-1] - places[0])
    return Volume(evened.T[np.newaxis], affine)


def _straightened(volume: Volume) -> Volume:
    """Resample a sheared volume on an orthogonal grid; what lies outside gets the lowest value."""
    lowest = volume.array_CIJK.min()
    raised = Volume((volume.array_CIJK - np.float32(lowest)), volume.affine)
    straight = resample_volume(raised, grid=straight_grid(volume.grid))
    straight.array_CIJK[...] += np.float32(lowest)
    return straight


def straight_grid(grid: Grid) -> Grid:
    """Give the grid of the same slices moved sideways until they follow each other at right angles.

    Columns and rows keep their directions and sizes; there are as many more as the slices reach
    further.
    """
    along_i, along_j, step = grid.affine[:3, :3].T
    normal = np.cross(along_i, along_j)
    normal /= np.linalg.norm(normal)
    straight = np.column_stack([along_i, along_j, normal * (step @ normal)])
    sideways = np.linalg.solve(straight, step)[:2] * (grid.shape_IJK[2] - 1)
    before = np.floor(np.minimum(sideways, 0)).astype(int)
    after = np.ceil(np.maximum(sideways, 0)).astype(int)
    affine = np.eye(4)
    affine[:3, :3] = straight
    affine[:3, 3] = grid.affine[:3, 3] + straight[:, :2] @ before
    i, j, k = grid.shape_IJK
    return Grid((i + int(after[0] - before[0]), j + int(after[1] - before[1]), k), affine)
