"""Compare methods by the scores that `medseg3d evaluate` wrote for each over the same cases."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import product
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np

from medseg3d import __version__
from medseg3d.errors import ConfigError
from medseg3d.evaluate.ranking import (
    PairTest,
    Ranking,
    compare_measures,
    compare_ranks,
    rank_methods,
    ranked_by_default,
    sign_of,
)
from medseg3d.evaluate.results import CaseScore, Scores, align, read_scores
from medseg3d.evaluate.tables import as_csv
from medseg3d.io.atomic import prepare_folder, write_atomically

Scored: TypeAlias = Mapping[str, Mapping[str, CaseScore]]
"""Method -> case -> its score, where it has one."""

TEST_COLUMNS: Final = tuple(field.name for field in fields(PairTest))


@dataclass(frozen=True, slots=True)
class MethodRank:
    """Where a method stands among the others; place and ranks count from 1, the best."""

    method: str
    place: int
    score: float
    """BraTS's final ranking score: the mean of `ranks`."""
    failed: tuple[str, ...]
    """Cases that failed and count as they were scored."""
    undefined: int
    """Numbers that this method lacks and another has: ranked last."""
    ranks: dict[str, float]
    """Case -> cumulative rank, the mean over regions and measures."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Methods, best first, and the tests of every pair.

    `left_out` are cases that could not be compared, with the methods that have no scores for them.
    """

    scheme: str
    policy: str
    regions: tuple[str, ...]
    measures: tuple[str, ...]
    cases: tuple[str, ...]
    left_out: dict[str, tuple[str, ...]]
    permutations: int
    seed: int
    methods: tuple[MethodRank, ...]
    rank_tests: tuple[PairTest, ...]
    measure_tests: tuple[PairTest, ...]

    def to_dict(self) -> dict[str, Any]:
        """Give plain data, ready for JSON; an undefined difference is None."""
        content = {"medseg3d": __version__, **asdict(self)}
        for test in content["measure_tests"]:
            if math.isnan(test["difference"]):
                test["difference"] = None
        return content

    def __str__(self) -> str:
        left_out = [f"{case} (by {', '.join(who)})" for case, who in self.left_out.items()]
        every = 2 ** len(self.cases)
        ways = f"all {every}" if every <= self.permutations else f"{self.permutations} random"
        ranks = [[m.method, m.place, m.score, len(m.failed), m.undefined] for m in self.methods]
        parts = [
            f"{self.scheme}: {self.policy}",
            f"{len(self.cases)} cases ranked by {', '.join(self.measures)} in "
            f"{', '.join(self.regions)}; 1 is best. Failed cases count as they were scored. A "
            "number that a method lacks is ranked last, where nobody has it all are equal.",
            *([f"Left out, as not scored: {'; '.join(left_out)}"] if left_out else []),
            "",
            align([["method", "place", "final ranking score", "failed", "undefined"], *ranks]),
            "",
            "Cumulative ranks: mean difference; one-sided p of the first being better by chance, "
            f"from {ways} exchanges of the two, not corrected",
            _tests_table(self.rank_tests, TEST_COLUMNS[:-1]),
            "",
            "Measures: median difference; two-sided p of Wilcoxon's signed ranks; p_holm corrected "
            f"for {len(self.measure_tests)} tests",
            _tests_table(self.measure_tests, TEST_COLUMNS),
        ]
        return "\n".join(parts)


def compare_methods(
    scores: Mapping[str, str | Path],
    *,
    measures: Sequence[str] | None = None,
    permutations: int = 100_000,
    seed: int = 0,
) -> Comparison:
    """Rank methods as BraTS does, and test how each pair differs in ranks and in measures.

    `scores` is method -> `scores.json`, or the folder that holds it. Without `measures`, those are
    taken that BraTS ranks by (`ranked_by_default`). Methods are ranked per case, region and
    measure (`rank_methods`); the mean over regions and measures is a case's cumulative rank, its
    mean over cases the final ranking score. Pairs are tested by `compare_ranks` and
    `compare_measures`. A case that a method lists without scores, as its reference is missing or
    damaged, is left out for all.

    Raises:
        ConfigError: fewer than two methods, or methods that cannot be compared: other rules,
            cases or references, or measures that they lack or that have no better end.
        FormatError: a file is missing or no `scores.json`.
    """
    if len(scores) < 2 or permutations < 1:
        raise ConfigError(
            f"{len(scores)} method(s) and {permutations} permutation(s); a comparison takes two "
            "or more methods and one or more permutations"
        )
    files = {method: read_scores(path) for method, path in scores.items()}
    first = next(iter(files.values()))
    _require_one_scheme(files)
    chosen = _choose_measures(first.scheme.protocol.measures, measures)
    scored = {
        method: {c.pair.case: c.score for c in scores.cases if c.score}
        for method, scores in files.items()
    }
    cases, left_out = _split_cases(files, scored)
    _require_one_reference(scored, cases, first.scheme.regions)
    ranking = _rank(scored, cases, [*product(first.scheme.regions, chosen)])
    return Comparison(
        scheme=first.scheme.name,
        policy=first.scheme.policy,
        regions=tuple(first.scheme.regions),
        measures=chosen,
        cases=cases,
        left_out=left_out,
        permutations=permutations,
        seed=seed,
        methods=_method_ranks(ranking, files),
        rank_tests=compare_ranks(ranking, permutations=permutations, seed=seed),
        measure_tests=compare_measures(ranking),
    )


