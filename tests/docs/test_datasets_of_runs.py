"""A run of a flow that reads a dataset names one that an earlier run on the same page has made."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

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
