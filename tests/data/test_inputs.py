"""What a user names is what is segmented."""

import shutil
from pathlib import Path
from typing import ClassVar

import pytest
from pydicom import dcmread

from medseg3d.data.cases import Case
from medseg3d.data.inputs import find_inputs
from medseg3d.errors import ConfigError

from .conftest import BRATS, NNUNET, touch


class TestFilesAndFolders:
    def test_a_folder_in_the_layout_of_training_gives_its_cases(self, tmp_path: Path):
        touch(tmp_path, *(f"imagesTr/p{n}_000{c}.nii.gz" for n in (2, 1) for c in (0, 1)))
        assert [case.id for case in find_inputs([tmp_path], NNUNET)] == ["p1", "p2"]

    def test_a_folder_of_another_name_than_in_training_gives_its_cases(self, tmp_path: Path):
        touch(tmp_path, *(f"imagesTs/p{n}_000{c}.nii.gz" for n in (1, 2) for c in (0, 1)))
        first, _ = find_inputs([tmp_path / "imagesTs"], NNUNET)
        assert first.images["t2"] == tmp_path / "imagesTs/p1_0001.nii.gz"

    @pytest.mark.parametrize("patterns", [BRATS, {c: f"train/{p}" for c, p in BRATS.items()}])
    def test_the_folder_of_one_case_gives_that_case_whatever_lies_beside_it(
        self, tmp_path: Path, patterns: dict[str, str], monkeypatch: pytest.MonkeyPatch
    ):
        touch(tmp_path, "p1/p1-t1.nii.gz", "p1/p1-t2.nii.gz", "p2/p2-t1.nii.gz")
        for folder in (tmp_path / "p1", Path("p1"), Path()):
            monkeypatch.chdir(tmp_path / "p1" if folder == Path() else tmp_path)
            (case,) = find_inputs([folder], patterns)
            assert case.id == "p1"
            assert case.images["t2"].samefile(tmp_path / "p1/p1-t2.nii.gz")
        with pytest.raises(ConfigError, match=r"p2' lacks channels:\n  case 'p2': no t2"):
            find_inputs([tmp_path / "p2"], patterns)

    def test_a_folder_of_incomplete_cases_is_refused_with_all_that_is_missing(self, tmp_path: Path):
        touch(tmp_path, "p1/p1-t1.nii.gz", "p2/p2-t2.nii.gz")
        with pytest.raises(ConfigError) as refused:
            find_inputs([tmp_path], BRATS)
        assert "case 'p1': no t2" in str(refused.value)
        assert "case 'p2': no t1" in str(refused.value)

    def test_a_folder_without_cases_is_told_with_patterns_and_contents(self, tmp_path: Path):
        touch(tmp_path, "scan.nii.gz")
        with pytest.raises(ConfigError) as refused:
            find_inputs([tmp_path], BRATS)
        parts = (f"t1 = '{BRATS['t1']}'", "holds 'scan.nii.gz'", "--set images.CHANNEL=")
        assert all(part in str(refused.value) for part in parts)

    def test_files_are_cases_for_a_network_of_one_channel(self, tmp_path: Path):
        touch(tmp_path, "a.nii.gz", "b.nii")
        files = [tmp_path / "b.nii", tmp_path / "a.nii.gz"]
        expected = [Case("b", {"ct": files[0]}), Case("a", {"ct": files[1]})]
        assert find_inputs(files, {"ct": "{case}.nii.gz"}) == expected

    def test_files_are_the_channels_of_one_case_for_other_networks(self, tmp_path: Path):
        touch(tmp_path, "x.nii.gz", "y.nii.gz")
        files = [tmp_path / "x.nii.gz", tmp_path / "y.nii.gz"]
        assert find_inputs(files, BRATS) == [Case("x", {"t1": files[0], "t2": files[1]})]

    def test_files_named_like_another_channel_are_refused(self, tmp_path: Path):
        touch(tmp_path, "p-t1.nii.gz", "p-t2.nii.gz")
        with pytest.raises(ConfigError) as refused:
            find_inputs([tmp_path / "p-t2.nii.gz", tmp_path / "p-t1.nii.gz"], BRATS)
        for said in ("'p-t2.nii.gz'", "place of channel 't1'", "named like 't2'", "t1, t2"):
            assert said in str(refused.value)

    @pytest.mark.parametrize(
        ("names", "case"),
        [
            (("p_1_t1.nii", "p_1_t2.nii"), "p_1"),
            (("p-t1.nii", "p-t1c.nii"), "p"),
            (("a.nii", "b.nii"), "a"),
            (("p.nii", "p2.nii"), "p"),
        ],
    )
    def test_the_case_of_several_files_is_called_as_their_names_begin(
        self, tmp_path: Path, names: tuple[str, str], case: str
    ):
        touch(tmp_path, *names)
        images = {"t1": "x/{case}.nii.gz", "t2": "y/{case}.nii.gz"}
        (found,) = find_inputs([tmp_path / name for name in names], images)
        assert found.id == case

    def test_label_maps_and_numbered_files_beside_images_are_no_cases(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ):
        touch(tmp_path, "a.nii.gz", "a_seg.nii.gz", "a_0001.nii.gz", "b_0000.nii.gz", "c_2.nii.gz")
        cases = find_inputs([tmp_path], {"ct": "{case}.nii.gz"})
        assert [case.id for case in cases] == ["a", "b_0000", "c_2"]
        assert "not taken for images, by their names: a_0001, a_seg" in caplog.text

    def test_files_are_cases_where_training_had_one_file_for_all_channels(self, tmp_path: Path):
        touch(tmp_path, "a.nii.gz", "b.nii.gz")
        four = dict.fromkeys(("t1", "t2"), "imagesTr/{case}.nii.gz")
        files = [tmp_path / "a.nii.gz", tmp_path / "b.nii.gz"]
        expected = [Case(path.name[0], dict.fromkeys(four, path)) for path in files]
        assert find_inputs(files, four) == find_inputs([tmp_path], four) == expected
        assert find_inputs(files[:1], four) == expected[:1]

    def test_files_with_several_channels_stand_where_their_first_one_does(self, tmp_path: Path):
        touch(tmp_path, "p-m.nii", "p-c.nii")
        images = {"t1": "{case}-m.nii", "ct": "{case}-c.nii", "t2": "{case}-m.nii"}
        files = [tmp_path / "p-m.nii", tmp_path / "p-c.nii"]
        (case,) = find_inputs(files, images)
        assert case == Case("p", {"t1": files[0], "ct": files[1], "t2": files[0]})
        with pytest.raises(ConfigError, match="Name one file per channel in this order or 2 with"):
            find_inputs(files[:1], images)

    def test_channels_may_be_missing_where_training_put_zeros_for_them(self, tmp_path: Path):
        touch(tmp_path, "p1/p1-t1.nii.gz", "p2/p2-t1.nii.gz", "p2/p2-t2.nii.gz")
        first, second = find_inputs([tmp_path], BRATS, missing="zeros")
        assert first.paths == [tmp_path / "p1/p1-t1.nii.gz", None]
        assert None not in second.paths
        (tmp_path / "c.csv").write_text("case,t2,t1\np1,b.nii,\n")
        (case,) = find_inputs([tmp_path / "c.csv"], BRATS, missing="zeros")
        assert case.paths == [None, tmp_path / "b.nii"]

    @pytest.mark.parametrize("number", [1, 3])
    def test_more_or_fewer_files_than_channels_are_refused(self, tmp_path: Path, number: int):
        files = [tmp_path / f"{n}.nii.gz" for n in range(number)]
        touch(tmp_path, *(path.name for path in files))
        with pytest.raises(ConfigError, match=rf"takes 2 channels \(t1, t2\), got {number} files"):
            find_inputs(files, BRATS)

    def test_a_table_gives_its_cases_in_the_networks_order_of_channels(self, tmp_path: Path):
        table = tmp_path / "cases.CSV"
        table.write_text("case,t2,other,t1\np1,b.nii,o.nii,/abs/a.nii\n")
        (case,) = find_inputs([table], BRATS)
        assert [*case.images.items()] == [("t1", Path("/abs/a.nii")), ("t2", tmp_path / "b.nii")]

    def test_a_table_without_a_channel_is_refused(self, tmp_path: Path):
        table = tmp_path / "cases.csv"
        table.write_text("case,t1,t2\np1,a.nii,\np2,a.nii,b.nii\n")
        with pytest.raises(ConfigError, match=r"lacks channels:\n  case 'p1': no t2$"):
            find_inputs([table], BRATS)

    def test_an_input_that_does_not_exist_is_named(self, tmp_path: Path):
        with pytest.raises(ConfigError, match=r"^input '.*none\.nii' does not exist$"):
            find_inputs([tmp_path / "none.nii"], {"ct": "{case}.nii"})

    def test_two_inputs_of_one_name_are_refused(self, tmp_path: Path):
        touch(tmp_path, "x/a.nii.gz", "y/a.nii", "y/b.nii")
        files = [tmp_path / "x/a.nii.gz", tmp_path / "y/a.nii", tmp_path / "y/b.nii"]
        with pytest.raises(ConfigError, match=r"^two inputs are called a: .* different folders\.$"):
            find_inputs(files, {"ct": "{case}.nii.gz"})


