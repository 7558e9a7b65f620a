"""A DuckDB table with one row for each embedded tile, and the queries of the quality checks on this table.

The shards are read once. A vector has thousands of bytes, so the table holds only the vectors of a sample. All other
columns need about 80 bytes for each tile. If the table exceeds the memory limit, DuckDB moves the table to disk.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rasterembed.dataset.arrow_arrays import view_of, whole_view_of
from rasterembed.dataset.manifest import Manifest
from rasterembed.dataset.tile_index import TileStatus
from rasterembed.dataset.vector_column import SCALE, StoredNumbers, vector_columns
from rasterembed.qa.report import Distribution
from rasterembed.qa.vector_statistics import Principal, Vectors
from rasterembed.raster.skip_reason import SkipReason
from rasterembed.store import duck
from rasterembed.store.object_store import ObjectStore

EXAMPLES = 10
"""Largest number of example tile ids in a count."""

BLOCK = 8
"""Side of a block, in tiles. Neighbours are sampled in whole blocks, because single random tiles have no neighbours."""

NEIGHBOUR_ROWS = 4096
"""Approximate number of tiles in the sampled blocks. The cosines of all pairs of these tiles are held in memory."""

_SAMPLE_BYTES = 2**27
"""Largest memory for the vectors of a sample, in bytes."""

_QUANTILES = {"p01": 0.01, "p05": 0.05, "p25": 0.25, "p50": 0.5, "p75": 0.75, "p95": 0.95, "p99": 0.99}
_BINS = 41
"""Number of bins of a histogram."""

_BATCH_ROWS = 65536
"""Largest number of rows in a batch."""

_LARGEST_HASH = 2**64 - 1
"""Largest value of DuckDB's hash function."""

# If a vector has a wrong length or contains a null, the vector and its squared norm become NULL. The cast is outside of
# CASE, because DuckDB supports CASE for lists, but not for arrays.
# A vector is `whole` times `scale`. Only shards of int8 have a column `scale`. In all others, the scale is 1.
_LISTED = """
SELECT
    *, (CASE WHEN len(embedding) = {d} AND list_count(embedding) = {d} THEN embedding END)::FLOAT[{d}] AS whole{scale}
FROM shards
"""
_TILE = """
CREATE TEMP TABLE tile AS
WITH listed AS ({listed})
SELECT
    tile_id, "row", col, valid_fraction, norm,
    regexp_extract(filename, '([0-9]+)[.]parquet$', 1)::INTEGER AS shard,
    array_inner_product(whole, whole)::DOUBLE * scale * scale AS squared,
    coalesce(isfinite(squared) AND squared > 0, false) AS good,
    hash(embedding, scale) AS content,
    scale,
    {place} AS place,
    good AND hash(tile_id) <= {sample}::UBIGINT AS sampled,
    good AND hash("row" // {block}, col // {block}) <= {blocks}::UBIGINT AS in_block,
    CASE WHEN sampled OR in_block THEN embedding END AS vector
FROM listed
"""
_PLANNED = """
CREATE TEMP TABLE planned AS
SELECT tile_id, "row", col, col_off, row_off, width, height, status, reason, {place} AS place
FROM index_file
"""
_PLACE = 'hash("row", col, col_off, row_off, width, height, geometry)'

_IS_SKIPPED = f"(status = '{TileStatus.SKIPPED}')"

_NO_SHARD = """
CREATE TEMP TABLE tile (
    tile_id VARCHAR, "row" INTEGER, col INTEGER, valid_fraction FLOAT, norm FLOAT, shard INTEGER, squared DOUBLE,
    good BOOLEAN, content UBIGINT, scale FLOAT, place UBIGINT, sampled BOOLEAN, in_block BOOLEAN, vector FLOAT[]
)
"""


@dataclass(frozen=True)
class TileCount:
    """Number of tiles in the result of a query."""

    count: int
    examples: tuple[str, ...]
    """Ids of up to ten of the counted tiles, in ascending order."""


@dataclass(frozen=True)
class Sample:
    """Vectors of n sampled tiles, in grid order."""

    vectors: Vectors
    """The vectors, shape (n, D)."""
    unit: Vectors
    """The vectors divided by their norms, shape (n, D)."""
    row: NDArray[np.int32]
    """Row of each tile in the grid, shape (n,)."""
    col: NDArray[np.int32]
    """Column of each tile in the grid, shape (n,)."""
    shard: NDArray[np.int32]
    """Number of each tile's shard, shape (n,)."""


