"""Every BraTS scheme against a slow oracle, and both against what the official scorers gave."""

import math
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import pytest

from medseg3d.evaluate.score import score_case
from medseg3d.volume import Volume

from .brats.cases import NUM_CASES, Case, draw_case, fit_values
from .brats.oracle import score
from .brats.seasons import SEASONS

WHOLE = ("dice", "hd95", "sensitivity", "specificity")
LESIONS = ("lesion_tp", "lesion_fp", "lesion_fn", "lesion_dice", "lesion_hd95")
NSD = ("lesion_nsd_0.5", "lesion_nsd_1.0")
INSTANCES = (
    "dice", "hd95", "nsd_0.5", "lesion_tp", "lesion_fp", "lesion_fn", "lesion_f1",
    "lesion_dice", "lesion_hd95", "lesion_nsd", "lesion_f1_large", "lesion_f1_small",
)  # fmt: skip

# fmt: off
OFFICIAL = {
    # scheme, seed of the case, region, then what the official scorer gave, as far as it goes:
    # BraTS-2023-Metrics' eval.py
    (*WHOLE, *LESIONS): [
        ("brats2023-gli", 1, "ET", (0.72, 2.8, 0.72, 0.991082803, 7, 1, 0, 0.638392857, 47.3625)),
        ("brats2023-gli", 6, "TC", (0.576779026, 26, 0.405263158, 1, 2, 0, 1, 0.545787546, 125.1)),
        ("brats2023-gli", 9, "WT", (0.3, 18.9802529, 0.387096774, 0.99712398, 1, 2, 0,
            0.158415842, 252.300749)),
        ("brats2023-gli", 4, "TC", (0, 16, 0, 0.996823105, 0, 2, 1, 0, 374)),
        ("brats2023-men", 1, "ET", (0.72, 2.8, 0.72, 0.991082803, 7, 1, 0, 0.638392857, 47.3625)),
        ("brats2023-men", 28, "WT", (0.714754098, 44.0948977, 0.707792208, 0.99929855, 3, 2,
            0, 0.5275, 150.649571)),
        ("brats2023-men", 6, "TC", (0.576779026, 26, 0.405263158, 1, 2, 0, 1, 0.545787546, 125.1)),
        ("brats2023-met", 15, "ET", (0.3125, 1.5, 0.322580645, 0.970474968, 8, 2, 1,
            0.253246753, 102.909091)),
        ("brats2023-met", 9, "TC", (0.343434343, 15.5322246, 0.447368421, 0.998291528, 2, 2,
            1, 0.302636917, 224.723607)),
        ("brats2023-met", 44, "WT", (0.105960265, 24, 0.119402985, 0.996215705, 3, 1, 0,
            0.108908046, 96.7630729)),
    ],
    # BraTS-2024-Metrics' metrics_GLI.py and its like; only GLI's and MEN's give NSD
    (*LESIONS, *NSD): [
        ("brats2024-gli", 44, "NETC", (1, 1, 1, 0.0666666667, 226, 0.0999999995, 0.133333333)),
        ("brats2024-gli", 6, "TC", (2, 0, 1, 0.545787546, 112.766667, 0.577956986, 0.577956986)),
        ("brats2024-gli", 28, "WT", (2, 1, 0, 0.32491198, 128.76766, 0.428639845, 0.437899104)),
        ("brats2024-gli", 5, "ET", (4, 0, 0, 0.724404762, 3, 0.612207993, 0.689766394)),
        ("brats2024-gli", 46, "RC", (0, 1, 1, 0, 337, 0, 0)),
        ("brats2024-ssa", 1, "ET", (4, 0, 2, 0.436147186, 126.766667)),
        ("brats2024-met", 28, "WT", (4, 1, 1, 0.591098485, 125.541309)),
        ("brats2024-ped", 44, "ET", (1, 1, 1, 0.0666666667, 250.666667)),
        ("brats2024-ped", 62, "WT", (2, 0, 1, 0.640522876, 124.666667)),
        ("brats2024-men", 1, "ET", (7, 1, 0, 0.638392857, 47.3625, 0.547077919, 0.874999996)),
        ("brats2024-men-rt", 28, "GTV", (3, 1, 0, 0.879166667, 1.74928557)),
    ],
    # brats_evaluation 0.0.10 on panoptica 2.1.7, spacing given, lesions large from 27 mm³ on
    INSTANCES: [
        ("brats2026-gli", 1, "TC", (0.609929078, 4, 0.567989555, 5, 1, 1, 0.833333333,
            0.595455939, 5.18, 0.752537017)),
        ("brats2026-gli", 9, "WT", (0.322147651, 17.3919839, 0.359005458, 3, 7, 1,
            0.428571429, 0.544753086, 2.75517314, 0.7182861)),
        ("brats2026-gli", 6, "NETC", (0.339181287, 19.0170934, 0.604316547, 1, 1, 1, 0.5,
            0.622222222, 1.47648231, 0.725806452)),
        ("brats2026-mets", 1, "TC", (0.609929078, 4, 0.567989555, 5, 1, 1, 0.833333333,
            0.42532567, 110.271429, 0.537526441, 0.833333333, math.nan)),
        ("brats2026-mets", 6, "WT", (0.645768025, 15.324812, 0.741354924, 2, 2, 1,
            0.571428571, 0.296551724, 224.58, 0.335, 0.571428571, math.nan)),
        ("brats2026-mets", 28, "RC", (0.318584071, 20.5754389, 0.418778563, 2, 4, 3,
            0.363636364, 0.0446428571, 327.149402, 0.0842391304, 0.222222222, 0.333333333)),
        ("brats2026-mets", 8, "ET", (0.161849711, 14.1421356, 0.134326136, 3, 0, 1,
            0.857142857, 0.233333333, 4.12310563, 0.475, 1, 0.5)),
        ("brats2026-ped", 19, "WT", (0.819548872, 1, 0.712901719, 6, 2, 1, 0.8, 0.749775382,
            5.06118742, 0.746859772)),
        ("brats2026-ped", 9, "TC", (0.322147651, 17.3919839, 0.359005458, 3, 7, 1,
            0.428571429, 0.544753086, 2.75517314, 0.7182861)),
        ("brats2026-menrt", 19, "GTV", (0.819548872, 1, 0.712901719, 6, 2, 1, 0.8,
            0.749775382, 5.06118742, 0.746859772)),
    ],
}
# fmt: on
EXPECTED = [
    (scheme, seed, {region: dict(zip(measures, numbers, strict=False))})
    for measures, rows in OFFICIAL.items()
    for scheme, seed, region, numbers in rows
]

