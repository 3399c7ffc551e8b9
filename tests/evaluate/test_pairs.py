"""Which files are scored together, in every layout."""

from pathlib import Path

import pytest

from medseg3d.errors import ConfigError, FormatError
from medseg3d.evaluate.pairs import Pair, find_pairs


@pytest.fixture
def predicted(tmp_path: Path) -> Path:
    return touch(tmp_path / "predicted", "a.nii.gz", "b.nii", "scores.json", "._a.nii.gz")


@pytest.fixture
def reference(tmp_path: Path) -> Path:
    return touch(tmp_path / "reference")


def touch(folder: Path, *names: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


@pytest.mark.parametrize(
    "layout",
    [
        "{case}.nii.gz",
        "{case}.nii",
        "{case}/{case}-seg.nii.gz",
        "{case}/{case}_seg.nii.gz",
        "{case}-seg.nii.gz",
        "{case}_seg.nii.gz",
        "labelsTr/{case}.nii.gz",
        "labelsTs/{case}.nii.gz",
    ],
)
def test_known_layouts_are_found_without_a_pattern(predicted: Path, reference: Path, layout):
    touch(reference, *(layout.replace("{case}", case) for case in "ab"))
    assert find_pairs(predicted, reference) == [
        Pair("a", predicted / "a.nii.gz", reference / layout.replace("{case}", "a")),
        Pair("b", predicted / "b.nii", reference / layout.replace("{case}", "b")),
    ]


def test_a_stray_file_does_not_hide_the_layout_that_fits(predicted: Path, reference: Path):
    touch(reference, "template.nii.gz", "a/a-seg.nii.gz")
    assert find_pairs(predicted, reference)[0].reference == reference / "a/a-seg.nii.gz"


def test_a_pattern_says_where_references_are(predicted: Path, reference: Path):
    touch(reference, "a/OTMultiClass.nii.gz", "a.nii.gz")
    pairs = find_pairs(predicted, reference, reference_pattern="{case}/OT*.nii.gz")
    assert pairs[0].reference == reference / "a/OTMultiClass.nii.gz"


def test_what_lacks_its_partner_stays_in_the_list(predicted: Path, reference: Path):
    touch(reference, "b.nii.gz", "c.nii.gz")
    assert find_pairs(predicted, reference) == [
        Pair("a", predicted / "a.nii.gz", None),
        Pair("b", predicted / "b.nii", reference / "b.nii.gz"),
        Pair("c", None, reference / "c.nii.gz"),
    ]


def test_two_files_are_a_pair_whatever_their_names(predicted: Path, reference: Path):
    touch(reference, "truth.nii")
    pairs = find_pairs(predicted / "a.nii.gz", reference / "truth.nii")
    assert pairs == [Pair("a", predicted / "a.nii.gz", reference / "truth.nii")]


def test_a_table_names_references_from_its_own_folder(predicted: Path, reference: Path):
    table = reference / "cases.csv"
    table.write_text("case,flair,reference\na,x.nii.gz,deep/a.nii.gz\nc,,c.nii.gz\nb,,\n")
    assert find_pairs(predicted, table) == [
        Pair("a", predicted / "a.nii.gz", reference / "deep/a.nii.gz"),
        Pair("b", predicted / "b.nii", None),
        Pair("c", None, reference / "c.nii.gz"),
    ]


def test_no_case_is_lost_in_a_folder_of_two_layouts(predicted: Path, reference: Path):
    touch(reference, "a/a-seg.nii.gz", "b/b-seg.nii.gz", "c/c_seg.nii.gz")
    pairs = find_pairs(predicted, reference)
    assert [pair.case for pair in pairs] == ["a", "b", "c"]
    assert pairs[2] == Pair("c", None, reference / "c/c_seg.nii.gz")


def test_a_case_with_files_in_two_layouts_is_refused(predicted: Path, reference: Path):
    touch(reference, "a/a-seg.nii.gz", "b/b-seg.nii.gz", "b/b_seg.nii.gz")
    with pytest.raises(ConfigError, match=r"two files are case 'b': .*b-seg.*b_seg.* by a pattern"):
        find_pairs(predicted, reference)
    chosen = find_pairs(predicted, reference, reference_pattern="{case}/{case}-seg.nii.gz")
    assert chosen[1].reference == reference / "b/b-seg.nii.gz"


def test_a_pattern_says_where_predictions_are(predicted: Path, reference: Path):
    touch(predicted, "x_pred.nii.gz")
    touch(reference, "x.nii.gz")
    (pair,) = find_pairs(predicted, reference, predicted_pattern="{case}_pred.nii.gz")
    assert pair == Pair("x", predicted / "x_pred.nii.gz", reference / "x.nii.gz")


def test_predictions_may_lie_in_another_layout(predicted: Path, reference: Path):
    touch(reference, "c.nii.gz", "d.nii.gz")
    (predicted / "deep").mkdir()
    folder = touch(predicted / "deep", "c/c-seg.nii.gz", "d/d-seg.nii.gz")
    assert find_pairs(folder, reference) == [
        Pair(case, folder / f"{case}/{case}-seg.nii.gz", reference / f"{case}.nii.gz")
        for case in "cd"
    ]


def test_names_that_agree_need_no_layout(tmp_path: Path):
    names = ["one-seg.nii.gz", "two-seg.nii.gz"]
    mine, theirs = touch(tmp_path / "mine", *names), touch(tmp_path / "theirs", *names)
    assert [(p.predicted, p.reference) for p in find_pairs(mine, theirs)] == [
        (mine / name, theirs / name) for name in names
    ]


def test_one_table_may_name_both_sides(predicted: Path, reference: Path):
    table = reference / "pairs.csv"
    table.write_text(f"case,predicted,reference\na,{predicted}/a.nii.gz,a.nii.gz\nb,,b.nii.gz\n")
    assert find_pairs(table) == [
        Pair("a", predicted / "a.nii.gz", reference / "a.nii.gz"),
        Pair("b", None, reference / "b.nii.gz"),
    ]
    touch(reference, "c.nii.gz")
    with pytest.raises(ConfigError, match="alone is nothing to score; name the references too"):
        find_pairs(predicted)


def test_a_table_without_cases_is_refused(predicted: Path, reference: Path):
    (reference / "cases.csv").write_text("name,reference\n")
    with pytest.raises(FormatError, match="needs a column 'case'"):
        find_pairs(predicted, reference / "cases.csv")


def test_no_common_case_is_refused_with_examples_of_both_sides(predicted: Path, reference: Path):
    touch(reference, *(f"case{n}.nii.gz" for n in range(5)))
    said = r"'a', 'b', '.*reference' holds 'case0', 'case1', 'case2' and 2 more"
    with pytest.raises(ConfigError, match=said):
        find_pairs(predicted, reference)
    with pytest.raises(ConfigError, match="holds none that fits"):
        find_pairs(touch(reference / "empty"), reference)
    with pytest.raises(ConfigError, match=r"reference' holds none that fits.*says where"):
        find_pairs(predicted, reference, reference_pattern="{case}/truth.nii.gz")


def test_two_files_of_one_case_are_refused(predicted: Path, reference: Path):
    touch(reference, "a.nii.gz")
    touch(predicted, "a.nii")
    with pytest.raises(ConfigError, match=r"two files are case 'a': .*a\.nii.* Remove one"):
        find_pairs(predicted, reference)
    with pytest.raises(ConfigError, match="fits two files of case 'a'"):
        find_pairs(
            reference, touch(reference, "a-1.nii", "a-2.nii"), reference_pattern="{case}-*.nii"
        )


def test_a_pattern_without_the_case_is_refused(predicted: Path, reference: Path):
    with pytest.raises(ConfigError, match=r"reference pattern 'seg\.nii' has no '{case}' in it"):
        find_pairs(predicted, reference, reference_pattern="seg.nii")


def test_inputs_that_are_missing_or_do_not_go_together_are_refused(predicted: Path, tmp_path: Path):
    with pytest.raises(ConfigError, match="nowhere' does not exist"):
        find_pairs(predicted, tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"expected two files, or a folder or \.csv of pred"):
        find_pairs(predicted, predicted / "a.nii.gz")
    with pytest.raises(ConfigError, match=r"expected two files, or a folder or \.csv of pred"):
        find_pairs(predicted / "a.nii.gz", predicted)


def test_a_table_without_references_is_refused(predicted: Path, tmp_path: Path):
    (tmp_path / "table.csv").write_text("case,t1\na,a.nii.gz\n")
    with pytest.raises(ConfigError, match="names no reference; it needs the columns 'case' and"):
        find_pairs(predicted, tmp_path / "table.csv")