class CheckedTiles:
    """Embedded and planned tiles of one dataset, as tables of a DuckDB connection.

    A vector is "good" if it is finite and not zero.

    Args:
        con: a connection for this object only.
        store: store of the dataset.
        manifest: the dataset's manifest.
        keys: keys of the shards to read.
        has_index: whether the tile index can be read.
        sample_rows: approximate number of vectors to sample.

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
        scaled = SCALE in vector_columns(manifest.vector_dtype)
        self._listed = _LISTED.format(d=self._d, scale="" if scaled else f", 1::FLOAT AS {SCALE}")
        # An int8 differs from its number by at most half the scale, so a vector by at most sqrt(D) times as much.
        self._rounding = f"{SCALE} * {np.sqrt(self._d) / 2}" if scaled else "0"
        self.has_index = has_index
        """Whether the planned tiles are known."""
        self.has_shards = bool(keys)
        """Whether the dataset has a shard that can be read."""
        with duck.dataset_errors(con, manifest.dataset_id):
            if keys:
                duck.scan(con, store, keys).create_view("shards")
                con.execute(
                    _TILE.format(
                        listed=self._listed,
                        place=_PLACE,
                        block=BLOCK,
                        sample=_hash_bound(min(sample_rows, _SAMPLE_BYTES // (4 * self._d)), manifest.rows),
                        blocks=_hash_bound(min(NEIGHBOUR_ROWS, sample_rows), manifest.rows),
                    )
                )
            else:
                con.execute(_NO_SHARD)
            if has_index:
                duck.scan(con, store, [manifest.index]).create_view("index_file")
                con.execute(_PLANNED.format(place=_PLACE))
                self._replace_old_reasons()

    def _replace_old_reasons(self) -> None:
        """Replace each reason by a value of `SkipReason`, because version 0.1 wrote sentences as reasons.

        An unknown reason stays unchanged, and reports show it unchanged.
        """
        for (text,) in self._con.execute("SELECT DISTINCT reason FROM planned WHERE reason IS NOT NULL").fetchall():
            try:
                reason = SkipReason(text)
            except ValueError:
                continue
            if reason.value != text:
                self._con.execute("UPDATE planned SET reason = ? WHERE reason = ?", [reason.value, text])

    def _one(self, sql: str) -> tuple[Any, ...]:
        row = self._con.execute(sql).fetchone()
        assert row is not None
        return row

    def _count(self, relation: str) -> TileCount:
        """Count the rows of `relation`, an SQL FROM clause. The rows must have the column `tile_id`."""
        count, examples = self._one(f"SELECT count(*), min(tile_id, {EXAMPLES}) {relation}")
        return TileCount(count, tuple(examples or ()))

    def rows(self) -> int:
        """Return the number of rows in the shards."""
        return int(self._one("SELECT count(*) FROM tile")[0])

    def good_rows(self) -> int:
        """Return the number of rows with a good vector."""
        return int(self._one("SELECT count(*) FROM tile WHERE good")[0])

    def embedded(self) -> int:
        """Return the number of distinct tile ids in the shards."""
        return int(self._one("SELECT count(DISTINCT tile_id) FROM tile")[0])

    def skipped(self) -> dict[str, int]:
        """Return the number of skipped tiles in the tile index, by the value of `SkipReason`."""
        sql = f"SELECT reason, count(*) FROM planned WHERE {_IS_SKIPPED} GROUP BY reason ORDER BY reason"
        return dict(self._con.execute(sql).fetchall())

    def missing(self) -> TileCount:
        """Count the tiles that have no row, but are not skipped in the tile index."""
        return self._count(f"FROM planned ANTI JOIN tile USING (tile_id) WHERE NOT {_IS_SKIPPED}")

    def duplicated(self) -> TileCount:
        """Count the rows that repeat the tile id of an earlier row."""
        count = self._one("SELECT count(*) - count(DISTINCT tile_id) FROM tile")[0]
        again = "FROM (SELECT tile_id FROM tile GROUP BY tile_id HAVING count(*) > 1)"
        return TileCount(count, self._count(again).examples if count else ())

    def unexpected(self) -> TileCount:
        """Count the embedded tiles that are skipped or absent in the tile index."""
        return self._count(
            "FROM (SELECT DISTINCT tile_id FROM tile) "
            f"ANTI JOIN (SELECT tile_id FROM planned WHERE NOT {_IS_SKIPPED}) USING (tile_id)"
        )

    def misplaced(self) -> TileCount:
        """Count the tiles whose grid position, window or footprint differs between shard and tile index."""
        return self._count("FROM tile JOIN planned USING (tile_id) WHERE tile.place <> planned.place")

    def not_finite(self) -> TileCount:
        """Count the vectors with a NaN, an infinity or a null, and the vectors of a wrong length."""
        return self._count("FROM tile WHERE squared IS NULL OR NOT isfinite(squared)")

    def zero(self) -> TileCount:
        """Count the vectors whose norm is zero."""
        return self._count("FROM tile WHERE squared = 0")

    def norms_wrong(self, tolerance: float) -> TileCount:
        """Count the good rows whose column `norm` differs from the vector's norm.

        The column has the norm before the vector was rounded. A row is counted if the relative difference is larger
        than `tolerance`. Vectors that are stored as int8 may also differ by the largest error of the rounding.
        """
        return self._count(
            "FROM tile WHERE good AND NOT coalesce("
            f"abs(norm - sqrt(squared)) <= {_double(tolerance)} * sqrt(squared) + {self._rounding}, false)"
        )

    def valid_fractions_wrong(self, minimum: float) -> TileCount:
        """Count the rows whose valid fraction is not between `minimum` and 1."""
        # The column is float32, so the minimum is rounded to float32.
        return self._count(
            f"FROM tile WHERE NOT coalesce(valid_fraction BETWEEN {_double(minimum)}::FLOAT AND 1::FLOAT, false)"
        )

    def duplicate_share(self) -> float:
        """Return the share of good vectors that are exact copies of another vector.

        Vectors with the same 64-bit hash count as copies.
        """
        tiles, different = self._one("SELECT count(DISTINCT tile_id), count(DISTINCT content) FROM tile WHERE good")
        return 1.0 - float(different) / float(tiles)

    def distribution(self, column: str) -> Distribution | None:
        """Return the distribution of `norm` or `valid_fraction` over the good rows. None if no row is good."""
        where = f"FROM tile WHERE good AND isfinite({column})"
        count, low, high, mean, std = self._one(
            f"SELECT count(*), min({column})::DOUBLE, max({column})::DOUBLE, avg({column}::DOUBLE), "
            f"stddev_pop({column}::DOUBLE) {where}"
        )
        if count == 0:
            return None
        sampled, quantiles = self._one(
            f"SELECT count(*), quantile_cont({column}::DOUBLE, {list(_QUANTILES.values())}) {where} AND sampled"
        )
        edges = _histogram_edges(low, high)
        first, last = _double(edges[0]), _double(edges[-1])
        bins = self._con.execute(
            f"SELECT least({_BINS - 1}, floor(({column}::DOUBLE - {first}) / ({last} - {first}) * {_BINS}))::INTEGER "
            f"AS bin, count(*) {where} GROUP BY bin"
        )
        counts = dict(bins.fetchall())
        return Distribution(
            rows=count,
            minimum=low,
            maximum=high,
            mean=mean,
            std=std,
            quantiles=dict(zip(_QUANTILES, quantiles, strict=True)) if sampled else {},
            quantile_rows=sampled,
            edges=edges,
            counts=tuple(counts.get(i, 0) for i in range(_BINS)),
        )

    def sample(self) -> Sample:
        """Return a sample of the good vectors. A hash of the tile id selects the tiles."""
        return self._sample("sampled")

    def neighbour_sample(self) -> Sample:
        """Return the good vectors of some blocks of tiles. A hash of the block's position selects the blocks."""
        return self._sample("in_block")

    def _sample(self, flag: str) -> Sample:
        table = self._con.execute(
            f'SELECT coalesce("row", -1) AS "row", coalesce(col, -1) AS col, shard, squared, scale, vector '
            f'FROM tile WHERE {flag} ORDER BY "row", col, shard'
        ).to_arrow_table()
        vectors = StoredNumbers(_matrix(table["vector"], self._d), whole_view_of(table["scale"])).vectors()
        norms = np.sqrt(whole_view_of(table["squared"]))
        numbers = (whole_view_of(table[name]).astype(np.int32) for name in ("row", "col", "shard"))
        return Sample(vectors, (vectors / norms[:, None]).astype(np.float32), *numbers)

    def projections(self, principal: Principal) -> Iterator[tuple[NDArray[np.int32], NDArray[np.int32], Vectors]]:
        """Yield row, column and centred projections of every good vector, in batches.

        This method reads the shards again.

        Args:
            principal: the principal components.

        Yields:
            Grid rows of shape (n,), grid columns of shape (n,), and projections of shape (n, 3).
        """
        if not self.has_shards:
            return
        axes = (f"'{principal.axes[i].tolist()}'::DOUBLE[]::FLOAT[{self._d}]" for i in range(3))
        columns = ", ".join(
            f"array_inner_product(whole, {axis}) * scale / sqrt(squared) - {_double(principal.centre[i])}"
            for i, axis in enumerate(axes)
        )
        query = self._con.execute(
            f'WITH listed AS ({self._listed}) SELECT "row", col, {columns} '
            "FROM (SELECT *, array_inner_product(whole, whole) * scale * scale AS squared FROM listed) "
            "WHERE isfinite(squared) AND squared > 0"
        )
        for batch in query.to_arrow_reader(_BATCH_ROWS):
            row, col = (view_of(batch.column(i)) for i in range(2))
            yield row, col, np.stack([view_of(batch.column(2 + i)) for i in range(3)], axis=1)

    def windows(self, where: str = "true") -> Iterator[pa.RecordBatch]:
        """Yield planned tiles in batches.

        Args:
            where: SQL condition on the tiles. The default yields all tiles.

        Yields:
            Batches with the columns `row`, `col`, `col_off`, `row_off`, `width`, `height`, `status`, `reason` of the
            tile index, and with the column `has_vector`: true if the tile has a row in the shards.
        """
        query = self._con.execute(
            'SELECT planned."row", planned.col, col_off, row_off, width, height, status, reason, '
            "t.tile_id IS NOT NULL AS has_vector "
            f"FROM planned LEFT JOIN (SELECT DISTINCT tile_id FROM tile) t USING (tile_id) WHERE {where}"
        )
        yield from query.to_arrow_reader(_BATCH_ROWS)

    def sample_windows(self, count: int) -> Iterator[pa.RecordBatch]:
        """Yield a sample of about `count` planned tiles, in batches as in `windows`. The sample is reproducible."""
        planned = self._one("SELECT count(*) FROM planned")[0]
        return self.windows(f"hash(tile_id, 1) <= {_hash_bound(count, planned)}")


