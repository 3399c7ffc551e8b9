"""The verbs as a user types them: results, exit codes, and what a wrong input is told."""

import csv
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medseg3d.cli import app
from medseg3d.config.network import UNetPlusPlusConfig
from medseg3d.io.files import read_label_map, read_volume, write_volume
from medseg3d.nets.bundle import Bundle, build_recipe_net, save_bundle
from medseg3d.volume import Volume

AFFINE = np.diag([-1.0, -1.0, 2.0, 1.0])
ONE_AND_FOUR = "name: one-and-four\nvalues: {1: one, 4: four}\n"
Run = Callable[..., Any]


def test_scans_are_segmented_scored_and_reported(
    run: Run, model: Path, scans: Path, tmp_path: Path
) -> None:
    results, scores = tmp_path / "results", tmp_path / "scores"
    scheme = tmp_path / "scheme.yaml"
    scheme.write_text(ONE_AND_FOUR)

    predicted = run("predict", model, *sorted(scans.iterdir()), "--out", results)
    evaluated = run("evaluate", results, results, "--scheme", scheme, "--out", scores)
    page = run("report", scores / "scores.json", "--out", tmp_path / "page.html")

    assert predicted.code == 0, predicted.err
    assert "2 of 2 cases segmented" in predicted.err
    assert read_label_map(results / "a.nii.gz").affine.tobytes() == AFFINE.tobytes()
    assert evaluated.code == 0, evaluated.err
    content = json.loads((scores / "scores.json").read_text())
    assert content["summary"]["one"]["dice"]["mean"] == 1
    assert content["summary"]["four"]["hd95"]["mean"] == 0
    assert page.code == 0, page.err
    assert "<html" in (tmp_path / "page.html").read_text()


def test_predict_answers_machines_in_json(
    run: Run, model: Path, scans: Path, tmp_path: Path
) -> None:
    ended = run("predict", model, scans / "a.nii.gz", "--out", tmp_path / "out", "--json")

    (case,) = json.loads(ended.out)
    assert case["id"] == "a"
    assert case["path"] == str(tmp_path / "out" / "a.nii.gz")
    assert case["reason"] is None


def test_labels_of_a_trained_model_can_be_given_codes_and_colours(
    run: Run, model: Path, scans: Path, tmp_path: Path
) -> None:
    settings = ["labels.codes.one=liver", "labels.colors.four=#112233"]
    settings.append("labels.codes.four={category: 1 |Kind|, type: 2 |Thing|}")
    options = [part for setting in settings for part in ("--set", setting)]

    ended = run("predict", model, scans / "a.nii.gz", "--out", tmp_path / "out", *options)

    assert ended.code == 0, ended.err
    assert read_label_map(tmp_path / "out" / "a.nii.gz").affine.tobytes() == AFFINE.tobytes()


def test_what_a_model_predicts_is_put_right_as_asked(
    run: Run, model: Path, scans: Path, tmp_path: Path
) -> None:
    setting = "predict.postprocess={four: {smallest_region_mm3: 1e6, becomes: one}}"

    raw = run("predict", model, scans / "a.nii.gz", "--out", tmp_path / "raw")
    ended = run("predict", model, scans / "a.nii.gz", "--out", tmp_path / "out", "--set", setting)
    wrong = run(
        "predict", model, scans, "--out", tmp_path / "no", "--set", "predict.postprocess.for={}"
    )

    assert (raw.code, ended.code, wrong.code) == (0, 0, 2), ended.err
    before, after = (
        read_label_map(tmp_path / out / "a.nii.gz").array_CIJK for out in ("raw", "out")
    )
    assert (before == 4).any()
    np.testing.assert_array_equal(after, np.where(before == 4, 1, before))
    assert "predict.postprocess.for: no region or value; did you mean 'four'?" in wrong.err
    assert not (tmp_path / "no").exists()


def test_one_broken_scan_gives_exit_code_1_and_its_name(
    run: Run, model: Path, scans: Path, tmp_path: Path
) -> None:
    (scans / "b.nii.gz").write_text("this is a text file")

    ended = run("predict", model, *sorted(scans.iterdir()), "--out", tmp_path / "out")

    assert ended.code == 1
    assert "case 'b': reading: FormatError" in ended.err
    assert "1 of 2 cases segmented" in ended.err
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["a.nii.gz"]


def test_a_missing_prediction_gives_exit_code_1(run: Run, scans: Path, tmp_path: Path) -> None:
    references = tmp_path / "references"
    references.mkdir()
    for name in ("a", "b"):
        label_map = np.ones((1, 5, 5, 5), np.uint8)
        write_volume(Volume(label_map, AFFINE), references / f"{name}.nii.gz")
    results = tmp_path / "results"
    results.mkdir()
    write_volume(read_volume(references / "a.nii.gz"), results / "a.nii.gz")

    ended = run("evaluate", results, references, "--out", tmp_path / "scores", "--json")

    assert ended.code == 1
    cases = {case["case"]: case for case in json.loads(ended.out)["cases"]}
    assert cases["b"]["status"] == "failed"
    assert cases["b"]["regions"]["label_1"]["dice"] == 0
    assert "case 'b'" in ended.err


