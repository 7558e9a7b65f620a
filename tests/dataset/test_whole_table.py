"""Parquet files that are read whole: a small file of a stranger does not fill the memory."""

from __future__ import annotations

import io
import json
import resource
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rasterembed.collection.catalogue import SCHEMA, read_catalogue
from rasterembed.dataset.dataset import Dataset
from rasterembed.dataset.geoparquet import PARQUET_ERRORS
from rasterembed.dataset.whole_table import TableLimits, TableTooLargeError, read_whole_table
from rasterembed.errors import DataError
from rasterembed.model.choice import Dinov3
from rasterembed.scene_batches import Batch, read_rows
from rasterembed.store.layout import CollectionLayout
from rasterembed.store.object_store import ObjectStore
from tests.support.vectors import blank_raster, checkpoint, write_dataset

LAYOUT = CollectionLayout("survey")
WIDE = TableLimits(rows=10**6, bytes=2**26)


def written(table: pa.Table, **options: Any) -> io.BytesIO:
    file = io.BytesIO()
    # Without the schema of Arrow, the reader does not know that a column was a dictionary.
    pq.write_table(table, file, **({"store_schema": False} | options))
    return file


def repeated(value: object, kind: pa.DataType, count: int) -> pa.Array:
    """Return a column in which each row has the same value. It needs little memory."""
    if value is None:
        return pa.nulls(count, kind)
    indices = pa.array(np.zeros(count, np.int32))
    return pa.DictionaryArray.from_arrays(indices, pa.array([value], kind))


def catalogue_of(count: int, **columns: pa.Array) -> io.BytesIO:
    """Write a catalogue of one failed scene `count` times, in which some columns are replaced."""
    values = dict.fromkeys(SCHEMA.names) | {"id": "survey--0", "source": "a.tif", "state": "failed", "listing": "a.tif"}
    values |= {"rows": 0, "skipped": 0, "shards": 0, "gone": False}
    table = {field.name: columns.get(field.name, repeated(values[field.name], field.type, count)) for field in SCHEMA}
    return written(pa.table(table), compression="zstd")


def test_a_table_is_that_of_pyarrow() -> None:
    table = pa.table(
        {
            "id": pa.array([f"{number}" for number in range(10_000)]),
            "same": pa.array(["Ä", None] * 5_000),
            "bytes": pa.array([b"\0" * (number % 7) for number in range(10_000)]),
            "number": pa.array(np.arange(10_000), pa.int32()),
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(np.arange(40_000, dtype=np.float32)), 4),
            "box": pa.array([{"x": 1.0}, None] * 5_000),
            "time": pa.array([None, 5] * 5_000, pa.timestamp("us", "UTC")),
        },
        metadata={"geo": "{}"},
    )
    for options in ({"row_group_size": 3_000}, {"use_dictionary": False}, {"use_dictionary": ["id"], "version": "2.6"}):
        file = written(table, store_schema=True, **options)
        assert read_whole_table(file, WIDE).equals(table)
        assert read_whole_table(file, WIDE).schema.metadata == {b"geo": b"{}"}
        assert read_whole_table(file, WIDE, ["same", "box", "id"]).equals(table.select(["same", "box", "id"]))
    assert read_whole_table(written(table.slice(0, 0), store_schema=True), WIDE).equals(table.slice(0, 0))


def _long_prefixes() -> io.BytesIO:
    """Write texts that each begin with the whole text before. Parquet stores only the end of each text."""
    values = pa.array(["x" * length for length in range(0, 120_000, 100)])
    return written(pa.table({"a": values}), use_dictionary=False, column_encoding={"a": "DELTA_BYTE_ARRAY"})


MANY = 10**6
TOO_LARGE: dict[str, tuple[Callable[[], io.BytesIO], str]] = {
    "rows": (lambda: written(pa.table({"a": repeated(1, pa.int8(), MANY + 1)})), "1000001 rows, more than 1000000"),
    "numbers": (lambda: written(pa.table({f"{n}": repeated(0, pa.int8(), MANY) for n in range(9)})), "72000000 bytes"),
    "lists": (lambda: written(pa.table({"a": [np.zeros(10**7, np.int8)]})), "80000000 bytes"),
    "equal texts": (
        lambda: written(pa.table({"a": repeated("x" * 2**16, pa.string(), MANY)}), store_schema=False),
        "of memory",
    ),
    "texts with equal beginnings": (_long_prefixes, "of memory|Not yet implemented"),
    "file": (lambda: io.BytesIO(bytes(2**26 + 1)), "67108865 bytes"),
}


