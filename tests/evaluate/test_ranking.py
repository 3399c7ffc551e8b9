"""Ranks and p-values against arithmetic by hand, enumeration, SciPy, and laws."""

from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy.stats import wilcoxon

from medseg3d.evaluate.ranking import (
    SMALL,
    Ranking,
    adjust_holm,
    compare_measures,
    compare_ranks,
    permutation_p,
    rank_methods,
    ranked_by_default,
    sign_of,
    wilcoxon_p,
)

NAN = np.nan
TEAMS = ("A", "B", "C")
NUMBERS = (("WT", "dice"), ("WT", "hd95"))

# case: (Dice, HD95) of teams A, B, C
VALUES = np.array([
    [(0.9, 2.0), (0.6, 4.0), (0.9, 1.0)],
    [(0.8, 2.0), (0.8, 3.0), (0.5, NAN)],
    [(0.7, 5.0), (0.8, 1.0), (0.4, NAN)],
])  # fmt: skip

# The ranks of Dice and of HD95, and their mean, by hand:
#            case 1               case 2               case 3
#   A   1   1.5  -> 1.25     3    3  -> 3.00     1   1   -> 1.00
#   B   2   1.5  -> 1.75     1.5  2  -> 1.75     2   2.5 -> 2.25
#   C   3   3    -> 3.00     1.5  1  -> 1.25     3   2.5 -> 2.75
CUMULATIVE = [[1.25, 3.0, 1.0], [1.75, 1.75, 2.25], [3.0, 1.25, 2.75]]
SCORES = [(1.25 + 3.0 + 1.0) / 3, (1.75 + 1.75 + 2.25) / 3, (3.0 + 1.25 + 2.75) / 3]

# Exchanged in all 8 ways, which sums of differences are at least the observed one?
#   B - A   0.50  -1.25   1.25   observed 0.50:  3, 2, 0.5, 0.5 of ±0.5 ±1.25 ±1.25     4 of 8
#   C - A   1.75  -1.75   1.75   observed 1.75:  5.25, 1.75, 1.75, 1.75                 4 of 8
#   C - B   1.25  -0.50   0.50   observed 1.25:  2.25, 1.25, 1.25                       3 of 8
CHANCES = {("A", "B"): 4 / 8, ("A", "C"): 4 / 8, ("B", "C"): 3 / 8}


def ranked(values: np.ndarray, numbers=None, methods=None) -> Ranking:
    """Rank arrays of methods × cases × numbers; every number is a Dice unless it is said."""
    num_methods, num_cases, num_numbers = values.shape
    return rank_methods(
        methods or [f"m{m}" for m in range(num_methods)],
        [f"c{case}" for case in range(num_cases)],
        numbers=numbers or [(f"r{k}", "dice") for k in range(num_numbers)],
        values=values,
    )


@st.composite
def tables(draw: st.DrawFn) -> np.ndarray:
    """Draw few different values, so that there are ties, some of them undefined."""
    shape = draw(array_shapes(min_dims=3, max_dims=3, max_side=5))
    values = draw(arrays(np.float64, shape, elements=st.integers(0, 5).map(float)))
    return np.where(values == 5, NAN, values)


def sorted_scores(ranking: Ranking) -> dict[str, float]:
    return {m: round(s, 12) for m, s in zip(ranking.methods, ranking.scores, strict=True)}


