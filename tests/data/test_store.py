"""Preprocessed cases on disk: whole or not there, and mapped rather than read."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from medseg3d.data.store import (
    MAX_PLACES,
    Store,
    StoredCase,
    StoredCases,
    read_keys,
    require_labels,
    write_keys,
)
from medseg3d.errors import ConfigError
from medseg3d.labels import IGNORED, LabelScheme

ROOT = Path(__file__).parents[2]
IMAGE = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)
SPACING_MM = (1.0, 1.0, 2.5)
CHANNELS = np.zeros((3, 4, 5), dtype=np.uint8)
CHANNELS[1, 2, 3] = 1
CHANNELS[2] = 3

FILLED_BY_SEVERAL = """
import sys
from pathlib import Path
import numpy as np
from medseg3d.data.store import Store
store = Store(Path(sys.argv[1]))
image = np.ones((1, 40, 40, 40), np.float32)
channels = np.ones((40, 40, 40), np.uint8)
sys.stdin.readline()
for n in range(40):
    store.save(
        f"p{n}", "key", image_CIJK=image, channels_IJK=channels, spacing_mm=(1.0, 1.0, 1.0)
    )
"""


def save(store: Store, case: str = "p1", key: str = "key", *, channels=CHANNELS) -> None:
    image = np.resize(IMAGE, (2, *channels.shape))
    store.save(case, key, image_CIJK=image, channels_IJK=channels, spacing_mm=SPACING_MM)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Give a store that holds one case."""
    store = Store(tmp_path / "deep" / "store")
    save(store)
    return store


def test_what_is_saved_is_loaded(store: Store):
    case = store.load("p1", "key")
    assert case.id == "p1"
    assert case.shape_IJK == (3, 4, 5)
    assert case.spacing_mm == SPACING_MM
    np.testing.assert_array_equal(case.image_CIJK, IMAGE)
    np.testing.assert_array_equal(case.channels_IJK, CHANNELS)
    assert case.image_CIJK.dtype == np.float32
    assert case.channels_IJK.dtype == np.uint8


def test_a_box_has_image_and_channels_of_one_place(store: Store):
    patch = store.load("p1", "key").read((1, -1, 2), (2, 3, 2))
    np.testing.assert_array_equal(patch.image_CIJK, IMAGE[:, 1:][:, :, [0, 0, 1]][..., 2:4])
    np.testing.assert_array_equal(patch.channels_IJK, CHANNELS[1:][:, [0, 0, 1]][..., 2:4])


def test_a_case_of_arrays_is_as_a_stored_one(store: Store):
    stored = store.load("p1", "key")
    case = StoredCase.of_arrays("p1", IMAGE, channels_IJK=CHANNELS, spacing_mm=SPACING_MM)
    np.testing.assert_array_equal(case.image_CIJK, stored.image_CIJK)
    np.testing.assert_array_equal(case.channels_IJK, stored.channels_IJK)
    assert case.places.keys() == stored.places.keys()
    for channel in case.places:
        np.testing.assert_array_equal(case.places[channel], stored.places[channel])


def test_the_places_of_every_label_are_known(store: Store):
    places = store.load("p1", "key").places
    assert sorted(places) == [1, 3]
    assert places[1].tolist() == [[1, 2, 3]]
    np.testing.assert_array_equal(places[3], np.argwhere(CHANNELS == 3))


def test_of_a_large_label_some_places_are_remembered_the_same_each_time(tmp_path: Path):
    channels = np.pad(np.ones((30, 30, 30), dtype=np.uint8), 3)
    remembered = []
    for folder in ("a", "b"):
        store = Store(tmp_path / folder)
        save(store, channels=channels)
        remembered.append(store.load("p1", "key").places[1])
    assert remembered[0].shape == (MAX_PLACES, 3)
    assert len(np.unique(remembered[0], axis=0)) == MAX_PLACES
    assert remembered[0].min(axis=0).tolist() == [3, 3, 3]
    assert remembered[0].max(axis=0).tolist() == [32, 32, 32]
    np.testing.assert_array_equal(*remembered)


def test_a_case_without_labels_has_no_places(store: Store):
    save(store, "p2", channels=np.zeros_like(CHANNELS))
    assert store.load("p2", "key").places == {}


def test_ignored_voxels_are_no_places(store: Store):
    channels = CHANNELS.copy()
    channels[0] = IGNORED
    save(store, "p2", channels=channels)
    case = store.load("p2", "key")
    assert sorted(case.places) == [1, 3]
    assert case.channels_IJK[0, 0, 0] == IGNORED


