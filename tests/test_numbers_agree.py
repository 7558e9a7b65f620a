"""Texts with a number: the verb after a number that may be 1 is chosen by `rasterembed.number_text`."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests.conftest import PROJECT

PLURAL_VERB = re.compile(r" (of [a-z ]+ |([a-z-]+ ){0,3})(are|have|were|pass|lie|do)\b")
"""Text after a number that is wrong for the number 1."""

A_NUMBER = re.compile(r"\blen\(|\bsum\(|\.total\(|\.count\b|^(count|rows|more|left|unknown|written|repeated|complete)$")
"""Expressions whose values are numbers of things."""

MANY = re.compile(r"^len\((scenes|records|answer\.hits)\) |\bseveral\b|'file'|^count measured vectors ")
"""Beginnings of texts whose numbers are never 1."""


def wrong_for_one(path: Path) -> Iterator[str]:
    """Yield the places where a number is followed by a verb for several things, without a choice of the verb."""
    module = ast.parse(path.read_text())
    chosen = {part for choice in ast.walk(module) if isinstance(choice, ast.IfExp) for part in ast.walk(choice)}
    for node in ast.walk(module):
        if isinstance(node, ast.JoinedStr) and node not in chosen:
            for value, text in zip(node.values, node.values[1:], strict=False):
                if isinstance(value, ast.FormattedValue) and isinstance(text, ast.Constant):
                    number = ast.unparse(value.value)
                    is_count = A_NUMBER.search(number) and not MANY.search(f"{number}{text.value}")
                    if is_count and PLURAL_VERB.match(str(text.value)):
                        yield f"{path.relative_to(PROJECT)}:{node.lineno}: {number}{text.value}"


def test_no_text_has_a_verb_that_is_wrong_for_the_number_one() -> None:
    folders = ("rasterembed", "tasks", "flows", "services")
    files = [file for folder in folders for file in (PROJECT / folder).rglob("*.py")]
    assert len(files) > 200
    assert [place for file in files for place in wrong_for_one(file)] == []
