"""From the scores of several methods to a ranking in files."""

import csv
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from medseg3d.errors import ConfigError, FormatError
from medseg3d.evaluate.comparison import (
    Comparison,
    compare_methods,
    name_methods,
    write_comparison,
)
from medseg3d.evaluate.folder import score_cases
from medseg3d.evaluate.pairs import Pair
from medseg3d.evaluate.results import CaseResult, CaseScore, RegionScore, Scores
from medseg3d.evaluate.schemes import Scheme, find_scheme
from medseg3d.evaluate.tables import write_scores
from medseg3d.io.files import write_volume
from medseg3d.volume import Volume

TUMOUR = Scheme(name="tumour", values={1: "WT"}, protocol="brats2021")

Cases = Mapping[str, tuple[float, float] | None]
"""Case -> its Dice and HD95, None for no score."""

# three teams of which tests/evaluate/test_ranking.py works out the ranks by hand
TEAMS: dict[str, Cases] = {
    "A": {"c1": (0.9, 2.0), "c2": (0.6, 4.0), "c3": (0.9, 1.0)},
    "B": {"c1": (0.8, 2.0), "c2": (0.8, 3.0), "c3": (0.5, math.nan)},
    "C": {"c1": (0.7, 5.0), "c2": (0.8, 1.0), "c3": (0.4, math.nan)},
}

Write = Callable[..., Path]


def region(dice: float, hd95: float, *, scheme: Scheme, mm3: float) -> RegionScore:
    """Give the other measures of the scheme a number that says nothing."""
    measures = dict.fromkeys(scheme.protocol.measures, 1.0) | {"dice": dice, "hd95": hd95}
    return RegionScore(measures, mm3, mm3, 1, 0, 0, () if scheme.protocol.lesions else None)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Give a function that writes a method's scores and returns their folder."""

    def write(
        method: str, cases: Cases, *, scheme: Scheme = TUMOUR, failed: str = "", mm3: float = 5.0
    ) -> Path:
        results = []
        for case, numbers in cases.items():
            reason = "no prediction" if case in failed.split() else None
            score = None
            if numbers:
                regions = {r: region(*numbers, scheme=scheme, mm3=mm3) for r in scheme.regions}
                score = CaseScore(scheme.name, regions)
            results.append(CaseResult(Pair(case, None, None), score, reason if score else "lost"))
        write_scores(Scores(scheme, tuple(results)), tmp_path / method)
        return tmp_path / method

    return write


@pytest.fixture
def teams(write: Write) -> dict[str, Path]:
    return {method: write(method, cases, failed="c3") for method, cases in TEAMS.items()}


@pytest.fixture
def comparison(teams: dict[str, Path]) -> Comparison:
    return compare_methods(teams)


