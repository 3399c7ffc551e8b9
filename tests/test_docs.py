"""Documents that are made from the code say what the code says."""

import runpy
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"


def test_the_page_of_knobs_is_the_one_the_configuration_gives() -> None:
    made = runpy.run_path(str(DOCS / "generate.py"))["describe_config"]()

    assert (DOCS / "reference" / "config.md").read_text(encoding="utf-8") == made, (
        "run: python docs/generate.py"
    )
