"""Which files belong to which case: patterns, folders, tables, and what users name."""

from pathlib import Path

import numpy as np
import pytest

from medseg3d.config.data import DataConfig
from medseg3d.config.load import parse_section
from medseg3d.config.preprocess import PreprocessConfig
from medseg3d.data.cases import (
    Case,
    find_cases,
    read_cases,
    read_images,
    write_cases,
)
from medseg3d.data.inputs import find_inputs
from medseg3d.data.patterns import match_pattern, volume_stem
from medseg3d.errors import ConfigError, FormatError
from medseg3d.io.files import write_volume
from medseg3d.labels import LabelScheme
from medseg3d.volume import Volume

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


class TestOneFileForSeveralChannels:
    CONFIG = PreprocessConfig()

    def write(self, path: Path, num_channels: int = 3) -> np.ndarray:
        array = np.arange(num_channels * 24, dtype=np.int16).reshape(num_channels, 4, 3, 2)
        write_volume(Volume(array, np.eye(4)), path)
        return array

    def test_the_same_pattern_names_one_file_for_each_channel_and_its_absence_is_told_once(
        self, tmp_path: Path
    ):
        touch(tmp_path, "i/a.nii", "l/b.nii")
        images = {"t1": "i/{case}.nii", "t2": "i/{case}.nii"}
        data = DataConfig(folder=tmp_path, images=images, labels=ONE)
        assert find_cases(data) == [Case("a", dict.fromkeys(images, tmp_path / "i/a.nii"))]

    def test_such_a_file_is_read_as_its_channels(self, tmp_path: Path):
        array = self.write(tmp_path / "a.nii.gz")
        volume = read_images([tmp_path / "a.nii.gz"] * 3, self.CONFIG)
        np.testing.assert_array_equal(volume.array_CIJK, array)

    def test_files_of_one_and_of_several_channels_may_be_mixed(self, tmp_path: Path):
        two, one = self.write(tmp_path / "a.nii", 2), self.write(tmp_path / "b.nii", 1)
        paths = [tmp_path / "a.nii", tmp_path / "b.nii", tmp_path / "a.nii"]
        volume = read_images(paths, self.CONFIG)
        np.testing.assert_array_equal(volume.array_CIJK, np.stack([two[0], one[0], two[1]]))

    @pytest.mark.parametrize("number", [2, 4])
    def test_another_number_of_channels_is_refused(self, tmp_path: Path, number: int):
        self.write(tmp_path / "a.nii.gz")
        with pytest.raises(FormatError) as refused:
            read_images([tmp_path / "a.nii.gz"] * number, self.CONFIG)
        for said in ("holds 3 channels on its fourth axis", f"expected {number}", "data.images"):
            assert said in str(refused.value)

    def test_a_channel_that_is_none_is_zeros_of_the_others_dtype(self, tmp_path: Path):
        array = self.write(tmp_path / "a.nii", 1)
        volume = read_images([None, tmp_path / "a.nii"], self.CONFIG)
        np.testing.assert_array_equal(volume.array_CIJK, np.stack([0 * array[0], array[0]]))
        assert volume.array_CIJK.dtype == np.int16
        with pytest.raises(ConfigError, match="no file to read a volume from"):
            read_images([None], self.CONFIG)


class TestMissing:
    def data(self, folder: Path, missing: str) -> DataConfig:
        touch(folder, "p1/p1-t1.nii.gz", "p1/p1-t2.nii.gz", "p1/p1-seg.nii.gz")
        touch(folder, "p2/p2-t2.nii.gz", "p2/p2-seg.nii.gz", "p3/p3-seg.nii.gz")
        return DataConfig.model_validate(
            {"folder": folder, "images": BRATS, "reference": SEG, "labels": ONE, "missing": missing}
        )

    def test_dropped_cases_are_told_in_one_warning(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ):
        assert [case.id for case in find_cases(self.data(tmp_path, "drop"))] == ["p1"]
        (record,) = caplog.records
        assert "2 cases lack files and are left out: p2, p3" in record.message

    def test_zeros_stand_for_a_channel_but_not_for_all(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ):
        data = self.data(tmp_path, "zeros")
        with pytest.raises(ConfigError, match=r"case 'p3': no t1 .*, no t2 ") as refused:
            find_cases(data)
        assert "p2" not in str(refused.value)
        (tmp_path / "p3/p3-seg.nii.gz").unlink()
        first, second = find_cases(data)
        assert first.paths == [tmp_path / "p1/p1-t1.nii.gz", tmp_path / "p1/p1-t2.nii.gz"]
        assert [*second.images] == ["t2"]
        assert second.paths == [None, tmp_path / "p2/p2-t2.nii.gz"]
        assert "1 cases lack files and get zeros in their place: p2" in caplog.text

    def test_cases_that_lack_channels_are_written_and_read_back(self, tmp_path: Path):
        cases = [Case("p1", {"t2": tmp_path / "b"}), Case("p2", {"t1": tmp_path / "a"})]
        write_cases(tmp_path / "c.csv", cases)
        assert read_cases(tmp_path / "c.csv") == cases


