"""Which files belong to which case: patterns, folders, tables, and what users name."""

from pathlib import Path

import pytest

from medseg3d.config.data import DataConfig
from medseg3d.data.cases import (
    Case,
    find_cases,
    read_cases,
    write_cases,
)
from medseg3d.data.inputs import find_inputs
from medseg3d.data.patterns import match_pattern, volume_stem
from medseg3d.errors import ConfigError, FormatError
from medseg3d.labels import LabelScheme

from .conftest import BRATS, touch

ONE = LabelScheme(values={1: "lesion"})
SEG = "{case}/{case}-seg.nii.gz"


class TestPatterns:
    def test_the_case_is_what_stands_in_its_place_in_alphabetical_order(self, tmp_path: Path):
        touch(tmp_path, "i/b_0000.nii.gz", "i/a_0000.nii.gz", "i/a_0001.nii.gz", "b_0000.nii.gz")
        found = match_pattern(tmp_path, "i/{case}_0000.nii.gz")
        assert [*found.items()] == [
            ("a", tmp_path / "i/a_0000.nii.gz"),
            ("b", tmp_path / "i/b_0000.nii.gz"),
        ]

    def test_a_case_named_twice_is_the_same_both_times(self, tmp_path: Path):
        touch(tmp_path, "p1/p1-t1.nii.gz", "p2/p1-t1.nii.gz")
        assert [*match_pattern(tmp_path, BRATS["t1"])] == ["p1"]

    def test_a_star_stays_within_one_part_of_the_path(self, tmp_path: Path):
        touch(tmp_path, "p1/Flair_x.nii.gz", "p2/Flair_/y.nii.gz", "p3/Flair_.nii.gz")
        assert [*match_pattern(tmp_path, "{case}/Flair_*.nii.gz")] == ["p1", "p3"]
        assert [*match_pattern(tmp_path, "*/Flair_{case}.nii.gz")] == ["x"]

    def test_hidden_files_are_passed_over(self, tmp_path: Path):
        touch(tmp_path, "._a.nii.gz", ".b.nii.gz", "c.nii.gz", ".d/d.nii.gz")
        assert [*match_pattern(tmp_path, "{case}.nii.gz")] == ["c"]
        assert [*match_pattern(tmp_path, "{case}/{case}.nii.gz")] == []

    @pytest.mark.parametrize("name", ["a+b", "[x]", "a(1)", "a b", "ä", "$x^", "a.b", "{x}", "a*"])
    def test_names_may_hold_what_means_something_to_regular_expressions(
        self, tmp_path: Path, name: str
    ):
        touch(tmp_path, f"{name}/{name}-t1.nii.gz")
        assert [*match_pattern(tmp_path, BRATS["t1"])] == [name]

    @pytest.mark.parametrize("part", ["[T1]", "a?", "(x)", "a.b", "+"])
    def test_in_a_pattern_nothing_but_case_and_star_is_special(self, tmp_path: Path, part: str):
        touch(tmp_path, f"{part}/p.nii.gz", "T/p.nii.gz", "ab/p.nii.gz", "axb/p.nii.gz")
        found = match_pattern(tmp_path, part + "/{case}.nii.gz")
        assert found == {"p": tmp_path / part / "p.nii.gz"}

    def test_one_case_can_be_asked_for(self, tmp_path: Path):
        touch(tmp_path, "p*/p*-t1.nii.gz", "p1/p1-t1.nii.gz")
        assert [*match_pattern(tmp_path, BRATS["t1"], case="p*")] == ["p*"]

    def test_two_files_of_one_case_are_refused(self, tmp_path: Path):
        touch(tmp_path, "p1/Flair_a.nii.gz", "p1/Flair_b.nii.gz")
        with pytest.raises(ConfigError) as refused:
            match_pattern(tmp_path, "{case}/Flair_*.nii.gz")
        for said in ("two files of case 'p1'", "'Flair_a.nii.gz' and 'Flair_b.nii.gz'", "fits one"):
            assert said in str(refused.value)

    @pytest.mark.parametrize(
        ("name", "stem"),
        [("a.nii.gz", "a"), ("a.b.nii", "a.b"), ("A.NII.GZ", "A"), ("a.png", "a"), ("a", "a")],
    )
    def test_the_stem_of_a_volume_lacks_its_whole_suffix(self, name: str, stem: str):
        assert volume_stem(Path("x.nii") / name) == stem