class TestDicom:
    """Folders of DICOM, known by what is in their files."""

    CT: ClassVar = {"ct": "{case}.nii.gz"}

    def copy_as_another_series(self, source: Path, folder: Path) -> None:
        folder.mkdir(parents=True)
        for path in source.iterdir():
            image = dcmread(path)
            for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
                setattr(image, keyword, f"{image[keyword].value}.{folder.parent.name[1:]}")
            image.save_as(folder / path.name)

    def test_a_folder_of_a_series_is_a_case(self, shared_data: Path):
        folder = shared_data / "dicom/mr_mosaic_siemens/dicom"
        assert find_inputs([folder], self.CT) == [Case("dicom", {"ct": folder})]

    def test_every_folder_of_images_below_is_a_case(self, shared_data: Path, tmp_path: Path):
        source = shared_data / "dicom/ct_liver_with_seg"
        for name in ("p1", "p2", "p3"):
            self.copy_as_another_series(source / "dicom", tmp_path / "in" / name / "ct")
        shutil.copytree(source / "seg", tmp_path / "in/p1/seg")  # no images
        cases = find_inputs([tmp_path / "in"], self.CT)
        assert [case.id for case in cases] == ["in_p1_ct", "in_p2_ct", "in_p3_ct"]

    def test_a_series_in_several_folders_is_one_case(self, shared_data: Path, tmp_path: Path):
        for n, path in enumerate(sorted((shared_data / "dicom/ct_plain_phantom/dicom").iterdir())):
            (tmp_path / f"in/{n % 2}").mkdir(parents=True, exist_ok=True)
            shutil.copy(path, tmp_path / f"in/{n % 2}")
        assert find_inputs([tmp_path / "in"], self.CT) == [Case("in", {"ct": tmp_path / "in"})]

    def test_a_network_of_more_channels_takes_one_folder_each(self, shared_data: Path):
        folders = [
            shared_data / f"dicom/{name}/dicom" for name in ("ct_plain_phantom", "mr_epi_4d_ge")
        ]
        (case,) = find_inputs(folders, {"a": "{case}_a.nii", "b": "{case}_b.nii"})
        assert [*case.images.values()] == folders
        with pytest.raises(ConfigError, match="does not say what is what of a, b"):
            find_inputs(folders[:1], {"a": "{case}_a.nii", "b": "{case}_b.nii"})

    def test_a_link_to_nowhere_hides_no_dicom(self, shared_data: Path, tmp_path: Path):
        (tmp_path / "in").mkdir()
        (tmp_path / "in/0").symlink_to(tmp_path / "gone")
        (tmp_path / "in/scan").symlink_to(shared_data / "dicom/ct_plain_phantom/dicom")
        (case,) = find_inputs([tmp_path / "in"], self.CT)
        assert case == Case("in_scan", {"ct": tmp_path / "in/scan"})

    def test_dicom_without_images_is_refused(self, shared_data: Path, tmp_path: Path):
        shutil.copytree(shared_data / "dicom/ct_liver_with_seg/seg", tmp_path / "seg")
        with pytest.raises(ConfigError, match="holds DICOM, but no images"):
            find_inputs([tmp_path / "seg"], self.CT)
