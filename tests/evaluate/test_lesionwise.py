"""Lesion-wise scores by the rules of 2023 to 2025, on drawings whose numbers one can count."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medseg3d.errors import ConfigError
from medseg3d.evaluate.lesions import LesionScores
from medseg3d.evaluate.lesionwise import score_lesions
from medseg3d.evaluate.protocols import PROTOCOLS, DilatedLesions

PLAIN = DilatedLesions(dilations=1, threshold=0, penalty=100)
MERGING = PLAIN.model_copy(update={"merge_predicted": True})
JOINING = MERGING.model_copy(update={"joins": {"ET": ("NETC",)}})


def draw(*rows: str) -> np.ndarray:
    """Turn rows of `#` and anything else into a 2D mask."""
    return np.array([[sign == "#" for sign in row] for row in rows])


def score(
    reference: np.ndarray, predicted: np.ndarray, rules: DilatedLesions = PLAIN, **more: object
) -> LesionScores:
    spacing_mm = more.pop("spacing_mm", (1.0,) * reference.ndim)
    masks = {"WT": reference}, {"WT": predicted}
    return score_lesions(*masks, spacing_mm, rules, shape=reference.shape, **more)["WT"]


def counts(scores: LesionScores) -> tuple[float, ...]:
    return tuple(scores.measures[f"lesion_{status}"] for status in ("tp", "fp", "fn"))


def test_parts_within_reach_of_dilation_are_one_lesion():
    # one dilation of each part leaves no gap in `#..#` and one voxel in `#...#`
    assert counts(score(draw("#..#"), draw("#..#"))) == (1, 0, 0)
    assert counts(score(draw("#...#"), draw("#...#"))) == (2, 0, 0)


def test_all_that_touches_a_lesion_is_scored_against_it_as_one():
    # 2 of the 6 voxels found at either end: Dice = 2 · 4 / (6 + 4)
    found = score(draw("######"), draw("##..##"))
    assert found.measures["lesion_dice"] == pytest.approx(0.8)
    assert counts(found) == (1, 0, 0)


def test_one_prediction_may_serve_two_lesions():
    # each lesion has 1 voxel, and all 5 predicted count for each: Dice = 2 · 1 / (1 + 5)
    found = score(draw("#...#"), draw("#####"))
    assert found.measures["lesion_dice"] == pytest.approx(1 / 3)
    assert counts(found) == (2, 0, 0)


def test_a_hit_needs_no_overlap():
    # the far side of either voxel is one voxel away from the near side of the other
    found = score(draw("#."), draw(".#"))
    assert (found.measures["lesion_dice"], found.measures["lesion_hd95"]) == (0, 1)
    assert counts(found) == (1, 0, 0)
    assert counts(score(draw("#.."), draw("..#"))) == (0, 1, 1)


def test_what_is_missed_or_made_up_lowers_the_means():
    found = score(draw("##.....##"), draw("##......."))
    assert (found.measures["lesion_dice"], found.measures["lesion_hd95"]) == (0.5, 50)
    assert counts(found) == (1, 0, 1)
    reference = draw("##.....", ".......", ".......")
    found = score(reference, reference | draw(".......", ".......", "....###"))
    assert (found.measures["lesion_dice"], found.measures["lesion_hd95"]) == (0.5, 50)
    assert counts(found) == (1, 1, 0)


def test_false_positives_may_cost_nothing():
    lenient = PLAIN.model_copy(update={"count_false_positives": False})
    reference = draw("##.....")
    found = score(reference, reference | draw(".....##"), lenient)
    assert (found.measures["lesion_dice"], found.measures["lesion_hd95"]) == (1, 0)
    assert counts(found) == (1, 1, 0)


def test_nothing_to_score_is_perfect():
    rules = PLAIN.model_copy(update={"tolerances_mm": (0.5,)})
    nothing = np.zeros((4, 4), dtype=bool)
    found = score(nothing, nothing, rules)
    assert found.lesions == ()
    assert found.measures["lesion_dice"] == found.measures["lesion_nsd_0.5"] == 1
    assert found.measures["lesion_hd95"] == 0


@pytest.mark.parametrize(("spacing_mm", "is_ignored"), [((1.0, 1.0), True), ((1.0, 1.5), False)])
def test_lesions_up_to_the_threshold_are_ignored_and_so_is_what_hits_them(spacing_mm, is_ignored):
    rules = PLAIN.model_copy(update={"threshold": 2.0})
    found = score(draw("##.."), draw("#..."), rules, spacing_mm=spacing_mm)
    assert counts(found) == ((0, 0, 0) if is_ignored else (1, 0, 0))
    assert found.lesions[0].status == ("ignored" if is_ignored else "tp")
    assert (found.measures["lesion_dice"] == 1) == is_ignored


def test_a_flat_image_tells_the_size_of_its_voxels():
    rules = PLAIN.model_copy(update={"threshold": 2.0})
    thick = score(draw("##.."), draw("##.."), rules, voxel_mm3=5.0)
    assert counts(thick) == (1, 0, 0)
    assert thick.lesions[0].reference_mm3 == 10


def test_predicted_lesions_are_merged_before_small_ones_are_dropped():
    # two specks within reach of each other are a lesion of 2 voxels; alone each would be dropped
    rules = MERGING.model_copy(update={"threshold": 1.0})
    nothing = np.zeros((1, 9), dtype=bool)
    assert counts(score(nothing, draw("#..#....."), rules)) == (0, 1, 0)
    assert counts(score(nothing, draw("#...#...."), rules)) == (0, 0, 0)


def test_without_merging_every_predicted_component_is_one_and_none_is_dropped():
    rules = PLAIN.model_copy(update={"threshold": 1.0})
    nothing = np.zeros((1, 9), dtype=bool)
    assert counts(score(nothing, draw("#..#....."), rules)) == (0, 2, 0)


@pytest.mark.parametrize(("unit", "false_positives"), [("voxels", 0), ("mm3", 1)])
def test_predicted_lesions_are_small_in_voxels_or_mm3(unit, false_positives):
    # 3 voxels of 2 mm² against a threshold of 5
    rules = MERGING.model_copy(update={"threshold": 5.0, "predicted_unit": unit})
    nothing = np.zeros((1, 9), dtype=bool)
    found = score(nothing, draw("###......"), rules, spacing_mm=(1.0, 2.0))
    assert counts(found) == (0, false_positives, 0)


def test_a_regions_own_threshold_holds_for_predicted_lesions_too():
    rules = MERGING.model_copy(update={"threshold": 5.0, "threshold_of": {"ET": 1.0}})
    nothing = dict.fromkeys(("ET", "WT"), np.zeros((1, 9), dtype=bool))
    made_up = dict.fromkeys(("ET", "WT"), draw("###......"))
    found = score_lesions(nothing, made_up, (1.0, 1.0), rules, shape=(1, 9))
    assert [counts(found[region]) for region in ("ET", "WT")] == [(0, 1, 0), (0, 0, 0)]


def test_regions_may_have_other_dilations_and_thresholds():
    rules = DilatedLesions(dilations=1, threshold=0, dilations_of={"RC": 2}, threshold_of={"ET": 1})
    masks = dict.fromkeys(("ET", "RC", "WT"), draw("#...#"))
    found = score_lesions(masks, masks, (1.0, 1.0), rules, shape=(1, 5))
    assert [counts(found[region])[0] for region in ("ET", "RC", "WT")] == [0, 1, 2]


def test_lesions_that_touch_one_lesion_of_another_tissue_become_one():
    enhancing, core = draw("#.........#"), draw(".#########.")
    # joined they are one lesion of 2 voxels, of which 1 was found: Dice = 2 · 1 / (2 + 1)
    masks = {"ET": enhancing, "NETC": core}, {"ET": draw("#.........."), "NETC": core}
    joined = score_lesions(*masks, (1.0, 1.0), JOINING, shape=(1, 11))["ET"]
    assert joined.measures["lesion_dice"] == pytest.approx(2 / 3)
    assert counts(joined) == (1, 0, 0)
    apart = score_lesions(*masks, (1.0, 1.0), MERGING, shape=(1, 11))["ET"]
    assert counts(apart) == (1, 0, 1)


def test_a_tissue_that_nobody_named_is_a_clear_fault():
    masks = {"ET": draw("#."), "WT": draw("##")}
    with pytest.raises(ConfigError, match="touch 'NETC', but the regions are ET, WT; name regions"):
        score_lesions(masks, masks, (1.0, 1.0), JOINING, shape=(1, 2))


def test_who_touches_two_lesions_goes_with_the_first_and_is_no_bridge():
    # the column of 5 touches both cores; it joins the 1 by the upper one, and the 2 stay alone
    nothing = "...........", "...........", "..........."
    masks = {
        "ET": draw("#....#.....", *[".....#....."] * 3, ".....#....#", "..........#"),
        "NETC": draw(".####......", *nothing, "......####.", "..........."),
    }
    found = score_lesions(masks, masks, (1.0, 1.0), JOINING, shape=(6, 11))["ET"]
    assert sorted(lesion.reference_mm3 for lesion in found.lesions) == [2, 6]


@pytest.mark.parametrize(("corner", "sizes"), [((0, 0), [2, 19]), ((9, 0), [1, 20])])
def test_the_volumes_border_decides_which_tissue_is_the_first(corner, sizes):
    # the bar of 18 touches both cores. Dilated three times both begin in the volume's first row,
    # the left one further left; nine rows below it the right one begins a row above the left one
    rules = JOINING.model_copy(update={"dilations_of": {"NETC": 3}})
    masks = {
        "ET": draw("......##################......##", "#" + "." * 31),
        "NETC": draw("........................######..", ".#####" + "." * 26),
    }
    found = score_lesions(masks, masks, (1.0, 1.0), rules, shape=(20, 32), corner=corner)["ET"]
    assert sorted(lesion.reference_mm3 for lesion in found.lesions) == sizes


def test_joining_comes_after_dropping_so_that_even_a_copy_may_lack_a_part():
    # the reference's small part is joined to the large one, the copy's was dropped: 2 · 3 / (4 + 3)
    rules = JOINING.model_copy(update={"threshold": 1.0})
    masks = {"ET": draw("#........###"), "NETC": draw(".########...")}
    found = score_lesions(masks, masks, (1.0, 1.0), rules, shape=(1, 12))["ET"]
    assert counts(found) == (1, 0, 0)
    assert found.measures["lesion_dice"] == pytest.approx(6 / 7)


def test_the_second_tissue_joins_what_the_first_has_joined():
    rules = MERGING.model_copy(update={"joins": {"ET": ("NETC", "RC")}})
    masks = {
        "ET": draw("#.....#.....#"),
        "NETC": draw(".#####......."),
        "RC": draw(".......#####."),
    }
    found = score_lesions(masks, masks, (1.0, 1.0), rules, shape=(1, 13))["ET"]
    assert counts(found) == (1, 0, 0)


@pytest.mark.parametrize(
    ("penalty", "expected"),
    [("diagonal", math.hypot(3, 8)), ("diagonal_voxels", 5.0), (374.0, 374.0)],
)
def test_penalties(penalty, expected):
    rules = PLAIN.model_copy(update={"penalty": penalty})
    reference = np.ones((3, 4), dtype=bool)
    found = score(reference, ~reference, rules, spacing_mm=(1.0, 2.0))
    assert found.measures["lesion_hd95"] == pytest.approx(expected)


def test_surface_dice_of_what_is_missed_or_made_up_is_0():
    rules = PLAIN.model_copy(update={"tolerances_mm": (0.5, 1.0)})
    found = score(draw("###......"), draw("###...###"), rules)
    assert found.measures["lesion_nsd_0.5"] == pytest.approx(0.5, abs=1e-8)
    assert [*found.lesions[0].nsd] == ["nsd_0.5", "nsd_1.0"]
    # shifted by one of three voxels, two thirds of either side lie on the other
    shifted = score(draw("###."), draw(".###"), rules)
    assert shifted.measures["lesion_nsd_0.5"] == pytest.approx(2 / 3, abs=1e-8)
    assert shifted.measures["lesion_nsd_1.0"] == pytest.approx(1, abs=1e-8)


def test_lesions_are_listed_those_made_up_last():
    found = score(draw("##.....#", "........"), draw("##......", "....#..."), spacing_mm=(2.0, 1.0))
    listed = [(lesion.status, lesion.dice) for lesion in found.lesions]
    assert listed == [("tp", 1), ("fn", 0), ("fp", 0)]
    assert [lesion.reference_mm3 for lesion in found.lesions] == [4, 2, 0]
    assert [lesion.predicted_mm3 for lesion in found.lesions] == [4, 0, 2]
    assert [lesion.center_IJK for lesion in found.lesions] == [(0, 0.5), (0, 7), (1, 4)]


REGIONS = {"WT": (1, 2, 3), "TC": (1, 3), "NETC": (1,), "SNFH": (2,), "ET": (3,), "RC": (4,)}
LESION_WISE = ["brats2023-gli", "brats2024-gli", "brats2024-ped", "brats2025-met"]


def draw_case(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw a few balls of random values, and move most of them a little."""
    rng = np.random.default_rng(seed)
    sides = np.zeros((2, 16, 18, 20), dtype=np.uint8)
    for _ in range(6):
        center, radius, value = rng.integers(0, 16, 3), rng.uniform(0.5, 3.5), rng.integers(1, 5)
        for side in sides:
            away = np.indices(side.shape).T - center - rng.integers(-1, 2, 3)
            if rng.random() < 0.85:
                side.T[(away**2).sum(axis=-1) <= radius**2] = value
    return sides[0], sides[1]


