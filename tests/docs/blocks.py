"""Find the code blocks of the documentation, and the reasons of those that cannot be executed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

from tests.conftest import PROJECT

REASON = re.compile(r"<!-- not executed: (?P<reason>.+?) -->\s*$")
"""The comment directly before a block that this machine cannot execute."""


@dataclass(frozen=True)
class Block:
    """A code block of a page."""

    page: Path
    line: int
    """Line of the block's first line of code, counted from 1."""
    language: str
    """First word after the fence; empty if there is none, `indented` for a block without a fence."""
    text: str
    reason: str | None
    """Why the block is not executed; None if it is."""

    def __str__(self) -> str:
        return f"{self.page.relative_to(PROJECT)}:{self.line}"


def pages() -> list[Path]:
    """Return every page of the documentation."""
    return sorted([*PROJECT.glob("*.md"), *(PROJECT / "docs").rglob("*.md")])


def blocks(page: Path) -> Iterator[Block]:
    """Yield the code blocks of a page in their order."""
    lines = page.read_text().splitlines()
    for token in MarkdownIt().parse(page.read_text()):
        if token.type not in {"fence", "code_block"} or token.map is None:
            continue
        first = token.map[0]
        before = next((line for line in reversed(lines[:first]) if line.strip()), "")
        match = REASON.search(before)
        yield Block(
            page=page,
            line=first + 2 if token.type == "fence" else first + 1,
            language=token.info.split()[0] if token.info else ("" if token.type == "fence" else "indented"),
            text=token.content,
            reason=match["reason"] if match else None,
        )
