"""`rasterembed qa`: check the quality of an existing dataset or collection."""

from __future__ import annotations

from typing import Annotated

from rasterembed.command_line.command_app import POSITIONAL, command_app
from rasterembed.command_line.command_store import open_command_store
from rasterembed.errors import UsageError
from rasterembed.qa.collection_thresholds import CollectionThresholds
from rasterembed.qa.thresholds import QaThresholds
from rasterembed.store.known_collections import check_known_collection
from rasterembed.store.layout import CollectionLayout, DatasetLayout
from rasterembed.store.object_store import ObjectStore


def qa(
    dataset: Annotated[str | None, POSITIONAL] = None,
    collection: str | None = None,
    root: str | None = None,
    thresholds: QaThresholds = QaThresholds(),
    collection_thresholds: CollectionThresholds = CollectionThresholds(),
    dry_run: bool = False,
) -> str:
    """Check a dataset's vectors, write the report, and set the dataset's state to ready or failed_qa.

    With --collection, check a collection as a whole: failed scenes, scenes that differ from the others, scenes that
    occur twice, and the area. Its scenes keep their states.

    Args:
        dataset: Name of the dataset.
        collection: Name of a collection to check, in place of a dataset.
        root: Folder or s3://bucket/prefix of the dataset. The default is the folder rasterembed-store.
        thresholds: Bounds that the dataset must keep.
        collection_thresholds: Bounds that the collection must keep, only with --collection.
        dry_run: Only print the result. The dataset or the collection keeps its state and its report.
    """
    store = open_command_store(root)
    if (dataset is None) == (collection is None):
        raise UsageError("give either the name of a dataset, or --collection with the name of a collection")
    if collection is not None:
        return _qa_of_collection(store, collection, collection_thresholds, dry_run)
    assert dataset is not None
    return _qa_of_dataset(store, dataset, thresholds, dry_run)


def _qa_of_dataset(store: ObjectStore, dataset: str, thresholds: QaThresholds, dry_run: bool) -> str:
    # These imports take too long for a command that only prints its help.
    from rasterembed.command_line.this_program import as_typed
    from rasterembed.commands.embed_steps import TerminalSteps
    from rasterembed.dataset.dataset import Dataset
    from rasterembed.dataset.manifest import ALL_STATES
    from rasterembed.pipeline import check_dataset
    from rasterembed.qa.metric_report import dry_run_text
    from rasterembed.search.next_search import search_command

    report = check_dataset(store, dataset, thresholds, dry_run=dry_run, steps=TerminalSteps())
    print(report.table())
    print(report.summary())
    manifest = Dataset.open(store, dataset, states=ALL_STATES).manifest
    if dry_run:
        print(dry_run_text(report, f"dataset {dataset!r}", manifest.state))
        report.check(store)
        return f"dataset id: {dataset}"
    report.check(store)
    report_uri = store.uri(DatasetLayout(dataset).qa_report_markdown)
    lines = [f"dataset id: {dataset}", f"state: {manifest.state}", f"report: {report_uri}"]
    command = search_command(store, manifest)
    lines += [f"search: {as_typed(command)}"] if command else []
    return "\n".join(lines)


def _qa_of_collection(store: ObjectStore, collection: str, thresholds: CollectionThresholds, dry_run: bool) -> str:
    check_known_collection(store, collection)
    # These imports take too long for a command that only prints its help.
    from rasterembed.collection.collection import Collection
    from rasterembed.collection_upkeep import check_collection
    from rasterembed.command_line.this_program import as_typed
    from rasterembed.commands.collection_steps import QuietSteps
    from rasterembed.qa.metric_report import dry_run_text
    from rasterembed.search.next_search import collection_search_command

    report = check_collection(store, collection, thresholds, dry_run=dry_run, steps=QuietSteps())
    print(report.table())
    print(report.summary())
    if dry_run:
        print(dry_run_text(report, f"collection {collection!r}"))
    report.check(store)
    lines = [f"collection id: {collection}"]
    if not dry_run:
        lines.append(f"report: {store.uri(CollectionLayout(collection).qa_report_markdown)}")
        command = collection_search_command(Collection.open(store, collection))
        lines += [f"search: {as_typed(command)}"] if command else []
    return "\n".join(lines)


app = command_app("qa", qa)
