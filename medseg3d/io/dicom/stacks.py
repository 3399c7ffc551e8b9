"""Frames of one volume in order: the grid they lie on, and what is wrong with it."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Float64

from medseg3d.arrays import TripleFloat
from medseg3d.errors import SeriesError
from medseg3d.io.dicom.frames import Frame
from medseg3d.volume import Grid

SPACING_TOLERANCE: Final = 0.01
"""A slice may lie this share of the spacing beside its place in an even stack ..."""

PLACE_TOLERANCE_MM: Final = 0.05
"""... or this far, whichever is more; of slices that lie very close, a quarter of the spacing."""

SAME_PLACE: Final = 0.01
"""Slices closer than this share of a pixel's edge lie at one place."""

TILT_DEGREES: Final = 0.1
"""From here on a stack counts as tilted; below, its grid is sheared that little all the same."""

VIEWS: Final = ("sagittal", "coronal", "axial")
"""World axis closest to the normal -> what such planes are called."""


@dataclass(frozen=True, slots=True)
class Stack:
    """Parallel planes of one size; frame k is slice k of the volume."""

    name: str
    """Empty where a series holds one volume."""
    frames: tuple[Frame, ...]
    """In ascending position along the normal; as they came where a place is missing."""

    @property
    def grid(self) -> Grid:
        """Where the voxels lie: exact for tilted stacks too, whose axes are sheared.

        A single slice is as thick as its header says, or 1 mm.

        Raises:
            SeriesError: slices are missing, doubled, uneven, or without a place; all at once.
        """
        if faults := [*self.faults(), *self.gaps()]:
            raise SeriesError("; ".join(faults))
        return self.mean_grid

    @property
    def mean_grid(self) -> Grid:
        """The grid of the first and the last slice, with as many slices evenly between."""
        first, last = self.frames[0], self.frames[-1]
        if first.plane is None or last.plane is None:
            raise SeriesError(f"'{first.name}' has no place")
        if len(self.frames) == 1:
            thickness_mm = first.spacing_mm or first.thickness_mm or 1.0
            step = np.multiply(first.plane.normal, thickness_mm)
        else:
            step = np.subtract(last.plane.corner_mm, first.plane.corner_mm)
            step = step / (len(self.frames) - 1)
        affine = np.eye(4)
        affine[:3] = np.transpose(
            [first.plane.along_i_mm, first.plane.along_j_mm, step, first.plane.corner_mm]
        )
        return Grid((*first.shape_IJ, len(self.frames)), affine)

    @property
    def positions_mm(self) -> Float64[np.ndarray, " K"]:
        """Place of each slice along the normal of the first."""
        return _corners(self.frames) @ _normal(self.frames)

    @property
    def tilt_degrees(self) -> float:
        """Angle between the direction slices follow each other in and the normal."""
        if len(self.frames) < 2 or any(frame.plane is None for frame in self.frames):
            return 0.0
        first, *_, last = _corners(self.frames)
        along = float((last - first) @ _normal(self.frames))
        return math.degrees(math.acos(min(along / max(math.dist(first, last), 1e-9), 1.0)))

    @property
    def tilted(self) -> bool:
        """Whether the tilt is one, and no rounding of places."""
        if not self.tilt_degrees > TILT_DEGREES:
            return False
        sideways_mm = np.ptp(self.positions_mm) * math.tan(math.radians(self.tilt_degrees))
        return bool(sideways_mm > PLACE_TOLERANCE_MM)

    @property
    def view(self) -> str:
        """Axial, coronal or sagittal, whichever is closest."""
        return view_of(self.frames[0])

    @property
    def is_localizer(self) -> bool:
        """Whether it is for planning other scans."""
        return self.frames[0].traits["kind"] == "localizer"

    @property
    def size(self) -> str:
        """Columns, rows and slices."""
        return "×".join(map(str, (*self.frames[0].shape_IJ, len(self.frames))))

    @property
    def spacing_mm(self) -> TripleFloat | None:
        """Voxel edge lengths, between slices on average; None without a place."""
        placed = all(frame.plane for frame in self.frames)
        return self.mean_grid.spacing_mm if placed and not [*self.faults()] else None

    def remarks(self) -> Iterator[str]:
        """Say what is odd about it; what is wrong names files."""
        yield from self.oddities()
        yield from self.faults()
        yield from self.gaps()

    def oddities(self) -> Iterator[str]:
        """Say what is odd about it, but not wrong, without the name of a file."""
        traits = self.frames[0].traits
        if self.is_localizer:
            yield "localizer"
        if any(str(frame.order["type"]).startswith("DERIVED") for frame in self.frames):
            yield "derived"
        if traits["display"] == "inverted":
            yield "shown with high values dark (MONOCHROME1); values are read as they are stored"
        if self.tilted:
            yield f"gantry tilted by {self.tilt_degrees:.2f} degrees"
        if len(self.frames) == 1 and self.frames[0].plane is not None:
            yield "a single slice"
        if (thinned := self._thinned()) is not None:
            yield thinned

    def faults(self) -> Iterator[str]:
        """Say why this is no volume, whatever is done about gaps and tilt."""
        said = sorted({frame.fault for frame in self.frames if frame.fault})
        for fault in said:
            names = [frame.name for frame in self.frames if frame.fault == fault]
            yield f"{listed(names)}: {fault}"
        names = [frame.name for frame in self.frames if not frame.pixels.rescaled]
        scales = {(frame.pixels.slope, frame.pixels.intercept) for frame in self.frames}
        if 0 < len(names) < len(self.frames) and scales != {(1.0, 0.0)}:
            yield f"{listed(names)}: no rescale slope, where other slices say one"
        if said:
            return
        doubled = self._doubled()
        doubts = sorted({frame.doubt for frame in self.frames if frame.doubt})
        if doubts and (doubled or len(self.frames) == 1):
            yield f"{listed([frame.name for frame in self.frames])}: {'; '.join(doubts)}"
        elif doubled:
            yield (
                f"{len(doubled)} slices lie at the place of another: {listed(doubled)}; "
                "nothing in the headers says which volume each belongs to"
            )
        elif beside := self._beside():
            yield f"slices do not lie in one line: {listed(beside)}"

    def gaps(self) -> Iterator[str]:
        """Say where slices are not evenly spaced."""
        if len(self.frames) < 3 or [*self.faults()]:
            return
        places = self.positions_mm
        even = np.linspace(places[0], places[-1], len(places))
        steps = np.diff(places)
        usual = usual_mm(steps)
        if np.abs(places - even).max() <= tolerance_mm(usual):
            return
        wrong = np.flatnonzero(np.abs(steps - usual) > max(SPACING_TOLERANCE * usual, 1e-3))
        said = [
            f"{steps[k]:.2f} mm from {self.said(k)} to {self.said(k + 1)}"
            f"{_missing(steps[k] / usual)}"
            for k in wrong.tolist()
        ]
        yield f"slices are not evenly spaced: usual are {usual:.2f} mm, but {listed(said)}"

    def said(self, k: int) -> str:
        """Name a slice and its place for a message."""
        return f"slice {k + 1} ({self.frames[k].name}) at {self.positions_mm[k]:.2f} mm"

    def _thinned(self) -> str | None:
        """Say where slices lie further apart than their header says."""
        said = self.frames[0].spacing_mm
        if said is None or len(self.frames) < 2 or [*self.faults()]:
            return None
        step = usual_mm(np.diff(self.positions_mm))
        slanted = step / math.cos(math.radians(self.tilt_degrees))
        if min(abs(step - said), abs(slanted - said)) <= tolerance_mm(said):
            return None
        return f"slices lie {step:.2f} mm apart, their headers say {said:.2f} mm"

    def _doubled(self) -> list[str]:
        ids = place_ids(self.frames)
        pairs = [(k - 1, k) for k in range(1, len(ids)) if ids[k] == ids[k - 1]]
        return [f"{self.said(k)} with '{self.frames[other].name}'" for other, k in pairs]

    def _beside(self) -> list[str]:
        """Name the slices that lie beside the line from the first to the last."""
        if len(self.frames) < 3:
            return []
        corners, places = _corners(self.frames), self.positions_mm
        share = (places - places[0]) / (places[-1] - places[0])
        line = corners[0] + np.outer(share, corners[-1] - corners[0])
        edge = tolerance_mm(float(np.median(np.diff(places))))
        beside = np.linalg.norm(corners - line, axis=1)
        return [
            f"{self.said(k)} by {beside[k]:.2f} mm" for k in np.flatnonzero(beside > edge).tolist()
        ]


