"""What a data set is like: sizes, spacings, grey values and labels, measured case by case."""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import numpy as np
from jaxtyping import Float64, Int64, Shaped
from scipy import ndimage

from medseg3d.arrays import MaskIJK, TripleFloat, TripleInt
from medseg3d.config.data import DataConfig
from medseg3d.config.preprocess import PreprocessConfig
from medseg3d.data.cases import Case, read_images
from medseg3d.errors import ConfigError, FormatError, MedSegError
from medseg3d.geometry.crop import nonzero_box
from medseg3d.geometry.orient import plan_axes
from medseg3d.io.files import read_label_map
from medseg3d.labels import region_masks
from medseg3d.volume import require_one_grid

Modality: TypeAlias = Literal["CT", "MR"]
"""CT, whose grey values mean the same in every image, or anything else."""

SAMPLES: Final = 10_000
"""Voxels of each case whose grey values are kept, so that every case weighs the same."""

STRIPPED: Final = 0.25
"""Share of voxels that are 0 in every channel from which a data set counts as skull-stripped."""

AIR_HU: Final = -500
"""Integers down to this or less are Hounsfield units: air is -1000."""

READERS: Final = 4
"""Cases that are read at a time, at most."""


@dataclass(frozen=True, slots=True)
class Spread:
    """How grey values are spread; NaN where there are none."""

    low: float
    """0.5th percentile."""
    high: float
    """99.5th percentile."""
    mean: float
    deviation: float


@dataclass(frozen=True, slots=True)
class Channel:
    """The grey values of a channel, over the samples of all cases."""

    modality: Modality
    reason: str
    """Why it is taken for that."""
    foreground: Spread
    """Of labelled voxels."""
    filled: Spread
    """Of voxels that are not 0."""


@dataclass(frozen=True, slots=True)
class Extent:
    """Where a case lies, its axes turned towards RAS."""

    id: str
    shape_IJK: TripleInt
    filled_IJK: TripleInt
    """Shape of the box outside of which every channel is 0."""
    spacing_mm: TripleFloat
    orientation: str
    """As the file has it."""
    zeros: float
    """Share of voxels that are 0 in every channel."""


@dataclass(frozen=True, slots=True)
class Region:
    """A region over the cases that have it; NaN where none has."""

    cases: int
    """Cases in which it occurs."""
    smallest_mm3: float
    median_mm3: float
    largest_mm3: float
    components: float
    """Mean number of pieces; voxels that share a corner hang together."""


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What a data set is like."""

    cases: tuple[Extent, ...]
    channels: dict[str, Channel]
    regions: dict[str, Region]

    @property
    def skull_stripped(self) -> bool:
        """Whether much of the images is 0 in every channel, and no channel is CT."""
        stripped = float(np.median([case.zeros for case in self.cases])) >= STRIPPED
        return stripped and all(c.modality != "CT" for c in self.channels.values())

    @property
    def shapes_IJK(self) -> Int64[np.ndarray, "N 3"]:
        """Shape of each case, of what is left after cropping where the data set is cropped."""
        cropped = self.skull_stripped
        return np.array([c.filled_IJK if cropped else c.shape_IJK for c in self.cases])

    @property
    def spacings_mm(self) -> Float64[np.ndarray, "N 3"]:
        """Voxel edges of each case."""
        return np.array([case.spacing_mm for case in self.cases])


@dataclass(frozen=True, slots=True, eq=False)
class _Measured:
    """What is kept of a case."""

    extent: Extent
    foreground: list[Float64[np.ndarray, "_"]]
    """Samples of each channel; as many in every case, or none."""
    filled: list[Float64[np.ndarray, "_"]]
    lowest: list[float]
    """Smallest of those values of each channel."""
    volumes_mm3: dict[str, float]
    components: dict[str, int]


def measure_cases(
    cases: Sequence[Case],
    data: DataConfig,
    *,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Fingerprint:
    """Read every case once and measure it; the same files and seed give the same fingerprint.

    Raises:
        ConfigError: there are no cases, or some have no reference.
        FormatError: cases cannot be read or do not fit together; names all of them.
    """
    if not cases or (missing := [case.id for case in cases if case.reference is None]):
        raise ConfigError(
            "a fingerprint is taken of labelled cases, got "
            + (f"no reference for {', '.join(missing[:5])}" if cases else "no case")
            + "; set data.reference to the pattern of the label maps"
        )
    found: list[_Measured | str] = []
    for result in _in_threads(cases, data, seed):
        found.append(result)
        if progress:
            progress(len(found), len(cases))
    measured = [case for case in found if isinstance(case, _Measured)]
    faults = [fault for fault in found if isinstance(fault, str)]
    if faults:
        raise FormatError(
            f"{len(faults)} of {len(cases)} cases cannot be measured:\n  "
            + "\n  ".join(faults)
            + "\nRepair or remove them; `medseg3d check` says more."
        )
    return Fingerprint(
        cases=tuple(case.extent for case in measured),
        channels={
            name: _join_channel(name, place, measured) for place, name in enumerate(data.images)
        },
        regions={name: _join_region(name, measured) for name in data.labels.regions},
    )


def _in_threads(cases: Sequence[Case], data: DataConfig, seed: int) -> Iterator["_Measured | str"]:
    """Give each case's measures, or what is wrong with it, in order, few at a time."""

    def measure(number: int) -> "_Measured | str":
        try:
            return _measure_case(cases[number], data, np.random.default_rng((seed, number)))
        except MedSegError as error:
            return f"case '{cases[number].id}': {error}"

    pool = ThreadPoolExecutor(min(READERS, os.cpu_count() or 1))
    try:
        yield from pool.map(measure, range(len(cases)))
    finally:
        pool.shutdown(cancel_futures=True)


