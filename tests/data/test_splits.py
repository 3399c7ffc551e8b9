"""Splits: nobody on both sides, nobody forgotten, and the same every time."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medseg3d.config.data import DataConfig, SplitConfig
from medseg3d.data.cases import Case, find_cases
from medseg3d.data.splits import Split, cut_folds, split_cases, write_splits
from medseg3d.errors import ConfigError, FormatError

HERE = Path()


def some_cases(folder: Path, *, number: int = 11) -> list[Case]:
    return [Case(f"p{n}", {"t1": folder / f"images/p{n}.nii.gz"}) for n in range(number)]


def names(cases: tuple[Case, ...]) -> list[str]:
    return [case.id for case in cases]


class TestFolds:
    @pytest.mark.parametrize(("number", "num_folds"), [(11, 5), (10, 5), (3, 3), (100, 2)])
    def test_every_case_is_held_out_exactly_once(self, number: int, num_folds: int):
        cases = some_cases(HERE, number=number)
        held_out: list[Case] = []
        for fold in range(num_folds):
            split = split_cases(cases, SplitConfig(num_folds=num_folds, fold=fold), folder=HERE)
            assert sorted(names(split.training + split.validation)) == sorted(names((*cases,)))
            assert abs(len(split.validation) - number / num_folds) < 1
            held_out += split.validation
        assert sorted(names((*held_out,))) == sorted(names((*cases,)))

    def test_the_seed_alone_decides(self):
        cases = some_cases(HERE, number=50)
        splits = [split_cases(cases, SplitConfig(seed=seed), folder=HERE) for seed in (0, 0, 1)]
        assert splits[0] == splits[1]
        assert splits[0] != splits[2]
        assert names(splits[0].validation) != names((*cases[:10],))

    def test_the_order_of_the_cases_as_a_tables_rows_does_not_matter(self):
        cases = [
            replace(case, patient=f"q{len(case.id)}{case.id[-1]}") for case in some_cases(HERE)
        ]
        folds = cut_folds(cases, SplitConfig(num_folds=3), folder=HERE)
        backwards = cut_folds(cases[::-1], SplitConfig(num_folds=3), folder=HERE)
        assert [{*names(fold.validation)} for fold in backwards] == [
            {*names(fold.validation)} for fold in folds
        ]

    def test_both_sides_keep_the_order_of_the_cases(self):
        cases = some_cases(HERE, number=50)
        split = split_cases(cases, SplitConfig(), folder=HERE)
        for side in (split.training, split.validation):
            assert [*side] == [case for case in cases if case in side]

    def test_fewer_cases_than_folds_are_refused(self):
        with pytest.raises(ConfigError, match=r"^data\.split: 4 cases cannot make 5 folds"):
            split_cases(some_cases(HERE, number=4), SplitConfig(), folder=HERE)


class TestListed:
    def split(self, folder: Path, content: Any) -> Split:
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / "dataset.json").write_text(text)
        source = SplitConfig(source="dataset.json")
        return split_cases(some_cases(folder, number=3), source, folder=folder)

    def test_lists_hold_paths_or_objects_with_an_image(self, tmp_path: Path):
        training = [{"image": "./images/p2.nii.gz", "label": "x"}, "images/p0.nii.gz"]
        content = {"training": training, "validation": [str(tmp_path / "images/p1.nii.gz")]}
        split = self.split(tmp_path, content)
        assert names(split.training) == ["p0", "p2"]
        assert names(split.validation) == ["p1"]

    def test_cases_in_neither_list_are_told(self, tmp_path: Path, caplog: pytest.LogCaptureFixture):
        content = {"training": ["images/p2.nii.gz"], "validation": ["images/p1.nii.gz"]}
        split = self.split(tmp_path, content)
        assert names(split.training + split.validation) == ["p2", "p1"]
        assert "1 cases are in neither list" in caplog.text

    def test_a_case_on_both_sides_is_refused(self, tmp_path: Path):
        images = [f"images/p{n}.nii.gz" for n in range(3)]
        with pytest.raises(ConfigError, match=r"^data\.split: p1, p2 in both training and valid"):
            self.split(tmp_path, {"training": images, "validation": images[1:]})

    @pytest.mark.parametrize("empty", ["training", "validation"])
    def test_an_empty_side_is_refused(self, tmp_path: Path, empty: str):
        content = {key: ["images/p0.nii.gz"] for key in ("training", "validation")} | {empty: []}
        with pytest.raises(ConfigError, match="both need at least one") as refused:
            self.split(tmp_path, content)
        assert f"0 {empty}" in str(refused.value)

    def test_a_listed_image_that_is_no_case_is_named(self, tmp_path: Path):
        content = {"training": ["images/p0.nii.gz"], "validation": ["x/q.nii.gz", "x/r.nii.gz"]}
        with pytest.raises(FormatError) as refused:
            self.split(tmp_path, content)
        assert "lists 2 images under 'validation' that the data set does not" in str(refused.value)
        assert "'q.nii.gz'" in str(refused.value)

    @pytest.mark.parametrize(
        ("content", "fault"),
        [
            ("{", "JSONDecodeError"),
            ([], "TypeError"),
            ({"training": []}, "KeyError('validation')"),
            ({"validation": 3}, "TypeError"),
            ({"validation": [{"label": "x"}]}, "KeyError('image')"),
            ({"validation": [7]}, "expected a path, got 7"),
        ],
    )
    def test_a_damaged_table_is_refused(self, tmp_path: Path, content: Any, fault: str):
        with pytest.raises(FormatError) as refused:
            self.split(tmp_path, content)
        assert "dataset.json' needs a list 'validation' of images" in str(refused.value)
        assert fault in str(refused.value)
        assert "data.split.source=folds" in str(refused.value)

    def test_a_missing_table_is_refused(self, tmp_path: Path):
        with pytest.raises(FormatError, match=r"dataset\.json' needs a list .*No such file"):
            split_cases(some_cases(tmp_path), SplitConfig(source="dataset.json"), folder=tmp_path)


class TestPatients:
    def scans(self) -> list[Case]:
        return [Case(f"p{n}_{visit}", {}, None, f"p{n}") for n in range(7) for visit in "abc"]

    def test_a_patients_cases_are_on_one_side_and_every_case_is_held_out_once(self):
        folds = cut_folds(self.scans(), SplitConfig(num_folds=3), folder=HERE)
        held_out = [case for fold in folds for case in fold.validation]
        assert sorted(names((*held_out,))) == sorted(case.id for case in self.scans())
        for fold in folds:
            sides = [{case.patient for case in side} for side in (fold.training, fold.validation)]
            assert not sides[0] & sides[1]
            assert len(sides[1]) in (2, 3)

    def test_without_patients_folds_are_what_they_have_always_been(self):
        cases = sorted(some_cases(HERE), key=lambda case: case.id)  # as folders give them
        split = split_cases(cases, SplitConfig(num_folds=4, fold=1), folder=HERE)
        order = np.random.default_rng(0).permutation(11)
        assert {*names(split.validation)} == {cases[n].id for n in order[1::4]}
        assert names(split.validation) == ["p2", "p5", "p7"]

    def test_fewer_patients_than_folds_are_refused(self):
        with pytest.raises(ConfigError, match="7 patients of 21 cases cannot make 8 folds"):
            cut_folds(self.scans(), SplitConfig(num_folds=8), folder=HERE)


class TestFile:
    def test_folds_that_are_written_are_read_back(self, tmp_path: Path):
        cases = some_cases(tmp_path)
        folds = cut_folds(cases, SplitConfig(num_folds=3), folder=tmp_path)
        write_splits(tmp_path / "splits.json", folds)
        written = SplitConfig(source=Path("splits.json"), fold=2)
        assert cut_folds(cases, written, folder=tmp_path) == folds
        assert split_cases(cases, written, folder=tmp_path) == folds[2]
        first = json.loads((tmp_path / "splits.json").read_text())[0]
        assert first == {"train": names(folds[0].training), "val": names(folds[0].validation)}

    def test_a_fold_may_be_higher_than_the_number_of_shuffled_ones_but_not_than_the_files(
        self, tmp_path: Path
    ):
        source = SplitConfig.model_validate({"source": "s.json", "fold": 7})
        (tmp_path / "s.json").write_text(json.dumps([{"train": ["p0"], "val": ["p1"]}] * 8))
        assert names(split_cases(some_cases(tmp_path), source, folder=tmp_path).training) == ["p0"]
        (tmp_path / "s.json").write_text(json.dumps([{"train": ["p0"], "val": ["p1"]}] * 7))
        with pytest.raises(ConfigError, match=r"fold is 7, and 's\.json' has 7; they count from 0"):
            split_cases(some_cases(tmp_path), source, folder=tmp_path)

    def test_a_patient_on_both_sides_is_refused_with_its_cases(self, tmp_path: Path):
        cases = [Case("a1", {}, None, "a"), Case("a2", {}, None, "a"), Case("b", {})]
        (tmp_path / "s.json").write_text(json.dumps([{"train": ["a1", "b"], "val": ["a2"]}]))
        with pytest.raises(ConfigError) as refused:
            split_cases(cases, SplitConfig(source=Path("s.json")), folder=tmp_path)
        for said in ("1 patients are in both", "a (a1, a2)", "scores would be too good"):
            assert said in str(refused.value)

    def test_lists_of_dataset_json_are_looked_at_for_patients_too(self, tmp_path: Path):
        content = {"training": ["a1.nii"], "validation": ["a2.nii"]}
        (tmp_path / "dataset.json").write_text(json.dumps(content))
        cases = [Case(name, {"t1": tmp_path / f"{name}.nii"}, None, "a") for name in ("a1", "a2")]
        with pytest.raises(ConfigError, match="1 patients are in both training and validation"):
            split_cases(cases, SplitConfig(source="dataset.json"), folder=tmp_path)

    @pytest.mark.parametrize(
        ("content", "fault"),
        [
            ("{", "JSONDecodeError"),
            ("{}", "both need"),
            ('[{"train": []}]', "KeyError('val')"),
            ('[{"train": [1], "val": []}]', "expected a list of names, got [1]"),
            (
                '[{"train": ["p0", "x"], "val": []}]',
                "names 1 cases that the data set does not hold",
            ),
        ],
    )
    def test_a_damaged_file_is_refused(self, tmp_path: Path, content: str, fault: str):
        (tmp_path / "s.json").write_text(content)
        with pytest.raises((FormatError, ConfigError)) as refused:
            split_cases(some_cases(tmp_path), SplitConfig(source=Path("s.json")), folder=tmp_path)
        assert fault in str(refused.value) or "has 0" in str(refused.value)


def test_the_hippocampus_lists_give_80_and_20(hippocampus: Path):
    data = DataConfig(
        folder=hippocampus,
        images={"t1": "imagesTr/{case}.nii.gz"},
        labels={"values": {1: "anterior", 2: "posterior"}},
        split={"source": "dataset.json"},
    )
    split = split_cases(find_cases(data), data.split, folder=hippocampus)
    assert (len(split.training), len(split.validation)) == (80, 20)
    assert "hippocampus_008" in names(split.validation)
    assert not set(names(split.training)) & set(names(split.validation))
