"""The worst cases: which they are, and what is said where one cannot be drawn."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medseg3d.data.cases import Case, read_cases
from medseg3d.evaluate.protocols import DilatedLesions, Protocol
from medseg3d.evaluate.results import CaseResult, Scores, read_scores
from medseg3d.io.files import read_volume, write_volume
from medseg3d.report.worst import NUM_WORST, draw_worst, order_cases
from medseg3d.volume import Volume


def names(scores: Scores) -> str:
    return "".join(case.pair.case for case in order_cases(scores))


def scored(scores: Scores) -> list[CaseResult]:
    return [case for case in order_cases(scores) if case.status == "scored"]


def on_disk(evaluation: Path) -> tuple[Scores, Mapping[str, Case]]:
    cases = read_cases(evaluation / "images.csv")
    return read_scores(evaluation / "scores"), {case.id: case for case in cases}


def test_cases_go_from_the_worst_to_the_best_and_by_name_where_equal(
    build_scores: Callable[..., Scores],
) -> None:
    scores = build_scores(
        {"WT": {"dice": 0.9}},
        {"WT": {"dice": 0.1}},
        {"WT": {"dice": 0.9}},
        {"WT": {"dice": math.nan}, "core": {"dice": math.nan}},
        None,
        names="dabce",
    )
    assert names(scores) == "eabdc"


def test_lesions_decide_where_there_are_any(build_scores: Callable[..., Scores]) -> None:
    cases = (
        {"WT": {"dice": 0.1, "lesion_dice": 0.9}},
        {"WT": {"dice": 0.9, "lesion_dice": 0.1}},
    )
    assert names(build_scores(*cases)) == "01"
    assert names(build_scores(*cases, protocol=Protocol(lesions=DilatedLesions()))) == "10"


def test_no_more_than_the_worst_are_drawn(build_scores: Callable[..., Scores]) -> None:
    scores = build_scores(*[{"WT": {"dice": n / 10}} for n in range(9)], None)
    pictures = [*draw_worst(scores, {})]
    assert [picture.case.pair.case for picture in pictures] == [*"01234"]
    assert len(pictures) == NUM_WORST


def test_failed_cases_do_not_swamp_the_worst(build_scores: Callable[..., Scores]) -> None:
    cases = [{"WT": {"dice": n / 10}} for n in range(9)]
    scores = build_scores(*cases, reasons=dict.fromkeys(range(5), "scored as an empty one"))
    assert [picture.case.pair.case for picture in draw_worst(scores, {})] == [*"5678"]


def test_a_case_without_files_says_so(build_scores: Callable[..., Scores]) -> None:
    (picture,) = draw_worst(build_scores({}), {})
    assert picture.webp is None
    assert picture.reason == "the scores name no label maps of this case; evaluate files to see it"


def test_pictures_are_drawn_over_one_channel(evaluation: Path) -> None:
    pictures = [*draw_worst(*on_disk(evaluation))]
    assert {picture.channel for picture in pictures} == {"t2f"}
    assert all(picture.webp and picture.reason is None for picture in pictures)


def test_a_channel_of_a_file_with_several_is_drawn_as_one_of_its_own(
    evaluation: Path, tmp_path: Path
) -> None:
    scores, images = on_disk(evaluation)
    joined = {}
    for name, case in images.items():
        volumes = [read_volume(path) for path in case.images.values()]
        array = np.concatenate([volume.array_CIJK for volume in volumes])
        path = tmp_path / f"{name}.nii.gz"
        write_volume(Volume(array, volumes[0].affine), path)
        joined[name] = replace(case, images=dict.fromkeys(case.images, path))
    apart, together = ([p.webp for p in draw_worst(scores, each)] for each in (images, joined))
    assert together == apart
    assert all(apart)


@pytest.mark.parametrize("broken", [0, 1])
def test_a_lost_image_costs_one_picture(evaluation: Path, broken: int) -> None:
    scores, images = on_disk(evaluation)
    worst = scored(scores)[broken].pair.case
    lost = {channel: Path("gone.nii.gz") for channel in images[worst].images}
    pictures = [*draw_worst(scores, {**images, worst: replace(images[worst], images=lost)})]
    assert [picture.webp is None for picture in pictures] == [n == broken for n in range(2)]
    assert "'gone.nii.gz': no such file" in str(pictures[broken].reason)


def test_an_image_on_another_grid_costs_one_picture(evaluation: Path, tmp_path: Path) -> None:
    scores, images = on_disk(evaluation)
    worst = scored(scores)[0].pair.case
    image = read_volume(images[worst].images["t2f"])
    write_volume(Volume(image.array_CIJK[:, 1:], image.affine), tmp_path / "cut.nii.gz")
    cut = {"t2f": tmp_path / "cut.nii.gz"}
    first, *others = draw_worst(scores, {**images, worst: replace(images[worst], images=cut)})
    assert "'label map' and 't2f' do not lie on one grid" in str(first.reason)
    assert all(picture.webp for picture in others)


def test_damaged_bytes_cost_one_picture(evaluation: Path, tmp_path: Path) -> None:
    scores, images = on_disk(evaluation)
    worst = scored(scores)[0].pair.case
    whole = images[worst].images["t2f"].read_bytes()
    (tmp_path / "half.nii.gz").write_bytes(whole[: len(whole) // 2])
    half = {"t2f": tmp_path / "half.nii.gz"}
    first, *others = draw_worst(scores, {**images, worst: replace(images[worst], images=half)})
    assert first.webp is None
    assert "half.nii.gz" in str(first.reason)
    assert all(picture.webp for picture in others)
