"""Run the examples in the docstrings of the raster room."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from pathlib import Path

import pytest

import rasterembed.raster

MODULES = sorted(module.name for module in pkgutil.iter_modules(rasterembed.raster.__path__))


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(f"rasterembed.raster.{name}")
    result = doctest.testmod(module)
    assert result.failed == 0


@pytest.mark.parametrize("name", ["footprints", "grid", "profile", "radiometry", "skip_reason", "source"])
def test_what_people_call_first_has_an_example(name: str) -> None:
    module = importlib.import_module(f"rasterembed.raster.{name}")
    assert any(test.examples for test in doctest.DocTestFinder().find(module))
