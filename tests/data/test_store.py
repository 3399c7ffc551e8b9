"""Preprocessed cases on disk: whole or not there, and mapped rather than read."""

from pathlib import Path

import numpy as np
import pytest

from medseg3d.data.store import MAX_PLACES, Store, StoredCases
from medseg3d.errors import ConfigError

IMAGE = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)
SPACING_MM = (1.0, 1.0, 2.5)
CHANNELS = np.zeros((3, 4, 5), dtype=np.uint8)
CHANNELS[1, 2, 3] = 1
CHANNELS[2] = 3


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Give a store that holds one case."""
    store = Store(tmp_path / "deep" / "store")
    store.save("p1", "key", image_CIJK=IMAGE, channels_IJK=CHANNELS, spacing_mm=SPACING_MM)
    return store


def test_what_is_saved_is_loaded(store: Store):
    case = store.load("p1")
    assert case.id == "p1"
    np.testing.assert_array_equal(case.image_CIJK, IMAGE)
    np.testing.assert_array_equal(case.channels_IJK, CHANNELS)
    assert case.image_CIJK.dtype == np.float32
    assert case.channels_IJK.dtype == np.uint8


def test_arrays_of_any_memory_order_are_saved(store: Store):
    for axes in ((0, 1, 2), (2, 0, 1), (2, 1, 0)):
        image = IMAGE.transpose(0, *(axis + 1 for axis in axes))[:, ::-1]
        channels = CHANNELS.transpose(axes)
        store.save("p2", "key", image_CIJK=image, channels_IJK=channels, spacing_mm=SPACING_MM)
        case = store.load("p2")
        np.testing.assert_array_equal(case.image_CIJK, image)
        np.testing.assert_array_equal(case.channels_IJK, channels)
        assert case.image_CIJK.flags.c_contiguous
        assert case.channels_IJK.flags.c_contiguous


def test_voxels_are_mapped_not_read_and_cannot_be_changed(store: Store):
    case = store.load("p1")
    for array in (case.image_CIJK, case.channels_IJK):
        assert isinstance(array, np.memmap)
        assert not array.flags.writeable


def test_the_places_of_every_label_are_known(store: Store):
    places = store.load("p1").places
    assert sorted(places) == [1, 3]
    assert places[1].tolist() == [[1, 2, 3]]
    np.testing.assert_array_equal(places[3], np.argwhere(CHANNELS == 3))


def test_of_a_large_label_some_places_are_remembered_the_same_each_time(tmp_path: Path):
    channels = np.ones((30, 30, 30), dtype=np.uint8)
    remembered = []
    for folder in ("a", "b"):
        store = Store(tmp_path / folder)
        store.save(
            "p1",
            "",
            image_CIJK=channels[None].astype(np.float32),
            channels_IJK=channels,
            spacing_mm=SPACING_MM,
        )
        remembered.append(store.load("p1").places[1])
    assert remembered[0].shape == (MAX_PLACES, 3)
    assert len(np.unique(remembered[0], axis=0)) == MAX_PLACES
    assert remembered[0].max(axis=0).tolist() == [29, 29, 29]
    np.testing.assert_array_equal(*remembered)


def test_a_case_without_labels_has_no_places(store: Store):
    store.save(
        "p2", "key", image_CIJK=IMAGE, channels_IJK=np.zeros_like(CHANNELS), spacing_mm=SPACING_MM
    )
    assert store.load("p2").places == {}


def test_a_case_counts_under_the_key_it_was_made_with_only(store: Store):
    assert store.holds("p1", "key")
    assert not store.holds("p1", "another")
    assert not store.holds("p2", "key")
    store.save("p1", "another", image_CIJK=IMAGE, channels_IJK=CHANNELS, spacing_mm=SPACING_MM)
    assert store.holds("p1", "another")
    assert not store.holds("p1", "key")


@pytest.mark.parametrize("part", ["image.npy", "channels.npy", "places.npz"])
def test_a_case_whose_writing_is_interrupted_does_not_count(store: Store, part: str):
    path = store.folder / f"p1.{part}"
    path.unlink()
    path.mkdir()  # nothing can take its name, as if the disk were full
    with pytest.raises(ConfigError, match=r"cannot write .*p1\."):
        store.save("p1", "key", image_CIJK=IMAGE, channels_IJK=CHANNELS, spacing_mm=SPACING_MM)
    assert not store.holds("p1", "key")
    path.rmdir()
    store.save("p1", "key", image_CIJK=IMAGE, channels_IJK=CHANNELS, spacing_mm=SPACING_MM)
    assert store.holds("p1", "key")
    assert sorted(file.name for file in store.folder.iterdir()) == [
        "p1.channels.npy",
        "p1.image.npy",
        "p1.key",
        "p1.places.npz",
    ]


def test_many_cases_do_not_use_up_the_file_descriptors(store: Store):
    before = len([*Path("/proc/self/fd").iterdir()])
    cases = StoredCases(store, ["p1"] * 600)
    assert sum(int(case.channels_IJK[2, 0, 0]) for case in cases) == 600 * 3
    assert len([*Path("/proc/self/fd").iterdir()]) <= before + 4
    assert [case.id for case in cases[:2]] == ["p1", "p1"]
