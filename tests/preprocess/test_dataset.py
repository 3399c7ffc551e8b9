"""A data set preprocessed once: again only where a file or the configuration has changed."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from medseg3d.config.preprocess import PreprocessConfig
from medseg3d.data.cases import Case, write_cases
from medseg3d.data.store import Store
from medseg3d.errors import FormatError, GridError, LabelError, MedSegError
from medseg3d.io.files import write_volume
from medseg3d.labels import LabelScheme
from medseg3d.preprocess.dataset import changed_cases, preprocess_cases
from medseg3d.preprocess.sources import find_keys
from medseg3d.volume import Volume

SCHEME = LabelScheme(values={4: "core", 1: "shell"})
SHAPE = (6, 5, 4)
ROOT = Path(__file__).parents[2]

PREPARING = """
import signal, sys
from contextlib import suppress
from pathlib import Path
from medseg3d.config.preprocess import PreprocessConfig
from medseg3d.data.cases import read_cases
from medseg3d.data.store import Store
from medseg3d.labels import LabelScheme
from medseg3d.preprocess.dataset import preprocess_cases
if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with suppress(KeyboardInterrupt):
        preprocess_cases(
            read_cases(Path(sys.argv[1])),
            Store(Path(sys.argv[2])),
            PreprocessConfig(),
            LabelScheme(values={4: "core", 1: "shell"}),
            workers=2,
            progress=lambda done, total: print(done, flush=True),
        )
