"""Documents that are made from the code say what the code says."""

import runpy
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
NETWORKS = pytest.param("reference/networks", marks=pytest.mark.slow)


@pytest.mark.parametrize("page", ["reference/config", NETWORKS, "concepts/evaluation"])
def test_a_page_is_the_one_the_code_gives(page: str) -> None:
    made = runpy.run_path(str(DOCS / "generate.py"))[f"describe_{Path(page).name}"]()

    assert (DOCS / f"{page}.md").read_text(encoding="utf-8") == made, "run: python docs/generate.py"