class TestFinalRankingScore:
    """`rank_methods` and `compare_ranks`: three teams by hand, then laws."""

    def test_three_teams_by_hand(self):
        ranking = ranked(VALUES, NUMBERS, TEAMS)
        assert ranking.methods == TEAMS
        assert ranking.cumulative.tolist() == CUMULATIVE
        assert ranking.scores.tolist() == pytest.approx(SCORES)
        assert ranking.undefined.tolist() == [0, 1, 1]

    def test_their_exchanges_by_hand(self):
        tests = compare_ranks(ranked(VALUES, NUMBERS, TEAMS))
        assert {(t.first, t.second): t.p for t in tests} == CHANCES
        assert [(t.wins, t.ties, t.losses) for t in tests] == [(2, 0, 1)] * 3
        assert [t.difference for t in tests] == pytest.approx([-0.5 / 3, -1.75 / 3, -1.25 / 3])
        assert [(t.better, t.n, t.p_holm) for t in tests] == [(t.first, 3, None) for t in tests]

    def test_the_best_comes_first_whatever_the_order(self):
        ranking = ranked(VALUES[::-1], NUMBERS, TEAMS[::-1])
        assert ranking.methods == TEAMS
        assert np.array_equal(ranking.values, VALUES, equal_nan=True)

    @given(tables(), st.randoms(use_true_random=False))
    @settings(deadline=None, max_examples=30)
    def test_the_order_of_methods_and_cases_does_not_matter(self, values, random):
        names = [f"m{m}" for m in range(len(values))]
        order = random.sample(range(len(values)), len(values))
        cases = random.sample(range(values.shape[1]), values.shape[1])
        shuffled = ranked(values[order][:, cases], methods=[names[m] for m in order])
        straight = ranked(values, methods=names)
        assert shuffled.methods == straight.methods
        assert sorted_scores(shuffled) == sorted_scores(straight)
        if len(values) > 1:
            assert compare_ranks(shuffled) == compare_ranks(straight)

    @given(tables())
    @settings(deadline=None, max_examples=30)
    def test_scores_share_out_all_ranks(self, values):
        n = len(values)
        assert ranked(values).scores.sum() == pytest.approx(n * (n + 1) / 2)

    @given(tables())
    @settings(deadline=None, max_examples=30)
    def test_only_the_order_of_values_counts(self, values):
        assert np.array_equal(ranked(np.exp(values)).ranks, ranked(values).ranks)
        distances = [(f"r{k}", "hd95") for k in range(values.shape[2])]
        assert np.array_equal(ranked(-values, distances).ranks, ranked(values).ranks)

    def test_undefined_is_worse_than_anything_and_equal_where_all_are(self):
        for measure in ("dice", "hd95"):
            alone = ranked(np.array([[[NAN]], [[-1e300]], [[1e300]]]), [("WT", measure)])
            assert alone.methods[-1] == "m0"
            assert alone.ranks.ravel().tolist() == [1, 2, 3]
            assert alone.undefined.tolist() == [0, 0, 1]
        nobody = ranked(np.full((3, 1, 1), NAN))
        assert nobody.ranks.ravel().tolist() == [2, 2, 2]
        assert nobody.undefined.tolist() == [0, 0, 0]

    def test_equal_methods_are_told_apart_by_nothing(self):
        (test,) = compare_ranks(ranked(np.ones((2, 6, 2))))
        assert (test.difference, test.better, test.p) == (0.0, "", 1.0)
        assert (test.wins, test.ties, test.losses) == (0, 6, 0)


class TestPermutations:
    """`permutation_p`: every exchange where there are few, draws where there are many."""

    @given(arrays(np.float64, st.integers(1, 7), elements=st.integers(-6, 6).map(lambda x: x / 2)))
    @settings(deadline=None, max_examples=30)
    def test_few_cases_are_enumerated(self, differences):
        sums = [np.dot(signs, differences) for signs in product((-1, 1), repeat=len(differences))]
        share = np.mean(np.array(sums) >= differences.sum())
        assert permutation_p(differences[:, np.newaxis], permutations=128).tolist() == [share]

    def test_the_border_of_enumeration(self):
        differences = np.ones((4, 1))
        assert permutation_p(differences, permutations=16)[0] == 1 / 16
        drawn = permutation_p(differences, permutations=15)[0] * 16
        assert drawn == round(drawn) >= 1

    def test_draws_come_close_to_the_enumeration(self):
        differences = np.random.default_rng(5).normal(0.2, 1, size=(17, 4)).round()
        exact = permutation_p(differences, permutations=2**17)
        drawn = permutation_p(differences, permutations=2**17 - 1)
        assert not np.array_equal(drawn, exact)
        assert drawn == pytest.approx(exact, abs=0.006)

    def test_draws_never_give_zero(self):
        assert permutation_p(np.ones((200, 1)), permutations=999)[0] == 1 / 1000

    def test_the_seed_decides_and_pairs_do_not_disturb_each_other(self):
        differences = np.random.default_rng(1).integers(-2, 4, size=(40, 3)).astype(np.float64)
        first = permutation_p(differences, permutations=5000)
        assert np.array_equal(first, permutation_p(differences, permutations=5000))
        assert not np.array_equal(first, permutation_p(differences, permutations=5000, seed=1))
        assert first[1:2] == permutation_p(differences[:, 1:2], permutations=5000)

    def test_many_draws_take_several_pieces(self, monkeypatch: pytest.MonkeyPatch):
        differences = np.random.default_rng(2).integers(-2, 3, size=(10, 2)).astype(np.float64)
        whole = permutation_p(differences)
        monkeypatch.setattr("medseg3d.evaluate.ranking.CHUNK", 77)
        assert np.array_equal(permutation_p(differences), whole)


