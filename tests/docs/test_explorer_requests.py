"""The page about the explorer has a command for each request with a body, and the explorer answers each of them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import PROJECT
from tests.docs.blocks import blocks
from tests.support.explorer import Explorer, install

PRINTED = "http://127.0.0.1:8765"
"""Address of the explorer in the documentation."""


def commands() -> list[str]:
    """Return the lines of the block of commands that ask the explorer."""
    (block,) = (block for block in blocks(PROJECT / "docs/explorer.md") if "curl" in block.text)
    return block.text.splitlines()


@pytest.mark.slow
def test_the_explorer_answers_the_commands_of_its_page(prepared: Path, tmp_path: Path) -> None:
    install("curl", "curl")
    shutil.copy(prepared / "chip.png", tmp_path)
    settings, requests = commands()[:2], commands()[2:]
    with Explorer(
        str(prepared / "embeddings"), tmp_path / "service", environment={"XDG_CACHE_HOME": str(tmp_path / "cache")}
    ) as explorer:
        described = explorer.get("/api/openapi.json").json()["paths"]
        asked = {re.search(r"\$view/(\w+)", request)[1] for request in requests}  # type: ignore[index]
        assert asked == {path.rpartition("/")[2] for path, methods in described.items() if "post" in methods}
        for request in requests:
            script = "\n".join([*settings, request.replace("curl ", "curl --fail --silent --show-error ", 1)])
            done = subprocess.run(
                ["bash", "-c", script.replace(PRINTED, explorer.url)],
                cwd=tmp_path,
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
            assert done.returncode == 0, f"{request}: {done.stderr}"
            if "-o " not in request:
                assert json.loads(done.stdout)
    assert json.loads((tmp_path / "answer.geojson").read_text())["type"] == "FeatureCollection"
