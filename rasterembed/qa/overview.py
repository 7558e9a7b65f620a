"""The overview: one HTML page with the quality of all datasets of a store."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from rasterembed.dataset.manifest import Manifest, State, read_manifest
from rasterembed.errors import Access, DataError, StoreError, StoreUnavailableError, UsageError, one_line, os_errors
from rasterembed.escape import escape_html, href_of
from rasterembed.qa.metrics import Status, format_number
from rasterembed.qa.report import QaReport, read_report
from rasterembed.store.layout import QA_OVERVIEW, DatasetLayout
from rasterembed.store.object_store import ObjectStore
from rasterembed.store.output_place import check_local_file, check_not_of_dataset
from rasterembed.store.uploads import dataset_dates

_THREADS = 8
"""Number of datasets that are read at the same time. Each dataset takes two requests to S3."""

_LINKED_FILES = {"report.md": "report", "coverage.png": "coverage", "pca.png": "vectors"}
"""Files of a report that the page links to, and the text of each link."""

_ORDER: tuple[State | None, ...] = (None, "failed_qa", "embedded", "ready")
"""Order of the states on the page. Datasets that need attention come first. None: the manifest cannot be read."""


@dataclass(frozen=True)
class DatasetQuality:
    """A dataset and its last quality report."""

    dataset_id: str
    manifest: Manifest | None
    """The manifest. None if it cannot be read."""
    report: QaReport | None
    """The last report of the dataset's configuration. None if the store has no such report."""
    note: str = ""
    """Reason why the manifest or the report is None. Empty if both could be read."""

    @property
    def state(self) -> State | None:
        """State of the dataset. None if the manifest cannot be read."""
        return self.manifest.state if self.manifest else None


def read_all(store: ObjectStore) -> list[DatasetQuality]:
    """Read the manifest and the last quality report of every dataset of a store.

    Returns:
        All datasets. Those that need attention come first: an unreadable manifest, `failed_qa`, `embedded`, `ready`.

    Raises:
        StoreError: if the store refuses or does not answer.
    """
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="overview") as pool:
        found = pool.map(lambda dataset_id: _read(store, dataset_id), sorted(dataset_dates(store)))
        datasets = [dataset for dataset in found if dataset is not None]
    return sorted(datasets, key=lambda dataset: (_ORDER.index(dataset.state), dataset.dataset_id))


def _read(store: ObjectStore, dataset_id: str) -> DatasetQuality | None:
    """Return a dataset, or None if it was deleted after the store was listed."""
    try:
        manifest = read_manifest(store, dataset_id)
    except StoreError:
        raise
    except (DataError, UsageError) as error:  # UsageError: a folder's name is not a valid dataset id.
        return DatasetQuality(dataset_id, None, None, one_line(error))
    if manifest is None:
        return None
    try:
        report = read_report(store, dataset_id)
    except StoreUnavailableError:
        raise
    except DataError as error:  # For example, a named pipe or a folder has the name of the report.
        return DatasetQuality(dataset_id, manifest, None, f"unreadable report: {one_line(error)}")
    if report is None:
        return DatasetQuality(dataset_id, manifest, None, "not checked yet")
    if report.fingerprint != manifest.fingerprint:
        return DatasetQuality(dataset_id, manifest, None, "the report is of an earlier configuration: check again")
    return DatasetQuality(dataset_id, manifest, report)


def write_overview(store: ObjectStore, out: Path | None = None) -> tuple[str, list[DatasetQuality]]:
    """Write the overview of a store.

    Args:
        store: the store.
        out: local file for the page. By default, the page is `qa-overview.html` in the root of the store.

    Returns:
        Path or URI of the page, and the datasets on it.

    Raises:
        UsageError: if the store is a folder that does not exist, if `out` is in a folder of the datasets, or if the
            folder of `out` does not exist.
        StoreError: if the store refuses or does not answer, or if the file cannot be written.
    """
    store.check_folder()
    if out is not None:
        check_local_file(out)
        # The page is written into the file that a symbolic link points to, so the link is resolved here.
        check_not_of_dataset(store, os.path.realpath(out))
    datasets = read_all(store)
    if out is None:
        store.write(QA_OVERVIEW, page(store, datasets, lambda key: key).encode())
        return store.uri(QA_OVERVIEW), datasets
    with os_errors(str(out), Access.WRITE):
        out.write_text(page(store, datasets, lambda key: _address(store, key)), encoding="utf-8")
    return str(out), datasets


