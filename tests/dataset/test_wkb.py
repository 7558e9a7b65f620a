"""Footprints of a stranger's file: none ends the process, takes much memory, or ends in an error of a library."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from rasterembed.dataset.dataset import Dataset
from rasterembed.dataset.wkb import MAX_FOOTPRINT_BYTES, FootprintError, read_footprint, read_footprints
from rasterembed.errors import DataError
from rasterembed.model.choice import Dinov3
from rasterembed.search.areas import read_areas
from rasterembed.search.filters import Filters
from rasterembed.search.query import Query, Where
from rasterembed.search.searcher import search
from rasterembed.store.object_store import ObjectStore
from tests.support.vectors import blank_raster, checkpoint, write_dataset

PLACE = shapely.Point(24.0, 60.0)
BOX = shapely.box(24, 60, 25, 61)


def nested(depth: int, kind: int = 7) -> bytes:
    """Return a point in `depth` geometries of a kind. GEOS ends the process at about ten thousand."""
    return struct.pack("<BII", 1, kind, 1) * depth + shapely.to_wkb(PLACE)


GOOD: dict[str, shapely.Geometry | None] = {
    "polygon": BOX,
    "two polygons": shapely.MultiPolygon([BOX, shapely.box(-180, 60, -179, 61)]),
    "with a hole": shapely.box(20, 50, 30, 70).difference(BOX),
    "line": shapely.LineString([(24, 60), (25, 61)]),
    "three inside each other": shapely.GeometryCollection([shapely.MultiPolygon([BOX]), PLACE]),
    "with heights": shapely.force_3d(BOX, 7.0),
    "empty": shapely.Polygon(),
    "missing": None,
}


@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize("flavor", ["iso", "extended"])
def test_footprints_are_those_that_shapely_wrote(order: int, flavor: Any) -> None:
    geometry = np.array(list(GOOD.values()), dtype=object)
    column = shapely.to_wkb(geometry, byte_order=order, flavor=flavor, include_srid=flavor == "extended")
    for values in (column.tolist(), pa.array(column), pa.chunked_array([pa.array(column[:3]), pa.array(column[3:])])):
        read = read_footprints(values)
        assert read.shape == (len(GOOD),)
        assert [shapely.equals_exact(one, other) or one is other for one, other in zip(read, geometry, strict=True)]
    assert read_footprints(pa.array(column).slice(2, 2)).tolist() == geometry[2:4].tolist()
    assert read_footprints([]).shape == read_footprints(pa.chunked_array([], pa.binary())).shape == (0,)


BAD: dict[str, tuple[bytes, str]] = {
    "nested": (nested(30_000), "nested too deeply"),
    "five inside each other": (nested(4), "nested too deeply"),
    "nested multipolygons": (nested(30_000, kind=6), "nested too deeply"),
    "long": (b"\1" * (MAX_FOOTPRINT_BYTES + 1), "too long"),
    "many rings": (struct.pack("<BII", 1, 3, 2**32 - 1), "no WKB"),
    "many points": (struct.pack("<BIII", 1, 3, 1, 2**31), "no WKB"),
    "many points in a part": (struct.pack("<BIIBIII", 1, 6, 1, 1, 3, 1, 2**31), "cut off"),
    "many parts": (struct.pack("<BII", 1, 7, 2**32 - 1), "cut off"),
    "curve": (struct.pack("<BII", 1, 10, 1), "of a known kind"),
    "open ring": (struct.pack("<BIII6d", 1, 3, 1, 3, 0, 0, 1, 0, 1, 1), "no WKB"),
    "text": (b"no", "cut off"),
    "nothing": (b"", "cut off"),
}


@pytest.mark.parametrize(("data", "said"), BAD.values(), ids=BAD)
def test_a_bad_footprint_is_refused_before_it_is_read(data: bytes, said: str) -> None:
    with pytest.raises(FootprintError, match=said) as error:
        read_footprints([shapely.to_wkb(BOX), data, None])
    assert "\n" not in str(error.value)
    with pytest.raises(FootprintError, match=said):
        read_footprint(data)


def test_columns_that_are_no_bytes_and_too_many_bytes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for column in (pa.array([1]), pa.array([{"a": 1}]), pa.chunked_array([["text"], ["x"]]).cast(pa.string()), [7]):
        with pytest.raises(FootprintError, match="no WKB"):
            read_footprints(column)
    with pytest.raises(FootprintError, match="missing"):
        read_footprint(None)  # type: ignore[arg-type]
    monkeypatch.setattr("rasterembed.dataset.wkb._MAX_BYTES_AT_ONCE", 300)
    with pytest.raises(FootprintError, match="372 bytes in 4 of them"):
        read_footprints([shapely.to_wkb(BOX)] * 4)


@given(st.data())
def test_damaged_footprints_end_in_one_kind_of_error(data: st.DataObject) -> None:
    good = bytearray(shapely.to_wkb(data.draw(st.sampled_from([one for one in GOOD.values() if one is not None]))))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, min(len(good) - 1, 40)))
        good[place] = data.draw(st.integers(0, 255))
    del good[data.draw(st.integers(0, len(good))) :]
    try:
        assert isinstance(read_footprint(bytes(good)), shapely.Geometry)
    except FootprintError as error:
        assert "\n" not in str(error)  # noqa: PT017


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of twelve tiles."""
    folder = tmp_path_factory.mktemp("wkb")
    model = Dinov3(model=str(checkpoint(folder / "model", 4)), device="cpu")
    vectors = np.random.default_rng(0).standard_normal((12, 4)).astype(np.float32)
    store = ObjectStore(root=str(folder / "store"))
    write_dataset(store, "known", blank_raster(folder / "a.tif", 3, 4), model, vectors)
    return folder / "store"