def test_brats_references_score_perfectly_against_themselves(
    run: Run, brats: Path, tmp_path: Path
) -> None:
    path = brats / "brats_2013_pat0006_1" / "OTMultiClass.nii.gz"

    ended = run("evaluate", path, path, "--scheme", "brats2015", "--out", tmp_path, "--json")

    assert ended.code == 0, ended.err
    summary = json.loads(ended.out)["summary"]
    assert {r: (s["dice"]["mean"], s["hd95"]["mean"]) for r, s in summary.items()} == {
        "WT": (1, 0),
        "TC": (1, 0),
        "ET": (1, 0),
    }


@pytest.mark.parametrize("what", ["unet", "resunet", "unetplusplus", "mobile_resunet"])
def test_info_describes_networks(run: Run, what: str) -> None:
    facts = json.loads(run("info", what, "--json").out)

    assert facts["kind"] == what
    assert facts["parameters_3d"] > facts["parameters_2d"]
    assert facts["tflops_3d"] > 0
    assert facts["activations_gib_3d"] > 0


def test_info_describes_volumes_and_bundles(run: Run, model: Path, scans: Path) -> None:
    volume = json.loads(run("info", scans / "a.nii.gz", "--json").out)
    bundle = run("info", model)

    assert volume["shape"] == [20, 24, 9]
    assert volume["orientation"] == "LPS"
    assert volume["spacing_mm"] == [1, 1, 2]
    assert bundle.code == 0
    assert "one" in bundle.out


@pytest.fixture
def nested_model(tmp_path: Path, build_bundle: Callable[..., Bundle]) -> Path:
    """Give the file of a small untrained UNet++ of one channel."""
    network = UNetPlusPlusConfig(channels=(4, 6, 8), norm="instance", deep_supervision=True)
    recipe = build_bundle("t1").recipe.model_copy(update={"network": network})
    bundle = Bundle(build_recipe_net(recipe).eval(), recipe, "0.0.test")
    save_bundle(bundle, tmp_path / "nested.safetensors")
    return tmp_path / "nested.safetensors"


def test_a_pruned_model_predicts_what_the_whole_one_does_at_that_depth(
    run: Run, nested_model: Path, scans: Path, tmp_path: Path
) -> None:
    whole, shallow, small = (tmp_path / name for name in ("whole", "shallow", "small"))
    pruned = run("prune", nested_model, "--depth", 1, "--out", tmp_path / "small.safetensors")
    scan = scans / "a.nii.gz"

    run("predict", nested_model, scan, "--out", whole)
    set_ = run("predict", nested_model, scan, "--out", shallow, "--set", "network.depth=1")
    run("predict", tmp_path / "small.safetensors", scan, "--out", small)

    assert pruned.code == set_.code == 0, pruned.err + set_.err
    deep, at_depth, cut = (read_label_map(out / "a.nii.gz") for out in (whole, shallow, small))
    assert np.array_equal(at_depth.array_CIJK, cut.array_CIJK)
    assert not np.array_equal(at_depth.array_CIJK, deep.array_CIJK)
    assert " of " in pruned.out


