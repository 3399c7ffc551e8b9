"""Documents that are made from the code say what the code says."""

import runpy
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"


@pytest.mark.parametrize("page", ["config", "networks"])
def test_a_page_of_reference_is_the_one_the_code_gives(page: str) -> None:
    made = runpy.run_path(str(DOCS / "generate.py"))[f"describe_{page}"]()

    assert (DOCS / "reference" / f"{page}.md").read_text(encoding="utf-8") == made, (
        "run: python docs/generate.py"
    )