def _replace_footprints(path: Path, footprint: bytes) -> None:
    rows = pq.read_table(path)
    column = pa.array([footprint] * len(rows), pa.binary())
    pq.write_table(rows.set_column(rows.column_names.index("geometry"), "geometry", column), path)


def _tampered(known: Path, folder: Path, footprint: bytes) -> ObjectStore:
    """Return a copy of the store with this footprint in all rows. The manifest has the new sizes."""
    shutil.copytree(known, folder)
    store = ObjectStore(root=str(folder))
    dataset = Dataset.open(store, "known")
    manifest = json.loads(store.read(dataset.layout.manifest) or b"")
    for shard in manifest["shards"]:
        path = Path(store.uri(shard["path"]))
        _replace_footprints(path, footprint)
        shard["bytes"] = path.stat().st_size
    _replace_footprints(Path(store.uri(dataset.manifest.index)), footprint)
    store.write(dataset.layout.manifest, json.dumps(manifest).encode())
    return store


READERS: dict[str, Callable[[ObjectStore], Any]] = {
    "tile index by area": lambda store: search(
        store, ["known"], Query(tile="r000000_c000000"), Where(bbox=(0, 0, 90, 90))
    ),
    "tile index by place": lambda store: search(store, ["known"], Query(lonlat=(24.45, 60.589))),
    "shards": lambda store: search(store, ["known"], Query(tile="r000000_c000000")),
    "filters of an index": lambda store: Filters(areas=read_areas(Where(bbox=(0, 0, 90, 90)))).keep_passing(
        pa.Table.from_batches(Dataset.open(store, "known").batches(["tile_id", "valid_fraction", "geometry"]))
    ),
    "frame": lambda store: Dataset.open(store, "known").to_geodataframe(),
}


@pytest.mark.parametrize("name", READERS)
def test_readers_of_a_dataset_refuse_nested_footprints_in_one_line(name: str, known: Path, tmp_path: Path) -> None:
    # The footprints are good: nothing is refused.
    READERS[name](ObjectStore(root=str(known)))
    for number, footprint in enumerate([nested(30_000), b"no"]):
        with pytest.raises(DataError, match=r"footprint|known") as error:
            READERS[name](_tampered(known, tmp_path / str(number), footprint))
        assert "\n" not in str(error.value)
