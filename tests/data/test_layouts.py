"""A data set is recognised by its files alone, and the patterns find every case of it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medseg3d.config.data import DataConfig
from medseg3d.data.cases import find_cases
from medseg3d.data.challenges import LAYOUTS, find_values
from medseg3d.data.layouts import detect_layout, find_data_set
from medseg3d.datasets import DATASETS
from medseg3d.errors import ConfigError, FormatError
from medseg3d.io.files import write_volume
from medseg3d.volume import Volume

from .conftest import touch


def write_label_map(path: Path, *values: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.zeros((1, 4, 3, 2), np.uint8)
    array[0, : len(values), 0, 0] = values
    write_volume(Volume(array, np.eye(4)), path)


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def patients(data: DataConfig) -> dict[str, str]:
    return {case.id: case.patient for case in find_cases(data)}


class TestDatasetJson:
    def nnunet(self, folder: Path, **told: Any) -> DataConfig:
        content = {"channel_names": {"0": "T1", "1": "T2"}, "labels": {"background": 0, "a": 1}}
        write_json(folder / "dataset.json", content | told)
        return detect_layout(folder)

    def test_nnunet_has_a_file_per_channel(self, tmp_path: Path):
        touch(tmp_path, *(f"imagesTr/p_{n}_000{c}.nii.gz" for n in (1, 2) for c in (0, 1)))
        touch(tmp_path, "labelsTr/p_1.nii.gz", "labelsTr/p_2.nii.gz", "imagesTs/p_3_0000.nii.gz")
        data = self.nnunet(tmp_path)
        assert data.images == {
            "T1": "imagesTr/{case}_0000.nii.gz",
            "T2": "imagesTr/{case}_0001.nii.gz",
        }
        assert data.labels.values == {1: "a"}
        assert [case.id for case in find_cases(data)] == ["p_1", "p_2"]

    def test_nnunets_regions_ignored_label_and_file_ending_are_kept(self, tmp_path: Path):
        touch(tmp_path, "imagesTr/p_0000.nrrd", "imagesTr/p_0001.nrrd", "labelsTr/p.nrrd")
        labels = {"background": 0, "WT": [1, 2, 3], "TC": [2, 3], "ET": 3, "ignore": 4}
        data = self.nnunet(tmp_path, labels=labels, file_ending=".nrrd")
        assert data.reference == "labelsTr/{case}.nrrd"
        assert data.labels.regions == {"WT": (1, 2, 3), "TC": (2, 3), "ET": (3,)}
        assert data.labels.values == {1: "value_1", 2: "value_2", 3: "ET"}
        assert data.labels.ignore == 4

    def test_numbers_of_channels_are_those_of_their_files(self, tmp_path: Path):
        touch(tmp_path, "imagesTr/a_0000.nii.gz", "imagesTr/a_0002.nii.gz")
        data = self.nnunet(tmp_path, channel_names={"2": "T2", "0": "T1"})
        assert data.images == {
            "T1": "imagesTr/{case}_0000.nii.gz",
            "T2": "imagesTr/{case}_0002.nii.gz",
        }

    def test_channels_of_one_name_are_numbered(self, tmp_path: Path):
        touch(tmp_path, "imagesTr/p_0000.nii.gz")
        data = self.nnunet(tmp_path, channel_names={"1": "noNorm", "0": "noNorm", "2": "CT"})
        assert [*data.images] == ["noNorm_0", "noNorm_1", "CT"]
        assert data.reference is None

    def test_the_decathlon_has_one_file_for_all_channels(self, tmp_path: Path):
        touch(tmp_path, "imagesTr/BRATS_1.nii.gz", "labelsTr/BRATS_1.nii.gz")
        told = {
            "modality": {"0": "FLAIR", "1": "T1w"},
            "labels": {"0": "background", "1": "edema", "2": "tumour"},
            "training": [{"image": "./imagesTr/BRATS_1.nii.gz"}],
        }
        write_json(tmp_path / "dataset.json", told)
        data = detect_layout(tmp_path)
        assert data.images == dict.fromkeys(("FLAIR", "T1w"), "imagesTr/{case}.nii.gz")
        assert data.labels.values == {1: "edema", 2: "tumour"}
        assert data.split.source == "folds"

    def test_lists_and_folds_that_lie_there_are_used(self, tmp_path: Path, hippocampus: Path):
        data = detect_layout(hippocampus)
        assert data.split.source == "dataset.json"
        assert data.labels.values == {1: "Anterior", 2: "Posterior"}
        assert len(find_cases(data)) == 100
        touch(tmp_path, "imagesTr/p_0000.nii.gz", "splits_final.json")
        assert self.nnunet(tmp_path).split.source == Path("splits_final.json")

    @pytest.mark.parametrize(
        ("told", "fault"),
        [
            ({"labels": {"a": 1}}, "KeyError('modality')"),
            ({"modality": {"0": "CT"}}, "KeyError('labels')"),
            ({"modality": {"x": "CT"}, "labels": {"a": 1}}, "invalid literal"),
            ([], "AttributeError"),
        ],
    )
    def test_a_damaged_one_is_refused(self, tmp_path: Path, told: Any, fault: str):
        write_json(tmp_path / "dataset.json", told)
        with pytest.raises(FormatError) as refused:
            detect_layout(tmp_path)
        for said in ("needs 'channel_names' or 'modality'", fault, "write data.images"):
            assert said in str(refused.value)


class TestBrats:
    def test_every_layout_of_the_table_is_recognised_with_all_its_channels(self, tmp_path: Path):
        for number, (name, layout) in enumerate(LAYOUTS.items()):
            folder = tmp_path / str(number)
            for case in ("case-1", "case-2"):
                for pattern in layout.images.values():
                    touch(folder, pattern.format(case=case).replace("*", "x"))
                write_label_map(folder / layout.reference.format(case=case), 1)
            data = detect_layout(folder)
            assert data.images == layout.images, name
            assert data.reference == layout.reference
            assert len(find_cases(data)) == 2

    @pytest.mark.parametrize(
        ("challenge", "values", "scheme"),
        [
            ("GLI", (1, 2, 3), "brats2023-gli"),
            ("GLI", (1, 2, 3, 4), "brats2024-gli"),
            ("MET", (1, 4), "brats2025-met"),
            ("PED", (1, 2, 3, 4), "brats2024-ped"),
            ("MEN", (1, 2, 3), "brats2023-men"),
            ("PHANTOM", (1, 2, 3), "brats2023"),
        ],
    )
    def test_since_2023_the_challenge_and_the_values_tell_the_season(
        self, tmp_path: Path, challenge: str, values: tuple[int, ...], scheme: str
    ):
        for visit in ("000", "101"):
            case = f"BraTS-{challenge}-00005-{visit}"
            touch(tmp_path, *(f"{case}/{case}-{c}.nii.gz" for c in ("t1c", "t2f")))
            write_label_map(tmp_path / f"{case}/{case}-seg.nii.gz", *values)
        data = detect_layout(tmp_path)
        assert data.labels == DATASETS[scheme]
        assert [*data.images] == ["t1c", "t2f"]
        assert {*patients(data).values()} == {f"BraTS-{challenge}-00005"}

    @pytest.mark.parametrize(
        ("challenge", "values", "other"),
        [("PED", (1, 2, 3), "brats2024-ped"), ("GLI", (1, 2, 3), ""), ("PED", (2, 4), "")],
    )
    def test_values_that_mean_different_things_in_two_seasons_are_told(
        self,
        tmp_path: Path,
        caplog: pytest.LogCaptureFixture,
        challenge: str,
        values: tuple[int, ...],
        other: str,
    ):
        case = f"BraTS-{challenge}-00005-000"
        touch(tmp_path, *(f"{case}/{case}-{c}.nii.gz" for c in ("t1c", "t2f")))
        write_label_map(tmp_path / f"{case}/{case}-seg.nii.gz", *values)
        detect_layout(tmp_path)
        told = f"could be those of {other}, where they mean something else"
        assert (told in caplog.text) == bool(other)
        assert bool(caplog.records) == bool(other)

    @pytest.mark.parametrize(
        ("cases", "told"),
        [(("p1", "p2"), False), (("BraTS20_1", "BraTS2021_2"), True), (("BraTS20_1", "p2"), True)],
    )
    def test_other_cases_with_such_files_keep_their_values(
        self,
        tmp_path: Path,
        caplog: pytest.LogCaptureFixture,
        cases: tuple[str, ...],
        told: bool,
    ):
        for case in cases:
            touch(tmp_path, *(f"{case}/{case}_{c}.nii.gz" for c in ("t1", "t2")))
            write_label_map(tmp_path / f"{case}/{case}_seg.nii.gz", 1, 2)
        data = detect_layout(tmp_path)
        assert [*data.images] == ["t1", "t2"]
        assert data.labels.values == {1: "value_1", 2: "value_2"}
        assert ("not all cases are called alike" in caplog.text) == told

    def test_until_2021_cases_may_lie_one_folder_deeper_and_visits_are_counted(
        self, tmp_path: Path
    ):
        for case in ("HGG/BraTS19_CBICA_AAB_1", "LGG/BraTS19_CBICA_AAB_2"):
            name = case[4:]
            touch(tmp_path, *(f"{case}/{name}_{c}.nii.gz" for c in ("flair", "t1", "t1ce", "t2")))
            write_label_map(tmp_path / f"{case}/{name}_seg.nii.gz", 4)
        data = detect_layout(tmp_path)
        assert data.images["t1ce"] == "*/{case}/{case}_t1ce.nii.gz"
        assert data.labels == DATASETS["brats2019"]
        assert {*patients(data).values()} == {"BraTS19_CBICA_AAB"}

    def test_names_of_2021_are_patients_of_their_own(self, tmp_path: Path):
        for n in (0, 2):
            case = f"BraTS2021_0000{n}"
            touch(tmp_path, *(f"{case}/{case}_{c}.nii.gz" for c in ("flair", "t1ce")))
        data = detect_layout(tmp_path)
        assert data.patient is None
        assert data.reference is None
        assert data.labels == DATASETS["brats2021"]

    def test_brats_2015_is_recognised(self, brats: Path):
        data = detect_layout(brats)
        assert data.labels == DATASETS["brats2015"]
        assert patients(data)["brats_2013_pat0001_1"] == "brats_2013_pat0001"


class TestBids:
    def test_sessions_are_cases_and_subjects_are_patients(self, tmp_path: Path):
        for subject, session in (("01", "a"), ("01", "b"), ("02", "a")):
            start, name = f"sub-{subject}/ses-{session}/anat", f"sub-{subject}_ses-{session}"
            touch(tmp_path, f"{start}/{name}_T1w.nii.gz", f"{start}/{name}_FLAIR.nii.gz")
            write_label_map(tmp_path / f"derivatives/manual/{start}/{name}_dseg.nii.gz", 1, 3)
        touch(tmp_path, "sub-01/ses-a/anat/sub-01_ses-a_PDw.nii.gz")
        data = detect_layout(tmp_path)
        assert data.images == {
            "FLAIR": "*/*/anat/{case}_FLAIR.nii.gz",
            "T1w": "*/*/anat/{case}_T1w.nii.gz",
        }
        assert data.reference == "derivatives/manual/*/*/anat/{case}_dseg.nii.gz"
        assert data.labels.values == {1: "value_1", 3: "value_3"}
        assert patients(data) == {
            "sub-01_ses-a": "sub-01",
            "sub-01_ses-b": "sub-01",
            "sub-02_ses-a": "sub-02",
        }

    @pytest.mark.parametrize("end", ["dseg", "label-L_desc-T1lesion_mask"])
    def test_label_maps_beside_the_images_are_references_and_no_channels(
        self, tmp_path: Path, end: str
    ):
        for n in (1, 2):
            touch(tmp_path, f"sub-{n}/anat/sub-{n}_T1w.nii.gz")
            write_label_map(tmp_path / f"sub-{n}/anat/sub-{n}_{end}.nii.gz", 1)
        data = detect_layout(tmp_path)
        assert data.images == {"T1w": "*/anat/{case}_T1w.nii.gz"}
        assert data.reference == f"*/anat/{{case}}_{end}.nii.gz"

    def test_masks_with_a_label_are_references_and_brain_masks_are_not(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ):
        for n in (1, 2):
            touch(tmp_path, f"sub-{n}/anat/sub-{n}_T1w.nii.gz")
            start = f"derivatives/x/sub-{n}/anat/sub-{n}"
            touch(tmp_path, f"{start}_desc-brain_mask.nii.gz")
            write_label_map(tmp_path / f"{start}_space-orig_label-lesion_mask.nii.gz", 1)
        write_label_map(tmp_path / "derivatives/y/sub-1/anat/sub-1_dseg.nii.gz", 2)
        data = detect_layout(tmp_path)
        assert data.reference == "derivatives/x/*/anat/{case}_space-orig_label-lesion_mask.nii.gz"
        assert len(find_cases(data)) == 2
        assert "left out: derivatives/y/*/anat/{case}_dseg.nii.gz" in caplog.text


class TestNames:
    def detect(self, folder: Path, *images: str, references: tuple[str, ...] = ()) -> DataConfig:
        touch(folder, *images)
        for name in references:
            write_label_map(folder / name, 5)
        return detect_layout(folder)

    def test_a_folder_of_images_beside_one_of_labels(self, tmp_path: Path):
        data = self.detect(
            tmp_path,
            "images/a.nii",
            "images/b_2.nii",
            references=("labels/a.nii", "labels/b_2.nii"),
        )
        assert data.images == {"image": "images/{case}.nii"}
        assert data.reference == "labels/{case}.nii"
        assert data.labels.values == {5: "value_5"}
        assert data.split.num_folds == 2

    def test_names_beside_each_other_may_go_on(self, tmp_path: Path):
        images = [f"Images/{p}_{c}.nii.gz" for p in ("p", "p_2") for c in ("t1", "t2")]
        labels = ("masks/p_seg.nii.gz", "masks/p_2_seg.nii.gz")
        data = self.detect(tmp_path, *images, references=labels)
        assert data.images == {"t1": "Images/{case}_t1.nii.gz", "t2": "Images/{case}_t2.nii.gz"}
        assert data.reference == "masks/{case}_seg.nii.gz"
        assert [case.id for case in find_cases(data)] == ["p", "p_2"]

    def test_files_side_by_side(self, tmp_path: Path):
        data = self.detect(
            tmp_path, "p1.nii.gz", "p2.nii.gz", references=("p1_seg.nii.gz", "p2_seg.nii.gz")
        )
        assert data.images == {"image": "{case}.nii.gz"}
        assert data.reference == "{case}_seg.nii.gz"
        assert [case.id for case in find_cases(data)] == ["p1", "p2"]

    def test_one_folder_per_case(self, tmp_path: Path):
        data = self.detect(
            tmp_path,
            "p1/t1.nii.gz", "p1/p1_t2.nii.gz", "p2/t1.nii.gz", "p2/p2_t2.nii.gz",
            references=("p1/mask.nii.gz", "p2/mask.nii.gz"),
        )  # fmt: skip
        assert data.images == {"t2": "{case}/{case}_t2.nii.gz", "t1": "{case}/t1.nii.gz"}
        assert data.reference == "{case}/mask.nii.gz"

    def test_a_folders_name_within_a_word_is_not_the_case(self, tmp_path: Path):
        data = self.detect(
            tmp_path,
            *(f"{case}/t{n}.nii.gz" for case in (1, 2) for n in (1, 2)),
            references=("1/1-seg.nii.gz", "2/2-seg.nii.gz"),
        )
        assert data.images == {"t1": "{case}/t1.nii.gz", "t2": "{case}/t2.nii.gz"}
        assert data.reference == "{case}/{case}-seg.nii.gz"

    def test_images_above_a_folder_of_labels(self, tmp_path: Path):
        data = self.detect(tmp_path, "a.nii", "b.nii", references=("labels/a.nii", "labels/b.nii"))
        assert data.images == {"image": "{case}.nii"}
        assert data.reference == "labels/{case}.nii"

    def test_a_folder_per_channel_is_not_taken_for_one_per_case(self, tmp_path: Path):
        images = [f"{channel}/p{n}.nii" for channel in ("t1", "t2") for n in (1, 2)]
        with pytest.raises(ConfigError, match=r"Write data\.images and data\.reference"):
            self.detect(tmp_path, *images, references=("seg/p1.nii", "seg/p2.nii"))

    def test_without_references_there_is_one_made_up_label_which_is_told(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ):
        data = self.detect(tmp_path, "imagesTr/p_0000.nii.gz", "imagesTr/p_0001.nii.gz")
        assert [*data.images] == ["channel_0", "channel_1"]
        assert data.labels.values == {1: "value_1"}
        assert "no reference holds a label" in caplog.text

    def test_rare_files_are_left_out_and_told(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ):
        images = [f"images/p{n}_t1.nii.gz" for n in range(4)]
        labels = tuple(f"labels/p{n}.nii.gz" for n in range(4))
        data = self.detect(tmp_path, *images, "images/p0_localizer.nii.gz", references=labels)
        assert [*data.images] == ["t1"]
        assert "fewer than half of the cases" in caplog.text
        assert "localizer" in caplog.text

    def test_a_folder_of_no_layout_is_told_what_was_looked_for_and_what_it_holds(
        self, tmp_path: Path
    ):
        (tmp_path / "notes.txt").touch()
        with pytest.raises(ConfigError) as refused:
            detect_layout(tmp_path)
        for said in ("it holds 'notes.txt'", "nnU-Net", *LAYOUTS, "BIDS", "or give a CSV"):
            assert said in str(refused.value)

    def test_a_path_to_nothing_is_refused(self, tmp_path: Path):
        for path in (tmp_path / "none", Path("~nobody-here/none")):
            with pytest.raises(ConfigError, match=r"none' is neither a folder nor a CSV"):
                detect_layout(path)


class TestTable:
    def test_columns_of_files_are_channels(self, tmp_path: Path, caplog: pytest.LogCaptureFixture):
        touch(tmp_path, "a.nii.gz", "b.nii.gz", "c.nii.gz")
        write_label_map(tmp_path / "r.nii.gz", 2)
        (tmp_path / "x.csv").write_text(
            "case,t1,t2,age,patient,reference\n"
            "k1,a.nii.gz,b.nii.gz,7,P,r.nii.gz\nk2,c.nii.gz,b.nii.gz,9,P,r.nii.gz\n"
        )
        data = detect_layout(tmp_path / "x.csv")
        assert [*data.images] == ["t1", "t2"]
        assert data.labels.values == {2: "value_2"}
        assert data.reference  # without which nothing is trained
        assert patients(data) == {"k1": "P", "k2": "P"}
        assert "columns age name no files" in caplog.text

    def test_a_table_of_no_files_is_refused(self, tmp_path: Path):
        (tmp_path / "x.csv").write_text("case,t1\nk1,gone.nii.gz\n")
        with pytest.raises(ConfigError, match="no column names files that exist; columns are t1"):
            detect_layout(tmp_path / "x.csv")


def test_values_are_found_in_whole_files_and_a_damaged_one_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    write_label_map(tmp_path / "a.nii.gz", 7, 2)
    write_label_map(tmp_path / "b.nii.gz", 3)
    (tmp_path / "c.nii.gz").write_text("none")
    assert find_values([tmp_path / f"{name}.nii.gz" for name in "abc"]) == [2, 3, 7]
    assert "passed over while looking for values" in caplog.text


def test_what_is_recognised_can_be_changed_by_settings(hippocampus: Path):
    found = find_data_set(hippocampus, ["data.labels=hippocampus", "preprocess.intensity=none"])
    assert found.data.labels == DATASETS["hippocampus"]
    assert found.preprocess.intensity == "none"
    assert len(found.data.images) == 1
