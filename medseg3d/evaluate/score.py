"""Score one label map against its reference: from two volumes to the numbers of a protocol."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np

from medseg3d.arrays import LabelMapIJK, TripleInt
from medseg3d.errors import ConfigError, GridError, LabelError
from medseg3d.evaluate.lesions import Lesion, LesionScores, diagonal
from medseg3d.evaluate.lesionwise import score_lesions
from medseg3d.evaluate.overlap import Mask, Overlap, count_overlap
from medseg3d.evaluate.protocols import DilatedLesions, MatchedInstances, Protocol
from medseg3d.evaluate.results import CaseScore, LesionScore, Measures, RegionScore
from medseg3d.evaluate.schemes import Scheme, find_scheme, scheme_of_values
from medseg3d.evaluate.surface import average_symmetric_surface_distance_mm, surface_scores
from medseg3d.geometry.crop import nonzero_box
from medseg3d.io.files import read_volume
from medseg3d.labels import (
    LabelScheme,
    as_label_map,
    count_values,
    drop_ignored,
    region_masks,
    require_values,
)
from medseg3d.volume import Grid, Volume, require_one_grid

MOST_VALUES: Final = 256
"""More values than these are taken for a region each only where a scheme says so."""


@dataclass(frozen=True, slots=True, eq=False)
class LabelPair:
    """Two label maps on one grid, cut to the box outside of which both are 0."""

    reference: LabelMapIJK
    predicted: LabelMapIJK
    start_IJK: TripleInt
    grid: Grid
    num_ignored: int = 0

    @property
    def spacing_mm(self) -> tuple[float, ...]:
        """Along the axes that are measured: two in a flat image."""
        return _spacing_mm(self.grid)[: self.num_axes]

    @property
    def voxel_mm3(self) -> float:
        """The product of the spacing, as scorers have it; of a sheared grid, what it holds."""
        product = math.prod(_spacing_mm(self.grid))
        exact = self.grid.voxel_mm3
        return product if math.isclose(product, exact, rel_tol=1e-5) else exact

    @property
    def num_axes(self) -> int:
        """2 for a 2D image (K = 1)."""
        return 2 if self.grid.shape_IJK[2] == 1 else 3

    def annotated(self, scheme: LabelScheme) -> "LabelPair":
        """Leave out what the scheme tells to ignore in the reference: it is in no mask."""
        reference, predicted = drop_ignored(self.reference, self.predicted, scheme)
        num_ignored = int(np.count_nonzero(self.reference != reference))
        return replace(self, reference=reference, predicted=predicted, num_ignored=num_ignored)

    def masks(self, scheme: LabelScheme) -> Iterator[tuple[str, Mask, Mask]]:
        """Give each region's name with its masks in the reference and the prediction."""
        sides = (region_masks(side, scheme) for side in (self.reference, self.predicted))
        for (region, inside), (_, claimed) in zip(*sides, strict=True):
            flat = (..., 0) if self.num_axes == 2 else ...
            yield region, inside[flat], claimed[flat]


Side: TypeAlias = Volume | str | Path
"""A label map, or the file that holds it."""


def score_case(
    predicted: Side, reference: Side, *, scheme: str | Path | LabelScheme | None = None
) -> CaseScore:
    """Score a label map against its reference, region by region.

    Both are volumes or files. `scheme` is a name in `SCHEMES`, a YAML file, or a scheme; without
    one every value is a region. A 2D image (K = 1) is measured in 2D. Numbers within 0.001 of an
    integer count as it.

    Raises:
        GridError: the two do not lie on one grid, or one has several channels.
        LabelError: values are no integers, or not the scheme's.
        FormatError: a file is missing or damaged.
        ConfigError: no such scheme, or neither a volume nor a file.
    """
    pair = pair_labels(predicted, reference)
    if scheme is None:
        found = scheme_of_values({*values_of(pair.reference), *values_of(pair.predicted)})
    else:
        found = find_scheme(scheme)
        require_values(pair.reference, found, source="reference", reference=True)
        require_values(pair.predicted, found, source="predicted")
        pair = pair.annotated(found)
    return score_pair(pair, found)