WRONG = {
    "depth of a U-Net": (
        ["predict", "{model}", "{scan}", "--out", "{out}", "--set", "network.depth=1"],
        "network.depth: unknown key"),
    "knob of the network": (
        ["predict", "{model}", "{scan}", "--out", "{out}", "--set", "network.norm=batch"],
        "not free, the model was trained so; free are images., labels.codes., labels.colors., net"),
    "values of a trained model": (
        ["predict", "{model}", "{scan}", "--out", "{out}", "--set", "labels.values.1=two"],
        "not free, the model was trained so"),
    "unknown term": (
        ["predict", "{model}", "{scan}", "--out", "{out}", "--set", "labels.codes.one=livr"],
        "labels.codes.one: no term 'livr'; did you mean 'liver'?"),
    "code for no label": (
        ["predict", "{model}", "{scan}", "--out", "{out}", "--set", "labels.codes.two=liver"],
        "codes for ['two'], names are ['one', 'four']"),
    "prune a U-Net": (
        ["prune", "{model}", "--depth", "1", "--out", "{out}"], "cannot be cut to a depth"),
    "missing model": (["predict", "no.safetensors", "{scan}", "--out", "{out}"], "no model file"),
    "missing input": (["predict", "{model}", "no.nii.gz", "--out", "{out}"], "does not exist"),
    "empty folder": (["predict", "{model}", "{empty}", "--out", "{out}"], "holds nothing"),
    "output is a file": (["predict", "{model}", "{scan}", "--out", "{scan}"], "cannot be written"),
    "output in no place": (
        ["predict", "{model}", "{scan}", "--out", "/proc/nowhere/out"], "cannot be written"),
    "model is a scan": (["predict", "{scan}", "{scan}", "--out", "{out}"], "no whole .safetensors"),
    "unknown setting": (
        ["predict", "{model}", "{scan}", "--out", "{out}", "--set", "predict.overlp=0.1"],
        "did you mean 'overlap'?"),
    "setting without value": (
        ["predict", "{model}", "{scan}", "--out", "{out}", "--set", "predict.overlap"],
        "expected section.key=value"),
    "unknown scheme": (
        ["evaluate", "{scan}", "{scan}", "--scheme", "brats2032", "--out", "{out}"],
        "did you mean 'brats2023'?"),
    "missing prediction": (["evaluate", "no", "{scan}", "--out", "{out}"], "does not exist"),
    "missing config": (["train", "no.yaml", "--out", "{out}"], "cannot be read"),
    "config is no YAML": (["train", "{scan}", "--out", "{out}"], "cannot be read"),
    "report of nothing": (["report", "no.json", "--out", "{out}"], "no.json"),
    "info on nothing": (["info", "resnet"], "networks are unet, resunet_shortcut, resunet,"),
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_use_gives_exit_code_2_and_says_what(
    run: Run, model: Path, scans: Path, tmp_path: Path, wrong: str
) -> None:
    arguments, said = WRONG[wrong]
    (tmp_path / "empty").mkdir()
    places = {
        "model": model, "scan": scans / "a.nii.gz", "empty": tmp_path / "empty",
        "out": tmp_path / "out",
    }  # fmt: skip

    ended = run(*(argument.format(**places) for argument in arguments))

    assert ended.code == 2
    assert said in ended.err
    assert "Traceback" not in ended.err


BROKEN = {
    "text": b"this is a text file",
    "truncated": None,
    "empty": b"",
    "foreign gzip": gzip.compress(b"x" * 1000, mtime=0),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_files_are_named_and_leave_nothing_behind(
    run: Run, model: Path, scans: Path, tmp_path: Path, kind: str
) -> None:
    path = scans / "a.nii.gz"
    content = BROKEN[kind]
    path.write_bytes(path.read_bytes()[:2000] if content is None else content)

    ended = run("predict", model, path, "--out", tmp_path / "out")

    assert ended.code == 1
    assert "a.nii.gz" in ended.err
    assert not [*(tmp_path / "out").iterdir()]


def test_a_4d_file_is_refused_where_3d_is_needed(run: Run, model: Path, tmp_path: Path) -> None:
    write_volume(Volume(np.zeros((3, 8, 8, 8), np.int16), AFFINE), tmp_path / "four.nii.gz")

    ended = run("predict", model, tmp_path / "four.nii.gz", "--out", tmp_path / "out")

    assert ended.code == 1
    assert "has four axes" in ended.err


def test_the_table_of_a_training_feeds_predict_and_evaluate(
    run: Run, model: Path, scans: Path, tmp_path: Path
) -> None:
    label_map = Volume(np.ones((1, 20, 24, 9), np.uint8), AFFINE)
    write_volume(label_map, tmp_path / "reference.nii.gz")
    table = tmp_path / "cases.csv"
    with table.open("w", newline="") as stream:
        csv.writer(stream).writerows(
            [["case", "t1", "reference"], ["first", "scans/a.nii.gz", "reference.nii.gz"]]
        )

    predicted = run("predict", model, table, "--out", tmp_path / "out")
    evaluated = run("evaluate", tmp_path / "out", table, "--out", tmp_path / "scores")

    assert predicted.code == 0, predicted.err
    assert (tmp_path / "out" / "first.nii.gz").exists()
    assert evaluated.code == 0, evaluated.err


@pytest.mark.parametrize(
    "verb",
    ["demo", "check", "info", "train", "predict", "prune", "evaluate", "compare", "report"],
)
def test_every_verb_shows_help_with_an_example(run: Run, verb: str) -> None:
    ended = run(verb, "--help")

    assert ended.code == 0
    assert f"medseg3d {verb}" in ended.out
    assert "Example" in ended.out


def test_the_version_is_printed(run: Run) -> None:
    assert run("--version").out.startswith("medseg3d 0.")


def test_a_fault_of_ours_is_neither_a_failed_case_nor_wrong_use(run: Run) -> None:
    @app.command("break")
    def fail() -> None:
        raise RuntimeError("nobody foresaw this")

    ended = run("break")
    app.registered_commands.pop()

    assert ended.code == 3
    assert "nobody foresaw this" in ended.err
    assert "please report it" in ended.err
