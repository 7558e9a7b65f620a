"""Measure everything about a dataset that the quality checks judge. Nothing is written.

Each step returns its own measurements:

- `rasterembed.qa.file_checks`: shards and tile index, compared with the manifest.
- `_measure_tiles` below: embedded tiles, compared with planned tiles.
- `rasterembed.qa.vector_checks`: the vectors and the columns beside them.
- `rasterembed.qa.coverage`: valid pixels of the raster, compared with embedded tiles.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

from rasterembed.dataset.manifest import Manifest
from rasterembed.dataset.plan import Plan
from rasterembed.errors import DataError, StoreUnavailableError
from rasterembed.qa.coverage import Overview, measure_coverage
from rasterembed.qa.file_checks import check_index, check_shards
from rasterembed.qa.metrics import Measurement, not_judged
from rasterembed.qa.report import Counts
from rasterembed.qa.thresholds import QaThresholds
from rasterembed.qa.tile_table import TileTable
from rasterembed.qa.vector_checks import VectorMeasures, measure_vectors
from rasterembed.raster.skip_reason import SkipReason, describe_reason
from rasterembed.store import duck
from rasterembed.store.object_store import ObjectStore

_THREADS = 4
"""Largest number of DuckDB's threads."""

_INDEX_METRICS = ("tiles_unaccounted", "tiles_missing", "tiles_unexpected", "tiles_misplaced", "undecodable_share")
"""Metrics that compare the shards with the tile index."""


@dataclass(frozen=True)
class DatasetMeasures:
    """Everything that was measured of a dataset."""

    manifest: Manifest
    tiles: TileTable
    """The dataset's tiles, which can be queried while the `measure_dataset` block runs."""
    counts: Counts
    vectors: VectorMeasures
    plan: Plan | None
    """The dataset's plan, if the store still has it."""
    overview: Overview | None
    """The raster's overview, if it could be read."""
    measurements: tuple[Measurement, ...]
    """One for each metric."""
    notes: tuple[str, ...]
    """What could not be measured and why, a sentence each."""


@contextmanager
def measure_dataset(store: ObjectStore, manifest: Manifest, thresholds: QaThresholds) -> Iterator[DatasetMeasures]:
    """Measure a dataset, and keep its tile table open while the block runs.

    Args:
        store: where the dataset is. Its credentials also read the raster.
        manifest: the dataset's manifest.
        thresholds: how much data the metrics need.

    Raises:
        DataError: if a shard's pages cannot be read although its footer is complete.
        StoreError: if the store refuses or does not answer.
    """
    with (
        closing(duck.connect(threads=min(_THREADS, os.cpu_count() or 1))) as con,
        duck.readable_errors(con, f"dataset {manifest.dataset_id!r}"),
    ):
        shards, index = check_shards(store, manifest), check_index(store, manifest)
        tiles = TileTable(
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


def _measure_tiles(tiles: TileTable, manifest: Manifest) -> tuple[Measurement, ...]:
    """Return the metrics that say whether every planned tile is embedded once, in its place."""
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


def _count_tiles(tiles: TileTable, manifest: Manifest) -> Counts:
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
        The plan, or None if it cannot be read; and notes for the report that say why.
    """
    try:
        return Plan.read(store, manifest.dataset_id, manifest.fingerprint), ()
    except StoreUnavailableError:
        raise
    except DataError as error:
        return None, (f"No maps were drawn, and coverage is not judged: {error}",)