def _double(value: float) -> str:
    """Return a number as SQL.

    For a parameter, DuckDB would import pandas, if it is installed. This takes as long as all queries of a small
    dataset together. A number cannot end the text, so it is safe in SQL.
    """
    return f"'{float(value)!r}'::DOUBLE"


def _hash_bound(rows: int, total: int) -> int:
    """Return an upper bound for a 64-bit hash. About `rows` of `total` hash values are below this bound."""
    return _LARGEST_HASH if rows >= total else int(_LARGEST_HASH * (rows / total))


def _histogram_edges(low: float, high: float) -> tuple[float, ...]:
    # If the vectors are normalised, or if all pixels are valid, all values are almost equal. The bins must still have a
    # width above zero.
    if high - low <= 1e-3 * abs(high):
        margin = max(abs(high) * 0.01, 1e-6)
        low, high = low - margin, high + margin
    return tuple(float(edge) for edge in np.linspace(low, high, _BINS + 1))


def _matrix(column: pa.ChunkedArray, dimensions: int) -> NDArray[Any]:
    """Return the stored numbers of n vectors, shape (n, dimensions)."""
    if len(column) == 0:
        return np.empty((0, dimensions), dtype=np.float32)
    values: NDArray[Any] = view_of(column.combine_chunks().flatten())
    return values.reshape(-1, dimensions)
