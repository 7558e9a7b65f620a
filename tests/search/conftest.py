"""Fixtures of the tests of search."""

from __future__ import annotations

import pytest

from rasterembed.search import indexed_search
from rasterembed.search.engines.flat import FlatEngine
from rasterembed.search.engines.ivf import IvfEngine


@pytest.fixture
def few_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a vector index of some dozen rows do all that it does for a million rows.

    An engine is asked although a comparison of all rows would be faster, and it proposes so few candidates that they
    must often be widened.
    """
    for engine in (FlatEngine, IvfEngine):
        monkeypatch.setattr(engine, "direct_rows", property(lambda self: 3))
    monkeypatch.setattr(indexed_search, "CANDIDATES", 4)
    monkeypatch.setattr(indexed_search, "_CANDIDATES_FOR_ROW", 1)
    monkeypatch.setattr(indexed_search, "_MOST_CANDIDATES", 64)
