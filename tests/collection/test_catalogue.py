"""The catalogue: one row for each scene, filtered by place and date, and read by other programs as STAC Items."""

from __future__ import annotations

import io
import json
import struct
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import geopandas
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely

from rasterembed.collection.catalogue import SCHEMA, Catalogue, read_catalogue, write_catalogue
from rasterembed.collection.scene_row import QaVerdict, SceneRow, SceneState
from rasterembed.errors import DataError, UsageError
from rasterembed.store.layout import CollectionLayout
from rasterembed.store.object_store import ObjectStore
from tests.support.stac_schemas import check, check_geoparquet_footer

LAYOUT = CollectionLayout("survey")
DESCRIPTION = {
    "type": "Collection",
    "stac_version": "1.1.0",
    "stac_extensions": [],
    "id": "survey",
    "description": "Scenes of a test",
    "license": "other",
    "extent": {"spatial": {"bbox": [[-180, -90, 180, 90]]}, "temporal": {"interval": [[None, None]]}},
    "links": [],
}


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return ObjectStore(root=str(tmp_path / "store"))


def row(number: int, **changes: Any) -> SceneRow:
    lon, lat = -179.5 + number * 7 % 358, -80 + number * 3 % 160
    return replace(
        SceneRow(
            id=f"survey--{number:06d}",
            source=f"s3://rasters/scene {number}.tif",
            source_size=1000 + number,
            source_version=f"v{number}",
            state=SceneState.READY,
            reason=None,
            qa=QaVerdict.PASSED,
            rows=4,
            skipped=1,
            shards=1,
            fingerprint=f"{number:064x}",
            datetime=datetime(2026, 6, 1, tzinfo=UTC) + timedelta(hours=number),
            cloud_cover=float(number % 100),
            geometry=shapely.to_wkb(shapely.box(lon, lat, lon + 1, lat + 1)),
            item=f"item-{number}",
            listing="s3://rasters",
        ),
        **changes,
    )


FAILED = {
    "state": SceneState.FAILED,
    "reason": "the file is empty",
    "qa": None,
    "rows": 0,
    "skipped": 0,
    "shards": 0,
    "fingerprint": None,
    "geometry": None,
    "cloud_cover": None,
    "item": None,
}


def test_each_field_of_a_row_is_a_column() -> None:
    names = {"eo:cloud_cover" if field.name == "cloud_cover" else field.name for field in fields(SceneRow)}
    assert set(SCHEMA.names) == names


def test_a_catalogue_is_the_same_after_it_was_written(store: ObjectStore) -> None:
    rows = [
        row(0, dated=False),
        row(1, **FAILED, gone=True, dated=False),
        row(2, state=SceneState.EMBEDDED, qa=None, shards=3),
    ]
    write_catalogue(store, LAYOUT, Catalogue.of(reversed(rows)), DESCRIPTION)
    read = read_catalogue(store, LAYOUT)
    assert read is not None
    assert list(read.rows()) == rows
    assert read.counts() == {SceneState.READY: 1, SceneState.EMBEDDED: 1, SceneState.FAILED: 1}
    assert read.vectors == 8
    assert read.undated == 1
    path = Path(store.uri(LAYOUT.catalogue))
    older = pq.read_table(path).drop_columns(["dated"])
    pq.write_table(older, path)
    without = read_catalogue(store, LAYOUT)
    assert without is not None
    assert list(without.rows()) == [replace(each, dated=True) for each in rows]


def test_equal_rows_give_equal_bytes_in_any_order(store: ObjectStore) -> None:
    rows = [row(number) for number in range(20)]
    write_catalogue(store, LAYOUT, Catalogue.of(rows), DESCRIPTION)
    first = store.read(LAYOUT.catalogue)
    grown = Catalogue.of(rows[10:15]).updated(rows[15:]).updated([row(3, rows=9)]).updated(rows[:10])
    write_catalogue(store, LAYOUT, grown, DESCRIPTION)
    assert store.read(LAYOUT.catalogue) == first


def test_an_empty_catalogue_is_a_file_too(store: ObjectStore) -> None:
    assert read_catalogue(store, LAYOUT) is None
    write_catalogue(store, LAYOUT, Catalogue.of([]), DESCRIPTION)
    read = read_catalogue(store, LAYOUT)
    assert read is not None
    assert (read.count, read.vectors, read.extent()) == (0, 0, (None, [None, None]))


def test_rows_are_replaced_added_left_out_and_changed() -> None:
    catalogue = Catalogue.of([row(0), row(1), row(2)])
    changed = catalogue.updated([row(1, rows=7), row(3)], without=["survey--000000"]).with_values(
        ["survey--000003"], gone=True, listing="/here"
    )
    assert list(changed.rows()) == [row(1, rows=7), row(2), row(3, gone=True, listing="/here")]


