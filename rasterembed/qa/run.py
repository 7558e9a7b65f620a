"""Run the quality checks: measure a dataset, compare the values with thresholds, and write the report and pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from rasterembed.dataset.manifest import Manifest
from rasterembed.dataset.plan import Plan
from rasterembed.errors import RasterEmbedError, one_line
from rasterembed.model.checkpoints import DEMO
from rasterembed.qa.maps import colour_map, status_map, write_pca_tif
from rasterembed.qa.measure import DatasetMeasures, measure_dataset
from rasterembed.qa.metrics import breached, judge
from rasterembed.qa.report import NeighbourCosines, QaReport, markdown
from rasterembed.qa.thresholds import QaThresholds
from rasterembed.raster.skip_reason import describe_reason
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
    _write(store, report, pictures.files)
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
        return _make_report(measures, thresholds, _Pictures({}, ()))


@dataclass(frozen=True)
class _Pictures:
    """The pictures of a report."""

    files: Mapping[str, bytes]
    """Content of each picture file by name, in the order of `PICTURES`."""
    notes: tuple[str, ...]
    """Sentences about pictures that could not be drawn, with the reasons."""


def _make_report(measures: DatasetMeasures, thresholds: QaThresholds, pictures: _Pictures) -> QaReport:
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
        pictures=tuple(pictures.files),
        thresholds=thresholds,
    )


def _draw_pictures(measures: DatasetMeasures) -> _Pictures:
    """Draw all pictures that the measurements allow.

    If a picture cannot be drawn, the report gets a note, and the checks go on. If the error ended the checks, the
    dataset would stay in state `embedded`, and every new run would end with the same error.
    """
    # Matplotlib takes long to import, and only this function needs it.
    from rasterembed.qa import pictures
    from rasterembed.qa.figure import Heading

    manifest, plan, tiles, vectors = measures.manifest, measures.plan, measures.tiles, measures.vectors
    untrained = manifest.configuration["model"]["id"] == DEMO
    heading = Heading(manifest.dataset_id, manifest.model, untrained)
    files: dict[str, bytes] = {}
    notes: list[str] = []

    def draw(name: str, picture: Callable[[], bytes]) -> None:
        try:
            files[name] = picture()
        except RasterEmbedError:
            raise  # The store or a shard cannot be read. A new run may succeed.
        except Exception as error:
            notes.append(f"{name} could not be drawn: {type(error).__name__}: {one_line(error)}")

    def coverage(plan: Plan) -> bytes:
        reasons = {reason: describe_reason(reason, plan.selection.min_valid_fraction) for reason in tiles.skipped()}
        return pictures.draw_coverage(heading, plan, status_map(plan, tiles.windows(), reasons), measures.overview)

    if plan is not None and tiles.has_index:
        draw("coverage.png", partial(coverage, plan))
    if plan is not None and vectors.principal is not None:
        colours = colour_map(plan, vectors.principal, tiles.projections(vectors.principal))
        tags = {"dataset": manifest.dataset_id, "fingerprint": manifest.fingerprint, "model": manifest.model}
        draw("pca.png", partial(pictures.draw_pca, heading, plan, vectors.principal, colours))
        draw("pca.tif", partial(write_pca_tif, plan, vectors.principal, colours, tags))
    if vectors.norm is not None and vectors.valid_fraction is not None:
        draw("norms.png", partial(pictures.draw_norms, heading, vectors.norm, vectors.valid_fraction))
    return _Pictures({name: files[name] for name in PICTURES if name in files}, tuple(notes))


def _write(store: ObjectStore, report: QaReport, pictures: Mapping[str, bytes]) -> None:
    """Write the report's files. Delete pictures of an earlier report that this report does not have."""
    layout = DatasetLayout(report.dataset_id)
    for name in PICTURES:
        if name in pictures:
            store.write(layout.qa_file(name), pictures[name])
        else:
            store.delete(layout.qa_file(name))
    store.write(layout.qa_report_markdown, markdown(report).encode())
    # Write `report.json` last. It names the other files, so they must exist before it.
    store.write(layout.qa_report, report.model_dump_json(indent=1).encode())