def read_side(side: Side, source: str) -> Volume:
    """Give a volume as it is, or read it; what is no label map is told apart later.

    Raises:
        FormatError: the file is missing or damaged.
        ConfigError: neither a volume nor a file.
    """
    if isinstance(side, Volume):
        return side
    if not isinstance(side, str | Path):
        raise ConfigError(
            f"{source}: a {type(side).__name__} is neither a Volume nor the path of a file; an "
            "array becomes a label map with Volume(array_IJK[np.newaxis], affine)"
        )
    return read_volume(side, nonfinite="keep", fourth_axis="channels")


def pair_labels(predicted: Side, reference: Side) -> LabelPair:
    """Read two sides as label maps, cut to what either of them holds.

    Raises:
        GridError: the two do not lie on one grid, or one has several channels.
        LabelError: values are no integers.
    """
    given = {"reference": reference, "predicted": predicted}
    sides = {source: read_side(side, source) for source, side in given.items()}
    require_one_grid([side.grid for side in sides.values()], [*sides])
    for source, side in sides.items():
        if side.num_channels != 1:
            raise GridError(
                f"{source}: {side.num_channels} channels; a label map has one. Choose the channel, "
                "or write the decided labels instead of probabilities."
            )
    box = nonzero_box(side.array_CIJK[0] for side in sides.values())
    cut = {s: as_label_map(v.array_CIJK[0][box.slices], source=s) for s, v in sides.items()}
    return LabelPair(cut["reference"], cut["predicted"], box.start, sides["reference"].grid)


def score_pair(pair: LabelPair, scheme: Scheme) -> CaseScore:
    """Score label maps that hold only the scheme's values."""
    rules = scheme.protocol.lesions
    # masks are large: all are held at once only where lesions of one region join those of another
    if isinstance(rules, DilatedLesions) and rules.joins:
        groups = iter([[*pair.masks(_with_tissues(scheme, rules))]])
    else:
        groups = ([masks] for masks in pair.masks(scheme))
    regions: dict[str, RegionScore] = {}
    for group in groups:
        lesions = _find_lesions(group, pair, rules) if rules else {}
        for region, inside, claimed in group:
            found = lesions.get(region)
            regions[region] = _score_region(inside, claimed, pair, scheme.protocol, found)
    return CaseScore(scheme.name, {region: regions[region] for region in scheme.regions})


def _with_tissues(scheme: Scheme, rules: DilatedLesions) -> Scheme:
    """Add as regions the values that lesions are joined by and that are no region."""
    wanted = {tissue for by in rules.joins.values() for tissue in by}
    tissues = {name: (value,) for value, name in scheme.values.items() if name in wanted}
    return scheme.model_copy(update={"regions": {**tissues, **scheme.regions}})


def _find_lesions(
    masks: Sequence[tuple[str, Mask, Mask]],
    pair: LabelPair,
    rules: DilatedLesions | MatchedInstances,
) -> Mapping[str, LesionScores]:
    return score_lesions(
        {region: inside for region, inside, _ in masks},
        {region: claimed for region, _, claimed in masks},
        pair.spacing_mm,
        rules,
        shape=pair.grid.shape_IJK,
        corner=pair.start_IJK[: pair.num_axes],
        voxel_mm3=pair.voxel_mm3,
    )


def values_of(label_map: LabelMapIJK) -> set[int]:
    """Collect the values of a label map.

    Raises:
        LabelError: there are more than a label map without a scheme may have.
    """
    values = {*count_values(label_map)}
    if len(values) > MOST_VALUES:
        raise LabelError(
            f"{len(values)} different values, from {min(values)} to {max(values)}: is it an image? "
            "Name a scheme to score it as a label map."
        )
    return values