@pytest.mark.parametrize("box", [(-20, -30, 60, 40), (170, -90, -170, 90), (-180, -90, 180, 90), (0, 0, 0, 0)], ids=str)
def test_a_box_finds_what_shapely_finds(box: tuple[float, float, float, float]) -> None:
    rows = [row(number) for number in range(300)] + [row(300, **FAILED)]
    west, south, east, north = box
    parts = [(west, east)] if west <= east else [(west, 180), (-180, east)]
    expected = {
        each.id
        for each in rows
        if each.geometry is not None
        and any(shapely.from_wkb(each.geometry).intersects(shapely.box(w, south, e, north)) for w, e in parts)
    }
    found = Catalogue.of(rows).filter(bbox=box)
    assert set(found.table["id"].to_pylist()) == expected


def test_dates_clouds_and_states_are_filtered() -> None:
    rows = [row(number) for number in range(100)] + [row(200, **FAILED)]
    start, end = datetime(2026, 6, 2), datetime(2026, 6, 3, tzinfo=UTC)
    found = Catalogue.of(rows).filter(since=start, until=end, max_cloud_cover=40, states=[SceneState.READY])
    assert [each.id for each in found.rows()] == [f"survey--{number:06d}" for number in range(24, 41)]


@pytest.mark.parametrize("box", [(0, 50, 10, 40), (-200, 0, 0, 10), (0, 0, float("nan"), 10)], ids=str)
def test_a_box_that_is_not_on_earth_is_refused(box: tuple[float, float, float, float]) -> None:
    with pytest.raises(UsageError, match="is not on Earth: give west,south,east,north"):
        Catalogue.of([]).filter(bbox=box)


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"bbox": (1, 2, 3)}, r"give \(west, south, east, north\) in degrees, not \(1, 2, 3\)"),
        ({"bbox": "24,60,25,61"}, r"give \(west, south, east, north\) in degrees, not '24,60,25,61'"),
        ({"bbox": ("a", 2, 3, 4)}, r"give \(west, south, east, north\) in degrees, not \('a', 2, 3, 4\)"),
        ({"bbox": 7}, r"give \(west, south, east, north\) in degrees, not 7"),
        ({"states": ["ready"]}, r"give states=\[SceneState\.READY\], not \['ready'\]"),
        ({"states": SceneState.READY}, r"give states=\[SceneState\.READY\], not <SceneState"),
        ({"states": 5}, r"give states=\[SceneState\.READY\], not 5"),
        ({"max_cloud_cover": "20"}, r"give a number of percent, not '20'"),
    ],
    ids=str,
)  # fmt: skip
def test_a_filter_of_another_kind_is_refused_in_one_line(wrong: dict[str, Any], text: str) -> None:
    with pytest.raises(UsageError, match=text) as caught:
        Catalogue.of([row(1)]).filter(**wrong)
    assert "\n" not in str(caught.value)


def test_a_time_that_is_a_text_is_refused() -> None:
    with pytest.raises(UsageError, match=r"give a datetime\.datetime, not '2025'"):
        Catalogue.of([]).filter(since="2025")  # type: ignore[arg-type]


def _item(values: dict[str, Any]) -> dict[str, Any]:
    """Turn a row into a STAC Item, as the specification of stac-geoparquet says: columns become properties again."""
    core = ("type", "id", "stac_version", "stac_extensions", "geometry", "bbox", "links", "assets", "collection")
    properties = {name: value for name, value in values.items() if name not in core and value is not None}
    properties["datetime"] = values["datetime"].isoformat()
    geometry = values["geometry"]
    item = {name: values[name] for name in ("type", "id", "stac_version", "stac_extensions", "collection")} | {
        "geometry": None if geometry is None else shapely.geometry.mapping(shapely.from_wkb(geometry)),
        "properties": properties,
        "links": [dict(link) for link in values["links"]],
        "assets": {
            name: {field: value for field, value in asset.items() if value is not None}
            for name, asset in values["assets"].items()
            if asset is not None
        },
    }
    if geometry is not None:
        item["bbox"] = [values["bbox"][name] for name in ("xmin", "ymin", "xmax", "ymax")]
    return json.loads(json.dumps(item))


