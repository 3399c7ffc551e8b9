"""Without its extra, the room says what to install."""

import subprocess
import sys


def test_a_missing_extra_gives_the_pip_line() -> None:
    code = (
        "import sys\n"
        "sys.modules['matplotlib'] = None\n"
        "from medseg3d.errors import MissingExtraError\n"
        "try:\n"
        "    import medseg3d.report.page\n"
        "except MissingExtraError as error:\n"
        "    print(error)\n"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 'pip install "medseg3d[report]"' in said.stdout
