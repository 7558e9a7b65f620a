"""Run the examples in the docstrings of all rooms whose own tests do not run them."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

from tests.conftest import PROJECT

OWN_TESTS = {"raster", "search", "qa"}
"""Rooms of the library with a test of their examples in their own folder of tests."""

SLOW = {"rasterembed.model.embedder"}
"""Modules whose examples load a model."""


def modules() -> list[str]:
    """Return the names of the modules with an example."""
    found = []
    for room in ("rasterembed", "flows", "tasks", "blocks"):
        for path in sorted((PROJECT / room).rglob("*.py")):
            parts = path.relative_to(PROJECT).with_suffix("").parts
            if parts[1] not in OWN_TESTS and ">>> " in path.read_text():
                found.append(".".join(parts).removesuffix(".__init__"))
    return found


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in modules()]
)
def test_examples(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert doctest.testmod(importlib.import_module(name)).failed == 0
