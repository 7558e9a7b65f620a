"""What DuckDB says of a dataset's tiles: the shards are read once, into a table of some scalars a tile.

That table has about 80 bytes a row, next to the vectors' thousands, and goes to disk where it does not fit into the
memory allowed. Vectors are kept of a sample only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rasterembed.dataset.manifest import Manifest
from rasterembed.dataset.tile_index import TileStatus
from rasterembed.qa.report import Distribution
from rasterembed.qa.vector_statistics import Principal, Vectors
from rasterembed.raster.skip_reason import SkipReason
from rasterembed.store import duck
from rasterembed.store.object_store import ObjectStore

EXAMPLES = 10
"""Tile ids that are named where a count is not zero."""

BLOCK = 8
"""Neighbours are sampled as blocks of 8 x 8 tiles, so that tiles come with their neighbours."""

NEIGHBOUR_ROWS = 4096
"""Tiles in those blocks, about: all their pairs are held in memory."""

_SAMPLE_BYTES = 2**27
"""Vectors of a sample take no more than this in memory."""

_LEVELS = {"p01": 0.01, "p05": 0.05, "p25": 0.25, "p50": 0.5, "p75": 0.75, "p95": 0.95, "p99": 0.99}
_BINS = 41
_BATCH_ROWS = 65536
_ALL = 2**64 - 1
"""Largest value of DuckDB's hash."""

# A vector that is not whole comes out NULL, and so does its squared norm. The cast stands outside of CASE, which DuckDB
# has only for lists.
_LISTED = """
SELECT *, (CASE WHEN len(embedding) = {d} AND list_count(embedding) = {d} THEN embedding END)::FLOAT[{d}] AS whole
FROM shards
"""
_TILE = """
CREATE TEMP TABLE tile AS
WITH listed AS ({listed})
SELECT
    tile_id, "row", col, valid_fraction, norm,
    regexp_extract(filename, '([0-9]+)[.]parquet$', 1)::INTEGER AS shard,
    array_inner_product(whole, whole)::DOUBLE AS squared,
    coalesce(isfinite(squared) AND squared > 0, false) AS good,
    hash(embedding) AS content,
    {place} AS place,
    good AND hash(tile_id) <= $sample AS sampled,
    good AND hash("row" // {block}, col // {block}) <= $blocks AS in_block,
    CASE WHEN sampled OR in_block THEN embedding END AS vector
FROM listed
"""
_PLANNED = """
CREATE TEMP TABLE planned AS
SELECT tile_id, "row", col, col_off, row_off, width, height, status, reason, {place} AS place
FROM index_file
"""
_PLACE = 'hash("row", col, col_off, row_off, width, height, geometry)'

_NO_SHARD = """
CREATE TEMP TABLE tile (
    tile_id VARCHAR, "row" INTEGER, col INTEGER, valid_fraction FLOAT, norm FLOAT, shard INTEGER, squared DOUBLE,
    good BOOLEAN, content UBIGINT, place UBIGINT, sampled BOOLEAN, in_block BOOLEAN, vector FLOAT[]
)
"""


@dataclass(frozen=True)
class Found:
    """How many tiles something holds of, and some of them."""

    count: int
    examples: tuple[str, ...]


@dataclass(frozen=True)
class Sample:
    """Vectors of some tiles, in grid order."""

    vectors: Vectors
    """Shape (n, D)."""
    unit: Vectors
    """The same over their norms."""
    row: NDArray[np.int32]
    col: NDArray[np.int32]
    shard: NDArray[np.int32]


