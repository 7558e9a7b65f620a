"""`rasterembed qa`: check the quality of an existing dataset."""

from __future__ import annotations

from rasterembed.commands.command_app import command_app
from rasterembed.commands.command_store import open_command_store
from rasterembed.qa.thresholds import QaThresholds
from rasterembed.store.layout import DatasetLayout


def qa(dataset: str, root: str | None = None, thresholds: QaThresholds = QaThresholds(), dry_run: bool = False) -> str:
    """Check a dataset's vectors, write the report, and set the dataset's state to ready or failed_qa.

    Args:
        dataset: Name of the dataset.
        root: Folder or s3://bucket/prefix of the dataset. The default is the folder rasterembed-store.
        thresholds: Bounds that the dataset must keep.
        dry_run: Only print the result. The dataset keeps its state and its report.
    """
    # These imports take too long for a command that only prints its help.
    from rasterembed.commands.embed import TerminalSteps
    from rasterembed.commands.next_search import search_command, this_program
    from rasterembed.dataset.dataset import Dataset
    from rasterembed.dataset.manifest import ALL_STATES
    from rasterembed.pipeline import check_dataset

    store = open_command_store(root)
    report = check_dataset(store, dataset, thresholds, dry_run=dry_run, steps=TerminalSteps())
    print(report.table())
    print(report.summary())
    report.check(dry_run=dry_run)
    manifest = Dataset.open(store, dataset, states=ALL_STATES).manifest
    lines = [f"dataset id: {dataset}"]
    if dry_run:
        lines.append(f"state: {manifest.state} (dry run: nothing was changed)")
    else:
        lines += [f"state: {manifest.state}", f"report: {store.uri(DatasetLayout(dataset).qa_report_markdown)}"]
        command = search_command(store, manifest, program=this_program())
        lines += [f"search: {command}"] if command else []
    return "\n".join(lines)


app = command_app("qa", qa)
