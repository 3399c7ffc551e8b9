"""What `predict` writes as asked, and how it ends when it is stopped or the disk is full."""

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medseg3d.io.files import read_label_map, read_volume, write_volume
from medseg3d.nets.bundle import Bundle, save_bundle
from medseg3d.volume import Volume

Run = Callable[..., Any]
NUM_CASES = 14
LIMITED = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
del sys.argv[1]
from medseg3d.cli import main
main()
"""


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """Give a folder of more scans than are segmented in the time of a test."""
    folder = tmp_path / "many"
    folder.mkdir()
    image = np.random.default_rng(0).normal(100, 20, size=(1, 64, 64, 64)).astype(np.int16)
    write_volume(Volume(image, np.eye(4)), folder / "case00.nii.gz")
    for number in range(1, NUM_CASES):
        shutil.copy(folder / "case00.nii.gz", folder / f"case{number:02d}.nii.gz")
    return folder


def test_several_models_are_averaged(
    run: Run, model: Path, scans: Path, tmp_path: Path, build_bundle: Callable[..., Bundle]
) -> None:
    other = build_bundle("t1", spacing_mm=(1.0, 1.0, 3.0))
    save_bundle(other, tmp_path / "other.safetensors")
    scan = scans / "a.nii.gz"

    both = ("predict", model, scan, "--model", model, "--out")
    ended = run(*both, tmp_path / "twice", "--uncertainty", "--json")
    differing = run(
        "predict", model, scan, "--model", tmp_path / "other.safetensors", "--out", tmp_path / "no"
    )
    run("predict", model, scan, "--out", tmp_path / "once")

    assert ended.code == 0, ended.err
    twice, once = (read_label_map(tmp_path / name / "a.nii.gz") for name in ("twice", "once"))
    np.testing.assert_array_equal(twice.array_CIJK, once.array_CIJK)
    bits = read_volume(tmp_path / "twice" / "a_uncertainty.nii.gz")
    assert bits.array_CIJK.max() < 1e-3, "a model agrees with itself"
    assert differing.code == 2
    assert (
        "models 1 and 2 cannot be averaged, they differ in preprocess.spacing_mm" in differing.err
    )


def test_results_that_are_there_are_told_apart(
    run: Run, model: Path, scans: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    run("predict", model, scans / "a.nii.gz", "--out", out)

    refused = run("predict", model, scans, "--out", out)
    both = run("predict", model, scans, "--out", out, "--skip-existing", "--overwrite")
    ended = run("predict", model, *sorted(scans.iterdir()), "--out", out, "--skip-existing")
    again = run(
        "predict", model, *sorted(scans.iterdir()), "--out", out, "--skip-existing", "--json"
    )

    assert (refused.code, both.code, ended.code, again.code) == (2, 2, 0, 0)
    assert "--overwrite replaces results, --skip-existing keeps them; give one" in both.err
    assert "1 of 1 cases segmented" in ended.err
    assert "; 1 were there already" in ended.err
    assert [case["skipped"] for case in json.loads(again.out)] == [True, True]


def test_files_beside_a_label_map_are_no_predictions_to_be_scored(
    run: Run, model: Path, scans: Path, tmp_path: Path
) -> None:
    out, options = tmp_path / "out", ("--probabilities", "--volumes")
    mirrored = ("--uncertainty", "--set", "predict.mirror=[i]")
    run("predict", model, *sorted(scans.iterdir()), "--out", out, *options, *mirrored)

    ended = run("evaluate", out, out, "--json")

    assert sorted(path.name for path in out.iterdir()) == [
        "a.nii.gz", "a_probabilities.nii.gz", "a_uncertainty.nii.gz",
        "b.nii.gz", "b_probabilities.nii.gz", "b_uncertainty.nii.gz", "volumes.csv",
    ]  # fmt: skip
    assert ended.code == 0, ended.err
    assert [case["case"] for case in json.loads(ended.out)["cases"]] == ["a", "b"]


@pytest.mark.slow
@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_stopped_in_mid_case_results_are_whole_and_the_rest_can_follow(
    run: Run, model: Path, many: Path, tmp_path: Path, sent: signal.Signals, code: int
) -> None:
    out = tmp_path / "out"
    words = [sys.executable, "-m", "medseg3d", "predict", model, *sorted(many.iterdir())]
    words += ["--out", out, "--volumes", "--json", "--set", "predict.overlap=0.75"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: len([*out.glob("*.nii.gz")]) >= 2, process)

    process.send_signal(sent)
    start = time.perf_counter()
    said, complaint = process.communicate(timeout=60)

    assert time.perf_counter() - start < 20
    assert process.returncode == code, complaint
    done = sorted(path.name.partition(".")[0] for path in out.glob("*.nii.gz"))
    assert 2 <= len(done) < NUM_CASES
    assert not [*out.glob(".*")]
    told = json.loads(said)
    assert [case["id"] for case in told] == done
    count = f"stopped; {len(done)} of {NUM_CASES} cases are done; go on with --skip-existing"
    assert count in complaint
    assert "Traceback" not in complaint
    assert sorted({row.partition(",")[0] for row in table(out)[1:]}) == done

    rest = run(*words[3:], "--skip-existing")

    assert rest.code == 0, rest.err
    assert len({(out / f"case{n:02d}.nii.gz").read_bytes() for n in range(NUM_CASES)}) == 1
    assert len(table(out)) == 1 + 2 * NUM_CASES
    assert sum(case["skipped"] for case in json.loads(rest.out)) == len(done)


@pytest.mark.slow
@pytest.mark.parametrize("room", [200, 20_000])
def test_on_a_full_disk_each_case_says_so_and_leaves_no_file(
    model: Path, scans: Path, tmp_path: Path, room: int
) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-c", LIMITED, str(room), "predict", model, *scans.iterdir()]
    # the larger has room for the uncertainty, but not for the probabilities
    command += ["--out", out, "--uncertainty", "--probabilities", "--set", "predict.mirror=[i]"]

    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)

    assert ended.returncode == 1, ended.stderr
    complaint = " ".join(ended.stderr.split())
    for case in "ab":
        assert f"case '{case}': writing: ConfigError: cannot write" in complaint
    assert "0 of 2 cases segmented" in complaint
    assert not [*out.iterdir()]


def wait_for(condition: Callable[[], bool], process: "subprocess.Popen[str]") -> None:
    end = time.perf_counter() + 120
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.perf_counter() < end
        time.sleep(0.02)


def table(out: Path) -> list[str]:
    return (out / "volumes.csv").read_text().splitlines()
