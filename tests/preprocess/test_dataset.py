"""A data set preprocessed once: again only where a file or the configuration has changed."""

import os
from pathlib import Path

import numpy as np
import pytest

from medseg3d.config.preprocess import PreprocessConfig
from medseg3d.data.cases import Case
from medseg3d.data.store import Store
from medseg3d.errors import ConfigError, FormatError, GridError, LabelError
from medseg3d.io.files import write_volume
from medseg3d.labels import LabelScheme
from medseg3d.preprocess.dataset import preprocess_cases
from medseg3d.volume import Volume

SCHEME = LabelScheme(values={4: "core", 1: "shell"})
SHAPE = (6, 5, 4)


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
    cases: list[Case], store: Store, *, scheme: LabelScheme = SCHEME, **knobs: object
) -> set[str]:
    """Preprocess, and tell which cases were written."""

    def written() -> dict[str, int]:
        return {path.name[:2]: path.stat().st_ino for path in store.folder.glob("*.key")}

    before = written()
    preprocess_cases(cases, store, PreprocessConfig.model_validate(knobs), scheme)
    return {name for name, number in written().items() if before.get(name) != number}


def test_cases_are_stored_as_the_network_takes_them(cases: list[Case], store: Store):
    assert preprocess(cases, store) == {"p1", "p2"}
    case = store.load("p1")
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
    assert cases[0].reference is not None
    os.utime(cases[0].reference, ns=(0, 0))
    assert preprocess(cases, store) == {"p1"}


def test_all_is_done_again_when_the_configuration_or_the_values_have_changed(
    cases: list[Case], store: Store
):
    preprocess(cases, store)
    assert preprocess(cases, store, intensity="none") == {"p1", "p2"}
    assert preprocess(cases, store) == {"p1", "p2"}
    more = LabelScheme(values={1: "a", 4: "b", 9: "c"})
    assert preprocess(cases, store, scheme=more) == {"p1", "p2"}


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
    assert told == [(1, 2), (2, 2)] * 2


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
    assert {path.name for path in store.folder.glob("*.key")} == {"p1.key"}


def test_nan_is_read_as_0_where_that_is_asked_for(cases: list[Case], store: Store):
    image = np.ones(SHAPE, dtype=np.float32)
    image[0, 0, 0] = np.nan
    write(cases[0].images["t1"], image)
    preprocess(cases, store, nonfinite="zero", intensity="none")
    assert store.load("p1").image_CIJK[0, 5, 0, 0] == 0


def test_a_case_without_a_reference_cannot_be_trained_on(cases: list[Case], store: Store):
    with pytest.raises(ConfigError, match=r"^case 'p1': there is no reference .*data\.reference$"):
        preprocess([Case("p1", cases[0].images)], store)