def name_methods(paths: Iterable[str | Path]) -> dict[str, Path]:
    """Call each method as in `NAME=PATH`, or else by the folder in which its scores lie.

    Raises:
        ConfigError: two methods have one name.
    """
    methods: dict[str, Path] = {}
    for argument in paths:
        name, given, rest = str(argument).partition("=")
        path = Path(rest if given and not Path(argument).exists() else argument)
        if path == Path(argument):
            name = (path.parent if path.suffix == ".json" else path).resolve().name
        if name in methods:
            raise ConfigError(
                f"'{methods[name]}' and '{path}' are both called '{name}'; give one a name of its "
                f"own: NAME={path}"
            )
        methods[name] = path
    return methods


def write_comparison(comparison: Comparison, folder: str | Path) -> None:
    """Write `compare.json`, `ranks.csv` (case × method) and `pairs.csv` (a row per test).

    The folder is made where it is missing. In `pairs.csv` the tests of cumulative ranks come
    first, and an undefined difference is `nan`.

    Raises:
        ConfigError: the folder is not writable, or the disk is full.
    """
    folder = Path(folder)
    methods = comparison.methods
    ranks = [[case, *(m.ranks[case] for m in methods)] for case in comparison.cases]
    tests = [asdict(test).values() for test in comparison.rank_tests + comparison.measure_tests]
    files = {
        "compare.json": json.dumps(comparison.to_dict(), indent=1, allow_nan=False) + "\n",
        "ranks.csv": as_csv([["case", *(m.method for m in methods)], *ranks]),
        "pairs.csv": as_csv([TEST_COLUMNS, *tests]),
    }
    prepare_folder(folder)
    for name, text in files.items():
        write_atomically(folder / name, text.encode())


def _require_one_scheme(files: Mapping[str, Scores]) -> None:
    """Refuse regions or rules that differ; the scheme's name alone changes no number."""
    (first, expected), *others = ((method, scores.scheme) for method, scores in files.items())
    for method, scheme in others:
        if (scheme.regions, scheme.protocol) != (expected.regions, expected.protocol):
            raise ConfigError(
                f"'{first}' and '{method}' were scored by different schemes: {expected.name} "
                f"({', '.join(expected.regions)}; {expected.policy}) and {scheme.name} "
                f"({', '.join(scheme.regions)}; {scheme.policy}). Score both by one --scheme."
            )


def _choose_measures(held: Sequence[str], wanted: Sequence[str] | None) -> tuple[str, ...]:
    known = [measure for measure in held if sign_of(measure)]
    chosen = tuple(dict.fromkeys(ranked_by_default(held) if wanted is None else wanted))
    if not chosen or not {*chosen} <= {*known}:
        unknown = ", ".join(measure for measure in chosen if measure not in known)
        raise ConfigError(
            f"cannot rank by {unknown or 'no measure'}; what is scored and has a better end is "
            f"{', '.join(known) or 'nothing'}"
        )
    return chosen


def _split_cases(
    files: Mapping[str, Scores], scored: Scored
) -> tuple[tuple[str, ...], dict[str, tuple[str, ...]]]:
    """Give the cases that every method has scores for; and the others, each with who has none."""
    listed = {method: {c.pair.case for c in scores.cases} for method, scores in files.items()}
    expected = set[str]().union(*scored.values())
    absent = {method: sorted(expected - cases) for method, cases in listed.items()}
    if faults := [
        f"{method} lacks {', '.join(cases)}" for method, cases in absent.items() if cases
    ]:
        raise ConfigError(
            f"not scored over the same cases: {'; '.join(faults)}. Score each method against all "
            "references; what it has not predicted counts as empty then."
        )
    without = {
        case: tuple(method for method, cases in scored.items() if case not in cases)
        for case in sorted(set[str]().union(*listed.values()))
    }
    left_out = {case: methods for case, methods in without.items() if methods}
    if len(left_out) == len(without):
        raise ConfigError(
            f"none of {len(without)} cases has scores by every method; scores.json says why"
        )
    return tuple(case for case, methods in without.items() if not methods), left_out


def _require_one_reference(scored: Scored, cases: Sequence[str], regions: Iterable[str]) -> None:
    """Refuse references of other volumes."""
    for case, region in product(cases, regions):
        volumes = {m: scores[case].regions[region].reference_mm3 for m, scores in scored.items()}
        if not math.isclose(min(volumes.values()), max(volumes.values()), rel_tol=1e-6):
            told = ", ".join(f"{volume:.10g} mm³ for {m}" for m, volume in volumes.items())
            raise ConfigError(
                f"case '{case}' was scored against different references: {region} has {told}. "
                "Score every method against the same ones."
            )


def _rank(scored: Scored, cases: Sequence[str], numbers: Sequence[tuple[str, str]]) -> Ranking:
    values = [
        [[scores[case].regions[region].measures[m] for region, m in numbers] for case in cases]
        for scores in scored.values()
    ]
    return rank_methods(
        [*scored], cases, numbers=numbers, values=np.array(values, dtype=np.float64)
    )


def _method_ranks(ranking: Ranking, files: Mapping[str, Scores]) -> tuple[MethodRank, ...]:
    failed = {method: {c.pair.case for c in scores.failed} for method, scores in files.items()}
    rows = zip(ranking.methods, ranking.scores, ranking.undefined, ranking.cumulative, strict=True)
    return tuple(
        MethodRank(
            method=method,
            place=1 + int(np.count_nonzero(ranking.scores < score)),
            score=float(score),
            failed=tuple(case for case in ranking.cases if case in failed[method]),
            undefined=int(undefined),
            ranks=dict(zip(ranking.cases, cumulative.tolist(), strict=True)),
        )
        for method, score, undefined, cumulative in rows
    )


def _tests_table(tests: Iterable[PairTest], columns: Sequence[str]) -> str:
    """Lay tests out; small p-values keep two digits."""
    rows = [
        [f"{test[name]:.2g}" if name in ("p", "p_holm") else test[name] for name in columns]
        for test in map(asdict, tests)
    ]
    return align([columns, *rows])
