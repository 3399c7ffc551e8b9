"""The table of protocols, against the parameters that the challenges published."""

import pytest
from pydantic import ValidationError

from medseg3d.evaluate.protocols import PROTOCOLS, DilatedLesions, MatchedInstances, Protocol

ET_BY_NETC = {"ET": ("NETC",)}
GLI = {
    "NETC": ("ET", "RC"),
    "ET": ("NETC", "RC"),
    "RC": ("ET", "NETC"),
    "SNFH": ("ET", "RC", "NETC"),
}
WHOLE = "dice hd95 sensitivity specificity"
COUNTS = "lesion_tp lesion_fp lesion_fn"


@pytest.mark.parametrize(
    ("name", "dilations", "threshold", "penalty", "merge_predicted", "joins"),
    [
        ("brats2023-gli", 3, 50, 374, False, {}),
        ("brats2023-ssa", 3, 50, 374, False, {}),
        ("brats2023-ped", 3, 50, 374, False, {}),
        ("brats2023-men", 1, 50, 374, False, {}),
        ("brats2023-met", 1, 2, 374, False, {}),
        ("brats2024-gli", 3, 20, 337, True, GLI),
        ("brats2024-ssa", 3, 50, 374, True, ET_BY_NETC),
        ("brats2024-met", 1, 2, 374, True, ET_BY_NETC),
        ("brats2024-ped", 5, 10, 374, True, {}),
        ("brats2024-men", 1, 50, 374, False, {}),
        ("brats2024-men-rt", 1, 50, "diagonal_voxels", True, {}),
        ("brats2025-gli", 3, 20, 337, True, GLI),
        ("brats2025-ssa", 3, 50, 374, True, ET_BY_NETC),
        ("brats2025-met", 1, 2, "diagonal_voxels", True, ET_BY_NETC),
        ("brats2025-ped", 5, 10, 374, True, {}),
        ("brats2025-men", 1, 50, 374, False, {}),
        ("brats2025-men-rt", 1, 50, "diagonal_voxels", True, {}),
    ],
)
def test_parameters_of_lesions(name, dilations, threshold, penalty, merge_predicted, joins):
    protocol = PROTOCOLS[name]
    lesions = protocol.lesions
    assert isinstance(lesions, DilatedLesions)
    assert (lesions.dilations, lesions.threshold, lesions.penalty) == (
        dilations,
        threshold,
        penalty,
    )
    assert (lesions.merge_predicted, lesions.joins) == (merge_predicted, joins)
    assert protocol.one_empty == penalty
    assert protocol.hausdorff == "surfel"
    assert not protocol.in_voxels
    assert lesions.count_false_positives == (not name.endswith("men-rt"))
    assert lesions.predicted_unit == ("mm3" if name.endswith("men-rt") else "voxels")


@pytest.mark.parametrize("year", [2024, 2025])
def test_treated_gliomas_have_other_numbers_in_some_regions(year):
    lesions = PROTOCOLS[f"brats{year}-gli"].lesions
    assert isinstance(lesions, DilatedLesions)
    dilations = {r: lesions.dilations_in(r) for r in ("WT", "TC", "NETC", "SNFH", "ET", "RC")}
    assert dilations == {"WT": 3, "TC": 3, "NETC": 5, "SNFH": 3, "ET": 3, "RC": 5}
    assert [lesions.threshold_in(region) for region in ("WT", "ET")] == [20, 10]


@pytest.mark.parametrize("track", ["gli", "ped", "goat", "menpre", "menrt", "mets"])
def test_parameters_of_instances(track):
    protocol = PROTOCOLS[f"brats2026-{track}"]
    assert isinstance(protocol.lesions, MatchedInstances)
    assert protocol.lesions.large_mm3 == (27 if track == "mets" else None)
    assert protocol.lesions.detection_dice == 0.2
    assert (protocol.hausdorff, protocol.in_voxels, protocol.nsd) == (
        "pooled",
        True,
        "mean_fraction",
    )
    empties = protocol.one_empty, protocol.both_empty, protocol.both_empty_dice, protocol.apart
    assert empties == (373, "nan", "nan", 373)


@pytest.mark.parametrize(
    ("name", "measures"),
    [
        ("whole", "dice hd95 assd sensitivity specificity nsd_1.0"),
        ("brats2015", WHOLE),
        ("brats2021", WHOLE),
        ("brats2023-met", f"{WHOLE} lesion_dice lesion_hd95 {COUNTS}"),
        (
            "brats2025-met",
            f"{WHOLE} nsd_0.5 nsd_1.0 lesion_dice lesion_hd95 lesion_nsd_0.5 lesion_nsd_1.0 "
            f"{COUNTS}",
        ),
        (
            "brats2026-mets",
            f"dice hd95 nsd_0.5 lesion_dice lesion_hd95 lesion_nsd {COUNTS} lesion_f1 "
            "lesion_f1_large lesion_f1_small",
        ),
    ],
)
def test_measures_in_order(name, measures):
    assert [*PROTOCOLS[name].measures] == measures.split()


def test_only_mets_tells_small_from_large():
    assert PROTOCOLS["brats2026-gli"].measures == PROTOCOLS["brats2026-mets"].measures[:-2]


@pytest.mark.parametrize(
    ("protocol", "words"),
    [
        ("whole", "the volume's diagonal, Dice and NSD 0 where one side is empty"),
        ("brats2021", "'pooled', in voxels"),
        ("brats2023-gli", "merged by dilation × 3; references of up to 50 mm³ ignored"),
        ("brats2023-gli", "missed or made up has Dice 0 and HD95 374"),
        ("brats2024-gli", "dilation × 3 (NETC 5, RC 5), joined where"),
        ("brats2024-gli", "up to 20 (ET 10) mm³ ignored, predicted ones of up to as many voxels"),
        ("brats2024-ssa", "(ET by NETC)"),
        ("brats2024-men-rt", "one made up is counted but costs nothing"),
        ("brats2026-gli", "means over the matched pairs"),
        ("brats2026-gli", "HD95 373 and NSD 0 where the sides share no voxel"),
        (
            "brats2026-mets",
            "over those references and all false positives",
        ),
    ],
)
def test_policy_says(protocol, words):
    assert words in PROTOCOLS[protocol].policy


def test_policy_says_what_becomes_of_empty_sides():
    assert "undefined where a side is empty" in Protocol(empty="nan").policy
    assert "left out" in Protocol(empty="skip").policy


def test_rules_of_lesions_are_told_by_their_kind():
    read = Protocol.model_validate({"lesions": {"kind": "dilated", "dilations": 2}})
    assert read.lesions == DilatedLesions(dilations=2)
    assert Protocol.model_validate({"lesions": {"kind": "matched"}}).lesions == MatchedInstances()


@pytest.mark.parametrize(
    "wrong",
    [
        {"hausdorf": "surfel"},
        {"one_empty": -1},
        {"one_empty": float("inf")},
        {"lesions": {"kind": "dilated", "dilations": 0}},
        {"lesions": {"kind": "dilatet"}},
    ],
)
def test_faults_are_refused(wrong):
    with pytest.raises(ValidationError):
        Protocol.model_validate(wrong)