@pytest.mark.parametrize(("make", "said"), TOO_LARGE.values(), ids=TOO_LARGE)
def test_a_table_beyond_the_limits_is_refused(make: Callable[[], io.BytesIO], said: str) -> None:
    file = make()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises((TableTooLargeError, OSError), match=said):  # One of the errors for a damaged file.
        read_whole_table(file, WIDE)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 400 * 1024  # KiB. The texts would need 64 GiB.


@pytest.mark.parametrize("names", [["a"], ["b"]], ids=["twice", "missing"])
def test_columns_that_are_missing_or_occur_twice_are_refused(names: list[str]) -> None:
    twice = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
    with pytest.raises(KeyError, match=f"no column {names[0]}, or several"):
        read_whole_table(written(twice), WIDE, names)


def test_other_columns_do_not_count() -> None:
    file = written(pa.table({"a": [1], "b": ["x" * 10_000]}), compression="zstd")
    assert read_whole_table(file, TableLimits(1, 5_000), ["a"]).to_pydict() == {"a": [1]}
    with pytest.raises(PARQUET_ERRORS, match="more than 5000"):
        read_whole_table(file, TableLimits(1, 5_000), ["b"])


LONG = repeated("x" * 2**22, pa.string(), 1_000)
BYTES = pa.dictionary(pa.int32(), pa.binary())

BOMBS: dict[str, tuple[Callable[[], io.BytesIO], str]] = {
    "rows": (lambda: catalogue_of(2_000_001), "it has 2000001 rows, more than 2000000"),
    "texts": (lambda: catalogue_of(1_000, reason=LONG), "bytes of memory"),
    "footprints": (
        lambda: catalogue_of(1_000, geometry=LONG.cast(BYTES)),
        "bytes of memory",
    ),
}


@pytest.mark.parametrize(("make", "said"), BOMBS.values(), ids=BOMBS)
def test_a_catalogue_that_would_fill_the_memory_is_refused_in_one_line(
    make: Callable[[], io.BytesIO], said: str, tmp_path: Any
) -> None:
    file = make()
    assert len(file.getvalue()) < 200_000
    store = ObjectStore(root=str(tmp_path))
    batch = Batch(lease=1, first=0, stop=1, sha256="0" * 64)
    store.write(LAYOUT.catalogue, file.getvalue())
    store.write(LAYOUT.batch_rows(batch.lease, batch.first, batch.stop), file.getvalue())
    with pytest.raises(DataError, match=said) as error:
        read_catalogue(store, LAYOUT)
    assert str(error.value).startswith(f"{store.uri(LAYOUT.catalogue)}: it is not a catalogue (")
    with pytest.raises(DataError, match=r"more than .*: run again"):
        read_rows(store, LAYOUT, batch)


def test_a_tile_index_with_more_rows_than_tiles_is_refused(tmp_path: Any) -> None:
    model = Dinov3(model=str(checkpoint(tmp_path / "model", 4)), device="cpu")
    store = ObjectStore(root=str(tmp_path / "store"))
    write_dataset(store, "known", blank_raster(tmp_path / "a.tif", 2, 2), model, np.ones((4, 4), np.float32))
    dataset = Dataset.open(store, "known")
    tiles = dataset.tiles()
    assert len(tiles) == 4
    pq.write_table(pa.concat_tables([tiles, tiles]), store.uri(dataset.manifest.index))
    with pytest.raises(DataError, match="it has 8 rows, more than 4"):
        dataset.tiles()
    reason = repeated("x" * 2**25, pa.string(), 4)
    pq.write_table(tiles.set_column(9, "reason", reason), store.uri(dataset.manifest.index), store_schema=False)
    with pytest.raises(DataError, match="more than 67141632"):
        dataset.tiles()
    assert json.loads(store.read(dataset.layout.manifest) or b"")["tiles"] == 4
