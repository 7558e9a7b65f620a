"""`rasterembed qa-overview`: write a page about the quality of all datasets of a store."""

from __future__ import annotations

from pathlib import Path

from rasterembed.command_line.command_app import command_app
from rasterembed.errors import told_when_interrupted
from rasterembed.store.object_store import open_store


def qa_overview(root: str | None = None, out: Path | None = None) -> str:
    """Write an HTML page with the state and the last quality report of every dataset of a store.

    Args:
        root: Folder or s3://bucket/prefix of the datasets. The default is the folder rasterembed-store.
        out: Local file for the page. By default, it is the file qa-overview.html in the root.
    """
    from rasterembed.qa.overview import summary, write_overview  # It imports pyarrow, which would delay the help.

    with told_when_interrupted(lambda: "the page was not written"):
        page, datasets = write_overview(open_store(root), out)
    return f"{summary(datasets)}\npage: {page}"


app = command_app("qa-overview", qa_overview, keeps_work=False)
