"""Lesion by lesion, so that a small one counts as much as a large one: BraTS 2023 to 2025.

Lesions of the reference are what a dilated mask holds together. What was predicted is parted the
same way from 2024 on, or into its components. A predicted lesion belongs to every lesion that it
touches once that is dilated, overlap or not; all that belong to a lesion are scored against it as
one. The means are over the lesions above a threshold and the predicted ones that belong nowhere.
BraTS 2026 matches components one to one instead (`instances`).
"""

import math
from collections.abc import Mapping, Sequence
from functools import partial, reduce

from medseg3d.errors import ConfigError
from medseg3d.evaluate.blobs import Blob, components, first_voxel, merge, neighbours, touch, unite
from medseg3d.evaluate.instances import score_instances
from medseg3d.evaluate.lesions import Lesion, LesionScores, Ruler, Status, diagonal, mean
from medseg3d.evaluate.overlap import Mask
from medseg3d.evaluate.protocols import DilatedLesions, MatchedInstances


def score_lesions(
    references: Mapping[str, Mask],
    predictions: Mapping[str, Mask],
    spacing_mm: Sequence[float],
    rules: DilatedLesions | MatchedInstances,
    *,
    shape: Sequence[int],
    corner: Sequence[int] = (),
    voxel_mm3: float | None = None,
) -> dict[str, LesionScores]:
    """Score the lesions of every region.

    Masks are 2D or 3D, of one shape, under the names of regions, and of the tissues that join
    lesions. They may be cut out of a volume of the given `shape` at the given `corner`, as long as
    nothing else is in it. `spacing_mm` is along the axes of the masks; a 2D image gives `voxel_mm3`
    as well. Nothing to score gives Dice and NSD 1 and HD95 0, or nan where instances are matched.

    Raises:
        ConfigError: the rules join lesions by a tissue that is none of the regions.
    """
    spacing = tuple(spacing_mm)
    volume = math.prod(spacing) if voxel_mm3 is None else voxel_mm3
    penalty = diagonal(rules.penalty, shape, spacing)
    if isinstance(rules, MatchedInstances):
        turned = spacing[::-1] if rules.reversed_spacing else spacing
        ruler = Ruler(turned, volume, "pooled", {"nsd": min(spacing)}, penalty)
        return {
            region: score_instances(mask, predictions[region], ruler, rules)
            for region, mask in references.items()
        }
    tolerances = {f"nsd_{tolerance}": tolerance for tolerance in rules.tolerances_mm}
    ruler = Ruler(spacing, volume, "surfel", tolerances, penalty)
    begin = tuple(-n for n in corner) or (0,) * len(spacing)
    wanted = _find(references, rules, begin)
    unit = volume if rules.predicted_unit == "mm3" else 1.0
    found = (
        _find(predictions, rules, begin, dropped_unit=unit)
        if rules.merge_predicted
        else {region: components(mask) for region, mask in predictions.items()}
    )
    return {
        region: _score_region(region, wanted[region], found[region], ruler, rules)
        for region in references
    }


def _score_region(
    region: str,
    references: Sequence[Blob],
    predictions: Sequence[Blob],
    ruler: Ruler,
    rules: DilatedLesions,
) -> LesionScores:
    """Pair, measure and average."""
    dilations, threshold = rules.dilations_in(region), rules.threshold_in(region)
    beside = neighbours(references, predictions, dilations)
    made_up = {*range(len(predictions))}
    lesions = []
    for reference, near in zip(references, beside, strict=True):
        hits = [n for n in near if touch(reference, predictions[n], dilations)]
        made_up -= {*hits}
        is_small = reference.voxels * ruler.voxel_mm3 <= threshold
        status: Status = "ignored" if is_small else "tp" if hits else "fn"
        claimed = [predictions[n] for n in hits]
        lesions.append(ruler.measure(reference, claimed, status=status))
    lesions += [ruler.measure(None, [predictions[n]], status="fp") for n in sorted(made_up)]
    return LesionScores(_average(lesions, ruler, rules), tuple(lesions))


def _average(lesions: Sequence[Lesion], ruler: Ruler, rules: DilatedLesions) -> dict[str, float]:
    counts = {status: sum(x.status == status for x in lesions) for status in ("tp", "fp", "fn")}
    counted = ("tp", "fn", "fp") if rules.count_false_positives else ("tp", "fn")
    scored = [lesion for lesion in lesions if lesion.status in counted]
    return {
        "lesion_dice": mean([lesion.dice for lesion in scored], of_nothing=1.0),
        "lesion_hd95": mean([lesion.hd95 for lesion in scored], of_nothing=0.0),
        **{
            f"lesion_{name}": mean([lesion.nsd[name] for lesion in scored], of_nothing=1.0)
            for name in ruler.tolerances_mm
        },
        **{f"lesion_{status}": float(count) for status, count in counts.items()},
    }


def _find(
    masks: Mapping[str, Mask],
    rules: DilatedLesions,
    begin: tuple[int, ...],
    *,
    dropped_unit: float | None = None,
) -> dict[str, list[Blob]]:
    """Find the lesions of each region, merged, and joined across tissues.

    With the size of a voxel in `dropped_unit`, those up to the threshold are dropped in between.
    """
    joins = {region: rules.joins.get(region, ()) for region in masks}
    tissues = dict.fromkeys(tissue for by in joins.values() for tissue in by)
    for tissue in tissues:
        if tissue not in masks:
            raise ConfigError(
                f"lesions are joined where they touch '{tissue}', but the regions are "
                f"{', '.join(masks)}; name regions or values as the challenge does, or take rules "
                "without 'joins'"
            )
    merged = {}
    for name, mask in masks.items():
        blobs = merge(components(mask), rules.dilations_in(name))
        if dropped_unit is not None:
            limit = rules.threshold_in(name) / dropped_unit
            blobs = [blob for blob in blobs if blob.voxels > limit]
        merged[name] = blobs
    for tissue in tissues:
        order = partial(first_voxel, dilations=rules.dilations_in(tissue), corner=begin)
        merged[tissue].sort(key=order)
    return {
        region: reduce(_join, (merged[tissue] for tissue in by), merged[region])
        for region, by in joins.items()
    }


def _join(blobs: Sequence[Blob], tissue: Sequence[Blob]) -> list[Blob]:
    """Unite the lesions whose first touching lesion of another tissue is the same.

    Who touches two lesions is not a bridge between the two.
    """
    joined: dict[int, list[Blob]] = {}
    for n, (blob, near) in enumerate(zip(blobs, neighbours(blobs, tissue, 1), strict=True)):
        alone = -1 - n
        first = next((m for m in near if touch(blob, tissue[m], 1)), alone)
        joined.setdefault(first, []).append(blob)
    return [unite(together) for together in joined.values()]
