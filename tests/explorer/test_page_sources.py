"""The sources of the page: their types, and their own tests."""

from __future__ import annotations

import json
import re
import subprocess

import pytest

from tests.conftest import PROJECT
from tests.support.explorer import install

PAGE = PROJECT / "rasterembed/explorer/page"


def test_no_package_asks_for_a_newer_node_than_the_documents() -> None:
    engines = json.loads((PAGE / "package.json").read_text())["engines"]["node"]
    least = int(engines.removeprefix(">="))
    packages = json.loads((PAGE / "package-lock.json").read_text())["packages"]
    asked = {name: one["engines"]["node"] for name, one in packages.items() if "node" in one.get("engines", {})}
    newer = {name: text for name, text in asked.items() if int(re.findall(r"\d+", text)[0]) > least}
    assert len(asked) > 20
    assert not newer
    for file in ("Makefile", "docs/explorer.md", "rasterembed/explorer/page_files.py"):
        assert f"Node.js {least} or newer" in " ".join((PROJECT / file).read_text().replace('"', "").split())


@pytest.mark.slow
def test_the_page_has_no_wrong_type_and_passes_its_tests() -> None:
    install("npm", "nodejs", "npm")
    commands = [["npm", "run", "check"], ["npm", "test"]]
    if not (PAGE / "node_modules").is_dir():
        commands.insert(0, ["npm", "ci", "--no-audit", "--no-fund"])
    for command in commands:
        done = subprocess.run(command, cwd=PAGE, capture_output=True, text=True, timeout=240, check=False)
        assert done.returncode == 0, f"{' '.join(command)}:\n{done.stdout[-4000:]}{done.stderr[-2000:]}"
