"""Files and links that the pages name exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from tests.conftest import PROJECT
from tests.docs.blocks import pages

TOP = "rasterembed|flows|tasks|blocks|services|airflow|docker|docs|examples|benchmarks|scripts|tests"
MADE = {"docker/.env", "rasterembed/explorer/static"}
"""Files and folders that a reader makes."""

_PATH = re.compile(rf"`((?:{TOP})/[\w./-]*)`")
_LINK = re.compile(r"\]\((?!https?://|#)([^)#\s]+)(?:#[^)]*)?\)")


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(PROJECT)))
def test_paths_and_links_of_a_page_exist(page: Path) -> None:
    text = page.read_text()
    if page.name == "CHANGELOG.md":
        text = text.partition("## 0.1.0")[0]
    missing = [path for path in _PATH.findall(text) if not (PROJECT / path).exists() and path.rstrip("/") not in MADE]
    missing += [link for link in _LINK.findall(text) if not _exists(page, link)]
    assert missing == []


def _exists(page: Path, link: str) -> bool:
    """Whether a link leads to a file, or to a page that the build makes."""
    return (page.parent / link).exists() or link.startswith("reference/")


def test_hosted_ci_runs_the_suites_of_ci_run() -> None:
    script = (PROJECT / ".ci/run").read_text()
    expressions = re.findall(r'-m "([^"$]+)"', script)  # such as `slow and not s3`
    chosen = {word for text in expressions for word in re.sub(r"not \w+|\b(and|or)\b", "", text).split()}
    suites = chosen | set(re.findall(r"^suite (\w+)", script, re.MULTILINE))
    assert len(suites) > 3
    workflow = yaml.safe_load((PROJECT / ".github/workflows/ci.yaml").read_text())
    assert set(workflow["jobs"]["suites"]["strategy"]["matrix"]["suite"]) == suites
