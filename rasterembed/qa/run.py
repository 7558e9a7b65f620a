"""Run the quality checks: measure a dataset, compare the values with thresholds, and write the report and pictures."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial

from rasterembed.dataset.manifest import Manifest
from rasterembed.dataset.plan import Plan
from rasterembed.model.checkpoints import DEMO
from rasterembed.qa.maps import colour_map, status_map, write_pca_tif
from rasterembed.qa.measure import DatasetMeasures, measure_dataset
from rasterembed.qa.metrics import breached, judge
from rasterembed.qa.report import NeighbourCosines, QaReport, markdown
from rasterembed.qa.report_files import Pictures, write_report
from rasterembed.qa.thresholds import QaThresholds
from rasterembed.raster.skip_reason import describe_reason
from rasterembed.slow_imports import collector_paused
from rasterembed.store.layout import DatasetLayout
from rasterembed.store.object_store import ObjectStore

PICTURES = ("coverage.png", "pca.png", "norms.png", "pca.tif")
"""Names of all pictures that a report can have."""


def run_qa(store: ObjectStore, manifest: Manifest, thresholds: QaThresholds = QaThresholds()) -> QaReport:
    """Measure a dataset, compare the values with the thresholds, and write the report and its pictures.

    The files are written to `qa/{dataset_id}`. This function does not change the manifest. The caller sets the state in
    the manifest with `rasterembed.dataset.manifest.set_state`.

    Args:
        store: store of the dataset. The store's credentials are also used to read the source raster.
        manifest: the dataset's manifest. Only the shards in its list are read.
        thresholds: bounds that the dataset must keep.

    Returns:
        The report in `report.json`. `QaReport.check` raises an error if a threshold is breached.

    Raises:
        DataError: if the footer of a shard is complete, but its pages cannot be read.
        StoreError: if the store refuses or does not answer.

    Example:
        >>> from rasterembed import Dataset, ObjectStore
        >>> store = ObjectStore(root="embeddings")
        >>> manifest = Dataset.open(store, "scene").manifest
        >>> report = run_qa(store, manifest)
        >>> report.passed
        True
    """
    with measure_dataset(store, manifest, thresholds) as measures:
        pictures = _draw_pictures(measures)
        report = _make_report(measures, thresholds, pictures)
    write_report(store, DatasetLayout(report.dataset_id), report, markdown(report), pictures)
    return report


def judge_dataset(store: ObjectStore, manifest: Manifest, thresholds: QaThresholds = QaThresholds()) -> QaReport:
    """Measure a dataset, and compare the values with the thresholds. Draw no pictures and write no files.

    Args:
        store: store of the dataset. The store's credentials are also used to read the source raster.
        manifest: the dataset's manifest. Only the shards in its list are read.
        thresholds: bounds that the dataset must keep.

    Returns:
        The report. `QaReport.check` raises an error if a threshold is breached.

    Raises:
        DataError: if the footer of a shard is complete, but its pages cannot be read.
        StoreError: if the store refuses or does not answer.

    Example:
        >>> from rasterembed import Dataset, ObjectStore
        >>> store = ObjectStore(root="embeddings")
        >>> manifest = Dataset.open(store, "scene").manifest
        >>> report = judge_dataset(store, manifest)
        >>> report.passed
        True
    """
    with measure_dataset(store, manifest, thresholds) as measures:
        return _make_report(measures, thresholds, Pictures(), dry_run=True)


def _make_report(
    measures: DatasetMeasures, thresholds: QaThresholds, pictures: Pictures, *, dry_run: bool = False
) -> QaReport:
    manifest, vectors = measures.manifest, measures.vectors
    metrics = judge(measures.measurements, thresholds)
    near = vectors.neighbours
    return QaReport(
        dataset_id=manifest.dataset_id,
        fingerprint=manifest.fingerprint,
        model=manifest.model,
        dimensions=manifest.dimensions,
        created=datetime.now(UTC),
        passed=not breached(metrics),
        counts=measures.counts,
        metrics=metrics,
        norm=vectors.norm,
        valid_fraction=vectors.valid_fraction,
        neighbours=NeighbourCosines(pairs=near.pairs, neighbours=near.neighbour_cosine, random=near.random_cosine)
        if near
        else None,
        explained=vectors.principal.explained if vectors.principal else None,
        sample_rows=vectors.sample_rows,
        notes=(*measures.notes, *pictures.notes),
        warnings=measures.warnings,
        pictures=pictures.drawn,
        thresholds=thresholds,
        dry_run=dry_run,
    )


def _draw_pictures(measures: DatasetMeasures) -> Pictures:
    """Draw all pictures that the measurements allow."""
    with collector_paused():  # Matplotlib takes long to import, and only this function needs it.
        from rasterembed.drawing.figure import Heading
        from rasterembed.qa import pictures

    manifest, plan, tiles, vectors = measures.manifest, measures.plan, measures.tiles, measures.vectors
    untrained = manifest.configuration["model"]["id"] == DEMO
    heading = Heading(manifest.dataset_id, manifest.model, untrained)
    drawn = Pictures(PICTURES)

    def coverage(plan: Plan) -> bytes:
        reasons = {reason: describe_reason(reason, plan.selection.min_valid_fraction) for reason in tiles.skipped()}
        return pictures.draw_coverage(heading, plan, status_map(plan, tiles.windows(), reasons), measures.overview)

    if plan is not None and tiles.has_index:
        drawn.draw("coverage.png", partial(coverage, plan))
    if plan is not None and vectors.principal is not None:
        colours = colour_map(plan, vectors.principal, tiles.projections(vectors.principal))
        tags = {"dataset": manifest.dataset_id, "fingerprint": manifest.fingerprint, "model": manifest.model}
        drawn.draw("pca.png", partial(pictures.draw_pca, heading, plan, vectors.principal, colours))
        drawn.draw("pca.tif", partial(write_pca_tif, plan, vectors.principal, colours, tags))
    if vectors.norm is not None and vectors.valid_fraction is not None:
        drawn.draw("norms.png", partial(pictures.draw_norms, heading, vectors.norm, vectors.valid_fraction))
    return drawn
