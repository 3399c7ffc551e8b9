"""The public face: names that scripts rely on; taking one away is a decision, not an accident."""

import ast
import pkgutil
from pathlib import Path

import pytest

import medseg3d
from medseg3d.errors import MedSegError

FACE = [
    "NETS",
    "SCHEMES",
    "Bundle",
    "BundleError",
    "ConfigError",
    "FormatError",
    "Grid",
    "GridError",
    "LabelError",
    "LabelScheme",
    "MedSegError",
    "MissingExtraError",
    "SeriesError",
    "Volume",
    "build_net",
    "find_series",
    "load_bundle",
    "load_config",
    "predict_case",
    "predict_labels",
    "predict_logits",
    "preprocess_volume",
    "read_dicom_seg",
    "read_series",
    "read_volume",
    "reorient_volume",
    "resample_volume",
    "save_bundle",
    "score_case",
    "score_cases",
    "train_folds",
    "train_run",
    "write_dicom_seg",
    "write_volume",
]
SLOW = {"train_folds", "train_run"}  # brings in monai


def names_for_type_checkers() -> dict[str, str]:
    """Read which name type checkers are told to find where."""
    tree = ast.parse(Path(medseg3d.__file__).read_text(encoding="utf-8"))
    (block,) = (
        node
        for node in tree.body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    return {
        alias.name: statement.module or ""
        for statement in block.body
        if isinstance(statement, ast.ImportFrom)
        for alias in statement.names
    }


def test_the_face_is_as_it_was_promised():
    assert medseg3d.__all__ == FACE


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if n in SLOW else ()) for n in FACE]
)
def test_every_name_is_there_and_comes_from_its_home(name: str):
    value = getattr(medseg3d, name)
    home = f"medseg3d.{medseg3d._HOME_OF[name]}"
    assert getattr(value, "__module__", home) == home
    assert getattr(medseg3d, name) is value


def test_homes_are_the_same_for_python_and_for_type_checkers():
    homes = {name: f"medseg3d.{home}" for name, home in medseg3d._HOME_OF.items()}
    assert names_for_type_checkers() == homes
    assert sorted(homes) == sorted(FACE)
    assert sum(map(len, medseg3d._HOMES.values())) == len(FACE)


def test_the_docstring_is_the_table_of_contents():
    assert medseg3d.__doc__ is not None
    for name in FACE:
        assert name in medseg3d.__doc__ or issubclass(getattr(medseg3d, name), MedSegError)


def test_no_name_is_a_folders():
    assert not {module.name for module in pkgutil.iter_modules(medseg3d.__path__)} & {*FACE}


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'medseg3d' has no attribute 'Volum'"):
        _ = medseg3d.Volum


def test_dir_lists_the_face_and_the_version():
    assert sorted(dir(medseg3d)) == sorted([*FACE, "__version__"])
    assert medseg3d.__version__.count(".") == 2


def test_every_error_is_one_of_ours_and_a_value_error_or_an_import_error():
    errors = [getattr(medseg3d, name) for name in FACE if name.endswith("Error")]
    for error in set(errors) - {MedSegError}:
        assert issubclass(error, MedSegError)
        assert issubclass(
            error, ImportError if error.__name__ == "MissingExtraError" else ValueError
        )
