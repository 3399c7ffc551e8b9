"""From two volumes, or two folders, to scores in files."""

import csv
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import medseg3d
from medseg3d.errors import ConfigError, FormatError, GridError, LabelError
from medseg3d.evaluate.folder import score_cases
from medseg3d.evaluate.pairs import Pair, find_pairs
from medseg3d.evaluate.protocols import PROTOCOLS, Protocol
from medseg3d.evaluate.results import Scores, read_scores
from medseg3d.evaluate.schemes import SCHEMES, Scheme
from medseg3d.evaluate.score import score_case
from medseg3d.evaluate.surface import hausdorff_mm, normalized_surface_dice
from medseg3d.evaluate.tables import write_scores
from medseg3d.io.files import read_volume, write_volume
from medseg3d.volume import Volume

SPACING = (1.0, 2.0, 3.0)
TUMOUR = np.s_[4:10, 4:10, 2:6]


def volume(*boxes: tuple[int, tuple[slice, ...]], spacing=SPACING, dtype=np.uint8) -> Volume:
    """Fill boxes of a 16×14×8 grid with values, later ones over earlier ones."""
    array = np.zeros((1, 16, 14, 8), dtype=dtype)
    for value, place in boxes:
        array[(0, *place)] = value
    return Volume(array, np.diag([*spacing, 1.0]))


def tumour(*, shift: int = 0, spacing=SPACING) -> Volume:
    """Give an oedema of 6×6×4 voxels with an enhancing core of 2×2×2."""
    core = np.s_[6 + shift : 8 + shift, 6:8, 3:5]
    return volume((2, np.s_[4 + shift : 10 + shift, 4:10, 2:6]), (3, core), spacing=spacing)