class TestPatients:
    def find(self, folder: Path, expression: str) -> list[Case]:
        touch(folder, "a_1.nii", "a_2.nii", "b_1.nii")
        images = {"t1": "{case}.nii"}
        data = DataConfig(folder=folder, images=images, labels=ONE, patient=expression)
        return find_cases(data)

    def test_the_group_of_an_expression_is_the_patient(self, tmp_path: Path):
        assert [case.patient for case in self.find(tmp_path, r"^(.)_\d$")] == ["a", "a", "b"]

    def test_names_without_a_patient_are_all_told(self, tmp_path: Path):
        with pytest.raises(ConfigError) as refused:
            self.find(tmp_path, r"(b)")
        for case in ("a_1", "a_2"):
            assert f"case '{case}': data.patient '(b)' finds no patient" in str(refused.value)

    def test_nobody_else_is_a_patient_of_its_own(self):
        assert Case("p", {}).patient == "p"

    @pytest.mark.parametrize(
        ("expression", "said"), [("(", "no regular expression"), ("a", "0 groups"), ("(a)(b)", "2")]
    )
    def test_another_expression_is_refused(self, expression: str, said: str):
        with pytest.raises(ConfigError, match=said):
            parse_section(
                DataConfig,
                {"folder": ".", "images": BRATS, "labels": "btcv", "patient": expression},
                source="test",
            )

    def test_a_table_tells_patients_and_keeps_them(self, tmp_path: Path):
        cases = [Case("a1", {"t1": tmp_path / "x"}, None, "a"), Case("b", {"t1": tmp_path / "y"})]
        write_cases(tmp_path / "c.csv", cases)
        assert read_cases(tmp_path / "c.csv") == cases
        data = DataConfig(
            folder=tmp_path,
            images={"t1": "{case}"},
            labels=ONE,
            table=Path("c.csv"),
            patient="(.)$",
        )
        cases = find_cases(data)
        assert [case.patient for case in cases] == ["a", "b"]


def test_training_takes_a_table_in_place_of_patterns(tmp_path: Path):
    (tmp_path / "c.csv").write_text("case,t2,other,t1,reference\np,b.nii,o.nii,a.nii,r.nii\n")
    data = DataConfig(folder=tmp_path, images=BRATS, labels=ONE, table=Path("c.csv"))
    images = {"t1": tmp_path / "a.nii", "t2": tmp_path / "b.nii"}
    assert find_cases(data) == [Case("p", images, tmp_path / "r.nii")]
    (tmp_path / "c.csv").write_text("case,t2,reference\np,b.nii,r.nii\nq,b.nii,\n")
    with pytest.raises(ConfigError, match=r"case 'p': no t1\n  case 'q': no t1, no reference\n"):
        find_cases(data)


def test_a_file_that_fits_two_patterns_belongs_to_the_one_that_says_more(tmp_path: Path):
    touch(tmp_path, "a.nii", "a_seg.nii", "a_t2.nii")
    images = {"t1": "{case}.nii", "t2": "{case}_t2.nii"}
    data = DataConfig(folder=tmp_path, images=images, reference="{case}_seg.nii", labels=ONE)
    paths = {"t1": tmp_path / "a.nii", "t2": tmp_path / "a_t2.nii"}
    assert find_cases(data) == [Case("a", paths, tmp_path / "a_seg.nii")]


@pytest.mark.parametrize("name", ["case", "reference", "patient"])
def test_a_channel_cannot_be_called_like_another_column_of_tables(name: str):
    content = {"folder": ".", "images": {name: "{case}.nii"}, "labels": "btcv"}
    with pytest.raises(ConfigError, match=f"no channel can be called {name}"):
        parse_section(DataConfig, content, source="test")


def test_folders_may_begin_with_the_home_of_a_user_who_exists(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", "/somewhere")
    content = {"images": BRATS, "labels": "btcv", "table": "~/c.csv"}
    data = parse_section(DataConfig, content | {"folder": "~/data"}, source="test")
    assert (data.folder, data.table) == (Path("/somewhere/data"), Path("/somewhere/c.csv"))
    with pytest.raises(ConfigError, match="'~' stands for no home here"):
        parse_section(DataConfig, content | {"folder": "~nobody-here/data"}, source="test")


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
            (b"case;t1\np1;a.nii\n", r"needs a column 'case'.*\['case;t1'\].*parted by semicolons"),
            (b"case\tt1\np1\ta.nii\n", r"parted by tabs; save it with commas"),
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
