"""Texts of the library that reach the explorer's page name its controls, or settings of a run."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from rasterembed.command_line.wrong_options import option_names
from rasterembed.commands.collection_embed import app as collection_embed
from rasterembed.commands.embed import app as embed
from rasterembed.commands.explore import app as explore
from rasterembed.commands.search import app as search
from tests.conftest import PROJECT

LIBRARY = PROJECT / "rasterembed"
ROOMS = ("store", "raster", "model", "dataset", "collection", "qa", "search", "explorer")
"""Rooms whose texts can reach the page, except the questions about all tiles in `search/batch`."""

PAGE_WORDS = LIBRARY / "explorer/page/src/page_words.ts"

NO_PARAMETERS = frozenset({"embedding", "visual", "explore", "limit", "filter", "query"})
"""Names of a column, of an asset, of a function for notebooks, and of parts of a STAC API's search."""

SERVICE = frozenset({"similarity", "basemap_attribution"})
"""A parameter of the API that only the page itself sends, and a setting of the operator."""


def controls() -> set[str]:
    """Return the parameters that the page translates."""
    names = re.findall(r"^    ([a-z_]+): '", PAGE_WORDS.read_text(), flags=re.MULTILINE)
    assert {"pick", "like", "tile"} <= set(names)
    return set(names)


def texts(file: Path) -> Iterator[str]:
    """Yield the texts in the code of a file, without docstrings and without the descriptions of fields."""
    tree = ast.parse(file.read_text())
    left_out: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr):  # A docstring.
            left_out.update(ast.walk(node.value) if isinstance(node.value, ast.Constant) else ())
        if isinstance(node, ast.keyword) and node.arg == "description":
            left_out.update(ast.walk(node.value))
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in left_out:
            yield node.value


def test_each_parameter_in_a_text_is_a_control_of_the_page_or_an_option_of_a_command() -> None:
    known = controls() | NO_PARAMETERS | SERVICE
    for command in (embed, collection_embed, explore, search):
        known |= set(option_names(command.assemble_argument_collection()))
    unknown = {}
    files = [file for room in ROOMS for file in (LIBRARY / room).rglob("*.py") if "batch" not in file.parts]
    assert len(files) > 100
    for file in files:
        for text in texts(file):
            names = set(re.findall(r"`([a-z][a-z0-9_]*)(?:=[^`]*)?`", text))
            if names - known:
                unknown[f"{file.relative_to(LIBRARY)}: {text}"] = names - known
    assert unknown == {}


def test_no_error_of_the_library_spells_an_option_of_a_command() -> None:
    """A command turns `allow_no_crs` into --allow-no-crs. The page and a notebook show other words."""
    spelled = []
    for file in (file for room in ROOMS[:-1] for file in (LIBRARY / room).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.Raise) or node.exc is None:
                continue
            parts = [part.value for part in ast.walk(node.exc) if isinstance(part, ast.Constant)]
            text = " ".join(part for part in parts if isinstance(part, str))
            # `rio` and `rasterembed` are commands that the text tells to run.
            if re.search(r"(?<![\w-])--[a-z]", text) and not re.search(r"\b(rio|rasterembed) ", text):
                spelled.append(f"{file.relative_to(LIBRARY)}: {text}")
    assert spelled == []
