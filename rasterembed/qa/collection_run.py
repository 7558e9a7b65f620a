"""Run the quality checks of a collection: measure it, compare the values with thresholds, and write the report."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import shapely
from numpy.typing import NDArray

from rasterembed.collection.catalogue import Catalogue
from rasterembed.collection.configuration import CollectionConfiguration
from rasterembed.collection.failures import failure_groups
from rasterembed.collection.scene_row import QaVerdict, SceneState
from rasterembed.collection.stac_collection import CollectionVerdict
from rasterembed.errors import DataError, StoreError
from rasterembed.model.checkpoints import DEMO
from rasterembed.number_text import agreeing, counted
from rasterembed.qa.collection_coverage import measure_collection_coverage
from rasterembed.qa.collection_outliers import Outliers, Repetitions, find_outliers, find_repetitions
from rasterembed.qa.collection_report import (
    COLLECTION_REPORT_VERSION,
    CollectionReport,
    CoverageReport,
    DuplicateScene,
    FailureCount,
    OutlierScene,
    SceneCounts,
    collection_markdown,
)
from rasterembed.qa.collection_thresholds import CollectionThresholds
from rasterembed.qa.metrics import Measurement, breached, judge, not_enough, not_judged
from rasterembed.qa.report import impossible_numbers
from rasterembed.qa.report_files import Pictures, write_report
from rasterembed.qa.scene_means import SceneMeans, scene_means
from rasterembed.store.layout import CollectionLayout
from rasterembed.store.object_store import ObjectStore
from rasterembed.store.stored_model import read_model

COLLECTION_PICTURES = ("scenes.png", "vectors.png")
"""Names of all pictures that the report of a collection can have."""

_LISTED = 100
"""Largest number of scenes or reasons in each list of the report."""
_NAMED = 3
"""Largest number of scenes that a note names."""
_EXAMPLES = 10
"""Largest number of examples of a metric."""


def judge_collection(
    store: ObjectStore,
    layout: CollectionLayout,
    configuration: CollectionConfiguration,
    catalogue: Catalogue,
    thresholds: CollectionThresholds = CollectionThresholds(),
) -> CollectionReport:
    """Measure a collection, and compare the values with the thresholds. Write nothing.

    Args:
        store: store of the collection.
        layout: layout of the collection.
        configuration: configuration of the collection.
        catalogue: all scenes.
        thresholds: bounds that the collection must keep.

    Raises:
        StoreError: if the store refuses or does not answer.
    """
    measures = _measure(store, layout, configuration, catalogue, thresholds, keep=False)
    return _make_report(measures, Pictures(), dry_run=True)


def check_collection_quality(
    store: ObjectStore,
    layout: CollectionLayout,
    configuration: CollectionConfiguration,
    catalogue: Catalogue,
    thresholds: CollectionThresholds = CollectionThresholds(),
) -> CollectionReport:
    """Measure a collection, compare the values with the thresholds, and write the report and its pictures.

    If the stored report is about the same catalogue and thresholds, it is returned, and nothing is measured. The caller
    must hold the collection's lease.

    Args:
        store: store of the collection.
        layout: layout of the collection.
        configuration: configuration of the collection.
        catalogue: all scenes.
        thresholds: bounds that the collection must keep.

    Returns:
        The report. `CollectionReport.check` raises an error if a threshold is breached.

    Raises:
        StoreError: if the store refuses or does not answer.
    """
    stored = current_report(store, layout, configuration, catalogue)
    if stored is not None and stored.thresholds == thresholds:
        return stored
    measures = _measure(store, layout, configuration, catalogue, thresholds, keep=True)
    pictures = _draw_pictures(measures)
    report = _make_report(measures, pictures)
    write_report(store, layout, report, collection_markdown(report), pictures)
    return report


def current_report(
    store: ObjectStore, layout: CollectionLayout, configuration: CollectionConfiguration, catalogue: Catalogue
) -> CollectionReport | None:
    """Return the stored report if it is about this catalogue. Return None if it is older, damaged or missing.

    Raises:
        StoreError: if the store refuses or does not answer.
    """
    try:
        report = read_model(
            store,
            layout.qa_report,
            CollectionReport,
            name="report",
            remedy="check the collection again",
            why_unusable=lambda report: next(impossible_numbers(report.model_dump()), None),
        )
    except StoreError:
        raise
    except DataError:  # The report is derived. It is written again.
        return None
    if report is None or report.signature != _signature(configuration, catalogue, report.thresholds):
        return None
    return report


def current_verdict(
    store: ObjectStore, layout: CollectionLayout, configuration: CollectionConfiguration, catalogue: Catalogue
) -> CollectionVerdict | None:
    """Return the verdict of the stored report if it is about this catalogue, else None."""
    report = current_report(store, layout, configuration, catalogue)
    if report is None:
        return None
    verdict = QaVerdict.PASSED if report.passed else QaVerdict.FAILED
    return CollectionVerdict(verdict, tuple(metric.name for metric in report.breaches))


def _signature(configuration: CollectionConfiguration, catalogue: Catalogue, thresholds: CollectionThresholds) -> str:
    """Return a digest of all values that the report depends on."""
    digest = hashlib.sha256(f"{COLLECTION_REPORT_VERSION} {configuration.fingerprint}\n".encode())
    digest.update(json.dumps(thresholds.model_dump(mode="json"), sort_keys=True).encode())
    digest.update(catalogue.digest.encode())
    return digest.hexdigest()


@dataclass(frozen=True)
class _Measures:
    """Everything that was measured of a collection."""

    layout: CollectionLayout
    configuration: CollectionConfiguration
    catalogue: Catalogue
    thresholds: CollectionThresholds
    geometry: NDArray[np.object_]
    """Footprint of each scene of the catalogue, or None."""
    means: SceneMeans
    outliers: Outliers | None
    """None if too few scenes have vectors."""
    repetitions: Repetitions
    coverage: CoverageReport | None


def _measure(
    store: ObjectStore,
    layout: CollectionLayout,
    configuration: CollectionConfiguration,
    catalogue: Catalogue,
    thresholds: CollectionThresholds,
    *,
    keep: bool,
) -> _Measures:
    means = scene_means(store, layout, catalogue, configuration.model.dimensions, keep=keep)
    geometry = catalogue.geometry()
    placed = ~shapely.is_missing(geometry) & _is_embedded(catalogue)
    repetitions = (
        find_repetitions(means, geometry[means.row], thresholds)
        if means.count > 1
        else Repetitions((), np.ones(means.count, dtype=bool))
    )
    return _Measures(
        layout,
        configuration,
        catalogue,
        thresholds,
        geometry,
        means,
        find_outliers(means) if means.count >= thresholds.min_scenes else None,
        repetitions,
        _coverage(geometry[placed]),
    )


def _is_embedded(catalogue: Catalogue) -> NDArray[np.bool_]:
    """Return whether each scene is embedded, shape (n,)."""
    return np.array([state != SceneState.FAILED for state in catalogue.table["state"].to_pylist()], dtype=np.bool_)


def _strings(catalogue: Catalogue, name: str) -> NDArray[np.object_]:
    return np.array(catalogue.table[name].to_pylist(), dtype=object)


def _coverage(geometry: NDArray[np.object_]) -> CoverageReport | None:
    if not len(geometry):
        return None
    found = measure_collection_coverage(geometry)
    return CoverageReport(
        area_km2=found.area_km2,
        mean_overlap=found.sum_km2 / found.area_km2 if found.area_km2 else 1.0,
        overlapping_scenes=int((found.depth > 1).sum()),
        most_overlap=int(found.depth.max()),
    )


def _make_report(measures: _Measures, pictures: Pictures, *, dry_run: bool = False) -> CollectionReport:
    catalogue, means = measures.catalogue, measures.means
    metrics = judge(_measurements(measures), measures.thresholds)
    ids, sources = _strings(catalogue, "id")[means.row], _strings(catalogue, "source")[means.row]
    notes = _notes_about_uniform_scenes(ids[~measures.repetitions.compared])
    return CollectionReport(
        collection_id=measures.layout.collection_id,
        fingerprint=measures.configuration.fingerprint,
        signature=_signature(measures.configuration, catalogue, measures.thresholds),
        model=measures.configuration.model.name,
        passed=not breached(metrics),
        counts=_counts(measures),
        coverage=measures.coverage,
        metrics=metrics,
        failures=tuple(_failures(catalogue)),
        unreadable=dict(list(means.unreadable.items())[:_LISTED]),
        outliers=tuple(
            OutlierScene(
                id=ids[number],
                source=sources[number],
                norm_score=float(measures.outliers.norm_score[number]),
                vector_score=float(measures.outliers.vector_score[number]),
            )
            for number in _farthest(measures)[:_LISTED]
            if measures.outliers is not None
        ),
        duplicates=tuple(
            DuplicateScene(
                id=ids[found.second],
                source=sources[found.second],
                repeats=ids[found.first],
                repeats_source=sources[found.first],
                distance=found.distance,
                overlap=found.overlap,
            )
            for found in measures.repetitions.found[:_LISTED]
        ),
        notes=(*notes, *pictures.notes),
        pictures=pictures.drawn,
        thresholds=measures.thresholds,
        dry_run=dry_run,
    )


def _notes_about_uniform_scenes(ids: NDArray[np.object_]) -> list[str]:
    """Return a note that names the scenes whose vectors are equal. Without such scenes, return no note.

    Args:
        ids: ids of the scenes, shape (n,).
    """
    if not len(ids):
        return []
    named = ", ".join(ids[:_NAMED]) + (", ..." if len(ids) > _NAMED else "")
    scenes = f"{counted(len(ids), 'scene')} with equal vectors {agreeing(len(ids), 'was', 'were')}"
    return [f"{scenes} not compared with others: {named}"]


def _counts(measures: _Measures) -> SceneCounts:
    table = measures.catalogue.table
    return SceneCounts(
        scenes=measures.catalogue.count,
        states={state.value: number for state, number in measures.catalogue.counts().items()},
        gone=int(pc.sum(table["gone"]).as_py() or 0),
        unplaced=int((shapely.is_missing(measures.geometry) & _is_embedded(measures.catalogue)).sum()),
        vectors=measures.catalogue.vectors,
        skipped=int(pc.sum(table["skipped"]).as_py() or 0),
    )


def _failures(catalogue: Catalogue) -> list[FailureCount]:
    """Count the failed scenes for each reason. The most frequent reasons come first."""
    groups = failure_groups(catalogue.filter(states=[SceneState.FAILED]).rows())
    return [
        FailureCount(
            reason=(group.example.reason or "unknown").replace(group.example.source, "…"),
            scenes=group.scenes,
            example=group.example.source,
        )
        for group in groups[:_LISTED]
    ]


def _farthest(measures: _Measures) -> list[int]:
    """Return the numbers of the outliers. The outlier that is farthest from the other scenes comes first."""
    if measures.outliers is None:
        return []
    score = measures.outliers.score
    order = np.argsort(-score, kind="stable")
    return [int(number) for number in order if score[number] > measures.thresholds.outlier_score]


def _measurements(measures: _Measures) -> list[Measurement]:
    catalogue, means = measures.catalogue, measures.means
    sources = _strings(catalogue, "source")
    failed, failed_qa = (catalogue.filter(states=[state]).table for state in (SceneState.FAILED, SceneState.FAILED_QA))
    embedded = catalogue.count - failed.num_rows
    # Nobody expects vectors of a failed scene that is gone.
    expected = failed.filter(pc.invert(failed["gone"]))
    found = [
        _share("failed_scene_share", expected.num_rows, embedded + expected.num_rows, "no scenes", _examples(expected)),
        _share("failed_qa_scene_share", failed_qa.num_rows, embedded, "no embedded scenes", _examples(failed_qa)),
        Measurement("unreadable_scenes", len(means.unreadable), examples=tuple(means.unreadable)[:_EXAMPLES]),
        Measurement(
            "duplicate_scenes",
            len(measures.repetitions.found),
            rows=int(measures.repetitions.compared.sum()),
            examples=tuple(
                f"{sources[means.row[one.second]]} repeats {sources[means.row[one.first]]}"
                for one in measures.repetitions.found[:_EXAMPLES]
            ),
        ),
    ]
    if measures.outliers is None:
        few = not_enough("scenes", means.count, measures.thresholds.min_scenes)
        return [*found, *not_judged(["outlier_scene_share"], few, rows=means.count)]
    far = _farthest(measures)
    examples = tuple(sources[means.row[number]] for number in far[:_EXAMPLES])
    return [*found, Measurement("outlier_scene_share", len(far) / means.count, rows=means.count, examples=examples)]


def _share(metric: str, part: int, whole: int, nothing: str, examples: tuple[str, ...]) -> Measurement:
    if not whole:
        return not_judged([metric], nothing)[0]
    return Measurement(metric, part / whole, examples=examples)


def _examples(scenes: pa.Table) -> tuple[str, ...]:
    return tuple(scenes["source"].slice(0, _EXAMPLES).to_pylist())


def _draw_pictures(measures: _Measures) -> Pictures:
    """Draw all pictures that the measurements allow."""
    # Matplotlib takes long to import, and only this function needs it.
    from rasterembed.drawing.figure import Heading
    from rasterembed.qa import collection_pictures

    model = measures.configuration.model
    heading = Heading(measures.layout.collection_id, model.name, model.id == DEMO)
    drawn = Pictures(COLLECTION_PICTURES)
    placed = ~shapely.is_missing(measures.geometry)
    if placed.any():
        states = _strings(measures.catalogue, "state")[placed]
        drawn.draw("scenes.png", lambda: collection_pictures.draw_scenes(heading, measures.geometry[placed], states))
    outliers, limit = measures.outliers, measures.thresholds.outlier_score
    if outliers is not None:
        drawn.draw("vectors.png", lambda: collection_pictures.draw_vectors(heading, measures.means, outliers, limit))
    return drawn
