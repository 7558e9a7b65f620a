"""Names of parameters and commands in a text of the library."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from rasterembed.parameter_names import NamedParameter, named_parameters, replace_commands, replace_parameters
from tests.conftest import PROJECT

ROOMS = ("rasterembed", "flows", "tasks", "blocks")
"""Folders with the texts of the library."""


def test_parameters_have_a_name_a_value_and_an_owner() -> None:
    text = "give `anchor=crs` or `origin=3 -1.5`, not `source_store.https_hosts`, and see `Grid` and 'size'"
    assert list(named_parameters(text)) == [
        NamedParameter("anchor", "crs"),
        NamedParameter("origin", "3 -1.5"),
        NamedParameter("https_hosts", owner="source_store"),
    ]


def test_a_backtick_in_the_name_of_a_file_hides_no_parameter() -> None:
    text = "a`b.tif: there is no CRS: give `allow_no_crs`"
    assert replace_parameters(text, lambda parameter: f"<{parameter.name}>") == (
        "a`b.tif: there is no CRS: give <allow_no_crs>"
    )
    assert replace_parameters(text, lambda parameter: None) == text


def test_only_commands_get_other_words() -> None:
    text = "give `size`, or run `rasterembed datasets verify a`: the file `rasterembed` is no command"
    assert replace_commands(text, str.upper) == (
        "give `size`, or run `RASTEREMBED DATASETS VERIFY A`: the file `rasterembed` is no command"
    )


def test_an_error_that_begins_with_a_parameter_has_it_in_backticks() -> None:
    """Without the backticks, a command shows `stretch_of` to a person who types --stretch-of."""
    bare = []
    for file in (file for room in ROOMS for file in (PROJECT / room).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args:
                text = node.exc.args[0]
                first = text.values[0] if isinstance(text, ast.JoinedStr) else text
                if isinstance(first, ast.Constant) and re.match(r"[a-z][a-z0-9_]*: ", str(first.value)):
                    bare.append(f"{file.relative_to(PROJECT)}: {first.value}")
    assert bare == []


def test_a_command_to_run_is_in_backticks() -> None:
    """Without the backticks, it does not get the root of the running command, and fails when it is pasted.

    A text that begins with the command is the command alone. The text around it has the backticks.
    """
    bare = [
        f"{file.relative_to(PROJECT)}: {text}"
        for room in ROOMS
        for file in (PROJECT / room).rglob("*.py")
        for text in texts(ast.parse(file.read_text()))
        if re.search(r"(?<=[^`])\brasterembed (collection|datasets|embed|qa|search)\b", text)
    ]
    assert bare == []


def texts(module: ast.Module) -> Iterator[str]:
    """Yield the texts in the code of a module, without docstrings. A computed part of a text is three dots."""
    nodes = list(ast.walk(module))
    docstrings = [node.value for node in nodes if isinstance(node, ast.Expr)]
    parts = [part for node in nodes if isinstance(node, ast.JoinedStr) for part in node.values]
    left_out = {id(node) for node in (*docstrings, *parts)}
    for node in nodes:
        if id(node) in left_out:
            continue
        if isinstance(node, ast.JoinedStr):
            values = (part.value if isinstance(part, ast.Constant) else "..." for part in node.values)
            yield "".join(value for value in values if isinstance(value, str))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