def score_map(reference: np.ndarray, predicted: np.ndarray, name: str, **place: object) -> list:
    """Give the numbers of every region, a row each."""
    masks = [{r: np.isin(m, v) for r, v in REGIONS.items()} for m in (reference, predicted)]
    place = {"spacing_mm": (1.0, 1.0, 1.5), "shape": reference.shape, **place}
    found = score_lesions(*masks, rules=PROTOCOLS[name].lesions, **place)
    return [[*scores.measures.values()] for scores in found.values()]


@given(seed=st.integers(0, 2**32 - 1), name=st.sampled_from(["brats2023-met", "brats2024-ped"]))
@settings(deadline=None, max_examples=12)
def test_without_joins_a_copy_is_perfect(seed, name):
    reference, _ = draw_case(seed)
    rows = score_map(reference, reference, name, spacing_mm=(1.0, 1.0, 1.0))
    for dice, hd95, *_, false_positives, missed in rows:
        assert (dice, hd95, false_positives, missed) == (1, 0, 0, 0)


@pytest.mark.slow
@given(seed=st.integers(0, 2**32 - 1), name=st.sampled_from(LESION_WISE))
@settings(deadline=None, max_examples=12)
def test_neither_cutting_out_nor_memory_order_changes_a_score(seed, name):
    reference, predicted = draw_case(seed)
    filled = np.nonzero(reference | predicted)
    corner = [int(axis.min()) for axis in filled]
    box = tuple(slice(int(axis.min()), int(axis.max()) + 1) for axis in filled)
    cut = (np.asfortranarray(side[box]) for side in (reference, predicted))
    expected = score_map(reference, predicted, name)
    found = score_map(*cut, name, shape=reference.shape, corner=corner)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)


@pytest.mark.slow
@given(seed=st.integers(0, 2**32 - 1), axis=st.integers(0, 2))
@settings(deadline=None, max_examples=12)
def test_flipping_both_sides_changes_nothing_without_joins(seed, axis):
    reference, predicted = draw_case(seed)
    flipped = (np.flip(side, axis) for side in (reference, predicted))
    expected = score_map(reference, predicted, "brats2024-ped")
    found = score_map(*flipped, "brats2024-ped")
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)