class TestComparison:
    """`compare_methods` over files."""

    def test_three_teams_by_hand(self, comparison: Comparison):
        assert comparison.measures == ("dice", "hd95")
        assert comparison.cases == ("c1", "c2", "c3")
        assert comparison.methods[1].ranks == {"c1": 1.75, "c2": 1.75, "c3": 2.25}
        assert [(m.method, m.place) for m in comparison.methods] == [("A", 1), ("B", 2), ("C", 3)]
        scores = [m.score for m in comparison.methods]
        assert scores == pytest.approx([5.25 / 3, 5.75 / 3, 7 / 3])
        assert [test.p for test in comparison.rank_tests] == [4 / 8, 4 / 8, 3 / 8]

    def test_failed_and_undefined_numbers_count_and_are_told(self, comparison: Comparison):
        assert [m.failed for m in comparison.methods] == [("c3",)] * 3
        assert [m.undefined for m in comparison.methods] == [0, 1, 1]

    def test_every_region_counts(self, write: Write):
        scheme = find_scheme("brats2021")
        files = {m: write(m, cases, scheme=scheme) for m, cases in TEAMS.items()}
        comparison = compare_methods(files)
        assert comparison.regions == ("WT", "TC", "ET")
        assert len(comparison.measure_tests) == 3 * 3 * 2
        assert comparison.methods[0].score == pytest.approx(5.25 / 3)

    def test_lesion_wise_measures_rank_by_default_and_others_on_demand(self, write: Write):
        scheme = find_scheme("brats2023")
        files = {m: write(m, cases, scheme=scheme) for m, cases in TEAMS.items()}
        assert compare_methods(files).measures == ("lesion_dice", "lesion_hd95")
        chosen = compare_methods(files, measures=["hd95", "hd95"])
        assert chosen.measures == ("hd95",)
        assert chosen.methods[0].ranks["c1"] == 1.5

    def test_equals_share_a_place(self, write: Write):
        files = {m: write(m, TEAMS["B" if m == "X" else m]) for m in ("B", "X", "C")}
        places = {m.method: m.place for m in compare_methods(files).methods}
        assert places == {"B": 1, "X": 1, "C": 3}

    def test_cases_without_scores_are_left_out_and_listed(self, write: Write):
        cases = {m: {**TEAMS[m], "c0": None} for m in ("A", "B")}
        cases["A"]["c4"] = (1.0, 1.0)
        cases["B"]["c4"] = None
        cases["B"]["stray"] = None
        comparison = compare_methods({m: write(m, c) for m, c in cases.items()})
        assert comparison.cases == ("c1", "c2", "c3")
        assert comparison.left_out == {"c0": ("A", "B"), "c4": ("B",), "stray": ("A", "B")}
        told = "Left out, as not scored: c0 (by A, B); c4 (by B); stray (by A, B)"
        assert told in str(comparison).splitlines()

    def test_what_decides_is_the_rules_not_their_name(self, write: Write):
        renamed = TUMOUR.model_copy(update={"name": "mine"})
        files = {"A": write("A", TEAMS["A"]), "B": write("B", TEAMS["B"], scheme=renamed)}
        assert compare_methods(files).scheme == "tumour"

    def test_real_evaluations_compare(self, tmp_path: Path):
        rng = np.random.default_rng(0)
        reference = np.zeros((1, 12, 12, 6), dtype=np.uint8)
        reference[0, 3:9, 3:9, 2:5] = 1
        files = {}
        (tmp_path / "truth").mkdir()
        for method, faults in {"good": 10, "bad": 60}.items():
            (tmp_path / method).mkdir()
            for case in "abcdef":
                noise = np.zeros(reference.size, dtype=bool)
                noise[rng.permutation(noise.size)[:faults]] = True
                predicted = reference ^ noise.reshape(reference.shape)
                write_volume(Volume(predicted, np.eye(4)), tmp_path / f"{method}/{case}.nii.gz")
                write_volume(Volume(reference, np.eye(4)), tmp_path / f"truth/{case}.nii.gz")
            files[method] = tmp_path / "scores" / method
            scores = score_cases(tmp_path / method, tmp_path / "truth", scheme=TUMOUR)
            write_scores(scores, files[method])
        comparison = compare_methods(files, measures=["dice"])
        assert [m.method for m in comparison.methods] == ["good", "bad"]
        assert comparison.rank_tests[0].p == 1 / 64
        assert comparison.measure_tests[0].p_holm == 2 / 64

    def test_many_methods_and_cases_stay_aligned_and_reproducible(self, write: Write):
        rng = np.random.default_rng(1)
        files = {
            f"m{m}": write(f"m{m}", {f"c{c}": tuple(rng.random(2)) for c in range(40)})
            for m in range(4)
        }
        comparison = compare_methods(files, permutations=2000)
        assert comparison == compare_methods(dict(reversed(files.items())), permutations=2000)
        assert sum(m.score for m in comparison.methods) == pytest.approx(4 * 5 / 2)
        counts = np.array([test.p for test in comparison.rank_tests]) * 2001
        assert counts == pytest.approx(counts.round())
        other = compare_methods(files, permutations=2000, seed=1).rank_tests
        assert [test.p for test in other] != [test.p for test in comparison.rank_tests]
        assert "from 2000 random exchanges" in str(comparison)


class TestTold:
    """Text and files."""

    def test_it_prints_as_aligned_tables(self, comparison: Comparison):
        _, ranking, ranks, measures = (part.splitlines() for part in parts(comparison))
        assert ranking[1].split() == ["A", "1", "1.7500", "1", "0"]
        assert ranks[1].split()[:2] == ["first", "second"]
        assert " ".join(ranks[2].split()) == "A B all cumulative_rank 3 -0.1667 A 2 0 1 0.5"
        assert measures[3].split()[2:7] == ["WT", "hd95", "2", "0.5000", "B"]
        for table in (ranking, ranks[1:], measures[1:]):
            assert len({len(line) for line in table}) == 1

    def test_it_says_by_which_rules(self, comparison: Comparison):
        told = " ".join(parts(comparison)[0].split())
        assert TUMOUR.policy in told
        assert "3 cases ranked by dice, hd95 in WT; 1 is best" in told
        assert "from all 8 exchanges" in str(comparison)
        assert "p_holm corrected for 6 tests" in str(comparison)
        assert "Left out" not in told

    def test_files_hold_the_same(self, comparison: Comparison, tmp_path: Path):
        write_comparison(comparison, tmp_path / "new" / "out")
        folder = tmp_path / "new" / "out"
        content = json.loads((folder / "compare.json").read_bytes())
        assert content == json.loads(json.dumps(comparison.to_dict()))
        assert content["methods"][0]["ranks"] == {"c1": 1.25, "c2": 3.0, "c3": 1.0}
        rows = [*csv.reader((folder / "ranks.csv").read_text().splitlines())]
        assert rows[:2] == [["case", "A", "B", "C"], ["c1", "1.25", "1.75", "3.0"]]
        assert [row[0] for row in rows] == ["case", "c1", "c2", "c3"]
        tests = [*csv.DictReader((folder / "pairs.csv").read_text().splitlines())]
        assert len(tests) == 3 + 3 * 2
        assert (tests[2]["first"], tests[2]["p"], tests[2]["p_holm"]) == ("B", "0.375", "")
        assert tests[3]["measure"] == "dice"

    def test_an_undefined_difference_is_null_in_json(self, write: Write, tmp_path: Path):
        nobody = {"c1": (0.5, math.nan)}
        comparison = compare_methods({m: write(m, nobody) for m in "AB"})
        write_comparison(comparison, tmp_path / "out")
        content = json.loads((tmp_path / "out" / "compare.json").read_bytes())
        assert [test["difference"] for test in content["measure_tests"]] == [0.0, None]
        assert ",nan," in (tmp_path / "out" / "pairs.csv").read_text()

    def test_an_unwritable_folder_is_refused(self, comparison: Comparison, tmp_path: Path):
        (tmp_path / "file").touch()
        with pytest.raises(ConfigError, match="cannot be written to"):
            write_comparison(comparison, tmp_path / "file" / "out")


