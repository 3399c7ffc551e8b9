"""What is read back for a page: scores, or a plain word about what is wrong."""

import json
from pathlib import Path

import pytest

from medseg3d.errors import FormatError
from medseg3d.report.sources import Measures, read_scores


def damaged(evaluation: Path, folder: Path, **changes: object) -> Path:
    content = json.loads((evaluation / "scores" / "scores.json").read_text())
    path = folder / "scores.json"
    path.write_text(json.dumps(content | changes))
    return path


def test_scores_are_read_as_they_were_written(evaluation: Path) -> None:
    path = evaluation / "scores" / "scores.json"
    scores, plain = read_scores(path), json.loads(path.read_text())
    assert [case.case for case in scores.cases] == [case["case"] for case in plain["cases"]]
    assert [*scores.labels.regions] == plain["regions"]
    assert scores.summary["WT"].dice.mean == plain["summary"]["WT"]["dice"]["mean"]
    first = plain["cases"][0]["regions"]
    assert scores.cases[0].mean_dice == pytest.approx(sum(r["dice"] for r in first.values()) / 3)


def test_a_score_is_penalised_where_one_side_is_empty() -> None:
    def measured(reference_mm3: float, predicted_mm3: float) -> Measures:
        return Measures(
            dice=0.0, hd95=9.0, reference_mm3=reference_mm3, predicted_mm3=predicted_mm3
        )

    assert measured(5, 0).penalised
    assert measured(0, 5).penalised
    assert not measured(5, 5).penalised
    assert not measured(0, 0).penalised


def test_missing_scores_are_named(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"scores.json' cannot be read: No such file.*evaluation"):
        read_scores(tmp_path / "scores.json")


def test_text_that_is_no_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "scores.json").write_text("case,dice\n")
    with pytest.raises(FormatError, match=r"not as medseg3d writes it: \(top\): Invalid JSON"):
        read_scores(tmp_path / "scores.json")


def test_a_lost_key_is_named_with_its_path(evaluation: Path, tmp_path: Path) -> None:
    cases = [{"case": "a", "status": "lost", "reason": None, "predicted": None, "regions": {}}]
    with pytest.raises(FormatError, match=r"cases\.0\.status: .*\(2 fault\(s\) in all\)"):
        read_scores(damaged(evaluation, tmp_path, cases=cases))


def test_a_region_without_summary_is_refused(evaluation: Path, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"no summary of \['ET', 'TC', 'WT'\]"):
        read_scores(damaged(evaluation, tmp_path, summary={}))