class TestMeasures:
    """`compare_measures`: Wilcoxon and Holm."""

    @given(arrays(np.float64, st.integers(1, 8), elements=st.integers(-3, 4).map(float)))
    @settings(deadline=None, max_examples=40)
    def test_small_samples_with_ties_and_zeros_are_scipys(self, differences):
        if differences.any():
            assert wilcoxon_p(differences) == pytest.approx(wilcoxon(differences).pvalue)

    @pytest.mark.parametrize("n", [2, SMALL, SMALL + 1, 50, 51])
    def test_without_ties_it_is_scipys_too(self, n):
        differences = np.random.default_rng(n).normal(0.3, 1, n)
        assert wilcoxon_p(differences) == pytest.approx(wilcoxon(differences).pvalue, rel=1e-12)

    @pytest.mark.parametrize("n", [0, 1, 5, SMALL + 1, 60])
    def test_no_difference_at_all_is_chance(self, n):
        assert wilcoxon_p(np.zeros(n)) == 1.0

    def test_wilcoxon_by_hand(self):
        # ranks 1 to 5, one of them negative, the 1: sums of 14 and 15 have 2 of 32 ways
        assert wilcoxon_p(np.array([-1.0, 2.0, 3.0, 4.0, 5.0, 0.0])) == 2 * 2 / 32

    def test_holm_by_hand(self):
        # sorted 0.01 0.02 0.03 0.04, times 4 3 2 1 is 0.04 0.06 0.06 0.04, never falling
        adjusted = adjust_holm(np.array([0.04, 0.01, 0.03, 0.02]))
        assert adjusted.tolist() == pytest.approx([0.06, 0.04, 0.06, 0.06])
        assert adjust_holm(np.array([0.5, 0.9])).tolist() == [1.0, 1.0]

    @given(arrays(np.float64, st.integers(1, 12), elements=st.floats(0, 1)))
    @settings(deadline=None, max_examples=30)
    def test_holm_is_its_definition(self, p):
        adjusted = adjust_holm(p)
        for k, one in enumerate(p):
            below = sorted(p)[: int((p <= one).sum())]
            expected = min(1.0, max((len(p) - i) * q for i, q in enumerate(below)))
            assert adjusted[k] == expected

    def test_every_pair_and_number_is_tested_and_counted(self):
        rng = np.random.default_rng(3)
        values = rng.normal(size=(3, 30, 2)) + np.array([0.5, 0.0, -0.5])[:, None, None]
        ranking = ranked(values, [("WT", "dice"), ("ET", "dice")])
        tests = compare_measures(ranking)
        pairs = [*combinations(ranking.methods, 2)]
        assert [(t.first, t.second) for t in tests] == [pair for pair in pairs for _ in range(2)]
        assert [t.region for t in tests] == ["WT", "ET"] * 3
        p = [wilcoxon(ranking.values[a, :, k], ranking.values[b, :, k]).pvalue
             for a, b in combinations(range(3), 2) for k in range(2)]  # fmt: skip
        assert [t.p for t in tests] == pytest.approx(p)
        assert [t.p_holm for t in tests] == pytest.approx(adjust_holm(np.array(p)).tolist())
        assert all(t.wins + t.ties + t.losses == t.n == 30 for t in tests)

    def test_differences_are_first_minus_second_and_name_the_better(self):
        dice, distance = compare_measures(ranked(VALUES, NUMBERS, TEAMS))[:2]
        assert (dice.first, dice.second, dice.measure) == ("A", "B", "dice")
        assert (dice.difference, dice.better) == (pytest.approx(0.1), "A")
        assert (dice.wins, dice.ties, dice.losses, dice.n) == (2, 0, 1, 3)
        assert (distance.measure, distance.difference) == ("hd95", 0.5)
        assert distance.better == "B"

    def test_undefined_pairs_are_losses_but_not_tested(self):
        distance = compare_measures(ranked(VALUES, NUMBERS, TEAMS))[1]
        assert (distance.wins, distance.ties, distance.losses, distance.n) == (1, 1, 1, 2)
        assert distance.p == 1.0  # 0 is dropped, one case is left
        (nobody,) = compare_measures(ranked(np.full((2, 4, 1), NAN)))
        assert (nobody.n, nobody.better, nobody.ties, nobody.p) == (0, "", 4, 1.0)
        assert np.isnan(nobody.difference)


class TestDirections:
    """`sign_of` and `ranked_by_default`: which end is better, and what BraTS ranks by."""

    @pytest.mark.parametrize(
        ("sign", "measures"),
        [
            (1, "dice nsd_0.5 sensitivity specificity lesion_dice lesion_nsd lesion_f1_small"),
            (-1, "hd95 assd lesion_hd95"),
            (0, "lesion_tp lesion_fp lesion_fn reference_mm3 fp_voxels lesions"),
        ],
    )
    def test_each_measure_has_its_better_end(self, sign, measures):
        assert {sign_of(measure) for measure in measures.split()} == {sign}

    @pytest.mark.parametrize(
        ("held", "chosen"),
        [
            ("dice hd95 assd sensitivity nsd_1.0", "dice hd95 nsd_1.0"),
            ("dice hd95 sensitivity lesion_dice lesion_hd95 lesion_tp", "lesion_dice lesion_hd95"),
            (
                "dice hd95 nsd_0.5 lesion_dice lesion_hd95 lesion_nsd_0.5 lesion_f1",
                "lesion_dice lesion_hd95 lesion_nsd_0.5",
            ),
            ("sensitivity", ""),
        ],
    )
    def test_lesion_wise_measures_rank_where_there_are_any(self, held, chosen):
        assert ranked_by_default(held.split()) == tuple(chosen.split())