Regions = Mapping[str, Mapping[str, float | None]]


def score_here(case: Case, scheme: str) -> Regions:
    affine = np.diag([*case.spacing, 1.0])
    predicted, reference = (
        Volume(fit_values(label_map, scheme)[np.newaxis], affine)
        for label_map in (case.predicted, case.reference)
    )
    return score_case(predicted, reference, scheme=scheme).to_dict()["regions"]


def score_slowly(case: Case, scheme: str) -> Regions:
    label_maps = (fit_values(label_map, scheme) for label_map in (case.predicted, case.reference))
    return score(scheme, *label_maps, case.spacing)


def differences(got: Regions, expected: Regions) -> Iterator[str]:
    """Say each number of `expected` that `got` lacks or gives otherwise."""
    for region, scores in expected.items():
        for measure, wanted in scores.items():
            found = got.get(region, {}).get(measure, "absent")
            found = math.nan if found is None else found
            if found == "absent" or found != pytest.approx(wanted, abs=1e-6, rel=0, nan_ok=True):
                yield f"{region} {measure}: got {found}, expected {wanted}"


def require_equal(faults: list[str]) -> None:
    shown = "\n".join(faults[:20])
    assert not faults, f"{len(faults)} numbers differ, among them\n{shown}"


@pytest.mark.slow
@pytest.mark.parametrize("scheme", SEASONS)
def test_every_number_is_the_oracles(scheme: str) -> None:
    first = [*SEASONS].index(scheme)
    step = 9 if "2024" in scheme else 13  # no factor of the number of kinds
    faults = []
    for seed in range(first, NUM_CASES, step):
        case = draw_case(seed)
        told = f"{scheme}, case {seed} ({case.kind}, {case.spacing} mm)"
        found = differences(score_here(case, scheme), score_slowly(case, scheme))
        faults += [f"{told}: {said}" for said in found]
    require_equal(faults)


@pytest.mark.slow
@pytest.mark.parametrize("score_it", [score_slowly, score_here])
def test_the_official_scorers_numbers(score_it: Callable[[Case, str], Regions]) -> None:
    faults = []
    for scheme, seed, expected in EXPECTED:
        found = differences(score_it(draw_case(seed), scheme), expected)
        faults += [f"{scheme}, case {seed}: {said}" for said in found]
    require_equal(faults)
