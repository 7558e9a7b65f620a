"""DuckDB over a store: rows in order, and the store's own errors."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rasterembed.errors import DataError, ObjectMissingError, StoreError, StoreUnavailableError
from rasterembed.store import duck, s3
from rasterembed.store.connection_pool import ConnectionPool
from rasterembed.store.object_store import ObjectStore
from tests.support.servers import S3Server
from tests.support.stores import at

ROWS = 2000


@pytest.fixture(params=["folder", "moto", pytest.param("ceph", marks=pytest.mark.s3)])
def store(request: pytest.FixtureRequest, tmp_path: Path, bucket: str) -> ObjectStore:
    if request.param == "folder":
        return _filled(ObjectStore(root=str(tmp_path / "store")))
    return _filled(_on_s3(request.getfixturevalue(request.param), bucket))


def _on_s3(server: S3Server, bucket: str) -> ObjectStore:
    server.create_bucket(bucket)
    return at(server, bucket)


def _filled(store: ObjectStore) -> ObjectStore:
    for name, first in (("b", 0), ("a", ROWS)):
        sink = io.BytesIO()
        pq.write_table(pa.table({"number": pa.array(range(first, first + ROWS))}), sink, row_group_size=500)
        store.write(f"table/{name}.parquet", sink.getvalue())
    return store


def test_threads_borrow_different_connections_and_a_returned_one_is_lent_again() -> None:
    pool = ConnectionPool(duck.connect)
    with pool.borrow() as first, pool.borrow() as second:
        first.execute("CREATE VIEW number AS SELECT 1 AS n")
        second.execute("CREATE VIEW number AS SELECT 2 AS n")
        assert first.execute("FROM number").fetchone() == (1,)
        assert second.execute("FROM number").fetchone() == (2,)
    with pool.borrow() as again:
        assert again is first


def test_a_connection_is_closed_after_an_error_and_when_its_pool_is_closed() -> None:
    pool = ConnectionPool(duck.connect)
    with pytest.raises(duckdb.CatalogException), pool.borrow() as failed:
        failed.execute("FROM absent")
    with pool.borrow() as lent:
        assert lent is not failed
        pool.close()
        assert lent.execute("SELECT 1").fetchone() == (1,)
    for con in (failed, lent):
        with pytest.raises(duckdb.ConnectionException):
            con.execute("SELECT 1")


ROOTS = ("a*b", "a?b", "a[x]b", "a[!y]b", "**")


def test_rows_come_in_the_order_of_the_keys(store: ObjectStore) -> None:
    with duck.connect() as con, duck.readable_errors(con, "table"):
        rows = duck.scan(con, store, ["table/b.parquet", "table/a.parquet"]).select("number, filename").fetchall()
    assert [number for number, _ in rows] == list(range(2 * ROWS))
    assert rows[0][1].endswith("table/b.parquet")


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *(("folder", name) for name in ROOTS),
        ("moto", "a*b"),
        *(pytest.param("moto", name, marks=pytest.mark.slow) for name in ROOTS[1:]),
    ],
)
def test_a_root_with_a_pattern_is_one_root(
    kind: str, name: str, tmp_path: Path, bucket: str, request: pytest.FixtureRequest
) -> None:
    def store(root: str) -> ObjectStore:
        if kind == "folder":
            return ObjectStore(root=str(tmp_path / root))
        return at(request.getfixturevalue("moto"), bucket, root)

    if kind == "moto":
        request.getfixturevalue("moto").create_bucket(bucket)
    for number, root in enumerate(("axb", "ayb", name)):
        sink = io.BytesIO()
        pq.write_table(pa.table({"number": [number]}), sink)
        store(root).write("t/x.parquet", sink.getvalue())
    with duck.connect() as con, duck.readable_errors(con, "table"):
        rows = duck.scan(con, store(name), ["t/x.parquet"]).select("number, filename").fetchall()
    assert [number for number, _ in rows] == [2]
    assert rows[0][1].endswith("t/x.parquet")
    with (
        duck.connect() as con,
        pytest.raises(DataError, match=r"^table: "),
        duck.readable_errors(con, "table"),
    ):
        duck.scan(con, store(name), ["t/missing.parquet"]).fetchall()


def test_a_missing_file_of_a_folder_is_named_with_advice(tmp_path: Path) -> None:
    store = ObjectStore(root=str(tmp_path))
    said = r"^dataset 'a': .*/t/none\.parquet: there is no such file: run `rasterembed datasets verify a`"
    with duck.connect() as con, pytest.raises(ObjectMissingError, match=said), duck.dataset_errors(con, "a"):
        duck.scan(con, store, ["t/none.parquet"])


def test_an_object_that_is_no_table_is_an_error_of_one_line(store: ObjectStore) -> None:
    store.write("table/c.parquet", b"no table, whatever its name says")
    with (
        duck.connect() as con,
        pytest.raises(DataError, match=r"^table: ") as error,
        duck.readable_errors(con, "table"),
    ):
        duck.scan(con, store, ["table/c.parquet"]).fetchall()
    assert not isinstance(error.value, StoreError)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"no table, whatever its name says", bytes(5000)])
def test_a_damaged_file_is_named_with_advice_and_without_the_words_of_duckdb(
    store: ObjectStore, content: bytes
) -> None:
    store.write("table/c.parquet", content)
    with (
        duck.connect() as con,
        pytest.raises(DataError) as error,
        duck.dataset_errors(con, "a"),
    ):
        duck.scan(con, store, ["table/a.parquet", "table/c.parquet", "table/b.parquet"]).fetchall()
    file = store.uri("table/c.parquet")
    advice = "run `rasterembed datasets verify a`, which says what to do"
    assert str(error.value) == f"dataset 'a': {file} is damaged: it is no complete Parquet file: {advice}"


def test_damaged_pages_end_with_advice(store: ObjectStore) -> None:
    sink = io.BytesIO()
    pq.write_table(pa.table({"number": range(2000)}), sink, use_dictionary=False)
    content = bytearray(sink.getvalue())
    content[4:2000] = bytes(1996)  # The header of the only page, and its first values.
    store.write("table/c.parquet", bytes(content))
    said = r"^dataset 'a': a file is damaged \(.*\): run `rasterembed datasets verify a`"
    with duck.connect() as con, pytest.raises(DataError, match=said), duck.dataset_errors(con, "a"):
        duck.scan(con, store, ["table/c.parquet"]).fetchall()


def test_an_object_that_does_not_exist_is_the_stores_error(moto: S3Server, bucket: str) -> None:
    store = _on_s3(moto, bucket)
    missing = pytest.raises(ObjectMissingError, match=r"^table: s3://.*none.* there is no such object")
    with duck.connect() as con, missing as error, duck.readable_errors(con, "table"):
        duck.scan(con, store, ["none"])
    assert isinstance(error.value.__cause__, duckdb.Error)


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("kind", [StoreUnavailableError, StoreError])
def test_a_store_that_fails_while_rows_are_read_is_the_stores_error(
    moto: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch, threads: int, kind: type[StoreError]
) -> None:
    """Whatever the text of the error, and in whichever thread of DuckDB it was raised."""
    store = _filled(_on_s3(moto, bucket))

    def fail(*_: Any) -> bytes:
        raise kind("DataError: a misleading text")

    with duck.connect(threads=threads) as con:
        view = duck.scan(con, store, ["table/b.parquet", "table/a.parquet"])
        with monkeypatch.context() as patch:
            patch.setattr(s3.S3Storage, "read_range", fail)
            with (
                pytest.raises(kind, match=r"^table: DataError: a misleading text$") as error,
                duck.readable_errors(con, "table"),
            ):
                view.fetchall()
        assert type(error.value) is kind
        # The store is not blamed for an error in a later block.
        with pytest.raises(DataError, match=r"^query: ") as other, duck.readable_errors(con, "query"):
            con.sql("SELECT nothing FROM nowhere")
        assert type(other.value) is DataError


def test_a_vector_as_text_has_the_same_numbers() -> None:
    rng = np.random.default_rng(0)
    vector = (rng.standard_normal(384) * 10.0 ** rng.integers(-38, 38, 384)).astype(np.float32)
    vector[:3] = np.finfo(np.float32).smallest_subnormal, np.finfo(np.float32).max, -0.0
    with duck.connect() as con:
        rows = con.execute("SELECT $vector::FLOAT[384]", {"vector": duck.vector_text(vector)}).fetchall()
    assert np.array(rows[0][0], np.float32).tobytes() == vector.tobytes()
