"""`rasterembed qa`: the quality checks of an existing dataset, again or with other thresholds."""

from __future__ import annotations

import sys
import uuid
from typing import TYPE_CHECKING

from rasterembed.commands.options import command_app
from rasterembed.errors import UsageError
from rasterembed.qa.thresholds import QaThresholds
from rasterembed.store.layout import DatasetLayout
from rasterembed.store.object_store import ObjectStore, open_store

if TYPE_CHECKING:
    from rasterembed.dataset.manifest import Manifest


def qa(dataset: str, root: str | None = None, thresholds: QaThresholds = QaThresholds()) -> str:
    """Check a dataset's vectors, write the report, and make the dataset ready or failed_qa.

    Args:
        dataset: Name of the dataset.
        root: Folder or s3://bucket/prefix of the dataset; by default rasterembed-store here.
        thresholds: What the dataset must hold.
    """
    from rasterembed.dataset.manifest import set_state
    from rasterembed.qa.run import run_qa
    from rasterembed.store.lease import DURATION_S, hold_lease

    store, layout = open_store(root), DatasetLayout(dataset)
    _existing(store, dataset)
    # The lease of a run that died ends within `DURATION_S`.
    with hold_lease(store, layout, uuid.uuid4().hex, wait_s=1.5 * DURATION_S, on_wait=_tell):
        manifest = _existing(store, dataset)
        report = run_qa(store, manifest, thresholds)
        manifest = set_state(store, manifest, "ready" if report.passed else "failed_qa")
    print(report.table())
    report.check()
    return f"dataset id: {dataset}\nstate: {manifest.state}\nreport: {store.uri(layout.qa_report_markdown)}"


def _existing(store: ObjectStore, dataset: str) -> Manifest:
    """Return the manifest of a dataset.

    Raises:
        UsageError: if there is no such dataset.
    """
    from rasterembed.dataset.manifest import read_manifest

    manifest = read_manifest(store, dataset)
    if manifest is None:
        raise UsageError(f"there is no dataset {dataset!r} in {store.root}: check its name and the root")
    return manifest


def _tell(message: str) -> None:
    print(message, file=sys.stderr)


app = command_app("qa", qa)
