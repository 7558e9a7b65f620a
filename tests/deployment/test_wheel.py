"""The wheel holds the library and nothing else: names such as `flows` would collide with others in site-packages."""

from __future__ import annotations

import configparser
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import PROJECT

PAGE = ("index.html", "index.html.br", "assets/page-ABCD1234.js", "assets/page-ABCD1234.js.gz")
"""Some files of a built page."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    """Build the project's wheel from a copy of its sources, without a network."""
    pytest.importorskip("setuptools", minversion="77", reason="building offline needs setuptools in this environment")
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(PROJECT / name, source)
    for folder in ("rasterembed", "flows", "tasks", "blocks", "services", "examples"):
        ignored = shutil.ignore_patterns("__pycache__", "node_modules", "static")
        shutil.copytree(PROJECT / folder, source / folder, ignore=ignored)
    for name in PAGE:  # The page itself needs Node.js. The wheel takes whatever is in its folder.
        file = source / "rasterembed/explorer/static" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
    # A package of npm may have Python files, which are not part of the library.
    (source / "rasterembed/explorer/page/node_modules/gyp").mkdir(parents=True)
    (source / "rasterembed/explorer/page/node_modules/gyp/gyp.py").write_text("")
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--wheel-dir", str(target)]
    build = [sys.executable, "-m", "pip", "wheel", *options, str(source)]
    subprocess.run(build, env=os.environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"}, check=True, timeout=200)
    with zipfile.ZipFile(next(target.glob("*.whl"))) as file:
        yield file


def test_only_the_library_and_its_metadata_are_in_it(wheel: zipfile.ZipFile) -> None:
    top = {Path(name).parts[0] for name in wheel.namelist()}
    (metadata,) = (name for name in top if name.endswith(".dist-info"))
    assert top == {"rasterembed", metadata}
    modules = [path for path in (PROJECT / "rasterembed").rglob("*.py") if "node_modules" not in path.parts]
    source = {str(path.relative_to(PROJECT)) for path in modules}
    page = {f"rasterembed/explorer/static/{name}" for name in PAGE}
    assert source | page | {"rasterembed/py.typed"} == {
        name for name in wheel.namelist() if name.startswith("rasterembed/")
    }


def test_it_brings_the_console_command(wheel: zipfile.ZipFile) -> None:
    (name,) = (name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    points = configparser.ConfigParser()
    points.read_string(wheel.read(name).decode())
    assert dict(points["console_scripts"]) == {"rasterembed": "rasterembed.__main__:main"}
