"""Text from files and buckets is escaped: Markdown and HTML parsers of other projects show exactly the same text."""

from __future__ import annotations

import doctest
import logging
import unicodedata
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from PIL import Image

import tasks.artifacts
from rasterembed import escape
from rasterembed.command_line import run as command_run
from rasterembed.commands.embed_steps import TerminalSteps
from rasterembed.dataset.dataset import Dataset
from rasterembed.errors import DataError
from rasterembed.escape import escape_html, escape_lines, escape_markdown, escape_terminal, markdown_code
from rasterembed.model.choice import Dinov3
from rasterembed.pipeline import Steps
from rasterembed.qa.report import markdown
from rasterembed.qa.run import run_qa
from rasterembed.qa.thresholds import QaThresholds
from rasterembed.search.contact_sheet import write_sheet
from rasterembed.search.query import Query
from rasterembed.search.searcher import Searcher
from rasterembed.store.object_store import ObjectStore
from tasks.policy import log_expected_errors_in_one_line
from tests.support.vectors import blank_raster, checkpoint, write_dataset

HOSTILE = (
    "\x1b]0;owned\x07\x1b[2J\u202egnp.x\r\nerror: forged\u2028| ` `` \\| ![x](http://evil.example/x.png)"
    '<img src="http://evil.example/y.png" onerror=alert(1)> [a](javascript:alert(1)) www.evil.example &lt; _b_ *c*'
)
"""A text that tries to control a terminal, to load pictures, to forge a line, and to leave a cell or a code span."""

TEXTS = st.text(alphabet=st.one_of(st.characters(), st.sampled_from("`|\\![]()<>&_*~#$:/@\x1b\n\u202e ")))


class _Parsed(HTMLParser):
    """The tags and the text of an HTML page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        assert {name for name, _ in attrs} <= {"style"}  # The alignment of a column.

    def handle_data(self, data: str) -> None:
        self.text += data


def render(text: str) -> _Parsed:
    return _Parsed(MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(text))


def is_harmless(text: str) -> bool:
    return not any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") or c in "\u202e\u2066" for c in text)


def test_examples_in_docstrings() -> None:
    assert doctest.testmod(escape).failed == 0


@given(TEXTS)
@example(HOSTILE)
def test_a_terminal_gets_one_line_without_control_characters(text: str) -> None:
    shown = escape_terminal(text)
    assert is_harmless(shown)
    assert escape_terminal(shown) == shown
    shown.encode()


@given(TEXTS)
@example(HOSTILE)
@example("\\|![x](http://evil.example/x.png)")
@example("    indented")
@example("# heading")
def test_markdown_shows_a_text_letter_by_letter(text: str) -> None:
    wanted = escape_terminal(text).strip()
    for shown, tags in ((escape_markdown(text), set[str]()), (markdown_code(text), {"code"})):
        page = render(f"| a | b |\n|---|---|\n| {shown} | end |\n")
        assert page.tags - {"table", "thead", "tbody", "tr", "th", "td"} == tags
        assert page.text.split() == ["a", "b", *wanted.split(), "end"]


@given(TEXTS)
@example(HOSTILE)
def test_html_shows_a_text_letter_by_letter(text: str) -> None:
    page = _Parsed(f"<p>{escape_html(text)}</p>")
    assert page.tags == {"p"}
    assert page.text == escape_terminal(text)
    assert '"' not in escape_html(text)


def test_messages_of_the_library_are_one_line_without_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    Steps().on_wait(HOSTILE)
    TerminalSteps().on_wait(HOSTILE)
    output = capsys.readouterr()
    assert is_harmless(output.out.removesuffix("\n"))
    assert is_harmless(output.err.removesuffix("\n"))


def test_lines_stay_lines() -> None:
    assert escape_lines("a\n\x1b[31mb\r\n") == "a\n\\x1b[31mb\\r\n"


def test_an_error_is_one_line_without_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    assert is_harmless(str(DataError(f"{HOSTILE}: it cannot be read")))
    with pytest.raises(SystemExit):
        command_run.stop(HOSTILE, 1)
    output = capsys.readouterr().err
    assert output.startswith("error: ")
    assert is_harmless(output.removesuffix("\n"))


def test_the_logs_of_a_run_show_control_characters_as_codes() -> None:
    log_expected_errors_in_one_line()
    logger = logging.getLogger("prefect.flow_runs")
    record = logger.makeRecord(logger.name, logging.INFO, "", 0, "%s tiles in\n%s", (3, "\x1b[2J\u202e"), None)
    assert all(test.filter(record) for test in logger.filters)  # type: ignore[union-attr]
    assert record.getMessage() == "3 tiles in\n\\x1b[2J\\u202e"


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Make a dataset of a raster with a hostile name, by a model with a hostile name."""
    folder = tmp_path_factory.mktemp("hostile")
    # A path with a control character is refused before. All else may be part of a name.
    raster = blank_raster(
        folder / "\u202egnp.x | ` `` \\| ![x](y) <img onerror=alert(1)> www.evil.example _b_.tif", 4, 4
    )
    store = ObjectStore(root=str(folder / "store"))
    vectors = np.random.default_rng(3).standard_normal((16, 8)).astype(np.float32)
    manifest = write_dataset(store, "made", raster, Dinov3(model=str(checkpoint(folder / "model", 8))), vectors)
    manifest = manifest.model_copy(update={"model": HOSTILE})
    store.write("datasets/made/manifest.json", manifest.model_dump_json().encode())
    return Dataset.open(store, "made")


def test_artifacts_and_reports_show_names_letter_by_letter(hostile: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[dict[str, Any]] = []

    for function in ("create_markdown_artifact", "create_table_artifact"):
        monkeypatch.setattr(tasks.artifacts, function, lambda **fields: made.append(fields))
    tasks.artifacts.publish_summary(hostile.store, hostile.plan, hostile.manifest, f"search {HOSTILE}")
    report = run_qa(hostile.store, hostile.manifest, QaThresholds())
    report = report.model_copy(update={"notes": (*report.notes, HOSTILE), "pictures": ()})
    texts = [text for one in made for text in (one.get("markdown"), one["description"]) if text]
    for text in (*texts, markdown(report)):
        page = render(text)
        assert not page.tags & {"img", "a", "script", "em", "del"}
        assert is_harmless(page.text.replace("\n", ""))
    assert "http://evil.example/x.png" in render(markdown(report)).text
    assert any("gnp.x" in text for text in texts)


def test_an_answer_and_its_sheet_show_names_letter_by_letter(hostile: Dataset, tmp_path: Path) -> None:
    with Searcher(hostile.store, ["made"]) as searcher:
        answer = searcher.ask(Query(tile="r000001_c000001"), k=2)
        write_sheet(answer, searcher.datasets, tmp_path / "sheet.png")
    assert is_harmless(str(answer).replace("\n", ""))
    assert not any(line.startswith("error: forged") for line in str(answer).split("\n"))
    assert Image.open(tmp_path / "sheet.png").format == "PNG"
