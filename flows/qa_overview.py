"""Write the page about the quality of all datasets of a store. prefect.yaml runs it when a collection was updated.

python -m flows.qa_overview [--root URI] [--store BLOCK]
"""

from __future__ import annotations

if __name__ == "__main__":
    from flows.fast_start import import_prefect

    import_prefect()

from prefect import flow, get_run_logger
from pydantic import BaseModel

from blocks.object_store import open_store
from flows.command import command
from tasks.policy import log_expected_errors_in_one_line


class Overview(BaseModel):
    """The result of a run."""

    page: str
    """Address of the page."""
    datasets: int
    """Number of datasets on the page."""


@flow(name="qa-overview")
def qa_overview(root: str | None = None, store: str | None = None) -> Overview:
    """Write an HTML page with the state and the last quality report of every dataset of a store.

    Args:
        root: Folder or s3://bucket/prefix of the datasets. By default the folder rasterembed-store.
        store: Name of an object-store block, for a bucket with its own endpoint and keys.
    """
    from rasterembed.qa.overview import summary, write_overview  # It imports pyarrow, which would delay the help.

    log_expected_errors_in_one_line()
    page, datasets = write_overview(open_store(root, store))
    get_run_logger().info("%s; the page is %s", summary(datasets), page)
    return Overview(page=page, datasets=len(datasets))


if __name__ == "__main__":
    command(qa_overview)