def stack_of(name: str, frames: Sequence[Frame]) -> Stack:
    """Put frames in order along their normal."""
    if any(frame.plane is None for frame in frames):
        return Stack(name, tuple(frames))
    order = np.argsort(_corners(frames) @ _normal(frames), kind="stable")
    return Stack(name, tuple(frames[n] for n in order))


def usual_mm(steps: Float64[np.ndarray, "_"]) -> float:
    """Give the most ordinary of the distances between slices; of two, the smaller."""
    return float(np.sort(steps)[(len(steps) - 1) // 2])


def place_ids(frames: Sequence[Frame]) -> list[int]:
    """Number the places along the normal; frames at one place get one number."""
    places = _corners(frames) @ _normal(frames)
    plane = frames[0].plane
    edge = SAME_PLACE * float(np.linalg.norm(plane.along_i_mm)) if plane else 0.0
    order = np.argsort(places, kind="stable")
    ids = np.empty(len(frames), dtype=int)
    ids[order] = np.cumsum(np.diff(places[order], prepend=places[order[0]]) > edge)
    return ids.tolist()


def view_of(frame: Frame) -> str:
    """Call a plane axial, coronal or sagittal, whichever is closest."""
    return VIEWS[int(np.argmax(np.abs(_normal([frame])).round(6)))] if frame.plane else ""


def _corners(frames: Sequence[Frame]) -> Float64[np.ndarray, "K 3"]:
    return np.array([frame.plane.corner_mm for frame in frames if frame.plane], dtype=float)


def _normal(frames: Sequence[Frame]) -> Float64[np.ndarray, " 3"]:
    return np.array(next(frame.plane.normal for frame in frames if frame.plane))


def tolerance_mm(spacing_mm: float) -> float:
    """Give how far slices of a spacing may lie beside their places in an even stack."""
    return min(max(SPACING_TOLERANCE * spacing_mm, PLACE_TOLERANCE_MM), spacing_mm / 4)


def _missing(ratio: float) -> str:
    """Say how many slices a distance has room for, where it is a multiple of the usual one."""
    count = round(ratio) - 1
    return f" ({count} missing?)" if count > 0 and abs(ratio - round(ratio)) < 0.05 else ""


def listed(names: Sequence[str], *, most: int = 4) -> str:
    """Join the first few names, and say how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
