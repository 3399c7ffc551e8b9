"""Who is better, and is it more than chance: ranks as BraTS gives them, and tests of each pair."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Final, TypeAlias

import numpy as np
from jaxtyping import Float64, Int64
from scipy.stats import rankdata, wilcoxon

Values: TypeAlias = Float64[np.ndarray, "methods cases numbers"]

SIGNS: Final = {
    "dice": 1, "nsd": 1, "sensitivity": 1, "specificity": 1, "f1": 1, "hd95": -1, "assd": -1,
}  # fmt: skip
"""Kind of measure -> 1 where more is better, -1 where less is. Volumes and counts are neither."""

RANKED: Final = ("dice", "hd95", "nsd")
"""Kinds of measures that BraTS ranks by; lesion-wise ones where a season has them."""

CHUNK: Final = 2**20
"""Exchanges that are held in memory at once."""

SMALL: Final = 13
"""Pairs up to which every outcome of the signed-rank test is counted; SciPy draws the line here."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """Ranks of methods, ordered from the best final ranking score to the worst, then by name.

    `numbers` are pairs of region and measure; `ranks` count from 1, the best.
    """

    methods: tuple[str, ...]
    cases: tuple[str, ...]
    numbers: tuple[tuple[str, str], ...]
    values: Values
    ranks: Values

    @property
    def cumulative(self) -> Float64[np.ndarray, "methods cases"]:
        """Mean rank over all numbers."""
        return self.ranks.mean(axis=2)

    @property
    def scores(self) -> Float64[np.ndarray, "methods"]:
        """Final ranking scores: the mean over cases of the cumulative ranks."""
        return self.ranks.mean(axis=(1, 2))

    @property
    def undefined(self) -> Int64[np.ndarray, "methods"]:
        """Numbers that a method lacks and another has."""
        missing = np.isnan(self.values)
        return np.count_nonzero(missing & ~missing.all(axis=0), axis=(1, 2))


@dataclass(frozen=True, slots=True)
class PairTest:
    """How two methods differ in one number, or in their cumulative ranks.

    `first` has the better final ranking score. `difference` is first minus second over the `n`
    cases where both have a value: the mean of ranks, the median of a measure; `better` is whom it
    speaks for, if anyone. Wins, ties and losses are the first's over all cases. `p_holm` is p
    corrected for the number of tests, None where nothing is corrected.
    """

    first: str
    second: str
    region: str
    measure: str
    n: int
    difference: float
    better: str
    wins: int
    ties: int
    losses: int
    p: float
    p_holm: float | None


def sign_of(measure: str) -> int:
    """Give 1 where more is better, -1 where less is, 0 for what cannot be ranked."""
    return SIGNS.get(_kind(measure), 0)


def ranked_by_default(measures: Sequence[str]) -> tuple[str, ...]:
    """Choose what BraTS ranks by: lesion-wise Dice, HD95 and NSD, or those of whole regions."""
    prefix = "lesion_" if "lesion_dice" in measures else ""
    return tuple(m for m in measures if m.startswith(prefix) and _kind(m) in RANKED)


def rank_methods(
    methods: Sequence[str],
    cases: Sequence[str],
    *,
    numbers: Sequence[tuple[str, str]],
    values: Values,
) -> Ranking:
    """Rank the methods by each number of each case; equals share their mean rank.

    Undefined (nan) is worse than any value. Where it is so for all methods, all are equal.
    """
    signs = np.array([sign_of(measure) for _, measure in numbers])
    ranks = rankdata(np.where(np.isnan(values), np.inf, -signs * values), axis=0)
    order = sorted(range(len(methods)), key=lambda m: (ranks[m].sum(), methods[m]))
    ordered = tuple(methods[m] for m in order)
    return Ranking(ordered, tuple(cases), tuple(numbers), values[order], ranks[order])


def compare_ranks(
    ranking: Ranking, *, permutations: int = 100_000, seed: int = 0
) -> tuple[PairTest, ...]:
    """Test for each pair whether chance explains the better ranks (`permutation_p`).

    As in BraTS, p is not corrected for the number of pairs.
    """
    sums = ranking.ranks.sum(axis=2)
    pairs = [*combinations(range(len(sums)), 2)]
    gains = np.stack([sums[second] - sums[first] for first, second in pairs], axis=1)
    chances = permutation_p(gains, permutations=permutations, seed=seed)
    return tuple(
        _pair_test(
            (ranking.methods[first], ranking.methods[second]),
            ("all", "cumulative_rank"),
            sign=-1,
            gains=gains[:, k],
            n=len(gains),
            difference=float(ranking.scores[first] - ranking.scores[second]),
            p=float(chances[k]),
        )
        for k, (first, second) in enumerate(pairs)
    )


def compare_measures(ranking: Ranking) -> tuple[PairTest, ...]:
    """Test each pair in each number (`wilcoxon_p`), corrected by Holm for all of these tests.

    Cases in which one of the two is undefined count as its loss, but are not tested.
    """
    tests = []
    for first, second in combinations(range(len(ranking.methods)), 2):
        gains = ranking.ranks[second] - ranking.ranks[first]
        differences = ranking.values[first] - ranking.values[second]
        for k, number in enumerate(ranking.numbers):
            defined = differences[~np.isnan(differences[:, k]), k]
            test = _pair_test(
                (ranking.methods[first], ranking.methods[second]),
                number,
                sign=sign_of(number[1]),
                gains=gains[:, k],
                n=len(defined),
                difference=float(np.median(defined)) if len(defined) else math.nan,
                p=wilcoxon_p(defined),
            )
            tests.append(test)
    adjusted = adjust_holm(np.array([test.p for test in tests]))
    return tuple(replace(t, p_holm=float(p)) for t, p in zip(tests, adjusted, strict=True))


def permutation_p(
    differences: Float64[np.ndarray, "cases pairs"], *, permutations: int = 100_000, seed: int = 0
) -> Float64[np.ndarray, "pairs"]:
    """Say for each pair of methods how often chance makes its sum of differences as large.

    A permutation exchanges the two methods in each case with even odds, which turns the sign of
    the difference. p (one-sided) is the share of permutations whose sum is at least the observed
    one, so that ties speak for chance. Where there are no more than `permutations` different ones,
    each is counted once, the observed among them, and p is exact. Otherwise they are drawn, the
    same for every pair, and the observed one is counted with them, (count + 1) / (number + 1): it
    is as likely as any other, and draws must not give a p of 0 (Phipson and Smyth 2010).

    Sums are compared without rounding where differences are multiples of 0.5, as rank sums are.
    """
    num_cases = len(differences)
    exact = 2**num_cases <= permutations
    number = 2**num_cases if exact else permutations
    rng = np.random.default_rng(seed)
    reached = np.zeros(differences.shape[1])
    step = CHUNK // (num_cases + 1) + 1
    for start in range(0, number, step):
        stop = min(start + step, number)
        if exact:
            exchanged = np.arange(start, stop)[:, np.newaxis] >> np.arange(num_cases) & 1
        else:
            exchanged = rng.integers(2, size=(stop - start, num_cases), dtype=np.int8)
        # exchanging takes twice these cases' differences off the sum, so it stays as large if
        # they come to no more than 0
        reached += np.count_nonzero(exchanged.astype(np.float64) @ differences <= 0, axis=0)
    return reached / number if exact else (reached + 1) / (number + 1)


def wilcoxon_p(differences: Float64[np.ndarray, "cases"]) -> float:
    """Test paired differences by Wilcoxon's signed ranks, two-sided.

    Differences of 0 are dropped; if there are no others p is 1. Equals `scipy.stats.wilcoxon`,
    which takes long for small samples with ties: their outcomes are counted here.
    """
    if not differences.any():
        return 1.0
    if len(differences) > SMALL:
        return float(wilcoxon(differences).pvalue)
    moved = differences[differences != 0]
    signed = np.sign(moved) * rankdata(np.abs(moved))
    tails = permutation_p(np.stack([signed, -signed], axis=1), permutations=2**SMALL)
    return min(1.0, 2 * float(tails.min()))


def adjust_holm(p: Float64[np.ndarray, "tests"]) -> Float64[np.ndarray, "tests"]:
    """Adjust p-values for their number, step down (Holm 1979); the order stays."""
    order = np.argsort(p)
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    return np.minimum(adjusted, 1.0)


def _kind(measure: str) -> str:
    """Drop `lesion_` and a tolerance."""
    return measure.removeprefix("lesion_").partition("_")[0]


def _pair_test(
    pair: Sequence[str],
    number: tuple[str, str],
    *,
    sign: int,
    gains: Float64[np.ndarray, "cases"],
    n: int,
    difference: float,
    p: float,
) -> PairTest:
    """Fill in who is better (more is, by `sign`), and count who gains ranks by being the first."""
    first, second = pair
    return PairTest(
        *(first, second, *number),
        n=n,
        difference=difference,
        better=first if sign * difference > 0 else second if sign * difference < 0 else "",
        wins=int(np.count_nonzero(gains > 0)),
        ties=int(np.count_nonzero(gains == 0)),
        losses=int(np.count_nonzero(gains < 0)),
        p=p,
        p_holm=None,
    )