def test_cases_of_one_name_made_from_different_things_lie_side_by_side(store: Store):
    assert store.holds("p1", "key")
    assert not store.holds("p1", "another")
    assert not store.holds("p2", "key")
    save(store, key="another", channels=CHANNELS * 2)
    assert store.load("p1", "key").channels_IJK.max() == 3
    assert store.load("p1", "another").channels_IJK.max() == 6


def test_what_is_there_is_never_changed(store: Store):
    mapped = store.load("p1", "key")
    files = {path: path.stat().st_ino for path in store.folder.rglob("*")}
    save(store)
    assert {path: path.stat().st_ino for path in store.folder.rglob("*")} == files
    np.testing.assert_array_equal(mapped.image_CIJK, IMAGE)


def test_a_case_whose_writing_fails_does_not_count(store: Store):
    (store.folder / "p2.key").touch()  # nothing can take its name, as if the disk were full
    with pytest.raises(ConfigError, match=r"cannot write '.*p2\.key': Not a directory"):
        save(store, "p2")
    assert not store.holds("p2", "key")
    assert sorted(path.name for path in store.folder.iterdir()) == ["p1.key", "p2.key"]


def test_a_case_whose_writing_is_interrupted_leaves_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
):
    def interrupt(_descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save(store, "p2")
    assert [path.name for path in store.folder.iterdir()] == ["p1.key"]


@pytest.mark.slow
def test_processes_that_write_the_same_cases_at_once_do_no_harm(tmp_path: Path):
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", FILLED_BY_SEVERAL, tmp_path / "store"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers:
        writer.communicate()
        assert writer.returncode == 0
    store = Store(tmp_path / "store")
    assert len([*store.folder.iterdir()]) == 40
    for case in StoredCases(store, {f"p{n}": "key" for n in range(40)}):
        assert case.image_CIJK.min() == 1
        assert len(case.places[1]) == MAX_PLACES


def test_many_cases_do_not_use_up_the_file_descriptors(store: Store):
    for n in range(2, 5):
        save(store, f"p{n}")
    before = len([*Path("/proc/self/fd").iterdir()])
    cases = StoredCases(store, {f"p{n}": "key" for n in range(1, 5)})
    assert sum(int(cases[n % 4].channels_IJK[2, 0, 0]) for n in range(600)) == 600 * 3
    assert len([*Path("/proc/self/fd").iterdir()]) <= before + 6


def test_some_of_the_cases_are_taken_by_place_or_by_name(store: Store):
    save(store, "p2")
    cases = StoredCases(store, {"p1": "key", "p2": "key"})
    assert len(cases) == 2
    assert [case.id for case in cases] == ["p1", "p2"]
    assert [case.id for case in cases[1:]] == ["p2"]
    assert [case.id for case in cases.choose(["p2", "p1"])] == ["p2", "p1"]


def test_which_cases_are_a_runs_is_read_as_it_was_written(tmp_path: Path):
    keys = {"p2": "b", "p1": "a"}
    write_keys(tmp_path / "stored.json", keys)
    assert [*read_keys(tmp_path / "stored.json").items()] == [*keys.items()]


@pytest.mark.parametrize("content", [None, "no"])
def test_a_run_that_does_not_say_its_cases_is_refused(tmp_path: Path, content: str | None):
    if content:
        (tmp_path / "stored.json").write_text(content)
    with pytest.raises(ConfigError, match=r"stored\.json' does not say .*Begin anew in another"):
        read_keys(tmp_path / "stored.json")


class TestLabels:
    scheme = LabelScheme(values={7: "shell", 9: "core", 11: "cyst"})

    def case(self, *channels: int) -> StoredCase:
        channels_IJK = np.zeros((3, 4, 5), dtype=np.uint8)
        channels_IJK.flat[: len(channels)] = channels
        return StoredCase.of_arrays("p", IMAGE, channels_IJK=channels_IJK, spacing_mm=SPACING_MM)

    def test_without_any_there_is_nothing_to_learn(self):
        for cases in ([self.case()], [self.case(255), self.case()]):
            with pytest.raises(ConfigError) as refused:
                require_labels(cases, self.scheme)
            assert str(refused.value).startswith(f"none of the {len(cases)} training cases has")
            assert "expected values [7, 9, 11]: there is nothing to learn" in str(refused.value)
            assert "data.reference" in str(refused.value)

    def test_one_that_never_occurs_is_warned_of(self, caplog: pytest.LogCaptureFixture):
        require_labels([self.case(1), self.case(), self.case(3)], self.scheme)
        assert caplog.messages == ["no training case has a voxel of 'core' (value 9)"]
