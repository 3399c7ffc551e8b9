"""What numbers are called, and which go by rule."""

import math
from collections.abc import Callable

import pytest

from medseg3d.evaluate.protocols import PROTOCOLS
from medseg3d.evaluate.results import Scores
from medseg3d.report.measures import (
    deciding_measures,
    drawn_measures,
    is_empty,
    is_penalised,
    mean_over_regions,
    scored_regions,
    tabled_measures,
)


def test_numbers_have_names_and_units() -> None:
    labels = {
        measure.name: measure.label for measure in tabled_measures(PROTOCOLS["brats2024-gli"])
    }
    assert labels["hd95"] == "HD95 (mm)"
    assert labels["nsd_0.5"] == "NSD at 0.5 mm"
    assert labels["lesion_nsd_1.0"] == "NSD at 1 mm, lesion-wise"
    assert labels["lesion_hd95"] == "HD95, lesion-wise (mm)"
    assert "lesion_tp" not in labels


def test_only_whole_regions_are_measured_in_voxels() -> None:
    labels = {m.name: m.label for m in tabled_measures(PROTOCOLS["brats2026-mets"])}
    assert labels["hd95"] == "HD95 (voxels)"
    assert labels["nsd_0.5"] == "NSD at 0.5 voxels"
    assert labels["lesion_hd95"] == "HD95, lesion-wise (mm)"


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_no_number_of_any_protocol_is_without_a_name(protocol: str) -> None:
    measures = tabled_measures(PROTOCOLS[protocol])
    assert all("_" not in measure.label for measure in measures)
    assert len({measure.label for measure in measures}) == len(measures)
    assert {"dice", "hd95"} <= {measure.name for measure in drawn_measures(PROTOCOLS[protocol])}


def test_lesions_decide_where_the_protocol_has_them() -> None:
    assert [m.name for m in deciding_measures(PROTOCOLS["brats2021"])] == ["dice", "hd95"]
    decide = [m.name for m in deciding_measures(PROTOCOLS["brats2023-gli"])]
    assert decide == ["lesion_dice", "lesion_hd95"]


def test_numbers_go_by_rule_where_one_side_is_empty_or_the_case_has_failed(
    build_scores: Callable[..., Scores],
) -> None:
    empty = {"reference_mm3": 0.0, "predicted_mm3": 0.0}
    scores = build_scores(
        {"WT": {"reference_mm3": 0.0}, "core": {"predicted_mm3": 0.0}},
        {"core": empty},
        {"core": empty},
        None,
        reasons={2: "scored as an empty one", 3: "not scored"},
    )
    for region, penalised, empty_ones in (
        ("WT", [True, False, True], [False, False, False]),
        ("core", [True, False, True], [False, True, True]),
    ):
        found = scored_regions(scores, region)
        assert [is_penalised(case, score) for case, score in found] == penalised
        assert [is_empty(score) for _, score in found] == empty_ones


def test_numbers_of_lesions_go_by_rule_where_one_was_missed_or_made_up(
    build_scores: Callable[..., Scores],
) -> None:
    scores = build_scores(
        {"WT": {"lesions": (("tp", 200.0, 0.8), ("ignored", 1.0, 0.0))}},
        {"WT": {"lesions": (("tp", 200.0, 0.8), ("fn", 200.0, 0.0))}},
        {"WT": {"lesions": (("tp", 200.0, 0.8), ("fp", 200.0, 0.0))}},
        {},
        protocol=PROTOCOLS["brats2023-met"],
        reasons={3: "scored as an empty one"},
    )
    found = scored_regions(scores, "WT")
    lost = [is_penalised(case, score, of_lesions=True) for case, score in found]
    assert lost == [False, True, True, True]
    assert [is_penalised(case, score) for case, score in found] == [False, False, False, True]


def test_the_mean_is_over_the_regions_that_have_a_number(
    build_scores: Callable[..., Scores],
) -> None:
    first, second, third = build_scores(
        {"WT": {"dice": 0.8}, "core": {"dice": 0.4}},
        {"WT": {"dice": 0.8}, "core": {"dice": math.nan}},
        None,
    ).cases
    assert mean_over_regions(first, "dice") == pytest.approx(0.6)
    assert mean_over_regions(second, "dice") == pytest.approx(0.8)
    assert math.isnan(mean_over_regions(third, "dice"))