class TileTable:
    """A dataset's tiles in a DuckDB connection.

    Args:
        con: a connection of its own.
        store: where the dataset is.
        manifest: its manifest.
        keys: the shards to read.
        has_index: whether the tile index can be read.
        sample_rows: vectors to keep, about.

    Raises:
        DataError: if a file cannot be read.
        StoreError: if the store does not answer or refuses.
    """

    def __init__(
        self,
        con: duckdb.DuckDBPyConnection,
        store: ObjectStore,
        manifest: Manifest,
        keys: tuple[str, ...],
        *,
        has_index: bool,
        sample_rows: int,
    ) -> None:
        self._con = con
        self._d = manifest.dimensions
        self.has_index = has_index
        with duck.readable(f"dataset {manifest.dataset_id!r}"):
            if keys:
                duck.scan(con, store, keys).create_view("shards")
                con.execute(
                    _TILE.format(listed=_LISTED.format(d=self._d), place=_PLACE, block=BLOCK),
                    {
                        "sample": _share(min(sample_rows, _SAMPLE_BYTES // (4 * self._d)), manifest.rows),
                        "blocks": _share(min(NEIGHBOUR_ROWS, sample_rows), manifest.rows),
                    },
                )
            else:
                con.execute(_NO_SHARD)
            self.has_shards = bool(keys)
            if has_index:
                duck.scan(con, store, [manifest.index]).create_view("index_file")
                con.execute(_PLANNED.format(place=_PLACE))
                self._translate_reasons()

    def _translate_reasons(self) -> None:
        """Replace the sentences that version 0.1 wrote as reasons by the values of `SkipReason`."""
        for (text,) in self._con.execute("SELECT DISTINCT reason FROM planned WHERE reason IS NOT NULL").fetchall():
            try:
                reason = SkipReason(text)
            except ValueError:
                continue  # The index is damaged; the reason stays as it is.
            if text != reason:
                self._con.execute("UPDATE planned SET reason = ? WHERE reason = ?", [reason.value, text])

    def _one(self, sql: str, parameters: Any = None) -> tuple[Any, ...]:
        row = self._con.execute(sql, parameters).fetchone()
        assert row is not None
        return row

    def _found(self, relation: str, parameters: Any = None) -> Found:
        """Count the rows of `relation`, a FROM clause whose rows have a `tile_id`."""
        count, examples = self._one(f"SELECT count(*), min(tile_id, {EXAMPLES}) {relation}", parameters)
        return Found(count, tuple(examples or ()))

    def rows(self) -> int:
        """Rows in the shards."""
        return int(self._one("SELECT count(*) FROM tile")[0])

    def good_rows(self) -> int:
        """Rows whose vector is finite and not zero."""
        return int(self._one("SELECT count(*) FROM tile WHERE good")[0])

    def embedded(self) -> int:
        """Different tile ids in the shards."""
        return int(self._one("SELECT count(DISTINCT tile_id) FROM tile")[0])

    def skipped(self) -> dict[str, int]:
        """Skipped tiles of the index by reason."""
        skipped = f"status = '{TileStatus.SKIPPED}'"
        sql = f"SELECT reason, count(*) FROM planned WHERE {skipped} GROUP BY reason ORDER BY reason"
        return dict(self._con.execute(sql).fetchall())

    def missing(self) -> Found:
        """Tiles of the index that are not skipped, and have no row."""
        return self._found(f"FROM planned ANTI JOIN tile USING (tile_id) WHERE status <> '{TileStatus.SKIPPED}'")

    def duplicated(self) -> Found:
        """Rows beyond the first of each tile id."""
        count = self._one("SELECT count(*) - count(DISTINCT tile_id) FROM tile")[0]
        again = "FROM (SELECT tile_id FROM tile GROUP BY tile_id HAVING count(*) > 1)"
        return Found(count, self._found(again).examples if count else ())

    def unexpected(self) -> Found:
        """Tiles that the index skips or does not know."""
        return self._found(
            "FROM (SELECT DISTINCT tile_id FROM tile) "
            f"ANTI JOIN (SELECT tile_id FROM planned WHERE status <> '{TileStatus.SKIPPED}') USING (tile_id)"
        )

    def misplaced(self) -> Found:
        """Tiles that stand elsewhere in the shard than in the index: grid place, window or footprint."""
        return self._found("FROM tile JOIN planned USING (tile_id) WHERE tile.place <> planned.place")

    def not_finite(self) -> Found:
        """Vectors with a NaN, an infinity, a null, or of another length than the manifest's."""
        return self._found("FROM tile WHERE squared IS NULL OR NOT isfinite(squared)")

    def zero(self) -> Found:
        """Vectors of length zero."""
        return self._found("FROM tile WHERE squared = 0")

    def norms_wrong(self, tolerance: float) -> Found:
        """Rows whose norm column is off the vector's norm by more than a share of it."""
        return self._found(
            "FROM tile WHERE good AND NOT coalesce(abs(norm - sqrt(squared)) <= $tolerance * sqrt(squared), false)",
            {"tolerance": tolerance},
        )

    def valid_fractions_wrong(self, least: float) -> Found:
        """Rows whose valid fraction is not between a least value and 1."""
        # the column is float32, and so must be the bound
        return self._found(
            "FROM tile WHERE NOT coalesce(valid_fraction BETWEEN $least::FLOAT AND 1::FLOAT, false)",
            {"least": least},
        )

    def duplicate_share(self) -> float:
        """Share of the good vectors that repeat another tile's bit for bit (by a 64-bit hash)."""
        tiles, different = self._one("SELECT count(DISTINCT tile_id), count(DISTINCT content) FROM tile WHERE good")
        return 1.0 - float(different) / float(tiles)

    def distribution(self, column: str) -> Distribution | None:
        """Distribution of `norm` or `valid_fraction` over the rows with good vectors; None if there is none."""
        where = f"FROM tile WHERE good AND isfinite({column})"
        count, low, high, mean, std = self._one(
            f"SELECT count(*), min({column})::DOUBLE, max({column})::DOUBLE, avg({column}::DOUBLE), "
            f"stddev_pop({column}::DOUBLE) {where}"
        )
        if count == 0:
            return None
        sampled, quantiles = self._one(
            f"SELECT count(*), quantile_cont({column}::DOUBLE, {list(_LEVELS.values())}) {where} AND sampled"
        )
        edges = _edges(low, high)
        bins = self._con.execute(
            f"SELECT least({_BINS - 1}, floor(({column}::DOUBLE - $low) / ($high - $low) * {_BINS}))::INTEGER AS bin, "
            f"count(*) {where} GROUP BY bin",
            {"low": edges[0], "high": edges[-1]},
        )
        counts = dict(bins.fetchall())
        return Distribution(
            rows=count,
            minimum=low,
            maximum=high,
            mean=mean,
            std=std,
            quantiles=dict(zip(_LEVELS, quantiles, strict=True)) if sampled else {},
            quantile_rows=sampled,
            edges=edges,
            counts=tuple(counts.get(i, 0) for i in range(_BINS)),
        )

    def sample(self) -> Sample:
        """Good vectors picked by their tile id."""
        return self._sample("sampled")

    def neighbourhood(self) -> Sample:
        """Good vectors of some blocks of tiles."""
        return self._sample("in_block")

    def _sample(self, flag: str) -> Sample:
        table = self._con.execute(
            f'SELECT "row", col, shard, squared, vector FROM tile WHERE {flag} ORDER BY "row", col, shard'
        ).to_arrow_table()
        vectors = _matrix(table["vector"], self._d)
        norms = np.sqrt(table["squared"].to_numpy())
        numbers = (table[name].to_numpy().astype(np.int32) for name in ("row", "col", "shard"))
        return Sample(vectors, (vectors / norms[:, None]).astype(np.float32), *numbers)

    def projections(self, principal: Principal) -> Iterator[tuple[NDArray[np.int32], NDArray[np.int32], Vectors]]:
        """Every good tile's row, column and centred projections, shape (n, 3), in batches; reads the shards again."""
        if not self.has_shards:
            return
        axis = f"array_inner_product(whole, ${{0}}::FLOAT[{self._d}])"
        columns = ", ".join(f"{axis.format(f'a{i}')} / sqrt(squared) - $c{i}" for i in range(3))
        parameters: dict[str, Any] = {f"c{i}": float(principal.centre[i]) for i in range(3)}
        parameters |= {f"a{i}": principal.axes[i].tolist() for i in range(3)}
        query = self._con.execute(
            f'WITH listed AS ({_LISTED.format(d=self._d)}) SELECT "row", col, {columns} '
            "FROM (SELECT *, array_inner_product(whole, whole) AS squared FROM listed) "
            "WHERE isfinite(squared) AND squared > 0",
            parameters,
        )
        for batch in query.to_arrow_reader(_BATCH_ROWS):
            places = (batch.column(i).to_numpy() for i in range(2))
            yield *places, np.stack([batch.column(2 + i).to_numpy() for i in range(3)], axis=1)

    def windows(self, where: str = "true") -> Iterator[pa.RecordBatch]:
        """Row, column, window, status, reason of planned tiles, and whether they have a row in the shards (`there`)."""
        query = self._con.execute(
            'SELECT planned."row", planned.col, col_off, row_off, width, height, status, reason, '
            "t.tile_id IS NOT NULL AS there "
            f"FROM planned LEFT JOIN (SELECT DISTINCT tile_id FROM tile) t USING (tile_id) WHERE {where}"
        )
        yield from query.to_arrow_reader(_BATCH_ROWS)

    def few_windows(self, count: int) -> Iterator[pa.RecordBatch]:
        """As `windows`, of `count` tiles or about, the same every time."""
        planned = self._one("SELECT count(*) FROM planned")[0]
        return self.windows(f"hash(tile_id, 1) <= {_share(count, planned)}")


def _share(rows: int, of: int) -> int:
    """Bound on a hash that about `rows` of `of` values keep."""
    return _ALL if rows >= of else int(_ALL * (rows / of))


def _edges(low: float, high: float) -> tuple[float, ...]:
    if high - low <= 1e-3 * abs(high):  # as good as the same: normalised, or all tiles whole
        margin = max(abs(high) * 0.01, 1e-6)
        low, high = low - margin, high + margin
    return tuple(float(edge) for edge in np.linspace(low, high, _BINS + 1))


def _matrix(column: pa.ChunkedArray, dimensions: int) -> Vectors:
    if len(column) == 0:
        return np.empty((0, dimensions), dtype=np.float32)
    values: Vectors = column.combine_chunks().flatten().to_numpy()
    return values.reshape(-1, dimensions)