def test_each_row_is_a_valid_stac_item(store: ObjectStore) -> None:
    write_catalogue(store, LAYOUT, Catalogue.of([row(0), row(1, **FAILED), row(2, shards=3)]), DESCRIPTION)
    file = pq.ParquetFile(io.BytesIO(store.read(LAYOUT.catalogue) or b""))
    items = [_item(values) for values in file.read().to_pylist()]
    for item in items:
        check(item)
    assert [sorted(item["assets"]) for item in items] == [
        ["embeddings", "index", "manifest", "source"],
        ["source"],
        ["embeddings", "index", "manifest", "source"],
    ]
    assert items[0]["assets"]["source"]["href"] == "s3://rasters/scene%200.tif"
    assert items[0]["assets"]["embeddings"]["href"].endswith(
        "embeddings/survey--000000/part-000000000000-00000.parquet"
    )
    assert items[2]["assets"]["embeddings"]["href"] == "../../embeddings/survey--000002/"
    assert items[1]["properties"]["reason"] == "the file is empty"
    assert [len(item["stac_extensions"]) for item in items] == [2, 0, 2]
    footer = json.loads(file.metadata.metadata[b"stac-geoparquet"])
    check_geoparquet_footer(footer)
    assert footer == {"version": "1.1.0", "collections": {"survey": DESCRIPTION}}


def test_other_programs_read_the_catalogue(store: ObjectStore) -> None:
    write_catalogue(store, LAYOUT, Catalogue.of([row(0), row(1, **FAILED), row(2)]), DESCRIPTION)
    path = store.uri(LAYOUT.catalogue)
    frame = geopandas.read_parquet(path)
    assert frame.crs == "OGC:CRS84"
    assert frame.geometry.isna().tolist() == [False, True, False]
    np.testing.assert_allclose(frame.geometry[2].bounds, shapely.from_wkb(row(2).geometry).bounds)
    inside = geopandas.read_parquet(path, bbox=shapely.from_wkb(row(2).geometry).bounds)
    assert inside["id"].tolist() == ["survey--000002"]
    question = (
        "SELECT id FROM read_parquet(?) WHERE state = 'ready' AND \"eo:cloud_cover\" < 1 AND datetime < '2027-01-01'"
    )
    assert duckdb.execute(question, [path]).fetchall() == [("survey--000000",)]


def _write(store: ObjectStore, table: pa.Table) -> None:
    file = io.BytesIO()
    pq.write_table(table, file)
    store.write(LAYOUT.catalogue, file.getvalue())


def _not_utf8() -> pa.Table:
    table = Catalogue.of([row(0)]).table
    offsets = pa.py_buffer(bytes([0, 0, 0, 0, 1, 0, 0, 0]))
    texts = pa.Array.from_buffers(pa.string(), 1, [None, offsets, pa.py_buffer(b"\xff")])
    return table.set_column(SCHEMA.get_field_index("item"), "item", texts)


NESTED = struct.pack("<BII", 1, 7, 1) * 7_000 + struct.pack("<BIdd", 1, 1, 24.0, 60.0)

DAMAGED = {
    "footer": (b"PAR1" + bytes(range(100)) + (100).to_bytes(4, "little") + b"PAR1", "it is not a catalogue"),
    "not UTF-8": (_not_utf8(), "it is not a catalogue"),
    "no Parquet": (b"text", "it is not a catalogue"),
    "no columns": (pa.table({"id": ["survey--1"]}), "it is not a catalogue"),
    "no id": (Catalogue.of([row(0, id="../0")]).table, "id: it is no id of a dataset"),
    "twice": (Catalogue.of([row(0), row(1, source=row(0).source)]).table, "a scene occurs twice"),
    "state": (Catalogue.of([row(0)]).with_values(["survey--000000"], state="done").table, "state: it has an unknown"),
    "negative": (Catalogue.of([row(0, rows=-1)]).table, "rows: a number is impossible"),
    "huge": (Catalogue.of([row(0, skipped=10**15)]).table, "skipped: a number is impossible"),
    "digest": (Catalogue.of([row(0, fingerprint="../x")]).table, "fingerprint: it is no digest"),
    "footprint": (Catalogue.of([row(0, geometry=b"no")]).table, "geometry: a footprint is no WKB"),
    "nested footprint": (Catalogue.of([row(0, geometry=NESTED)]).table, "geometry: a footprint is nested too deeply"),
    "long footprint": (Catalogue.of([row(0, geometry=b"1" * 70_000)]).table, "geometry: a footprint is too long"),
    "verdict": (Catalogue.of([row(0)]).with_values(["survey--000000"], qa="good").table, "qa: it has an unknown"),
}


@pytest.mark.parametrize(("content", "said"), DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_catalogue_is_refused_in_one_line(content: Any, said: str, store: ObjectStore) -> None:
    if isinstance(content, bytes):
        store.write(LAYOUT.catalogue, content)
    else:
        _write(store, content)
    with pytest.raises(DataError, match=said) as error:
        read_catalogue(store, LAYOUT)
    assert str(error.value).startswith(store.uri(LAYOUT.catalogue))
    assert "\n" not in str(error.value)
