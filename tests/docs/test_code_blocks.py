"""Every code block of README and docs is executed, or says directly before it why it is not.

The blocks of a page run one after the other, as the cells of a notebook do, in a folder that holds a raster
`scene.tif`, the dataset `scene` of it in `embeddings/`, and files for queries. Blocks that are not executed are read:
names of modules, options and targets must exist, Python must compile and its imports must work.
"""

from __future__ import annotations

import ast
import importlib
import json
import re
import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import PROJECT
from tests.docs.blocks import Block, blocks, pages
from tests.docs.commands import check, commands, execute

LANGUAGES = {"python", "sh", "yaml", "json", "toml", "text"}
"""What a fence may name. `text` is for what no program reads: layouts of folders, output, pictures."""

OUR_PACKAGES = {"rasterembed", "flows", "tasks", "blocks", "services", "examples", "benchmarks", "tests"}

TELLS_TO_ACTIVATE = {PROJECT / "docs/deployment.md"}
"""Pages that say in their beginning how to activate the environment."""

BLOCKS = [block for page in pages() for block in blocks(page)]
EXECUTED = sorted({block.page for block in BLOCKS if not block.reason and block.language != "text"})
NOT_EXECUTED = [block for block in BLOCKS if block.reason]


def page_name(page: Path) -> str:
    return str(page.relative_to(PROJECT))


@pytest.fixture
def folder(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the prepared folder, which is the working directory."""
    shutil.copytree(prepared, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_a_block_names_its_language(block: Block) -> None:
    assert block.language in LANGUAGES, (
        f"the block has language {block.language!r}: begin it with ``` and one of {', '.join(sorted(LANGUAGES))}"
    )
    assert not (block.reason and block.language not in {"python", "sh"}), "only programs and commands need a reason"


@pytest.mark.parametrize("page", pages(), ids=page_name)
def test_a_shell_finds_the_programs_of_a_page(page: Path) -> None:
    """A program of the environment is named by its path, unless the page says that the environment is activated."""
    if page in TELLS_TO_ACTIVATE:
        return
    bare = [
        f"{block}: {command.words[0]}"
        for block in blocks(page)
        if block.language == "sh"
        for command in commands(block.text)
        if command.words and command.words[0] in {"rasterembed", "python", "prefect", "pytest", "airflow"}
    ]
    assert bare == []


@pytest.mark.parametrize("page", pages(), ids=page_name)
def test_a_page_says_where_its_example_dataset_comes_from(page: Path) -> None:
    """The tests have the dataset `scene` of `embeddings`. A reader makes it on the start page."""
    names_it = any(
        "embeddings" in block.text and re.search(r"[\"/ ]scene[\"/ ]", block.text)
        for block in blocks(page)
        if block.language in {"python", "sh"}
    )
    if names_it and page.name != "index.md":
        assert "(index.md#names-in-the-examples)" in page.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("page", EXECUTED, ids=page_name)
def test_the_blocks_of_a_page_run(
    page: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    namespace: dict[str, Any] = {"__name__": "documentation"}
    for block in blocks(page):
        if block.reason:
            continue
        if "flows." in block.text or "from blocks" in block.text:
            request.getfixturevalue("prefect_api")  # flows and blocks want a server
        if block.language == "python":
            exec(compile("\n" * (block.line - 1) + block.text, str(page), "exec"), namespace)
        elif block.language == "sh":
            for command in commands(block.text):
                execute(command, monkeypatch)
        elif block.language == "yaml":
            list(yaml.safe_load_all(block.text))
        elif block.language == "json":
            json.loads(block.text)
        elif block.language == "toml":
            tomllib.loads(block.text)


@pytest.mark.parametrize("block", NOT_EXECUTED, ids=[f"{block}, {block.reason}" for block in NOT_EXECUTED])
def test_a_block_that_does_not_run_names_what_exists(block: Block) -> None:
    if block.language == "sh":
        for command in commands(block.text):
            check(command)
        return
    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in OUR_PACKAGES:
            module = importlib.import_module(node.module)
            assert all(hasattr(module, alias.name) for alias in node.names), ast.unparse(node)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] in OUR_PACKAGES:
                    importlib.import_module(alias.name)