class TestCase:
    """`score_case`: two volumes in memory."""

    def test_each_region_has_its_measures_and_volumes(self):
        scores = score_case(tumour(shift=1), tumour(), scheme="brats2023").to_dict()
        assert scores["scheme"] == "brats2023"
        assert [*scores["regions"]] == ["WT", "TC", "ET"]
        whole = scores["regions"]["WT"]
        assert whole.pop("lesions") == [
            {
                "lesion": 1,
                "status": "tp",
                "center_mm": pytest.approx([6.5, 2 * 6.5, 3 * 3.5]),
                "reference_mm3": pytest.approx(144 * 6),
                "predicted_mm3": pytest.approx(144 * 6),
                "dice": pytest.approx(2 * 120 / 288),
                "hd95": 1.0,
            }
        ]
        assert whole == {
            "dice": pytest.approx(2 * 120 / 288),
            "hd95": 1.0,
            "sensitivity": pytest.approx(120 / 144),
            "specificity": pytest.approx((16 * 14 * 8 - 168) / (16 * 14 * 8 - 144)),
            "lesion_dice": pytest.approx(2 * 120 / 288),
            "lesion_hd95": 1.0,
            "lesion_tp": 1,
            "lesion_fp": 0,
            "lesion_fn": 0,
            "reference_mm3": pytest.approx(144 * 6),
            "predicted_mm3": pytest.approx(144 * 6),
            "tp_voxels": 120,
            "fp_voxels": 24,
            "fn_voxels": 24,
        }
        assert [*whole][:9] == [*PROTOCOLS["brats2023-gli"].measures]
        assert scores["regions"]["ET"]["dice"] == pytest.approx(2 * 4 / 16)
        assert scores["regions"]["ET"] == scores["regions"]["TC"]

    def test_the_definition_and_the_unit_are_the_schemes(self):
        labels = {"name": "mine", "values": {2: "ED", 3: "ET"}}
        for definition in ("surfel", "pooled", "max_directed"):
            for in_voxels, spacing in ((False, SPACING), (True, (1.0, 1.0, 1.0))):
                rules = {"nsd": "mean_fraction", "tolerances": (1.5,)}
                protocol = Protocol(hausdorff=definition, in_voxels=in_voxels, **rules)
                scheme = Scheme(**labels, protocol=protocol)
                score = score_case(tumour(shift=2), tumour(), scheme=scheme).regions["ED"].measures
                masks = [v.array_CIJK[0] == 2 for v in (tumour(), tumour(shift=2))]
                assert score["hd95"] == hausdorff_mm(*masks, spacing, definition=definition)
                assert score["nsd_1.5"] == normalized_surface_dice(
                    *masks, spacing, tolerance_mm=1.5, definition="mean_fraction"
                )

    @pytest.mark.parametrize(
        ("rules", "one", "both"),
        [
            ({}, math.hypot(16, 28, 24), 0),
            ({"in_voxels": True}, math.hypot(16, 14, 8), 0),
            ({"one_empty": 374, "both_empty": 1}, 374, 1),
            ({"one_empty": "nan", "both_empty": "nan"}, math.nan, math.nan),
        ],
    )
    def test_empty_masks_follow_the_rules_of_the_scheme(self, rules, one, both):
        rules = Protocol(assd=True, tolerances=(1.0,), **rules)
        scheme = Scheme(values={1: "a", 2: "b", 3: "c"}, protocol=rules)
        filled = volume((2, TUMOUR))
        for predicted, reference in ((volume(), filled), (filled, volume())):
            regions = score_case(predicted, reference, scheme=scheme).regions
            filled_side, empty = regions["b"].measures, regions["a"].measures
            assert (filled_side["dice"], filled_side["nsd_1.0"]) == (0, 0)
            assert filled_side["hd95"] == pytest.approx(one, nan_ok=True)
            assert filled_side["assd"] == pytest.approx(one, nan_ok=True)
            assert (empty["dice"], empty["nsd_1.0"]) == (1, 1)
            assert empty["hd95"] == pytest.approx(both, nan_ok=True)

    def test_nan_and_skip_overrule_penalties(self):
        labels = {"values": {1: "a", 2: "b", 3: "c"}}
        missed = volume((2, TUMOUR)), volume((3, TUMOUR))
        undefined = Scheme(**labels, protocol=Protocol(empty="nan", tolerances=(1.0,)))
        regions = {r: s.measures for r, s in score_case(*missed, scheme=undefined).regions.items()}
        for region in ("b", "c"):
            assert regions[region]["dice"] == 0
            assert math.isnan(regions[region]["hd95"])
            assert math.isnan(regions[region]["nsd_1.0"])
        assert math.isnan(regions["a"]["dice"])
        skipping = Scheme(**labels, protocol=Protocol(empty="skip"))
        regions = {r: s.measures for r, s in score_case(*missed, scheme=skipping).regions.items()}
        for region in ("a", "b"):
            assert all(math.isnan(number) for number in regions[region].values())
        assert regions["c"]["hd95"] > 0

    def test_masks_without_a_common_voxel_may_get_a_number_of_their_own(self):
        scheme = Scheme(values={2: "b"}, protocol=Protocol(apart=373, tolerances=(9.0,)))
        apart = volume((2, np.s_[4:6, 4:6, 4:6])), volume((2, np.s_[6:8, 4:6, 4:6]))
        score = score_case(*apart, scheme=scheme).regions["b"].measures
        assert (score["dice"], score["hd95"], score["nsd_9.0"]) == (0, 373, 0)

    @pytest.mark.slow
    @pytest.mark.parametrize("spacing", [(0.5, 0.5, 0.5), (0.9, 0.9, 3.0), (1.0, 1.0, 1.0)])
    def test_a_tilted_header_of_32_bits_moves_no_distance_across_a_tolerance(self, spacing):
        rng = np.random.default_rng(0)
        straight = [Volume(tumour(shift=n).array_CIJK, np.diag([*spacing, 1])) for n in (1, 0)]
        expected = score_case(*straight, scheme="brats2026-mets").regions["WT"].measures
        for _ in range(20):
            turn = np.eye(4)
            turn[:3, :3], _ = np.linalg.qr(rng.normal(size=(3, 3)))
            affine = (turn @ straight[0].affine).astype(np.float32).astype(np.float64)
            tilted = (Volume(volume.array_CIJK, affine) for volume in straight)
            found = score_case(*tilted, scheme="brats2026-mets").regions["WT"].measures
            assert found == pytest.approx(expected, abs=1e-6, nan_ok=True)

    def test_the_voxels_of_a_sheared_grid_hold_what_they_hold(self):
        affine = np.diag([1.0, 1.0, 2.0, 1.0])
        affine[0, 1] = 1  # the second axis leans by 45 degrees: longer edges, the same volume
        sheared = Volume(volume((1, TUMOUR)).array_CIJK, affine)
        assert score_case(sheared, sheared).regions["label_1"].reference_mm3 == pytest.approx(288)

    def test_files_do_as_well(self, tmp_path: Path):
        write_volume(tumour(), tmp_path / "a.nii.gz")
        score = score_case(str(tmp_path / "a.nii.gz"), tmp_path / "a.nii.gz", scheme="brats2023")
        assert score.regions["WT"].measures["dice"] == 1

    @pytest.mark.usefixtures("unchecked")
    def test_an_array_is_refused_with_the_way_to_make_it_a_volume(self):
        said = "predicted: a ndarray is neither a Volume nor the path of a file; an array becomes"
        with pytest.raises(ConfigError, match=said):
            score_case(np.zeros((3, 3, 3)), tumour())

    def test_without_a_scheme_every_value_is_a_region(self):
        regions = score_case(volume((7, TUMOUR)), tumour()).regions
        assert [*regions] == ["label_2", "label_3", "label_7"]
        assert regions["label_7"].measures["dice"] == 0

    def test_an_image_is_not_taken_for_a_label_map(self):
        image = Volume(np.arange(1000, dtype=np.uint16).reshape(1, 10, 10, 10), np.eye(4))
        with pytest.raises(LabelError, match=r"1000 different values, .*is it an image\? Name a"):
            score_case(image, image)

    def test_a_flat_image_is_measured_in_2d(self):
        boxes = np.s_[6:8, 6:8, 3:4], np.s_[2:12, 2:12, 3:4]
        flat = [Volume(v.array_CIJK[..., 3:4], v.affine) for v in (volume((2, b)) for b in boxes)]
        masks = [v.array_CIJK[0] > 0 for v in flat]
        scheme = Scheme(values={2: "ED"}, protocol=Protocol(hausdorff="pooled"))
        contours = [mask[:, :, 0] for mask in masks]
        far = hausdorff_mm(*contours, SPACING[:2], definition="pooled")
        assert score_case(*flat, scheme=scheme).regions["ED"].measures["hd95"] == far
        assert hausdorff_mm(*masks, SPACING, definition="pooled") != far

    def test_numbers_next_to_integers_count_as_them(self):
        scaled = volume((0.99999997, TUMOUR), dtype=np.float32)
        assert score_case(scaled, volume((1, TUMOUR))).regions["label_1"].measures["dice"] == 1

    def test_it_prints_as_a_table(self):
        lines = str(score_case(tumour(shift=1), tumour(), scheme="brats2023")).splitlines()
        assert lines[0].split()[:3] == ["brats2023", "dice", "hd95"]
        assert lines[0].split()[-2:] == ["reference_mm3", "predicted_mm3"]
        assert lines[1].split()[:3] == ["WT", "0.8333", "1.0000"]
        assert len({len(line) for line in lines}) == 1

    def test_another_grid_is_refused(self):
        with pytest.raises(GridError, match="'reference' and 'predicted' do not lie on one grid"):
            score_case(tumour(spacing=(1.0, 2.0, 3.1)), tumour(), scheme="brats2023")

    def test_foreign_values_and_fractions_are_refused(self):
        with pytest.raises(LabelError, match=r"predicted: holds 4 \(144 voxels\)"):
            score_case(volume((4, TUMOUR)), tumour(), scheme="brats2023")
        with pytest.raises(LabelError, match=r"reference: 144 voxels hold no integer"):
            score_case(tumour(), volume((0.5, TUMOUR), dtype=np.float32), scheme="brats2023")

    def test_several_channels_are_refused(self):
        two = Volume(np.zeros((2, 16, 14, 8), dtype=np.uint8), tumour().affine)
        with pytest.raises(GridError, match="predicted: 2 channels; a label map has one"):
            score_case(two, tumour())

    @pytest.mark.parametrize("scheme", ["brats2015", None])
    def test_a_real_reference_agrees_with_itself(self, brats: Path, scheme):
        reference = read_volume(brats / "brats_2013_pat0001_1" / "OTMultiClass.nii.gz")
        for score in score_case(reference, reference, scheme=scheme).regions.values():
            assert (score.measures["dice"], score.measures["hd95"]) == (1, 0)
            assert score.reference_mm3 == score.predicted_mm3 > 0


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Write five cases: good, missing, of another grid, of foreign values, broken, unknown."""
    predicted, reference = tmp_path / "predicted", tmp_path / "reference"
    predicted.mkdir()
    reference.mkdir()
    for case in ("broken", "foreign", "good", "grid", "missing"):
        write_volume(tumour(), reference / f"{case}.nii.gz")
    write_volume(tumour(shift=1), predicted / "good.nii.gz")
    write_volume(tumour(), predicted / "unknown.nii")
    write_volume(tumour(spacing=(2.0, 2.0, 2.0)), predicted / "grid.nii.gz")
    write_volume(volume((9, TUMOUR)), predicted / "foreign.nii.gz")
    whole = (reference / "good.nii.gz").read_bytes()
    (predicted / "broken.nii.gz").write_bytes(whole[: len(whole) // 2])
    return predicted, reference


@pytest.fixture
def scores(folders: tuple[Path, Path]) -> Scores:
    return score_cases(*folders, scheme="brats2023")


class TestIgnoredVoxels:
    """What a reference tells to ignore is in no mask, and no true negative either."""

    HIDDEN = np.s_[:8, :, :]

    @pytest.fixture
    def scheme(self) -> Scheme:
        return SCHEMES["brats2023"].model_copy(update={"ignore": 7})

    @pytest.fixture
    def reference(self) -> Volume:
        reference = tumour()
        reference.array_CIJK[(0, *self.HIDDEN)] = 7
        return reference

    def test_scores_are_those_of_both_sides_without_them(self, scheme: Scheme, reference: Volume):
        reference_without, predicted_without = tumour(), tumour(shift=2)
        for side in (reference_without, predicted_without):
            side.array_CIJK[(0, *self.HIDDEN)] = 0
        expected = score_case(predicted_without, reference_without, scheme="brats2023").to_dict()

        found = score_case(tumour(shift=2), reference, scheme=scheme).to_dict()

        for region, numbers in found["regions"].items():
            counted = sum(numbers[f"{kind}_voxels"] for kind in ("tp", "fp", "fn"))
            tn = 8 * 14 * 8 - counted
            specificity = tn / (tn + numbers["fp_voxels"])
            assert numbers.pop("specificity") == pytest.approx(specificity)
            assert expected["regions"][region].pop("specificity") > specificity
        assert found == expected

    def test_predictions_do_not_hold_the_value(self, scheme: Scheme, reference: Volume):
        with pytest.raises(LabelError, match=r"predicted: holds 7 \("):
            score_case(reference, reference, scheme=scheme)


class TestFolder:
    """`score_cases`: nothing stops it, nothing is left out."""

    def test_every_case_is_listed_in_order_with_its_reason(self, scores: Scores):
        reasons = {result.pair.case: result.reason for result in scores.cases}
        assert [*reasons] == ["broken", "foreign", "good", "grid", "missing", "unknown"]
        assert [r.pair.case for r in scores.failed] == [c for c in reasons if c != "good"]
        assert "broken.nii.gz" in reasons["broken"]
        assert "predicted: holds 9 (144 voxels)" in reasons["foreign"]
        assert "do not lie on one grid: spacing" in reasons["grid"]
        assert reasons["missing"] == "no prediction: scored as an empty one"
        assert reasons["unknown"] == "no reference: not scored"
        assert not any("\n" in reason for reason in reasons.values() if reason)

    def test_whatever_is_wrong_with_a_prediction_it_counts_as_an_empty_one(self, scores: Scores):
        by_case = {result.pair.case: result.score for result in scores.cases}
        assert [case for case, score in by_case.items() if not score] == ["unknown"]
        for case in ("broken", "foreign", "grid", "missing"):
            regions = [score.measures for score in by_case[case].regions.values()]
            assert {(measures["dice"], measures["hd95"]) for measures in regions} == {(0, 374)}

    def test_a_broken_reference_cannot_be_scored(self, folders: tuple[Path, Path]):
        (folders[1] / "good.nii.gz").write_bytes(b"")
        good = score_cases(*folders, scheme="brats2023").cases[2]
        assert good.score is None
        assert good.reason.startswith("reference not usable, not scored: ")

    def test_whatever_one_case_asks_for_the_others_are_scored(self, folders, tmp_path):
        pairs = find_pairs(*folders)
        (folders[0] / "good.nii.gz").chmod(0)
        (folders[0] / "missing.nii.gz").mkdir()
        gone = Pair("gone", tmp_path / "gone.nii.gz", folders[1] / "good.nii.gz")
        results = score_cases([*pairs, gone], scheme=None).cases
        assert [result.pair.case for result in results][-1] == "gone"
        assert results[-1].reason.startswith("scored as an empty one: ")
        assert "gone.nii.gz" in results[-1].reason

    def test_aggregates_say_over_how_many_cases(self, scores: Scores):
        summary = scores.summary()["WT"]
        assert (summary["dice"].n, summary["hd95"].n) == (5, 5)
        assert summary["dice"].mean == pytest.approx(240 / 288 / 5)
        assert summary["hd95"].mean == pytest.approx((1 + 4 * 374) / 5)

    def test_undefined_distances_are_counted(self, folders: tuple[Path, Path]):
        summary = score_cases(*folders, scheme="brats2023", empty="nan").summary()["WT"]["hd95"]
        assert (summary.mean, summary.n, summary.undefined) == (1, 1, 4)

    @pytest.mark.slow
    def test_processes_give_the_same_result(self, folders: tuple[Path, Path], scores: Scores):
        assert score_cases(*folders, scheme="brats2023", workers=2) == scores

    def test_progress_counts_cases(self, folders: tuple[Path, Path]):
        calls: list[tuple[int, int]] = []
        score_cases(*folders, progress=lambda done, total: calls.append((done, total)))
        assert calls == [(n, 6) for n in range(1, 7)]

    def test_without_a_scheme_values_come_from_all_readable_files(self, folders):
        assert [*score_cases(*folders).scheme.regions] == ["label_2", "label_3", "label_9"]

    def test_a_table_of_references_scores_a_part(self, folders: tuple[Path, Path], tmp_path: Path):
        table = tmp_path / "part.csv"
        table.write_text("case,reference\ngood,reference/good.nii.gz\ngone,reference/x.nii\n")
        results = {r.pair.case: r for r in score_cases(folders[0], table, scheme="brats2023").cases}
        assert results["good"].status == "scored"
        assert "x.nii" in results["gone"].reason
        assert results["gone"].score is None

    def test_one_file_against_another(self, folders: tuple[Path, Path]):
        predicted, reference = folders
        scores = score_cases(predicted / "good.nii.gz", reference / "grid.nii.gz")
        assert [result.pair.case for result in scores.cases] == ["good"]
        assert not scores.failed

    def test_an_unknown_scheme_and_pattern_are_refused(self, folders: tuple[Path, Path]):
        with pytest.raises(ConfigError, match="unknown scheme 'brats'"):
            score_cases(*folders, scheme="brats")
        with pytest.raises(ConfigError, match="no prediction has a reference"):
            score_cases(*folders, reference_pattern="{case}/seg.nii.gz")

    def test_it_prints_policy_summary_and_number_of_failures(self, scores: Scores):
        text = str(scores)
        first, *lines, last = text.splitlines()
        assert first == "brats2023"
        assert all(said in text for said in scores.scheme.policy.split("; "))
        head, *rows = lines[next(n for n, line in enumerate(lines) if line[:6] == "region") :]
        assert head.split() == [
            "region", "measure", "mean", "sd", "low", "high", "median", "n", "undefined"
        ]  # fmt: skip
        assert rows[0].split()[:3] == ["WT", "dice", "0.1667"]
        assert last.startswith("cases: 6, failed: 5")

    def test_real_folders_in_their_own_layout(self, brats: Path, tmp_path: Path):
        case = "brats_2013_pat0004_1"
        reference = read_volume(brats / case / "OTMultiClass.nii.gz")
        shifted = Volume(np.roll(reference.array_CIJK, 2, axis=3), reference.affine)
        write_volume(shifted, tmp_path / f"{case}.nii.gz")
        scores = score_cases(
            tmp_path, brats, scheme="brats2015", reference_pattern="{case}/OTMultiClass.nii.gz"
        )
        assert [result.status for result in scores.cases] == ["failed", "scored", "failed"]
        for region, score in scores.cases[1].score.regions.items():
            assert 0.5 < score.measures["dice"] < 1, region
            assert score.measures["hd95"] == 2, region


class TestFiles:
    """`write_scores`: what was found can be read again."""

    def test_json_holds_everything(self, scores: Scores, tmp_path: Path):
        write_scores(scores, tmp_path / "deep" / "out")
        document = json.loads((tmp_path / "deep" / "out" / "scores.json").read_text())
        assert document["medseg3d"] == medseg3d.__version__
        assert document["scheme"] == "brats2023"
        assert document["policy"] == scores.scheme.policy
        assert document["regions"] == ["WT", "TC", "ET"]
        cases = {case.pop("case"): case for case in document["cases"]}
        assert cases["good"]["status"] == "scored"
        assert cases["good"]["reason"] is None
        assert cases["good"]["predicted"].endswith("predicted/good.nii.gz")
        assert cases["good"]["regions"]["WT"]["dice"] == pytest.approx(240 / 288)
        assert cases["missing"]["predicted"] is None
        assert cases["missing"]["status"] == "failed"
        assert cases["unknown"]["reference"] is None
        assert cases["unknown"]["regions"] == {}
        summary = document["summary"]["ET"]["hd95"]
        assert summary["n"] == 5
        assert summary["mean"] == pytest.approx((1 + 4 * 374) / 5)
        assert {"sd", "median", "low", "high", "undefined"} < summary.keys()

    def test_tables_hold_every_number_and_every_failure(self, scores: Scores, tmp_path: Path):
        write_scores(scores, tmp_path)
        long, wide = (
            [*csv.DictReader((tmp_path / name).read_text().splitlines())]
            for name in ("scores.csv", "scores_wide.csv")
        )
        measures = PROTOCOLS["brats2023-gli"].measures
        assert len(long) == 5 * 3 * (len(measures) + 5) + 1
        [dice] = [
            float(row["value"]) for row in long
            if (row["case"], row["region"], row["measure"]) == ("good", "WT", "dice")
        ]  # fmt: skip
        assert dice == scores.cases[2].score.regions["WT"].measures["dice"]
        assert [row["case"] for row in wide] == [result.pair.case for result in scores.cases]
        assert float(wide[2]["WT_dice"]) == dice
        assert (wide[2]["status"], wide[2]["reason"]) == ("scored", "")
        assert (wide[5]["status"], wide[5]["WT_dice"]) == ("failed", "")
        for rows in (long, wide):
            reasons = {row["case"]: row["reason"] for row in rows}
            assert reasons == {r.pair.case: r.reason or "" for r in scores.cases}

    def test_undefined_is_null_in_json_and_nan_in_tables(self, tmp_path: Path, folders):
        scheme = Scheme(values={2: "ED", 3: "ET"}, protocol=Protocol(one_empty="nan"))
        write_scores(score_cases(*folders, scheme=scheme), tmp_path)
        document = json.loads((tmp_path / "scores.json").read_text())
        assert document["cases"][4]["regions"]["ET"]["hd95"] is None
        assert document["summary"]["ET"]["hd95"]["undefined"] == 4
        assert "missing,failed,ET,hd95,nan,no prediction" in (tmp_path / "scores.csv").read_text()

    def test_the_same_scores_are_the_same_bytes_and_nothing_else_is_left(self, scores, tmp_path):
        for folder in ("first", "second"):
            write_scores(scores, tmp_path / folder)
        names = {path.name for path in (tmp_path / "first").iterdir()}
        assert names == {"scores.json", "scores.csv", "scores_wide.csv", "lesions.csv"}
        for name in names:
            first, second = (tmp_path / folder / name for folder in ("first", "second"))
            assert first.read_bytes() == second.read_bytes()

    def test_lesions_of_an_earlier_evaluation_do_not_stay(self, scores, folders, tmp_path):
        write_scores(scores, tmp_path / "out")
        write_scores(score_cases(*folders), tmp_path / "out")
        assert not (tmp_path / "out" / "lesions.csv").exists()

    def test_every_lesion_has_a_row(self, scores: Scores, tmp_path: Path):
        write_scores(scores, tmp_path)
        rows = [*csv.DictReader((tmp_path / "lesions.csv").read_text().splitlines())]
        assert len(rows) == 5 * 3
        by_name = {(row["case"], row["region"]): row for row in rows}
        found, missed = by_name["good", "WT"], by_name["missing", "WT"]
        assert (found["lesion"], found["status"], found["center_mm_x"]) == ("1", "tp", "6.5")
        assert float(found["dice"]) == pytest.approx(240 / 288)
        assert (missed["status"], missed["dice"], missed["hd95"]) == ("fn", "0.0", "374.0")

    def test_what_was_written_is_read_again(self, scores: Scores, tmp_path: Path):
        write_scores(scores, tmp_path)
        again = read_scores(tmp_path)
        assert again == read_scores(tmp_path / "scores.json")
        assert again.to_dict() == scores.to_dict()

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("{", "Expecting property name"),
            ("[]", "not as medseg3d writes it"),
            ("{}", "'labels' is missing"),
            ('{"labels": {}, "cases": []}', "labels: Field required"),
            ('{"labels": {"values": {"1": "a"}}, "cases": [{}]}', "'predicted' is missing"),
            (
                '{"labels": {"values": {"1": "a"}}, "cases": [{"case": "c", "predicted": null, '
                '"reference": null, "reason": null, "regions": {"a": {"reference_mm3": 0.0, '
                '"predicted_mm3": 0.0, "tp_voxels": 0, "fp_voxels": 0, "fn_voxels": 0}}}]}',
                "case 'c', a: dice, hd95",
            ),
        ],
    )
    def test_foreign_scores_are_refused(self, tmp_path: Path, text, said):
        (tmp_path / "scores.json").write_text(text)
        with pytest.raises(FormatError, match=said):
            read_scores(tmp_path)

    def test_scores_that_are_not_there_are_refused(self, tmp_path: Path):
        with pytest.raises(FormatError, match=r"scores\.json' cannot be read: No such file"):
            read_scores(tmp_path)

    def test_a_folder_that_cannot_be_written_is_refused(self, scores: Scores, tmp_path: Path):
        (tmp_path / "file").touch()
        with pytest.raises(
            ConfigError, match=r"output folder '.*file' cannot be written to: File exists"
        ):
            write_scores(scores, tmp_path / "file")


@pytest.mark.slow
def test_scoring_starts_without_torch_and_without_scipys_image_routines():
    code = "import sys, medseg3d.evaluate.folder; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"torch", "monai", "SimpleITK", "scipy.ndimage", "matplotlib"} & {*loaded}
