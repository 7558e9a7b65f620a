"""Measuring a dataset and holding every number against its threshold; reads, and writes nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

import duckdb

from rasterembed.dataset.manifest import Manifest
from rasterembed.dataset.plan import Plan
from rasterembed.dataset.shards import read_receipt
from rasterembed.errors import DataError, StoreError, StoreUnavailableError
from rasterembed.qa.coverage import (
    FEW_WINDOWS,
    Coverage,
    Overview,
    measure_overview,
    measure_windows,
    read_overview,
)
from rasterembed.qa.report import Counts, Distribution, Metric, NeighbourCosines, QaReport, Status, number
from rasterembed.qa.shard_checks import check_index, check_shards
from rasterembed.qa.thresholds import QaThresholds
from rasterembed.qa.tile_table import Found, Sample, TileTable
from rasterembed.qa.vector_statistics import (
    Neighbours,
    Principal,
    compare_neighbours,
    dead_dimensions,
    effective_rank,
    mean_cosine,
    principal_components,
)
from rasterembed.raster.skip_reason import SkipReason
from rasterembed.store import duck
from rasterembed.store.object_store import ObjectStore

_NORM_TOLERANCE = 1e-3
"""Twice what rounding a vector to float16 does to its norm."""

_THREADS = 4


def judge(store: ObjectStore, manifest: Manifest, thresholds: QaThresholds = QaThresholds()) -> QaReport:
    """Measure a dataset and judge it, without pictures and without writing anything; see `rasterembed.qa.run.run_qa`.

    Raises:
        DataError: if a shard's pages cannot be read, though its footer is whole.
        StoreError: if the store refuses or does not answer.
    """
    with measured(store, manifest, thresholds) as measures:
        return measures.report()


@contextmanager
def measured(store: ObjectStore, manifest: Manifest, thresholds: QaThresholds) -> Iterator[Measures]:
    """Measure everything, and keep the tiles at hand while the block runs.

    Raises:
        DataError: if a shard's pages cannot be read, though its footer is whole.
        StoreError: if the store refuses or does not answer.
    """
    with (
        closing(duck.connect(threads=min(_THREADS, os.cpu_count() or 1))) as con,
        duck.readable(f"dataset {manifest.dataset_id!r}"),
    ):
        measures = Measures(manifest, thresholds)
        tiles = measures.tiles = _structure(con, store, manifest, measures)
        sample = tiles.sample()
        _values(tiles, sample, manifest, measures)
        if len(sample.unit):
            measures.principal = principal_components(sample.unit)
        measures.sample_rows = len(sample.unit)
        measures.counts = Counts(
            planned=manifest.tiles,
            embedded=tiles.embedded(),
            rows=tiles.rows(),
            skipped=tiles.skipped() if tiles.has_index else {},
        )
        plan = measures.plan = _plan(store, manifest, measures)
        if plan is not None and tiles.has_index:
            measures.overview = _coverage(store, plan, tiles, measures)
        else:
            measures.skip("coverage", "neither plan nor tile index says where tiles are")
        yield measures


@dataclass
class Measures:
    """What was measured so far, judged."""

    manifest: Manifest
    thresholds: QaThresholds
    tiles: TileTable = field(init=False)
    counts: Counts = field(init=False)
    plan: Plan | None = None
    """What the dataset was made by, if the store still has it."""
    overview: Overview | None = None
    principal: Principal | None = None
    sample_rows: int = 0
    metrics: list[Metric] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    norm: Distribution | None = None
    valid_fraction: Distribution | None = None
    neighbours: Neighbours | None = None

    def report(self, pictures: tuple[str, ...] = ()) -> QaReport:
        """All of it, as it is written down."""
        near = self.neighbours
        # in the order of the thresholds, whatever the order of measuring
        order = [name.partition("_")[2] for name in QaThresholds.model_fields]
        return QaReport(
            dataset_id=self.manifest.dataset_id,
            fingerprint=self.manifest.fingerprint,
            model=self.manifest.model,
            dimensions=self.manifest.dimensions,
            created=datetime.now(UTC),
            passed=all(metric.status != "breached" for metric in self.metrics),
            counts=self.counts,
            metrics=tuple(sorted(self.metrics, key=lambda metric: order.index(metric.name))),
            norm=self.norm,
            valid_fraction=self.valid_fraction,
            neighbours=NeighbourCosines(pairs=near.pairs, neighbours=near.neighbour_cosine, random=near.random_cosine)
            if near
            else None,
            explained=self.principal.explained if self.principal else None,
            sample_rows=self.sample_rows,
            notes=tuple(self.notes),
            pictures=pictures,
            thresholds=self.thresholds,
        )

    def add(
        self,
        name: str,
        value: int | float,
        *,
        rows: int | None = None,
        note: str = "",
        examples: tuple[str, ...] = (),
    ) -> None:
        """Take a metric and hold it against its threshold."""
        bound = float(self._threshold(name)[1])
        beyond = value > bound if self._threshold(name)[0] == "max" else value < bound
        self._append(name, value, "breached" if beyond else "passed", rows, note, examples)

    def skip(self, name: str, why: str, value: float | None = None, rows: int | None = None) -> None:
        """Take a metric that is not judged, and say why."""
        self._append(name, value, "not judged", rows, why, ())

    def found(self, name: str, found: Found) -> None:
        """Take a count with examples."""
        self.add(name, found.count, examples=found.examples)

    def _threshold(self, name: str) -> tuple[str, int | float]:
        bound = "max" if f"max_{name}" in QaThresholds.model_fields else "min"
        return bound, getattr(self.thresholds, f"{bound}_{name}")

    def _append(
        self,
        name: str,
        value: int | float | None,
        status: Status,
        rows: int | None,
        note: str,
        examples: tuple[str, ...],
    ) -> None:
        bound, threshold = self._threshold(name)
        self.metrics.append(
            Metric(
                name=name,
                title=str(QaThresholds.model_fields[f"{bound}_{name}"].description).rstrip("."),
                value=value,
                bound="max" if bound == "max" else "min",
                threshold=threshold,
                status=status,
                rows=rows,
                note=note,
                examples=examples,
            )
        )


def _structure(con: duckdb.DuckDBPyConnection, store: ObjectStore, manifest: Manifest, measures: Measures) -> TileTable:
    """Whether every planned tile is there once, in its place."""
    shards = check_shards(store, manifest)
    problem = check_index(store, manifest)
    measures.add("shards_missing", len(shards.missing), examples=shards.missing[:10])
    measures.add("shards_mismatched", len(shards.mismatched), examples=shards.mismatched[:10])
    measures.add("shards_unlisted", len(shards.unlisted), examples=shards.unlisted[:10])
    measures.add("index_mismatched", int(problem is not None), examples=(problem,) if problem else ())
    tiles = TileTable(
        con,
        store,
        manifest,
        shards.keys,
        has_index=problem is None or _is_parquet(store, manifest.index),
        sample_rows=measures.thresholds.sample_rows,
    )
    if tiles.has_index:
        skipped = tiles.skipped()
        measures.add("tiles_unaccounted", abs(manifest.tiles - tiles.embedded() - sum(skipped.values())))
        measures.found("tiles_missing", tiles.missing())
        measures.found("tiles_duplicated", tiles.duplicated())
        measures.found("tiles_unexpected", tiles.unexpected())
        measures.found("tiles_misplaced", tiles.misplaced())
        measures.add("undecodable_share", skipped.get(SkipReason.UNDECODABLE, 0) / max(manifest.tiles, 1))
    else:
        measures.found("tiles_duplicated", tiles.duplicated())
        for name in ("tiles_unaccounted", "tiles_missing", "tiles_unexpected", "tiles_misplaced", "undecodable_share"):
            measures.skip(name, "there is no tile index to compare with")
    return tiles


def _is_parquet(store: ObjectStore, key: str) -> bool:
    try:
        with store.open(key) as file:
            return read_receipt(file) is not None
    except StoreUnavailableError:
        raise
    except StoreError:
        return False


def _values(tiles: TileTable, sample: Sample, manifest: Manifest, measures: Measures) -> None:
    """What the vectors and the columns beside them are like."""
    least = float(manifest.configuration["selection"]["min_valid_fraction"])
    measures.found("vectors_not_finite", tiles.not_finite())
    measures.found("vectors_zero", tiles.zero())
    measures.found("norms_wrong", tiles.norms_wrong(_NORM_TOLERANCE))
    measures.found("valid_fractions_wrong", tiles.valid_fractions_wrong(least))
    measures.norm = tiles.distribution("norm")
    measures.valid_fraction = tiles.distribution("valid_fraction")
    good = tiles.good_rows()
    enough = measures.thresholds.min_rows
    few = f"not enough rows: {good}, it takes {enough}"
    if measures.norm is None or measures.valid_fraction is None or good < enough:
        if good == 0:
            measures.notes.append(
                f"No vector was judged: all {number(manifest.skipped)} tiles are skipped."
                if manifest.rows == 0
                else "No vector was judged: there is none that is finite and not zero."
            )
        for name in (
            "norm_ratio",
            "valid_fraction_mean",
            "duplicate_share",
            "effective_rank",
            "mean_cosine",
            "dead_dimension_share",
        ):
            measures.skip(name, few)
    else:
        lowest = measures.norm.minimum
        measures.add("norm_ratio", measures.norm.maximum / lowest if lowest > 0 else float("inf"))
        measures.add("valid_fraction_mean", measures.valid_fraction.mean)
        measures.add("duplicate_share", tiles.duplicate_share())
        rows = len(sample.vectors)
        measures.add("effective_rank", effective_rank(sample.vectors), rows=rows)
        measures.add("mean_cosine", mean_cosine(sample.unit), rows=rows)
        measures.add("dead_dimension_share", float(dead_dimensions(sample.vectors).mean()), rows=rows)
    _neighbours(tiles, measures)


def _neighbours(tiles: TileTable, measures: Measures) -> None:
    near = tiles.neighbourhood()
    measures.neighbours = found = compare_neighbours(near.unit, near.row, near.col, near.shard)
    pairs, enough = found.pairs if found else 0, measures.thresholds.min_neighbour_pairs
    if found is None or pairs < enough:
        for name in ("neighbour_gap", "neighbour_z"):
            measures.skip(name, f"not enough pairs of neighbours: {pairs}, it takes {enough}")
        return
    if found.z is None:
        for name in ("neighbour_gap", "neighbour_z"):
            measures.skip(name, "dealing the vectors out at random changes nothing", rows=pairs)
        return
    cosines = f"neighbours {number(found.neighbour_cosine)}, random tiles {number(found.random_cosine)}"
    measures.add("neighbour_gap", found.gap, rows=pairs, note=cosines)
    measures.add("neighbour_z", found.z, rows=pairs)


def _plan(store: ObjectStore, manifest: Manifest, measures: Measures) -> Plan | None:
    try:
        return Plan.read(store, manifest.dataset_id, manifest.fingerprint)
    except StoreUnavailableError:
        raise
    except DataError as error:
        measures.notes.append(f"No maps, and coverage is not judged: {error}")
        return None


def _coverage(store: ObjectStore, plan: Plan, tiles: TileTable, measures: Measures) -> Overview | None:
    """Judge how much of what is valid is embedded, by the raster's overview or by some of its tiles."""
    overview: Overview | None = None
    try:
        overview = read_overview(store, plan)
        coverage: Coverage = (
            measure_overview(overview, plan, tiles.windows())
            if overview is not None
            else measure_windows(store, plan, tiles.few_windows(FEW_WINDOWS))
        )
    except StoreUnavailableError:
        raise
    except DataError as error:
        measures.skip("coverage", f"the raster cannot be compared: {error}")
        return overview
    note = "" if coverage.tiles is None else f"of {coverage.tiles} tiles, as the raster has no small overview"
    if coverage.share is None:
        measures.skip("coverage", "the raster has no valid pixel that should be embedded")
    else:
        measures.add("coverage", coverage.share, note=note)
    return overview
