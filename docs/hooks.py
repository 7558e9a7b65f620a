"""Hooks of the documentation's build: the pages of the API reference, and links to files outside docs/.

The reference has one page for each room of the library, made from the folders below `rasterembed/`, so that it never
lags behind the code. The first page lists the public names, which are those of `rasterembed.__all__`.
"""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from typing import TYPE_CHECKING

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.pages import Page

PROJECT = Path(__file__).parents[1]
LIBRARY = PROJECT / "rasterembed"
REPOSITORY = "https://github.com/raster-embeddings/raster-embeddings/blob/main"

_OUTSIDE = re.compile(r"(\]\()((?:\.\./)+)([^)#\s]+)")
"""A Markdown link that leaves its page's folder: `](`, the steps upwards, and the path."""


_ELSEWHERE = re.compile(
    r"<(?:script|img|iframe)\b[^>]*\ssrc=[\"']?https?://[^>]*>|<link\b[^>]*stylesheet[^>]*https?://[^>]*>"
)
"""What makes a browser fetch something from another host when a page is opened."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages of the reference, and those of the decisions to the navigation."""
    pages = {"reference/index.md": _public_names()}
    for room in _rooms():
        pages[f"reference/{room.name}.md"] = _room_page(room)
    pages["reference/pipeline.md"] = _modules_page(
        "pipelines and errors",
        [
            "rasterembed.pipeline",
            "rasterembed.collection_pipeline",
            "rasterembed.collection_upkeep",
            "rasterembed.errors",
        ],
    )
    for path, text in pages.items():
        files.append(File.generated(config, path, content=text))
    _complete_navigation(config, files)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links that leave docs/ at the repository: a page of the site has no such neighbour."""
    depth = len(Path(page.file.src_uri).parent.parts)

    def outside(match: re.Match[str]) -> str:
        steps = match.group(2).count("../")
        if steps <= depth:
            return match.group()
        return f"{match.group(1)}{REPOSITORY}/{match.group(3)}"

    return _OUTSIDE.sub(outside, markdown)


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Refuse a page that loads scripts, styles or pictures from another host."""
    if match := _ELSEWHERE.search(output):
        raise PluginError(f"{page.file.src_uri} loads something from another host: {match.group()}")
    return output


def _complete_navigation(config: MkDocsConfig, files: Files) -> None:
    """Append the pages that are found by folder to their places in the navigation."""
    paths = sorted(file.src_uri for file in files.documentation_pages())
    for section in config.nav or []:
        for title, entries in section.items():
            if title == "Reference":
                entries += [path for path in paths if path.startswith("reference/") and path not in entries]
            for entry in entries if isinstance(entries, list) else []:
                if isinstance(entry, dict) and "Decisions" in entry:
                    entry["Decisions"] += [
                        path for path in paths if path.startswith("decisions/") and path not in entry["Decisions"]
                    ]


def _rooms() -> list[Path]:
    """Return the library's packages, in the alphabet's order."""
    return sorted(folder.parent for folder in LIBRARY.glob("*/__init__.py"))


def _room_page(room: Path) -> str:
    """Return the page of a room: what its package says of itself, and each of its modules."""
    modules = sorted(
        ".".join(path.relative_to(PROJECT).with_suffix("").parts)
        for path in room.rglob("*.py")
        if path.name != "__init__.py" and not path.stem.startswith("_")
    )
    package = importlib.import_module(f"rasterembed.{room.name}")
    return _modules_page(room.name, modules, inspect.getdoc(package) or "")


def _modules_page(title: str, modules: list[str], introduction: str = "") -> str:
    blocks = "\n\n".join(
        f"## {module}\n\n::: {module}\n    options: {{show_root_heading: false}}" for module in modules
    )
    return f"# {title}\n\n{introduction}\n\n{blocks}\n"


def _public_names() -> str:
    """Return the page of the names that `import rasterembed` gives, each with its first sentence and a link."""
    library = importlib.import_module("rasterembed")
    rows = []
    for name in sorted(getattr(library, "__all__", [])):
        thing = getattr(library, name)
        if not inspect.isclass(thing) and not inspect.isroutine(thing):
            continue
        sentence = (inspect.getdoc(thing) or "").partition("\n")[0]
        rows.append(f"| [`{name}`][{thing.__module__}.{thing.__qualname__}] | {sentence} |")
    return "\n".join(
        [
            "# Public names",
            "",
            "`import rasterembed` gives these names, and loads each when it is first used. They are the public face of",
            "the library: they keep their meaning between versions. Everything else may move; each room has a page.",
            "",
            "| name | |",
            "| --- | --- |",
            *rows,
            "",
        ]
    )
