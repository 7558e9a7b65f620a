"""Measure all metrics of a dataset for the quality checks. This module writes nothing.

Each step returns its own measurements:

- `rasterembed.qa.file_checks` compares the shards and the tile index with the manifest.
- `_measure_tiles` in this module compares the embedded tiles with the planned tiles.
- `rasterembed.qa.vector_checks` measures the columns `embedding`, `norm` and `valid_fraction` of the shards.
- `rasterembed.qa.coverage` compares the valid pixels of the raster with the embedded tiles.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

from rasterembed.dataset.manifest import Manifest
from rasterembed.dataset.plan import Plan
from rasterembed.errors import DataError, StoreUnavailableError
from rasterembed.qa.checked_tiles import CheckedTiles
from rasterembed.qa.coverage import Overview, measure_coverage
from rasterembed.qa.file_checks import check_index, check_shards
from rasterembed.qa.metrics import Measurement, not_judged
from rasterembed.qa.report import Counts
from rasterembed.qa.thresholds import QaThresholds
from rasterembed.qa.vector_checks import VectorMeasures, measure_vectors
from rasterembed.qa.vector_statistics import nearly_same_text
from rasterembed.raster.radiometry import NEARLY_ALL
from rasterembed.raster.skip_reason import SkipReason, describe_reason
from rasterembed.store import duck
from rasterembed.store.object_store import ObjectStore

_THREADS = 4
"""Largest number of threads for DuckDB."""

_INDEX_METRICS = ("tiles_unaccounted", "tiles_missing", "tiles_unexpected", "tiles_misplaced", "undecodable_share")
"""Metrics that compare the shards with the tile index."""


@dataclass(frozen=True)
class DatasetMeasures:
    """All measurements of a dataset."""

    manifest: Manifest
    tiles: CheckedTiles
    """The dataset's tiles. They can be queried until the end of the `measure_dataset` block."""
    counts: Counts
    vectors: VectorMeasures
    plan: Plan | None
    """The dataset's plan. None if it cannot be read."""
    overview: Overview | None
    """The raster's overview. None if it was not read."""
    measurements: tuple[Measurement, ...]
    """One measurement for each metric."""
    notes: tuple[str, ...]
    """Sentences about failed measurements, with the reasons."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """Things that a person should look at, as text for people. See `QaReport.warnings`."""
        overview, warnings = self.overview, []
        if overview is not None and overview.one_value:
            warnings.append("all valid pixels of the raster's overview have the same value")
        if self.vectors.nearly_same:
            warnings.append(nearly_same_text(self.vectors.sample_rows))
        if overview is not None and overview.clipped_share >= NEARLY_ALL:
            warnings.append(
                f"black and white clip {overview.clipped_share:.1%} of the valid pixels of the raster's overview"
            )
        return tuple(warnings)


@contextmanager
def measure_dataset(store: ObjectStore, manifest: Manifest, thresholds: QaThresholds) -> Iterator[DatasetMeasures]:
    """Measure a dataset, and keep its tile table open until the end of the block.

    Args:
        store: store of the dataset. The store's credentials are also used to read the raster.
        manifest: the dataset's manifest.
        thresholds: the thresholds. Some of their fields say how much data the metrics need.

    Raises:
        DataError: if the footer of a shard is complete, but its pages cannot be read.
        StoreError: if the store refuses or does not answer.
    """
    with (
        closing(duck.connect(threads=min(_THREADS, os.cpu_count() or 1))) as con,
        duck.dataset_errors(con, manifest.dataset_id),
    ):
        shards, index = check_shards(store, manifest), check_index(store, manifest)
        tiles = CheckedTiles(
            con, store, manifest, shards.keys, has_index=index.readable, sample_rows=thresholds.sample_rows
        )
        vectors = measure_vectors(tiles, manifest, thresholds)
        plan, plan_notes = _read_plan(store, manifest)
        coverage = measure_coverage(store, plan, tiles)
        yield DatasetMeasures(
            manifest=manifest,
            tiles=tiles,
            counts=_count_tiles(tiles, manifest),
            vectors=vectors,
            plan=plan,
            overview=coverage.overview,
            measurements=(
                *shards.measurements(),
                index.measurement(),
                *_measure_tiles(tiles, manifest),
                *vectors.measurements,
                coverage.measurement,
            ),
            notes=(*vectors.notes, *plan_notes),
        )


def _measure_tiles(tiles: CheckedTiles, manifest: Manifest) -> tuple[Measurement, ...]:
    """Return the metrics that compare the embedded tiles with the planned tiles."""
    found = {"tiles_duplicated": tiles.duplicated()}
    if tiles.has_index:
        found |= {
            "tiles_missing": tiles.missing(),
            "tiles_unexpected": tiles.unexpected(),
            "tiles_misplaced": tiles.misplaced(),
        }
    counted = tuple(Measurement(metric, tile.count, examples=tile.examples) for metric, tile in found.items())
    if not tiles.has_index:
        return (*counted, *not_judged(_INDEX_METRICS, "there is no tile index to compare with"))
    skipped = tiles.skipped()
    return (
        *counted,
        Measurement("tiles_unaccounted", abs(manifest.tiles - tiles.embedded() - sum(skipped.values()))),
        Measurement("undecodable_share", skipped.get(SkipReason.UNDECODABLE, 0) / max(manifest.tiles, 1)),
    )


def _count_tiles(tiles: CheckedTiles, manifest: Manifest) -> Counts:
    min_valid_fraction = float(manifest.configuration["selection"]["min_valid_fraction"])
    skipped = tiles.skipped() if tiles.has_index else {}
    described = {describe_reason(reason, min_valid_fraction): count for reason, count in skipped.items()}
    return Counts(
        planned=manifest.tiles,
        embedded=tiles.embedded(),
        rows=tiles.rows(),
        skipped=dict(sorted(described.items())),
    )


def _read_plan(store: ObjectStore, manifest: Manifest) -> tuple[Plan | None, tuple[str, ...]]:
    """Read the dataset's plan.

    Returns:
        The plan, or None if it cannot be read. In that case, the second value holds a note with the reason.
    """
    try:
        return Plan.read(store, manifest.dataset_id, manifest.fingerprint), ()
    except StoreUnavailableError:
        raise
    except DataError as error:
        return None, (f"No maps were drawn, and coverage is not judged: {error}",)
