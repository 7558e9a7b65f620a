"""The quality gate: a dataset measured, judged, and the report written, before it may be called ready."""

from __future__ import annotations

from rasterembed.dataset.manifest import Manifest
from rasterembed.qa.judge import Measures, measured
from rasterembed.qa.maps import colour_map, status_map, write_pca_tif
from rasterembed.qa.report import QaReport, markdown
from rasterembed.qa.thresholds import QaThresholds
from rasterembed.store.layout import DatasetLayout
from rasterembed.store.object_store import ObjectStore

PICTURES = ("coverage.png", "pca.png", "norms.png", "pca.tif")
"""Files that a report may have beside it."""


def run_qa(store: ObjectStore, manifest: Manifest, thresholds: QaThresholds = QaThresholds()) -> QaReport:
    """Measure a dataset, judge it, and write the report and its pictures to `qa/{dataset_id}`.

    The manifest's state is left to the caller; see `rasterembed.dataset.manifest.set_state`.

    Args:
        store: where the dataset is; its credentials read the source raster.
        manifest: the dataset's manifest: its shards, and no others, are read.
        thresholds: what the dataset must hold.

    Returns:
        The report, as it stands in `report.json`. `QaReport.check` raises if a threshold is breached.

    Raises:
        DataError: if a shard's pages cannot be read, though its footer is whole.
        StoreError: if the store refuses or does not answer.
    """
    with measured(store, manifest, thresholds) as measures:
        pictures = _pictures(measures)
        report = measures.report(tuple(pictures))
    _write(store, report, pictures)
    return report


def _pictures(measures: Measures) -> dict[str, bytes]:
    from rasterembed.qa.pictures import Heading, draw_coverage, draw_norms, draw_pca  # and matplotlib with it

    manifest, plan, tiles, principal = measures.manifest, measures.plan, measures.tiles, measures.principal
    heading = Heading(manifest.dataset_id, manifest.model)
    pictures: dict[str, bytes] = {}
    if plan is not None and tiles.has_index:
        status = status_map(plan, tiles.windows(), measures.counts.skipped)
        pictures["coverage.png"] = draw_coverage(heading, plan, status, measures.overview)
    if plan is not None and principal is not None:
        colours = colour_map(plan, principal, tiles.projections(principal))
        pictures["pca.png"] = draw_pca(heading, plan, principal, colours)
        tags = {"dataset": manifest.dataset_id, "fingerprint": manifest.fingerprint, "model": manifest.model}
        pictures["pca.tif"] = write_pca_tif(plan, principal, colours, tags)
    if measures.norm is not None and measures.valid_fraction is not None:
        pictures["norms.png"] = draw_norms(heading, measures.norm, measures.valid_fraction)
    return {name: pictures[name] for name in PICTURES if name in pictures}


def _write(store: ObjectStore, report: QaReport, pictures: dict[str, bytes]) -> None:
    """The report's own file comes last: what it refers to is there."""
    layout = DatasetLayout(report.dataset_id)
    for name in PICTURES:
        if name in pictures:
            store.write(layout.qa_file(name), pictures[name])
        else:
            store.delete(layout.qa_file(name))
    store.write(layout.qa_report_markdown, markdown(report).encode())
    store.write(layout.qa_report, report.model_dump_json(indent=1).encode())
