"""The demo on small machines: one core, no Prefect, and a home folder that cannot be written."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.deployed import PROJECT, write_striped_raster

NO_HOME = "/proc/none"
"""A folder that nobody can make, not even root."""


def _demo(folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the demo on one core, in an environment without PREFECT and XDG variables."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "XDG_"))}
    core = min(os.sched_getaffinity(0))
    return subprocess.run(
        [sys.executable, "-m", "examples.demo", str(folder)],
        env=kept | {"PYTHONPATH": str(PROJECT)} | variables,
        cwd=PROJECT,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
        capture_output=True,
        text=True,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a small scene. Half of its sides holds one tile at least, whatever its corner is."""
    write_striped_raster(tmp_path / "scene.tif", 5, 5, 224)
    return tmp_path


@pytest.mark.slow
def test_it_runs_on_one_core_without_a_home(folder: Path) -> None:
    done = _demo(folder, HOME=NO_HOME, XDG_CACHE_HOME=str(folder / "cache"))
    assert done.returncode == 0, done.stderr
    assert "scenes: 2: 2 ready" in done.stdout
    found = re.search(
        r"(\d+) whole tiles have the same id; (\d+) of them have the same vector, and (\d+) sho", done.stdout
    )
    assert found is not None
    shared, equal, changed = map(int, found.groups())
    assert shared == equal + changed
    assert equal >= 1
    # The nearest tile to the example is that of the other date.
    tile = re.search(r"^tile \S+/(\S+);", done.stdout, re.MULTILINE)
    assert tile is not None
    assert re.search(rf"^1 .* {re.escape(tile[1])} ", done.stdout, re.MULTILINE)
    assert (folder / "search.png").stat().st_size > 1000


def test_its_help_makes_no_folder(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    command = [sys.executable, "-m", "examples.demo", "--help"]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "usage: python -m examples.demo" in done.stdout
    assert not list(tmp_path.iterdir())


def test_it_says_that_it_needs_a_folder_for_the_model(tmp_path: Path) -> None:
    write_striped_raster(tmp_path / "scene.tif", 3, 3, 224)
    done = _demo(tmp_path, HOME=NO_HOME)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"error: model 'demo' cannot be written to {NO_HOME}/.cache/rasterembed/demo-2: No such file or directory: "
        "set XDG_CACHE_HOME to a folder that can be written\n"
    )


def test_it_refuses_a_small_scene_in_one_line(tmp_path: Path) -> None:
    write_striped_raster(tmp_path / "scene.tif", 1, 1, 224)
    done = _demo(tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"error: {tmp_path}/scene.tif: 224 x 224 px are too few: give 512 or more\n"