"""


def write(path: Path, array: np.ndarray, *, edge_mm: float = 1) -> None:
    write_volume(Volume(array[np.newaxis], np.diag([-edge_mm, 1.0, 1.0, 1.0])), path)


@pytest.fixture
def cases(tmp_path: Path) -> list[Case]:
    """Give two cases of two channels; a voxel in the corner is labelled 4."""
    found = []
    for name in ("p1", "p2"):
        rng = np.random.default_rng(len(found))
        paths = {part: tmp_path / f"{name}-{part}.nii.gz" for part in ("t1", "t2", "seg")}
        write(paths["t1"], rng.random(SHAPE, dtype=np.float32))
        write(paths["t2"], rng.integers(0, 500, SHAPE, np.int16))
        labels = np.zeros(SHAPE, dtype=np.uint8)
        labels[0, 0, 0] = 4
        write(paths["seg"], labels)
        found.append(Case(name, {"t1": paths["t1"], "t2": paths["t2"]}, paths["seg"]))
    return found


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def preprocess(
    cases: list[Case],
    store: Store,
    *,
    scheme: LabelScheme = SCHEME,
    workers: int = 1,
    **knobs: object,
) -> set[str]:
    """Preprocess, and tell which cases were written."""
    before = {*store.folder.glob("*.*/")}
    config = PreprocessConfig.model_validate(knobs)
    stored = preprocess_cases(cases, store, config, scheme, workers=workers)
    assert [case.id for case in stored] == [case.id for case in cases]
    return {path.name[:2] for path in {*store.folder.glob("*.*/")} - before}


def contents(store: Store) -> dict[str, bytes]:
    """Read all cases of a store."""
    files = sorted(store.folder.rglob("*.*/*"))
    return {str(file.relative_to(store.folder)): file.read_bytes() for file in files}


def test_cases_are_stored_as_the_network_takes_them(cases: list[Case], store: Store):
    case = preprocess_cases(cases, store, PreprocessConfig(), SCHEME)[0]
    assert case.id == "p1"
    assert case.image_CIJK.shape == (2, *SHAPE)
    np.testing.assert_allclose(case.image_CIJK.mean((1, 2, 3)), 0, atol=1e-6)
    assert case.places.keys() == {2}  # 0 background, 1 shell, 2 core
    assert case.places[2].tolist() == [[5, 0, 0]]  # the files run towards the left
    assert case.channels_IJK[5, 0, 0] == 2


def test_nothing_is_done_twice(cases: list[Case], store: Store):
    preprocess(cases, store)
    assert preprocess(cases, store) == set()


def test_a_case_is_done_again_when_one_of_its_files_has_changed(cases: list[Case], store: Store):
    preprocess(cases, store)
    write(cases[1].images["t2"], np.arange(120, dtype=np.int16).reshape(SHAPE))
    assert preprocess(cases, store) == {"p2"}
    write(cases[0].reference, np.ones(SHAPE, np.uint8))
    assert preprocess(cases, store) == {"p1"}


def test_a_copy_of_the_data_set_is_the_same_data_set(
    cases: list[Case], store: Store, tmp_path: Path
):
    preprocess(cases, store)
    (tmp_path / "copy").mkdir()

    def copy(path: Path) -> Path:
        return Path(shutil.copy(path, tmp_path / "copy"))

    copied = [
        Case(c.id, {name: copy(path) for name, path in c.images.items()}, copy(c.reference))
        for c in cases
    ]
    assert preprocess(copied, store) == set()
    config = PreprocessConfig()
    before = find_keys(cases, store, config, SCHEME)
    assert changed_cases(copied, store, config, SCHEME, before=before) == []


def test_what_a_run_began_with_is_missed_when_a_file_changes(cases: list[Case], store: Store):
    config = PreprocessConfig()
    before = preprocess_cases(cases, store, config, SCHEME).keys
    write(cases[1].images["t2"], np.arange(120, dtype=np.int16).reshape(SHAPE))
    preprocess(cases, store)  # another run has the new file in the store already
    assert changed_cases(cases, store, config, SCHEME, before=before) == ["p2"]
    assert changed_cases(cases, store, config, SCHEME, before={}) == []


def test_files_are_read_again_only_when_their_size_or_time_changes(cases: list[Case], store: Store):
    preprocess(cases, store)
    path = cases[0].images["t1"]
    stat = path.stat()
    path.write_bytes(bytes(stat.st_size))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert preprocess(cases, store) == set()  # nothing can be seen from outside
    os.utime(path)
    with pytest.raises(FormatError, match="case 'p1': "):
        preprocess(cases, store)


@pytest.mark.parametrize("suffix", [".mhd", ".nhdr"])
def test_voxels_beside_a_header_count_whatever_their_file_is_called(
    store: Store, tmp_path: Path, suffix: str
):
    path, voxels = tmp_path / f"a{suffix}", tmp_path / "other.raw"
    named = {
        ".mhd": "NDims = 3\nElementDataFile = other.raw\n",
        ".nhdr": "NRRD0004\ndimension: 3\ndata file: other.raw\n",
    }
    path.write_text(named[suffix])
    keys = []
    for content in (b"1", b"22"):
        voxels.write_bytes(content)
        keys.append(find_keys([Case("p", {"t1": path})], store, PreprocessConfig(), SCHEME)["p"])
    assert keys[0] != keys[1]


def test_all_is_done_again_when_the_configuration_or_the_values_have_changed(
    cases: list[Case], store: Store
):
    preprocess(cases, store)
    assert preprocess(cases, store, intensity="none") == {"p1", "p2"}
    more = LabelScheme(values={1: "a", 4: "b", 9: "c"})
    assert preprocess(cases, store, scheme=more) == {"p1", "p2"}
    ignoring = LabelScheme(values={4: "core", 1: "shell"}, ignore=7)
    assert preprocess(cases, store, scheme=ignoring) == {"p1", "p2"}
    assert preprocess(cases, store) == set()  # the first ones are still there


def test_every_knob_of_preprocessing_makes_another_key(cases: list[Case], store: Store):
    other = {
        "orientation": None, "crop": "nonzero", "spacing_mm": (1, 2, 3), "interpolation": "bspline",
        "intensity": {"mean": 1, "deviation": 2}, "nonfinite": "zero", "volume": "time-1",
        "tilt": "correct", "gaps": "resample",
    }  # fmt: skip
    assert other.keys() == PreprocessConfig.model_fields.keys()
    knobs = [{}, *({name: value} for name, value in other.items())]
    configs = [PreprocessConfig.model_validate(knob) for knob in knobs]
    keys = {find_keys(cases, store, config, SCHEME)["p1"] for config in configs}
    assert len(keys) == 1 + len(other)


def test_other_names_of_the_same_values_change_nothing(cases: list[Case], store: Store):
    preprocess(cases, store)
    renamed = LabelScheme(name="other", values={1: "a", 4: "b"}, regions={"all": (1, 4)})
    assert preprocess(cases, store, scheme=renamed) == set()


def test_progress_counts_cases_whether_done_now_or_before(cases: list[Case], store: Store):
    told: list[tuple[int, int]] = []
    for _ in range(2):
        preprocess_cases(
            cases, store, PreprocessConfig(), SCHEME, progress=lambda *n: told.append(n)
        )
    assert told == [(0, 2), (1, 2), (2, 2), (2, 2)]


@pytest.mark.parametrize(
    ("break_it", "error", "said"),
    [
        (lambda c: c.images["t1"].write_bytes(b"no"), FormatError, "not a sound gzip file"),
        (
            lambda c: write(c.images["t2"], np.ones(SHAPE, np.int16), edge_mm=2),
            GridError,
            "do not lie on one grid",
        ),
        (lambda c: write(c.reference, np.full(SHAPE, 3, np.uint8)), LabelError, "holds 3 (120"),
        (
            lambda c: write(c.reference, np.ones((6, 5, 3), np.uint8)),
            GridError,
            "'image' and 'label map' do not lie on one grid",
        ),
        (
            lambda c: write(c.images["t1"], np.full(SHAPE, np.nan, np.float32)),
            FormatError,
            "120 voxels of NaN",
        ),
    ],
)
def test_what_is_wrong_is_told_with_the_case(
    cases: list[Case], store: Store, break_it, error: type[Exception], said: str
):
    break_it(cases[1])
    with pytest.raises(error) as refused:
        preprocess(cases, store)
    assert str(refused.value).startswith("case 'p2': ")
    assert said in str(refused.value)
    assert {name[:2] for name in contents(store)} == {"p1"}


def test_nan_is_read_as_0_where_that_is_asked_for(cases: list[Case], store: Store):
    image = np.ones(SHAPE, dtype=np.float32)
    image[0, 0, 0] = np.nan
    write(cases[0].images["t1"], image)
    config = PreprocessConfig(nonfinite="zero", intensity="none")
    stored = preprocess_cases(cases, store, config, SCHEME)
    assert stored[0].image_CIJK[0, 5, 0, 0] == 0


def test_a_case_without_a_reference_is_stored_as_background_for_pretraining(
    cases: list[Case], store: Store
):
    stored = preprocess_cases([Case("p1", cases[0].images)], store, PreprocessConfig(), SCHEME)
    assert not stored[0].channels_IJK.any()
    assert stored[0].places == {}


def test_all_that_is_wrong_is_told_at_once(cases: list[Case], store: Store):
    for case in cases:
        case.images["t1"].write_bytes(b"no")
    with pytest.raises(FormatError) as refused:
        preprocess(cases, store)
    first, *lines = str(refused.value).splitlines()
    assert first == "2 of 2 cases cannot be preprocessed:"
    assert [line.partition(": ")[0] for line in lines] == ["  case 'p1'", "  case 'p2'"]


def test_faults_of_several_kinds_are_told_as_what_they_have_in_common(
    cases: list[Case], store: Store
):
    cases[0].images["t1"].write_bytes(b"no")
    write(cases[1].images["t1"], np.ones(SHAPE, np.int16), edge_mm=2)
    with pytest.raises(MedSegError, match=r"(?s)2 of 2 cases.*not a sound gzip.*one grid") as told:
        preprocess(cases, store)
    assert type(told.value) is MedSegError


def test_what_killed_processes_left_is_removed_but_not_what_may_be_written_now(
    cases: list[Case], store: Store
):
    old, new = (store.folder / f".p{n}.key.0123abcd.part" for n in range(2))
    for folder in (old, new):
        folder.mkdir()
    os.utime(old, (1, 1))
    preprocess(cases, store)
    assert not old.exists()
    assert new.exists()


class TestWorkers:
    @pytest.mark.slow
    def test_their_number_changes_no_byte(self, cases: list[Case], store: Store, tmp_path: Path):
        alone = Store(tmp_path / "alone")
        assert preprocess(cases, store, workers=2) == {"p1", "p2"}
        assert preprocess(cases, alone) == {"p1", "p2"}
        assert contents(store) == contents(alone)

    @pytest.mark.slow
    def test_their_faults_and_warnings_come_back_with_the_case(
        self, cases: list[Case], store: Store, caplog: pytest.LogCaptureFixture
    ):
        write(cases[0].images["t2"], np.ones(SHAPE, np.int16))
        write(cases[1].reference, np.full(SHAPE, 3, np.uint8))
        with pytest.raises(LabelError, match=r"^case 'p2': "):
            preprocess(cases, store, workers=2)
        assert "case 'p1': channel 2: every voxel is 1: an empty image" in caplog.messages

    def test_here_too_warnings_name_the_case(
        self, cases: list[Case], store: Store, caplog: pytest.LogCaptureFixture
    ):
        write(cases[0].images["t2"], np.ones(SHAPE, np.int16))
        preprocess(cases, store)
        assert caplog.messages == ["case 'p1': channel 2: every voxel is 1: an empty image"]


@pytest.mark.slow
class TestStopping:
    num_cases = 150

    @pytest.fixture
    def preparing(
        self, cases: list[Case], store: Store, tmp_path: Path
    ) -> Iterator[subprocess.Popen[str]]:
        """Give a process, alone in its session, that has two workers at work on many cases."""
        rng = np.random.default_rng(0)
        write(cases[0].images["t1"], rng.random((64, 64, 64), dtype=np.float32))
        write(cases[0].reference, np.ones((64, 64, 64), np.uint8))
        t1, many = cases[0].images["t1"], range(self.num_cases)
        write_cases(
            tmp_path / "cases.csv", [Case(f"c{n}", {"t1": t1}, cases[0].reference) for n in many]
        )
        (tmp_path / "preparing.py").write_text(PREPARING)
        process = subprocess.Popen(
            [sys.executable, tmp_path / "preparing.py", tmp_path / "cases.csv", store.folder],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        while process.stdout.readline() not in ("2\n", ""):
            pass
        yield process
        process.communicate()

    @pytest.mark.usefixtures("interruptible")
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_a_signal_to_all_ends_all_and_leaves_whole_cases(
        self, preparing: subprocess.Popen[str], store: Store, number: signal.Signals
    ):
        os.killpg(preparing.pid, number)
        _, told = preparing.communicate(timeout=20)
        assert told == ""
        assert self.end(preparing.pid)
        stored = [*store.folder.glob("*.*/")]
        assert 2 <= len(stored) < self.num_cases
        assert [*store.folder.glob(".*")] == []
        for folder in stored:
            assert store.load(*folder.name.split(".")).image_CIJK.shape == (1, 64, 64, 64)

    def test_workers_do_not_outlive_a_killed_parent(
        self, preparing: subprocess.Popen[str], store: Store
    ):
        preparing.kill()
        preparing.communicate(timeout=20)
        assert self.end(preparing.pid)

    def end(self, session: int) -> bool:
        """Wait for the last process of a session."""
        limit = time.monotonic() + 20
        while self.left(session) and time.monotonic() < limit:
            time.sleep(0.1)
        return not self.left(session)

    def left(self, session: int) -> list[str]:
        """Name the processes of a session that are still there."""
        found = []
        for path in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):
                _, _, facts = path.read_text().rpartition(") ")
                state, _, _, number, *_ = facts.split()
                if int(number) == session and state != "Z":
                    found.append(path.parent.name)
        return found

    def test_a_worker_that_is_killed_is_told_with_a_way_out(
        self, preparing: subprocess.Popen[str], store: Store
    ):
        workers = [pid for pid in self.left(preparing.pid) if int(pid) != preparing.pid]
        for pid in workers:
            if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(int(pid), signal.SIGKILL)
        _, told = preparing.communicate(timeout=20)
        assert "ConfigError: one of 2 processes that preprocess was killed" in told
        assert "Take fewer workers; cases that are done are kept." in told