def _address(store: ObjectStore, key: str) -> str:
    """Return a link to an object. The link is for a page outside the store."""
    return href_of(store.uri(key)) if store.is_s3 else Path(store.uri(key)).resolve().as_uri()


def summary(datasets: Sequence[DatasetQuality]) -> str:
    """Return one line with the number of datasets in each state."""
    counts = Counter(dataset.state for dataset in datasets)
    states = [f"{counts[state]} {state or 'unreadable'}" for state in reversed(_ORDER) if counts[state]]
    return f"{len(datasets)} dataset{'' if len(datasets) == 1 else 's'}" + (f": {', '.join(states)}" if states else "")


_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #1d2329; margin: 2rem; }
table { border-collapse: collapse; }
th, td { text-align: left; vertical-align: top; padding: .35rem .8rem; border-bottom: 1px solid #d0d7de; }
td { max-width: 34rem; overflow-wrap: anywhere; }
td.number, th.number { text-align: right; white-space: nowrap; }
.ready { color: #1a7f37; } .failed_qa, .unreadable { color: #a32a00; font-weight: bold; } .embedded { color: #7d4e00; }
p { color: #5b6570; }
"""

_HEADS = {
    "dataset": "",
    "state": "",
    "tiles": "number",
    "rows": "number",
    "skipped": "number",
    "coverage": "number",
    "checks": "",
    "checked (UTC)": "",
    "report": "",
}
"""Heads of the columns, and the CSS class of each column."""


def page(store: ObjectStore, datasets: Sequence[DatasetQuality], address: Callable[[str], str]) -> str:
    """Return the overview as HTML. The page needs no other file and no script.

    Args:
        store: the store.
        datasets: the datasets, in the order of the table's rows.
        address: function that takes the key of an object, and returns the link to the object.
    """
    heads = "".join(f'<th class="{kind}">{head}</th>' for head, kind in _HEADS.items())
    rows = "\n".join(_row(dataset, address) for dataset in datasets)
    title = escape_html(f"Quality of the datasets in {store.root}")
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>{title}</h1>
<p>{escape_html(summary(datasets))}</p>
<table>
<thead><tr>{heads}</tr></thead>
<tbody>
{rows}
</tbody>
</table>
</body>
</html>
"""


def _row(dataset: DatasetQuality, address: Callable[[str], str]) -> str:
    """Return a table row. Every text is escaped, because it comes from files of the store."""
    manifest, report, state = dataset.manifest, dataset.report, dataset.state or "unreadable"
    counts = (manifest.tiles, manifest.rows, manifest.skipped) if manifest else (None, None, None)
    coverage = next((metric.value for metric in report.metrics if metric.name == "coverage"), None) if report else None
    links = []
    if report is not None:
        layout = DatasetLayout(dataset.dataset_id)
        names = [name for name in _LINKED_FILES if name in ("report.md", *report.pictures)]
        links = [f'<a href="{escape_html(address(layout.qa_file(name)))}">{_LINKED_FILES[name]}</a>' for name in names]
    cells = [
        escape_html(dataset.dataset_id),
        f'<span class="{state}">{state}</span>',
        *map(format_number, counts),
        format_number(coverage),
        escape_html(_checks(dataset)),
        f"{report.created:%Y-%m-%d %H:%M}" if report else "",
        " ".join(links),
    ]
    kinds = _HEADS.values()
    return (
        "<tr>" + "".join(f'<td class="{kind}">{cell}</td>' for kind, cell in zip(kinds, cells, strict=True)) + "</tr>"
    )


def _checks(dataset: DatasetQuality) -> str:
    """Return the breached metrics with values and bounds, how many metrics passed or were not judged, and the warnings.

    If there is no report, return the reason.
    """
    if dataset.report is None:
        return dataset.note
    counts = Counter(metric.status for metric in dataset.report.metrics)
    failed = "; ".join(
        f"{metric.name} {metric.value_text} ({metric.bound.value} {metric.threshold_text})"
        for metric in dataset.report.breaches
    )
    others = [f"{counts[status]} {status.value}" for status in (Status.PASSED, Status.NOT_JUDGED) if counts[status]]
    warnings = [f"warning: {warning}" for warning in dataset.report.warnings]
    return ", ".join([*([f"breached: {failed}"] if failed else []), *others, *warnings])