def parts(comparison: Comparison) -> list[str]:
    return str(comparison).split("\n\n")


class TestRefused:
    """What cannot be compared, and how it is said."""

    @pytest.mark.parametrize(("methods", "permutations"), [("", 1), ("A", 1), ("AB", 0)])
    def test_too_few(self, teams, methods, permutations):
        files = {method: teams[method] for method in methods}
        told = rf"{len(methods)} method\(s\) and {permutations} permutation\(s\); .* takes two"
        with pytest.raises(ConfigError, match=told):
            compare_methods(files, permutations=permutations)

    def test_other_regions(self, teams, write: Write):
        teams["D"] = write("D", TEAMS["A"], scheme=find_scheme("brats2021"))
        told = r"'A' and 'D' were scored by different .*: tumour \(WT; .*\) and brats2021 \(WT, TC"
        with pytest.raises(ConfigError, match=told):
            compare_methods(teams)

    def test_other_rules(self, teams, write: Write):
        scheme = Scheme(name="whole", values={1: "WT"})
        teams["D"] = write("D", TEAMS["A"], scheme=scheme)
        with pytest.raises(ConfigError, match=r"different schemes: .*Score both by one --scheme"):
            compare_methods(teams)

    def test_other_cases_all_named(self, write: Write):
        more = dict.fromkeys(("x1", "x2"), (0.5, 1.0))
        files = {"A": write("A", {**TEAMS["A"], **more}), "B": write("B", TEAMS["B"])}
        files["C"] = write("C", {**more, "c1": (0.5, 1.0)})
        with pytest.raises(ConfigError, match=r": B lacks x1, x2; C lacks c2, c3\. Score each"):
            compare_methods(files)

    def test_no_case_at_all(self, write: Write):
        files = {"A": write("A", {"c1": None}), "B": write("B", {"c2": None})}
        with pytest.raises(ConfigError, match="none of 2 cases has scores by every method; scores"):
            compare_methods(files)

    def test_other_references(self, teams, write: Write):
        teams["D"] = write("D", TEAMS["A"], mm3=5.5)
        told = r"case 'c1' was scored against different references: WT has .*5\.5 mm³ for D\. Score"
        with pytest.raises(ConfigError, match=told):
            compare_methods(teams)

    @pytest.mark.parametrize(
        ("measures", "told"),
        [
            (["dice", "hd59", "tp_voxels"], "cannot rank by hd59, tp_voxels; what is scored and"),
            ([], "cannot rank by no measure; .* is dice, hd95, sensitivity, specificity"),
        ],
    )
    def test_measures_that_are_not_there_or_have_no_better_end(self, teams, measures, told):
        with pytest.raises(ConfigError, match=told):
            compare_methods(teams, measures=measures)

    def test_files_that_are_no_scores(self, teams, tmp_path: Path):
        (tmp_path / "empty").mkdir()
        (tmp_path / "foreign.json").write_text('{"cases": []}')
        for path in (tmp_path / "empty", tmp_path / "foreign.json"):
            with pytest.raises(FormatError, match=path.name):
                compare_methods({"A": teams["A"], "B": path})


class TestNames:
    """`name_methods`: from arguments of the command line."""

    def test_folders_name_methods_unless_a_name_is_given(self, teams, tmp_path: Path):
        a, b, c = (str(path) for path in teams.values())
        named = name_methods([Path(a), f"{b}/scores.json", f"best={c}"])
        assert named == {"A": teams["A"], "B": teams["B"] / "scores.json", "best": teams["C"]}

    def test_the_current_folder_has_a_name(self, teams, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.chdir(teams["B"])
        assert [*name_methods([".", "../A"])] == ["B", "A"]
        assert [*name_methods(["scores.json"])] == ["B"]

    def test_an_equals_sign_may_belong_to_the_folder(self, tmp_path: Path):
        (tmp_path / "lr=3").mkdir()
        assert name_methods([f"{tmp_path}/lr=3"]) == {"lr=3": tmp_path / "lr=3"}

    def test_one_name_twice_is_refused(self):
        with pytest.raises(ConfigError, match=r"'a/run' and 'b/run' are both .*NAME=b/run"):
            name_methods(["a/run", "b/run"])
