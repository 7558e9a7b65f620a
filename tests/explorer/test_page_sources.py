"""The sources of the page: their types, and their own tests."""

from __future__ import annotations

import subprocess

import pytest

from tests.conftest import PROJECT
from tests.support.explorer import install

PAGE = PROJECT / "rasterembed/explorer/page"


@pytest.mark.slow
def test_the_page_has_no_wrong_type_and_passes_its_tests() -> None:
    install("npm", "nodejs", "npm")
    commands = [["npm", "run", "check"], ["npm", "test"]]
    if not (PAGE / "node_modules").is_dir():
        commands.insert(0, ["npm", "ci", "--no-audit", "--no-fund"])
    for command in commands:
        done = subprocess.run(command, cwd=PAGE, capture_output=True, text=True, timeout=240, check=False)
        assert done.returncode == 0, f"{' '.join(command)}:\n{done.stdout[-4000:]}{done.stderr[-2000:]}"