class TestDataSet:
    def data(self, folder: Path, *, images: dict[str, str] = BRATS) -> DataConfig:
        return DataConfig(
            folder=folder, images=images, reference="{case}/{case}-seg.nii.gz", labels=ONE
        )

    def test_cases_are_complete(self, tmp_path: Path):
        for case in ("p1", "p2"):
            touch(tmp_path, *(f"{case}/{case}-{part}.nii.gz" for part in ("t2", "t1", "seg")))
        first, second = find_cases(self.data(tmp_path))
        assert first == Case(
            "p1",
            {"t1": tmp_path / "p1/p1-t1.nii.gz", "t2": tmp_path / "p1/p1-t2.nii.gz"},
            tmp_path / "p1/p1-seg.nii.gz",
        )
        assert [*second.images] == ["t1", "t2"]

    def test_without_a_reference_pattern_there_is_none(self, tmp_path: Path):
        touch(tmp_path, "p1/p1-t1.nii.gz", "p1/p1-seg.nii.gz")
        (case,) = find_cases(DataConfig(folder=tmp_path, images={"t1": BRATS["t1"]}, labels=ONE))
        assert case.reference is None

    def test_every_missing_file_is_told_at_once(self, tmp_path: Path):
        touch(tmp_path, "p1/p1-t1.nii.gz", "p2/p2-t1.nii.gz", "p2/p2-t2.nii.gz", "p3/p3-seg.nii.gz")
        with pytest.raises(ConfigError) as refused:
            find_cases(self.data(tmp_path))
        assert str(refused.value).splitlines() == [
            f"'{tmp_path}' lacks files:",
            f"  case 'p1': no t2 ('{BRATS['t2']}'), no reference ('{SEG}')",
            f"  case 'p2': no reference ('{SEG}')",
            f"  case 'p3': no t1 ('{BRATS['t1']}'), no t2 ('{BRATS['t2']}')",
            "Add them, correct the patterns, or set data.missing to drop such cases or to put "
            "zeros in place of images.",
        ]

    def test_a_folder_without_cases_is_told_with_what_it_holds(self, tmp_path: Path):
        with pytest.raises(ConfigError, match="it holds nothing"):
            find_cases(self.data(tmp_path))
        touch(tmp_path, "e.txt", "d.txt", "c.txt", "b.txt", "a.txt", ".hidden")
        with pytest.raises(ConfigError) as refused:
            find_cases(self.data(tmp_path))
        said = str(refused.value)
        assert "it holds 'a.txt', 'b.txt', 'c.txt', 'd.txt' and 1 more." in said
        assert all(f"'{pattern}'" in said for pattern in BRATS.values())
        assert "data.folder" in said

    def test_a_missing_folder_is_named_by_its_knob(self, tmp_path: Path):
        with pytest.raises(ConfigError, match=r"^data\.folder: '.*/none' is not a folder"):
            find_cases(self.data(tmp_path / "none"))


class TestTables:
    def test_written_cases_are_read_back_with_absolute_paths(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.chdir(tmp_path)
        cases = [
            Case('p,"1"', {"t1": Path("a.nii"), "t2": Path("b.nii")}, Path("r.nii")),
            Case("ä", {"t1": Path("/c.nii"), "t2": Path("../d.nii")}),
        ]
        write_cases(Path("cases.csv"), cases)
        first, second = read_cases(tmp_path / "cases.csv")
        assert first == Case(
            'p,"1"', {"t1": tmp_path / "a.nii", "t2": tmp_path / "b.nii"}, tmp_path / "r.nii"
        )
        assert second == Case("ä", {"t1": Path("/c.nii"), "t2": tmp_path.parent / "d.nii"})

    def test_no_case_is_a_table_that_is_refused_when_read(self, tmp_path: Path):
        write_cases(tmp_path / "cases.csv", [])
        with pytest.raises(FormatError, match="it has 0 rows"):
            read_cases(tmp_path / "cases.csv")

    def test_relative_paths_start_at_the_tables_folder(self, tmp_path: Path):
        table = tmp_path / "cases.csv"
        table.write_text("case,t1,reference\np1,i/a.nii,\np2,i/b.nii,r.nii\n")
        first, second = read_cases(table)
        assert first == Case("p1", {"t1": tmp_path / "i/a.nii"})
        assert second.reference == tmp_path / "r.nii"

    def test_a_table_as_excel_writes_it_is_read(self, tmp_path: Path):
        table = tmp_path / "cases.csv"
        table.write_bytes(b"\xef\xbb\xbfcase,t1\r\np1,a.nii\r\n")
        assert read_cases(table) == [Case("p1", {"t1": tmp_path / "a.nii"})]

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (b"case;t1\np1;a.nii\n", r"needs a column 'case'.* columns \['case;t1'\]"),
            (b"case,t1\n,a.nii\n", "filled in every row"),
            (b"case,t1\n", "it has 0 rows"),
            (b"case,t1\np1,a.nii\np1,b.nii\n", "names p1 more than once"),
            (b"case,t1,t1\np1,a.nii,b.nii\n", "has more than one column t1"),
            (b"case,t1\n../p1,a.nii\n", "names case '../p1'.* holds no '/'"),
            (b"\xff\xfe\x00", "cannot be read as a table: 'utf-8"),
        ],
    )
    def test_a_table_that_is_none_is_refused(self, tmp_path: Path, content: bytes, said: str):
        table = tmp_path / "cases.csv"
        table.write_bytes(content)
        with pytest.raises(FormatError, match=said):
            read_cases(table)

    def test_a_missing_table_is_refused(self, tmp_path: Path):
        with pytest.raises(FormatError, match=r"none\.csv' cannot be read as a table: .*No such"):
            read_cases(tmp_path / "none.csv")


def test_the_hippocampus_folder_holds_its_hundred_cases(hippocampus: Path):
    data = DataConfig(
        folder=hippocampus,
        images={"t1": "imagesTr/{case}.nii.gz"},
        reference="labelsTr/{case}.nii.gz",
        labels=LabelScheme(values={1: "anterior", 2: "posterior"}),
    )
    assert len(find_cases(data)) == 100
    assert len(find_inputs([hippocampus / "imagesTr"], data.images)) == 100


def test_the_brats_folder_holds_its_three_cases(brats: Path):
    images = {"flair": "{case}/Flair_*.nii.gz", "t1c": "{case}/T1c_*.nii.gz"}
    data = DataConfig(
        folder=brats, images=images, reference="{case}/OTMultiClass.nii.gz", labels=ONE
    )
    assert [case.id for case in find_cases(data)] == [f"brats_2013_pat000{n}_1" for n in (1, 4, 6)]
    (case,) = find_inputs([brats / "brats_2013_pat0004_1"], images)
    assert case.images["t1c"].name == "T1c_subtrMeanDivStd.nii.gz"
