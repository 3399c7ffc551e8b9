"""The page: whole, self-contained, complete, and silent about patients."""

import json
import math
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from medseg3d.errors import ConfigError
from medseg3d.evaluate.folder import score_cases
from medseg3d.evaluate.results import Scores
from medseg3d.evaluate.tables import write_scores
from medseg3d.io.files import write_volume
from medseg3d.report.page import write_report
from medseg3d.volume import Volume

CASES = [f"BraTS-PHANTOM-0000{number}-000" for number in (1, 2, 3)]
VOID = {"br", "hr", "img", "input", "link", "meta"}


class Page(HTMLParser):
    """Text, elements and attributes of a page; refuses elements that are not closed in order."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self.open):
            self.text += " " + data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def changed(evaluation: Path, folder: Path, old: str, new: str) -> Path:
    """Copy the scores with something replaced."""
    text = (evaluation / "scores" / "scores.json").read_text()
    assert old in text
    path = folder / "scores.json"
    path.write_text(text.replace(old, new))
    return path


@pytest.fixture(scope="module")
def full(evaluation: Path) -> Path:
    return write_report(
        evaluation / "pages" / "full.html",
        scores=evaluation / "scores" / "scores.json",
        images=evaluation / "images.csv",
        run=evaluation / "run",
    )


@pytest.mark.slow
def test_every_case_and_region_is_on_the_page_with_its_numbers(
    full: Path, evaluation: Path
) -> None:
    page = Page(full)
    scores = json.loads((evaluation / "scores" / "scores.json").read_text())
    for case in scores["cases"]:
        assert page.text.count(case["case"]) >= 2
        for region, measures in case["regions"].items():
            assert region in page.text
            assert f"{measures['dice']:.3f}" in page.text
            assert f"{measures['hd95']:.2f}" in page.text
            assert f"{measures['lesion_dice']:.3f}" in page.text
    for summary in scores["summary"].values():
        for measure in ("dice", "sensitivity", "lesion_dice"):
            assert f"{summary[measure]['mean']:.3f} ± {summary[measure]['sd']:.3f}" in page.text
            assert f"{summary[measure]['low']:.3f} to {summary[measure]['high']:.3f}" in page.text
    assert "Not a medical device" in page.text


def test_the_page_says_by_which_rules(full: Path, evaluation: Path) -> None:
    text = Page(full).text
    scores = json.loads((evaluation / "scores" / "scores.json").read_text())
    assert "brats2023" in text
    assert "BraTS 2023" in text
    assert all(rule in text for rule in scores["policy"].split("; "))
    assert "374" in text


def test_the_page_needs_nothing_else(full: Path) -> None:
    page = Page(full)
    assert "http" not in full.read_text().lower()
    assert page.all("link") == []
    assert all("src" not in script for script in page.all("script"))
    pictures = page.all("img")
    assert len(pictures) == 2
    assert all((p["src"] or "").startswith("data:image/webp;base64,") for p in pictures)
    assert "url(" not in re.sub(r"url\(#", "", full.read_text())
    assert full.stat().st_size < 3 * 250_000


def test_every_figure_is_there_and_says_its_numbers(full: Path, evaluation: Path) -> None:
    page = Page(full)
    charts = [svg["aria-label"] or "" for svg in page.all("svg")]
    by_measure, by_region = 4, 3 * 3
    assert len(charts) == by_measure + by_region + len(("loss", "learning rate", "Dice"))
    assert [chart.split(".")[0] for chart in charts[:2]] == ["Dice", "HD95 (mm)"]
    assert sum("limits of agreement" in chart for chart in charts) == 3
    assert all(re.search(r"\d", chart) for chart in charts)
    scores = json.loads((evaluation / "scores" / "scores.json").read_text())
    dice = scores["cases"][0]["regions"]["WT"]["lesion_dice"]
    assert any(f"{dice:.3f}" in (picture["alt"] or "") for picture in page.all("img"))


def test_failed_cases_come_first(full: Path) -> None:
    text = Page(full).text
    assert "1 of 3 cases failed" in text
    assert text.index("no prediction: scored as an empty one") < text.index("Regions")
    assert re.search(rf"{CASES[2]}\s+failed", text)


def test_cases_are_listed_from_the_worst_to_the_best(full: Path) -> None:
    text = Page(full).text
    text = text[text.index("Cases, worst first") :]
    places = [text.index(case) for case in (CASES[2], CASES[1], CASES[0])]
    assert places == sorted(places)


def test_a_number_by_rule_is_marked_and_counted(full: Path) -> None:
    text = " ".join(Page(full).text.split())
    assert re.search(r"374\.00 \*", text)
    assert "with regions penalised 1 " in text
    assert "with lesions missed or made up 1 " in text
    assert "with regions empty on both sides 0 " in text


def test_cases_show_large_what_they_are_ordered_by(full: Path, evaluation: Path) -> None:
    text = " ".join(Page(full).text.split())
    text = text[text.index("Cases, worst first") :]
    scores = json.loads((evaluation / "scores" / "scores.json").read_text())
    wt = scores["cases"][0]["regions"]["WT"]
    assert "Ordered by Dice, lesion-wise, mean over the regions" in text
    large, small = f"{wt['lesion_dice']:.3f}", f"{wt['dice']:.3f}"
    assert f"{large} {small} {wt['lesion_hd95']:.2f}" in text
    assert f"{large}<small>{small}</small>" in full.read_text()
    assert f'data-value="{wt["lesion_dice"]:.6f}"' in full.read_text()


def test_the_curves_of_the_training_are_drawn(full: Path) -> None:
    text = Page(full).text
    assert all(title in text for title in ("Training loss", "Learning rate", "Validation Dice"))


@pytest.mark.slow
def test_a_lost_label_map_costs_one_picture_and_no_path_reaches_the_page(
    evaluation: Path, tmp_path: Path
) -> None:
    reason = f"[Errno 13] denied: '{evaluation}/scan 1.nii.gz', also {evaluation}/scan2.nii.gz"
    failed = changed(evaluation, tmp_path, "no prediction: scored as an empty one", reason)
    failed.write_text(failed.read_text().replace(f"{CASES[0]}.nii.gz", "gone.nii.gz"))
    page = write_report(tmp_path / "page.html", scores=failed)
    text = page.read_text()
    assert "JOHN" not in text
    assert str(tmp_path.parent.name) not in text
    assert "denied: &#39;scan 1.nii.gz&#39;, also scan2.nii.gz" in text
    assert "No picture: &#39;gone.nii.gz&#39;: no such file" in text
    assert len(Page(page).all("img")) == 1


@pytest.mark.slow
def test_scores_alone_are_drawn_on_grey_and_names_are_escaped(
    evaluation: Path, tmp_path: Path
) -> None:
    name = "<img src=x onerror=alert(1)>&"
    path = changed(evaluation, tmp_path, f'"case": "{CASES[0]}"', f'"case": "{name}"')
    page = Page(write_report(tmp_path / "page.html", scores=path))
    assert page.text.count("no image") == 2
    assert len(page.all("img")) == 2
    assert "Training" not in page.text
    assert name in page.text
    assert all("onerror" not in picture for picture in page.all("img"))


def test_a_run_alone_is_enough(evaluation: Path, tmp_path: Path) -> None:
    page = Page(write_report(tmp_path / "page.html", scores=None, run=evaluation / "run"))
    assert "Training loss" in page.text
    assert page.all("table") == []


@pytest.mark.slow
def test_a_run_brings_its_own_validation(evaluation: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "validation").mkdir(parents=True)
    for source, target in (
        (evaluation / "run" / "metrics.jsonl", run / "metrics.jsonl"),
        (evaluation / "scores" / "scores.json", run / "validation" / "scores.json"),
    ):
        target.write_bytes(source.read_bytes())
    table = (evaluation / "images.csv").read_text()
    (run / "validation.csv").write_text(table.replace("cases/", f"{evaluation}/cases/"))
    page = Page(write_report(tmp_path / "page.html", scores=None, run=run))
    assert page.text.count("t2f") == 2


@pytest.mark.slow
def test_the_same_inputs_give_the_same_page(full: Path, evaluation: Path, tmp_path: Path) -> None:
    again = write_report(
        tmp_path / "again.html",
        scores=evaluation / "scores" / "scores.json",
        images=evaluation / "images.csv",
        run=evaluation / "run",
    )
    assert again.read_bytes() == full.read_bytes()


def test_a_report_on_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing to report on; name the scores\.json"):
        write_report(tmp_path / "page.html", scores=None)


def test_scores_of_which_nothing_is_defined_make_a_page(
    tmp_path: Path, build_scores: Callable[..., Scores]
) -> None:
    undefined = {"dice": math.nan, "hd95": math.nan, "reference_mm3": 0.0, "predicted_mm3": 0.0}
    scores = build_scores({"WT": undefined, "core": undefined}, None, reasons={1: "not scored"})
    write_scores(scores, tmp_path)
    page = Page(write_report(tmp_path / "page.html", scores=tmp_path / "scores.json"))
    assert "nan" not in page.text
    assert "– ± –" not in page.text
    assert page.all("svg") == []


def test_where_all_have_failed_the_page_says_so_and_no_more(
    tmp_path: Path, build_scores: Callable[..., Scores]
) -> None:
    write_scores(build_scores(None, reasons={0: "not scored"}), tmp_path)
    page = Page(write_report(tmp_path / "page.html", scores=tmp_path / "scores.json"))
    assert "1 of 1 case failed" in page.text
    assert ": two, 1 case" in page.text
    assert "–" not in page.text
    assert page.all("table") == page.all("svg") == page.all("img") == []


def test_a_flat_image_makes_a_page(tmp_path: Path) -> None:
    array = np.zeros((1, 40, 30, 1), np.uint8)
    array[:, 5:25, 5:20] = 1
    for folder, shift in (("reference", 0), ("predicted", 3)):
        (tmp_path / folder).mkdir()
        moved = Volume(np.roll(array, shift, axis=1), np.eye(4))
        write_volume(moved, tmp_path / folder / "a.nii.gz")
    write_scores(score_cases(tmp_path / "predicted", tmp_path / "reference"), tmp_path)
    page = Page(write_report(tmp_path / "page.html", scores=tmp_path / "scores.json"))
    assert len(page.all("img")) == 1
    assert "label_1" in page.text
    assert "mean bias +0 ml, n = 1" in page.text


def test_a_page_that_cannot_be_written_is_an_error(evaluation: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"output folder '.*file' cannot be written to.*Choose"):
        write_report(tmp_path / "file" / "page.html", scores=None, run=evaluation / "run")


def test_a_page_is_an_html_file_and_nothing_else(evaluation: Path) -> None:
    scores = evaluation / "scores" / "scores.json"
    before = scores.read_bytes()
    with pytest.raises(ConfigError, match=r"would not be an HTML file"):
        write_report(scores, scores=None, run=evaluation / "run")
    assert scores.read_bytes() == before
