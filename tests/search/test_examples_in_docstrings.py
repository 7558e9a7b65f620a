"""The examples in the docstrings of the search room run, and give what they say."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from pathlib import Path

import numpy as np
import pytest

import rasterembed.search
from rasterembed.model.choice import Dinov3
from rasterembed.store.object_store import ObjectStore
from tests.support.vectors import blank_raster, checkpoint, write_dataset

MODULES = sorted(module.name for module in pkgutil.walk_packages(rasterembed.search.__path__, "rasterembed.search."))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Enter a folder that has a dataset `scene` in `embeddings`, with the tile that the examples name."""
    monkeypatch.chdir(tmp_path)
    rows, cols = 14, 36
    vectors = np.random.default_rng(1).standard_normal((rows * cols, 8)).astype(np.float32)
    model = Dinov3(model=str(checkpoint(tmp_path / "model", 8)))
    write_dataset(
        ObjectStore(root="embeddings"), "scene", blank_raster(tmp_path / "scene.tif", rows, cols), model, vectors
    )
    return tmp_path


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str, folder: Path) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0


@pytest.mark.parametrize("name", ["query", "searcher", "index.building"])
def test_what_people_call_first_has_an_example(name: str) -> None:
    module = importlib.import_module(f"rasterembed.search.{name}")
    assert any(test.examples for test in doctest.DocTestFinder().find(module))
