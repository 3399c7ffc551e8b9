"""Instances matched one to one by the rules of 2026, on drawings whose numbers one can count."""

import math
import tracemalloc

import numpy as np
import pytest

from medseg3d.evaluate.blobs import components
from medseg3d.evaluate.instances import _match
from medseg3d.evaluate.lesions import LesionScores
from medseg3d.evaluate.lesionwise import score_lesions
from medseg3d.evaluate.protocols import MatchedInstances

PAIRS = MatchedInstances(penalty=100)
METS = MatchedInstances(penalty=100, large_mm3=3)


def draw(*rows: str) -> np.ndarray:
    """Turn rows of `#` and anything else into a 2D mask."""
    return np.array([[sign == "#" for sign in row] for row in rows])


def score(
    reference: np.ndarray,
    predicted: np.ndarray,
    rules: MatchedInstances = PAIRS,
    *,
    spacing_mm: tuple[float, ...] = (1.0, 1.0),
) -> LesionScores:
    masks = {"ET": reference}, {"ET": predicted}
    return score_lesions(*masks, spacing_mm, rules, shape=reference.shape)["ET"]


def counts(scores: LesionScores) -> tuple[float, ...]:
    return tuple(scores.measures[f"lesion_{status}"] for status in ("tp", "fp", "fn"))


def test_an_instance_is_matched_at_most_once():
    # all 7 predicted match the 4 at the right, Dice 2 · 4 / (4 + 7); the 2 at the left are missed
    found = score(draw("##.####"), draw("#######"))
    assert counts(found) == (1, 0, 1)
    assert found.measures["lesion_dice"] == pytest.approx(8 / 11)
    assert found.measures["lesion_f1"] == pytest.approx(2 / 3)


def test_the_greatest_sum_is_taken_and_not_the_best_pair_first():
    # best pair first: 2 · 6 / (10 + 9) = 0.63 alone
    # all: 2 · 3 / (10 + 3) + 2 · 2 / (2 + 9) = 0.46 + 0.36
    found = score(draw("##########.##"), draw("###.#########"))
    assert counts(found) == (2, 0, 0)
    assert found.measures["lesion_dice"] == pytest.approx((6 / 13 + 4 / 11) / 2)


def test_neighbours_without_overlap_are_no_match():
    found = score(draw("##.."), draw("..##"))
    assert counts(found) == (0, 1, 1)
    assert [found.measures[f"lesion_{name}"] for name in ("dice", "hd95", "nsd", "f1")] == [
        0,
        100,
        0,
        0,
    ]


def test_without_any_lesion_all_is_undefined_but_the_counts():
    nothing = np.zeros((3, 3), dtype=bool)
    found = score(nothing, nothing, METS)
    assert counts(found) == (0, 0, 0)
    assert all(
        math.isnan(found.measures[name]) for name in METS.measures if name[-2:] not in "tpfpfn"
    )


@pytest.mark.parametrize("rules", [PAIRS, METS])
def test_one_side_without_lesions(rules):
    nothing, something = np.zeros((1, 4), dtype=bool), draw("###.")
    missed = score(something, nothing, rules).measures
    assert (missed["lesion_dice"], missed["lesion_hd95"], missed["lesion_f1"]) == (0, 100, 0)
    made_up = score(nothing, something, rules).measures
    assert made_up["lesion_f1"] == 0
    # without a large lesion there is nothing that METS would average
    assert made_up["lesion_dice"] == pytest.approx(math.nan if rules is METS else 0, nan_ok=True)


def test_only_mets_punishes_what_is_missed_or_made_up():
    reference, predicted = draw("###.###....."), draw("###......##.")
    assert score(reference, predicted).measures["lesion_dice"] == 1
    found = score(reference, predicted, METS)
    assert counts(found) == (1, 1, 1)
    assert found.measures["lesion_dice"] == pytest.approx(1 / 3)
    assert found.measures["lesion_hd95"] == pytest.approx(200 / 3)
    assert found.measures["lesion_nsd"] == pytest.approx(1 / 3, abs=1e-8)


def test_small_lesions_count_only_for_detection():
    # large: one found, one made up: 2 / 3; small: one of two found, one made up: 2 / 4
    found = score(draw("###.#.##...."), draw("###.#.....##"), METS)
    assert found.measures["lesion_f1_large"] == pytest.approx(2 / 3)
    assert found.measures["lesion_f1_small"] == pytest.approx(0.5)
    assert found.measures["lesion_dice"] == pytest.approx(0.5)


def test_size_is_counted_in_mm3_and_the_limit_is_large():
    found = score(draw("##"), draw("##"), METS, spacing_mm=(1.0, 1.5))
    assert found.measures["lesion_f1_large"] == 1
    assert math.isnan(found.measures["lesion_f1_small"])


@pytest.mark.parametrize(("predicted", "f1"), [("#" + "." * 8, 1), ("#" + "." * 9, 0)])
def test_a_match_counts_as_found_from_the_detection_dice(predicted, f1):
    # 1 voxel of 9: Dice 2 / 10, of 10: 2 / 11
    found = score(draw("#" * len(predicted)), draw(predicted), METS)
    assert counts(found) == (1, 0, 0)
    assert found.measures["lesion_f1_large"] == f1


def test_distances_are_pooled_in_mm_and_the_smallest_spacing_is_tolerated():
    # four voxels against the last of them: distances 0, 2, 4, 6 and 0 mm, sorted 0 0 2 4 6;
    # the 95th percentile lies 0.8 of the way from 4 to 6; the voxels within 2 mm are 2 of 4, 1 of 1
    found = score(draw("####"), draw("...#"), spacing_mm=(3.0, 2.0))
    assert found.measures["lesion_hd95"] == pytest.approx(5.6)
    assert found.measures["lesion_nsd"] == pytest.approx(0.75, abs=1e-8)


def test_the_reversed_spacing_of_the_official_tool_must_be_asked_for():
    reference, predicted = draw("#####", "#####", "....."), draw(".....", "#####", "#####")
    quirk = MatchedInstances(reversed_spacing=True)
    right, wrong = (
        score(reference, predicted, rules, spacing_mm=(3.0, 1.0)).measures["lesion_hd95"]
        for rules in (PAIRS, quirk)
    )
    assert (right, wrong) == (3, 1)


def test_a_sliver_of_overlap_is_a_match_and_many_make_more_than_one():
    # Dice 2 · 1 / (1 + 1999) = 0.001
    found = score(draw("#" + "." * 1999), draw("#" * 1999 + "."))
    assert counts(found) == (1, 0, 0)
    assert found.measures["lesion_dice"] == pytest.approx(0.001)
    # two pairs of 0.5 each and a third that could take one side of both
    found = score(draw("##.##"), draw("#.###"))
    assert counts(found) == (2, 0, 0)


@pytest.mark.slow
def test_thousands_of_instances_are_matched_in_little_memory():
    dots = np.zeros((100, 100), dtype=bool)
    dots[::2, ::2] = True
    blobs = components(dots)
    tracemalloc.start()
    matches = _match(blobs, blobs)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert matches == {n: n for n in range(2500)}
    assert peak < 2e7  # a table of all pairs is 5e7