def _measure_case(case: Case, data: DataConfig, rng: np.random.Generator) -> _Measured:
    image = read_images([case.images.get(name) for name in data.images], PreprocessConfig())
    reference = read_label_map(case.reference or "", data.labels)
    require_one_grid([image.grid, reference.grid], ["image", "reference"])
    label_map = reference.array_CIJK[0]
    labelled = (label_map > 0) & (label_map != (data.labels.ignore or 0))
    regions = dict(region_masks(label_map, data.labels))
    axes = plan_axes(image.affine, "RAS")
    turned = axes.apply_grid(image.grid)
    filled = [channel[channel != 0] for channel in image.array_CIJK]
    there = [name in case.images for name in data.images]  # else zeros stand for it
    box = axes.apply_grid(nonzero_box(image.array_CIJK).crop_grid(image.grid))
    return _Measured(
        Extent(
            id=case.id,
            shape_IJK=turned.shape_IJK,
            filled_IJK=box.shape_IJK,
            spacing_mm=turned.spacing_mm,
            orientation=image.orientation,
            zeros=float(1 - np.any(image.array_CIJK, axis=0).mean()),
        ),
        foreground=[
            _draw(rng, channel[labelled & own])
            for channel, own in zip(image.array_CIJK, there, strict=True)
        ],
        filled=[_draw(rng, values) for values in filled],
        lowest=[float(values.min()) if values.size else np.inf for values in filled],
        volumes_mm3={
            name: float(mask.sum() * image.grid.voxel_mm3) for name, mask in regions.items()
        },
        components={name: _count_pieces(mask) for name, mask in regions.items()},
    )


def _draw(rng: np.random.Generator, values: Shaped[np.ndarray, " V"]) -> Float64[np.ndarray, " S"]:
    drawn = rng.choice(values, SAMPLES) if values.size else values
    return drawn.astype(np.float64)


def _count_pieces(mask: MaskIJK) -> int:
    """Count components within the box that holds them all."""
    found = ndimage.find_objects(mask.view(np.uint8))
    return int(ndimage.label(mask[found[0]], structure=np.ones((3, 3, 3)))[1]) if found else 0


def _join_channel(name: str, place: int, measured: Sequence[_Measured]) -> Channel:
    filled = [case.filled[place] for case in measured]
    modality, reason = _guess_modality(name, [case.lowest[place] for case in measured], filled)
    foreground = [case.foreground[place] for case in measured]
    return Channel(modality, reason, _describe(foreground), _describe(filled))


def _guess_modality(
    name: str, lowest: Sequence[float], samples: Sequence[Float64[np.ndarray, "_"]]
) -> tuple[Modality, str]:
    if {"ct", "cbct"} & {*re.split(r"[^a-z0-9]+", name.lower())}:
        return "CT", "called CT"
    least = float(np.median(lowest))
    integers = all(np.array_equal(values, np.rint(values)) for values in samples)
    if integers and least <= AIR_HU:
        return "CT", f"integers down to {least:g}, as Hounsfield units are"
    return "MR", f"neither called CT nor integers down to {AIR_HU}"


def _describe(samples: Sequence[Float64[np.ndarray, "_"]]) -> Spread:
    values = np.concatenate(samples)
    if not values.size:
        return Spread(*[float("nan")] * 4)
    low, high = np.percentile(values, (0.5, 99.5)).tolist()
    return Spread(low, high, float(values.mean()), float(values.std()))


def _join_region(name: str, measured: Sequence[_Measured]) -> Region:
    having = [case for case in measured if case.components[name]]
    volumes = [case.volumes_mm3[name] for case in having] or [float("nan")]
    pieces = [float(case.components[name]) for case in having] or [float("nan")]
    return Region(
        cases=len(having),
        smallest_mm3=min(volumes),
        median_mm3=float(np.median(volumes)),
        largest_mm3=max(volumes),
        components=float(np.mean(pieces)),
    )
