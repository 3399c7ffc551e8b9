"""A missing extra gives the pip line; whatever else is missing is not hidden behind it."""

import sys
from pathlib import Path

import pytest

from medseg3d.errors import MedSegError, MissingExtraError
from medseg3d.extras import import_extra


def test_a_module_that_is_there_is_given():
    assert import_extra("json.decoder", extra="none") is sys.modules["json.decoder"]


@pytest.mark.parametrize("module", ["surely_not_installed", "surely_not_installed.part"])
def test_a_missing_package_gives_the_pip_line(module: str):
    with pytest.raises(MissingExtraError) as refused:
        import_extra(module, extra="dicom")
    assert "'surely_not_installed', which is not installed" in str(refused.value)
    assert 'pip install "medseg3d[dicom]"' in str(refused.value)
    assert isinstance(refused.value, MedSegError)
    assert isinstance(refused.value, ImportError)


def test_what_an_installed_package_lacks_itself_is_told_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "installed_but_broken.py").write_text("import surely_not_installed")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="No module named 'surely_not_installed'"):
        import_extra("installed_but_broken", extra="dicom")
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'json\.none'"):
        import_extra("json.none", extra="dicom")