def _score_region(
    inside: Mask, claimed: Mask, pair: LabelPair, protocol: Protocol, lesions: LesionScores | None
) -> RegionScore:
    num_voxels = math.prod(pair.grid.shape_IJK) - pair.num_ignored
    overlap = count_overlap(inside, claimed, num_voxels=num_voxels)
    numbers = {
        **_compare(inside, claimed, overlap, pair, protocol),
        "sensitivity": overlap.sensitivity,
        "specificity": overlap.specificity,
        **(lesions.measures if lesions else {}),
    }
    is_skipped = protocol.empty == "skip" and not overlap.in_reference
    return RegionScore(
        {name: math.nan if is_skipped else numbers[name] for name in protocol.measures},
        reference_mm3=overlap.in_reference * pair.voxel_mm3,
        predicted_mm3=overlap.in_predicted * pair.voxel_mm3,
        tp_voxels=overlap.tp,
        fp_voxels=overlap.fp,
        fn_voxels=overlap.fn,
        lesions=_placed(() if is_skipped else lesions.lesions, pair) if lesions else None,
    )


def _compare(
    inside: Mask, claimed: Mask, overlap: Overlap, pair: LabelPair, protocol: Protocol
) -> Measures:
    """Measure Dice, distances and NSD, or give the protocol's rules for empty masks."""
    filled = bool(overlap.in_reference) + bool(overlap.in_predicted)
    if filled < 2:
        return _of_empty(bool(filled), pair, protocol)
    if protocol.apart is not None and not overlap.tp:
        return _filled_in(protocol, dice=0.0, distance=protocol.apart, nsd=0.0)
    spacing = (1.0,) * inside.ndim if protocol.in_voxels else pair.spacing_mm
    return {
        "dice": overlap.dice,
        "assd": average_symmetric_surface_distance_mm(inside, claimed, spacing)
        if protocol.assd
        else math.nan,
        **_measure_surfaces(inside, claimed, spacing, protocol),
    }


def _measure_surfaces(
    inside: Mask, claimed: Mask, spacing: tuple[float, ...], protocol: Protocol
) -> Measures:
    names = [f"nsd_{tolerance}" for tolerance in protocol.tolerances]
    found = surface_scores(
        inside,
        claimed,
        spacing,
        definition=protocol.hausdorff,
        nsd_definition=protocol.nsd,
        tolerances_mm=protocol.tolerances,
    )
    return {"hd95": found.hausdorff_mm, **dict(zip(names, found.nsd, strict=True))}


def _of_empty(is_one_filled: bool, pair: LabelPair, protocol: Protocol) -> Measures:
    undefined = protocol.empty == "nan"
    if is_one_filled:
        spacing = (1.0,) * pair.num_axes if protocol.in_voxels else pair.spacing_mm
        distance = diagonal(protocol.one_empty, pair.grid.shape_IJK, spacing)
        nsd = math.nan if undefined else 0.0
        return _filled_in(protocol, 0.0, math.nan if undefined else distance, nsd)
    both = math.nan if undefined else float(protocol.both_empty_dice)
    return _filled_in(protocol, both, math.nan if undefined else float(protocol.both_empty), both)


def _filled_in(protocol: Protocol, dice: float, distance: float, nsd: float) -> Measures:
    return {
        "dice": dice,
        "hd95": distance,
        "assd": distance,
        **{f"nsd_{tolerance}": nsd for tolerance in protocol.tolerances},
    }


def _placed(lesions: Iterable[Lesion], pair: LabelPair) -> tuple[LesionScore, ...]:
    """Say where in the world each lesion is."""
    affine, scores = pair.grid.affine, []
    for lesion in lesions:
        center = np.zeros(3)
        center[: pair.num_axes] = lesion.center_IJK
        x, y, z = (affine[:3, :3] @ (center + pair.start_IJK) + affine[:3, 3]).tolist()
        volumes = lesion.reference_mm3, lesion.predicted_mm3
        measures = {"dice": lesion.dice, "hd95": lesion.hd95, **lesion.nsd}
        scores.append(LesionScore(lesion.status, (x, y, z), *volumes, measures))
    return tuple(scores)


def _spacing_mm(grid: Grid) -> tuple[float, ...]:
    """Give the spacing as a header states it.

    Headers hold 32 bits. The length of an oblique axis comes out of its three parts with an error
    that would move distances across a tolerance; of a straight one it is exact.
    """
    oblique = np.count_nonzero(grid.affine[:3, :3], axis=0) > 1
    return tuple(
        float(np.float32(f"{spacing:.6g}")) if tilted else spacing
        for spacing, tilted in zip(grid.spacing_mm, oblique, strict=True)
    )
