"""Open the database of the engine `vss` in such a way that the database can do no harm.

A vector index may come from a bucket. A person who can write to the bucket can replace both the database and
`index.json`. The digest in `index.json` therefore does not show that a build wrote the database. A DuckDB database can
hold views and macros. They can run any SQL, and SQL can read local files. Three measures protect against this:

- Only a database that this user built on this machine is opened: see `rasterembed.store.own_files.is_own_file`.
- Before the database is attached, the connection is restricted to the files of this database. The restriction cannot be
  removed.
- Before vectors are read, the contents of the database are compared with the contents that a build writes.
"""

from __future__ import annotations

from pathlib import Path

import duckdb

from rasterembed.search.engines.engine import IndexUnusableError, NoIndexReason
from rasterembed.search.vector_files import VectorFiles
from rasterembed.store import duck

_TABLE = (
    'CREATE TABLE vectors({dataset_id}tile_id VARCHAR, "row" INTEGER, col INTEGER, col_off INTEGER, row_off INTEGER, '
    "width INTEGER, height INTEGER, valid_fraction FLOAT, geometry {geometry}, embedding FLOAT[{dimensions}]);"
)
"""The SQL text that DuckDB returns for the table of a build. The table of a database must have the same text."""

_GEOMETRY_TYPES = ("GEOMETRY", "BLOB")
"""Types of the footprints. The type is `BLOB` if the raster has no place on Earth."""

_DATASET_ID = "dataset_id VARCHAR, "
"""The column that only the table of a collection has."""


def load_vss(con: duckdb.DuckDBPyConnection) -> None:
    """Load the extension `vss` into a connection.

    Raises:
        IndexUnusableError: if the extension cannot be loaded.
    """
    if not duck.load_vss(con):
        raise IndexUnusableError(NoIndexReason.NO_EXTENSION, duckdb.__version__)


def open_database(path: Path, files: VectorFiles, ef_search: int) -> duckdb.DuckDBPyConnection:
    """Open a connection, and attach the database of an index as `ix`. The database is read-only.

    The connection can read no other file.

    Args:
        path: the database.
        files: the files whose vectors are in the index.
        ef_search: number of candidates in a search.

    Raises:
        IndexUnusableError: if `vss` cannot be loaded, or if the database does not hold exactly what a build writes.
        duckdb.Error: if the file is not a DuckDB database.
    """
    # Refuse a database with a write-ahead log. DuckDB would execute the log. A finished build leaves no log, and the
    # digest does not cover the log.
    log = Path(f"{path}.wal")
    if log.exists():
        raise IndexUnusableError(NoIndexReason.FOREIGN_CONTENT)
    con = duck.connect()
    try:
        # The loaded index is part of the memory that DuckDB limits. The limit is therefore the size of the index plus
        # 1 GB. In DuckDB, 1 GB is 10^9 bytes.
        con.execute(f"SET memory_limit = '{1 + path.stat().st_size / 1e9:.3f}GB'")
        load_vss(con)
        # The log must be among the allowed paths, because DuckDB checks whether it exists.
        con.execute(f"SET allowed_paths = [{quote_path(path)}, {quote_path(log)}]")
        con.execute("SET enable_external_access = false")
        con.execute(f"ATTACH {quote_path(path)} AS ix (READ_ONLY)")
        con.execute(f"SET hnsw_ef_search = {int(ef_search)}")
        # Turn late materialization off. With late materialization, DuckDB would scan the whole table to fetch the
        # columns of the nearest rows. This was slower in measurements.
        con.execute("SET late_materialization_max_rows = 0")
        con.execute("SET lock_configuration = true")
        _check_contents(con, files)
    except BaseException:
        con.close()
        raise
    return con


def _check_contents(con: duckdb.DuckDBPyConnection, files: VectorFiles) -> None:
    """Check that the database holds the table and the index of a build, and nothing else.

    The table is compared by its SQL text, because this text also shows defaults, constraints and generated columns.

    Raises:
        IndexUnusableError: if the contents differ from those of a build.
    """
    tables = con.execute(
        "SELECT schema_name, table_name, sql FROM duckdb_tables() WHERE database_name = 'ix'"
    ).fetchall()
    first = _DATASET_ID if files.of_collection else ""
    allowed = [_TABLE.format(dataset_id=first, geometry=kind, dimensions=files.dimensions) for kind in _GEOMETRY_TYPES]
    if tables not in [[("main", "vectors", sql)] for sql in allowed]:
        raise IndexUnusableError(NoIndexReason.FOREIGN_CONTENT)
    # In every database, DuckDB has its own schemas, views, functions and types. They are marked as internal, and are
    # left out of the comparison.
    wanted: dict[str, list[tuple[str, ...]]] = {
        "SELECT table_name, expressions FROM duckdb_indexes() WHERE": [("vectors", "[embedding]")],
        "SELECT sequence_name FROM duckdb_sequences() WHERE": [],
        "SELECT schema_name FROM duckdb_schemas() WHERE NOT internal AND": [],
        "SELECT view_name FROM duckdb_views() WHERE NOT internal AND": [],
        "SELECT function_name FROM duckdb_functions() WHERE NOT internal AND": [],
        "SELECT type_name FROM duckdb_types() WHERE NOT internal AND": [],
    }
    for query, rows in wanted.items():
        if con.execute(f"{query} database_name = 'ix'").fetchall() != rows:
            raise IndexUnusableError(NoIndexReason.FOREIGN_CONTENT)


def quote_path(path: Path) -> str:
    """Return a path as an SQL string for ATTACH, because ATTACH takes no parameters. Quotes in the path are doubled."""
    return "'" + str(path).replace("'", "''") + "'"
