"""What a page tells: sums, counts, and whose rules they go by."""

import math
from collections.abc import Callable

import pytest

from medseg3d.evaluate.protocols import DilatedLesions, Protocol
from medseg3d.evaluate.results import Scores
from medseg3d.evaluate.schemes import SCHEMES
from medseg3d.report.contents import Sides, describe_scores

GONE = {"predicted_mm3": 0.0}
MADE_UP = {"reference_mm3": 0.0}


def test_each_region_is_counted_by_the_sides_it_is_on(build_scores: Callable[..., Scores]) -> None:
    scores = build_scores(
        {}, {"WT": GONE}, {"WT": GONE}, {"WT": MADE_UP}, {"WT": GONE | MADE_UP}, {}, None,
        reasons={5: "no prediction: scored as an empty one"},
    )  # fmt: skip
    content = describe_scores(scores, {})
    assert content["sides"]["WT"] == Sides(
        both=2, reference_only=2, predicted_only=1, neither=1, penalised=4
    )
    assert content["sides"]["core"] == Sides(6, 0, 0, 0, penalised=1)
    assert (content["num_penalised"], content["num_empty"]) == (4, 1)


def test_cases_with_lesions_missed_or_made_up_are_counted(
    build_scores: Callable[..., Scores],
) -> None:
    made_up = {"lesions": (("tp", 200.0, 0.8), *[("fp", 9.0, 0.0)] * 30)}
    scores = build_scores({"WT": made_up}, {}, protocol=Protocol(lesions=DilatedLesions()))
    content = describe_scores(scores, {})
    assert (content["num_penalised"], content["num_lost"]) == (0, 1)


def test_sums_leave_out_what_is_undefined(build_scores: Callable[..., Scores]) -> None:
    values = (0.1, 0.2, 0.3, 0.4, 0.5, math.nan)
    content = describe_scores(build_scores(*({"WT": {"dice": dice}} for dice in values)), {})
    (dice, rows), (hd95, _) = content["rows"].items()
    assert (dice.label, hd95.label) == ("Dice", "HD95 (mm)")
    row = rows["WT"]
    assert (row.low_quarter, row.high_quarter) == pytest.approx((0.2, 0.4))
    assert (row.summary.mean, row.summary.n, row.summary.undefined) == pytest.approx((0.3, 5, 1))


def test_what_no_case_has_takes_no_room(build_scores: Callable[..., Scores]) -> None:
    hd95 = {"hd95": math.nan}
    content = describe_scores(build_scores({"WT": {"dice": math.nan} | hd95, "core": hd95}), {})
    assert {m.label: [*row_of] for m, row_of in content["rows"].items()} == {"Dice": ["core"]}
    assert [chart.title for chart in content["strips"]] == ["Dice"]
    nothing = describe_scores(build_scores(None, reasons={0: "not scored"}), {})
    for kind in ("rows", "strips", "by_volume", "by_size", "agreements", "pictures", "cases"):
        assert not nothing[kind]


@pytest.mark.parametrize(
    ("scheme", "season"),
    [("brats2023", "BraTS 2023"), ("brats2024-men-rt", "BraTS 2024 MEN-RT"), ("hippocampus", None)],
)
def test_a_challenge_is_called_by_its_year(scheme: str, season: str | None) -> None:
    assert describe_scores(Scores(SCHEMES[scheme], ()), {})["season"] == season


def test_rules_that_are_not_the_challenge_s_are_not_called_so() -> None:
    official = SCHEMES["brats2023"]
    rules = official.protocol.model_copy(update={"empty": "nan"})
    content = describe_scores(Scores(official.model_copy(update={"protocol": rules}), ()), {})
    assert content["season"] == "BraTS 2023, rules changed"
    assert any("undefined where a side is empty" in rule for rule in content["rules"])
