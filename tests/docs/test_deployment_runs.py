"""Runs of deployments in the docs: their parameters exist, and the datasets that they read were made on the page."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from flows.embed_collection import embed_collection_flow
from flows.raster_embeddings import raster_embeddings
from tests.conftest import PROJECT

_MADE = re.compile(r"-p dataset_id=(\S+)")
_READ = re.compile(r"-p dataset=([^\s`]+)")
PAGES = [path for path in sorted((PROJECT / "docs").glob("*.md")) if _READ.search(path.read_text())]


def test_a_page_has_such_runs() -> None:
    assert PROJECT / "docs/deployment.md" in PAGES


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_read_dataset_was_made_above(page: Path) -> None:
    text = page.read_text()
    for read in _READ.finditer(text):
        assert read[1] in _MADE.findall(text[: read.start()])


def test_the_groups_that_the_page_names_are_parameters_of_both_flows() -> None:
    text = (PROJECT / "docs/deployment.md").read_text()
    (sentence,) = re.findall(r"is given as JSON of its group: ([^.]+)\.", text)
    groups = set(re.findall("`(\\w+)`", sentence))
    assert "grid" in groups
    for flow in (raster_embeddings, embed_collection_flow):
        assert groups <= inspect.signature(flow.fn).parameters.keys()
