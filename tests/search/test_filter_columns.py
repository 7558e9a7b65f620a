"""Filters find the same rows in the columns of a segment, in SQL, and with Shapely and NumPy."""

from __future__ import annotations

import json
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pytest
import shapely
from numpy.typing import NDArray

from rasterembed.dataset.geoparquet import place_columns
from rasterembed.errors import DataError
from rasterembed.raster.footprints import Footprints
from rasterembed.search.areas import Areas, meets_all, read_areas
from rasterembed.search.class_tiles import ClassTiles
from rasterembed.search.filter_columns import FilterColumns
from rasterembed.search.filters import Filters
from rasterembed.search.query import Where
from rasterembed.search.table_filters import TableFilters

ROWS = 3000
SCENES = ("a", "b", "c")


def _footprints() -> NDArray[np.object_]:
    """Return skewed tiles along a curve around the Earth. Some cross the antimeridian, and some have no place."""
    rng = np.random.default_rng(1)
    west = np.sort(rng.uniform(-180, 178, ROWS))
    south = 20 * np.sin(west / 9) + rng.uniform(-1, 1, ROWS)
    corners = np.array([[0, 0.1], [0.9, 0], [1, 0.9], [0.1, 1]])
    tiles = shapely.polygons(np.stack([west, south], 1)[:, None] + corners * rng.uniform(0.1, 2, (ROWS, 1, 1)))
    for i in range(0, ROWS, 100):
        parts = [shapely.box(179, south[i], 180, south[i] + 1), shapely.box(-180, south[i], -179.5, south[i] + 1)]
        tiles[i] = shapely.MultiPolygon(parts)
    tiles[5:ROWS:250] = None
    return np.asarray(tiles, object)


@pytest.fixture(scope="module")
def footprints() -> NDArray[np.object_]:
    return _footprints()


@pytest.fixture(scope="module")
def table(footprints: NDArray[np.object_]) -> pa.Table:
    """The columns of a segment, in uneven chunks."""
    rng = np.random.default_rng(2)
    bbox, geometry = place_columns(Footprints(geometry=footprints, bounds=shapely.bounds(footprints)))
    table = pa.table(
        {
            # Every tile id occurs in all three scenes.
            "dataset_id": np.array(SCENES)[np.arange(ROWS) % 3],
            "tile_id": [f"t{i // 3:04d}" for i in range(ROWS)],
            "lattice": ["l"] * ROWS,
            "valid_fraction": rng.integers(0, 11, ROWS).astype(np.float32) / np.float32(10),
            "bbox": bbox,
            "geometry": geometry,
        }
    )
    return pa.concat_tables([table.slice(0, 1100), table.slice(1100, 1), table.slice(1101)])


def _areas(folder: Path, name: str) -> Areas:
    shapes = {
        "circle": [shapely.Point(-60, 5).buffer(30), shapely.box(100, -30, 120, 30)],
        "many": [shapely.Point(x, 0).buffer(4) for x in range(-180, 180, 8)],
        "hole": [shapely.box(-90, -40, 90, 40) - shapely.Point(0, 0).buffer(30)],
    }
    if name in shapes:
        path = folder / f"{name}.geojson"
        path.write_text(json.dumps(shapely.geometry.mapping(shapely.GeometryCollection(shapes[name]))))
        return read_areas(Where(within=str(path)))
    if name == "both":
        return _areas(folder, "hole") + _areas(folder, "box")
    boxes = {
        "box": (-50.0, -10.0, 60.0, 8.0),
        "antimeridian": (170.0, -60.0, -150.0, 60.0),
        "none": (0.0, 80.0, 1.0, 81.0),
        "touching": (-180.0, -90.0, 180.0, 90.0),
    }
    return read_areas(Where(bbox=boxes[name]))


@pytest.mark.parametrize("name", ["box", "antimeridian", "none", "touching", "circle", "many", "hole", "both"])
def test_areas_select_the_tiles_that_intersect_them(
    name: str, table: pa.Table, footprints: NDArray[np.object_], tmp_path: Path
) -> None:
    areas = _areas(tmp_path, name)
    expected = np.logical_and.reduce([shapely.intersects(footprints, shapely.union_all(area.parts)) for area in areas])
    assert FilterColumns("x", table).in_areas(areas).tolist() == expected.tolist()
    assert (expected.sum() > 100) == (name != "none")
    # The SQL condition of a scan, and the exact comparison after it, select the same tiles.
    condition, parameters = Filters(areas=areas).sql_condition()
    with duckdb.connect() as con:
        con.register("tiles", table.append_column("number", pa.array(range(ROWS))))
        near = con.execute(f"SELECT number FROM tiles WHERE {condition} ORDER BY number", parameters).fetchnumpy()
    rows = np.asarray(near["number"])
    assert rows[meets_all(areas, footprints[rows])].tolist() == np.flatnonzero(expected).tolist()


def test_the_memory_grows_when_a_filter_needs_a_column(table: pa.Table, tmp_path: Path) -> None:
    segment = FilterColumns("x", table)
    assert segment.nbytes == 0
    assert segment.of_datasets(pa.array(["b"])).tolist() == (np.arange(ROWS) % 3 == 1).tolist()
    assert segment.nbytes == 4 * ROWS  # For each row, the number of its dataset as int32.
    segment.in_areas(_areas(tmp_path, "box"))
    assert segment.nbytes > 4 * ROWS


def test_all_filters_of_a_dataset_together(table: pa.Table, footprints: NDArray[np.object_], tmp_path: Path) -> None:
    areas, segment = _areas(tmp_path, "box"), FilterColumns("x", table)
    classes = ClassTiles(("f",), pa.array([f"t{i:04d}" for i in range(0, 2000, 2)]), None)
    filters = Filters(min_valid_fraction=0.7, areas=areas, classes=classes, excluded=frozenset(["t0500"]))
    (selection,) = filters.select([segment])
    assert selection is not None
    valid = table["valid_fraction"].to_numpy() >= np.float32(0.7)
    expected = valid & shapely.intersects(footprints, areas[0].parts[0]) & (np.arange(ROWS) // 3 % 2 == 0)
    assert selection.mask.tolist() == expected.tolist()
    assert 10 < selection.count < ROWS
    passing = filters.keep_passing(table)["tile_id"].to_pylist()
    assert passing == [name for name in table["tile_id"].filter(pa.array(expected)).to_pylist() if name != "t0500"]
    assert Filters(excluded=frozenset(["t0500"])).select([segment]) == [None]


def test_scenes_classes_and_pick_of_a_collection(table: pa.Table) -> None:
    first, second = FilterColumns("x", table.slice(0, 1501)), FilterColumns("x", table.slice(1501))
    scenes = pa.table(
        {"dataset_id": ["b", "c", "d"], "time": pa.array([5, None, 9], pa.int64()), "cloud_cover": [20.0, 10.0, 0.0]}
    )
    names = pa.table(
        {"dataset_id": ["a", "b", "b", "c", "z"], "tile_id": ["t0000", "t0001", "t0002", "t0001", "t0003"]}
    )
    classes = ClassTiles(("f",), names["tile_id"].combine_chunks(), names["dataset_id"].combine_chunks())
    with duckdb.connect() as con:
        common = {"con": con, "files": None, "scenes": scenes}
        picked = TableFilters(**common, every_scene=False, pick="latest").select([first, second])
        chosen = TableFilters(**common, every_scene=False, classes=classes).select([first, second])
        clear = TableFilters(**common, every_scene=True, pick="clearest", min_valid_fraction=0.3).select(
            [first, second]
        )
    mask = np.concatenate([selection.mask for selection in picked if selection is not None])
    assert mask.tolist() == [
        row % 3 == 1 for row in range(ROWS)
    ]  # b has a date, c has none, a is no scene of the search
    mask = np.concatenate([selection.mask for selection in chosen if selection is not None])
    assert np.flatnonzero(mask).tolist() == [4, 5, 7]
    valid = table["valid_fraction"].to_numpy().reshape(-1, 3)[:, 1:]
    best = np.where(valid[:, 0] > valid[:, 1], 1, 2)  # equal tiles: c has fewer clouds
    expected = [3 * i + best[i] for i in range(ROWS // 3) if valid[i].max() >= np.float32(0.3)]
    mask = np.concatenate([selection.mask for selection in clear if selection is not None])
    assert np.flatnonzero(mask).tolist() == expected


def test_with_pick_the_whole_ground_of_the_query_is_excluded(table: pa.Table) -> None:
    segments = [FilterColumns("x", table.slice(0, 1501)), FilterColumns("x", table.slice(1501))]
    excluded = frozenset([("a", "t0900"), ("b", "t0002")])
    with duckdb.connect() as con:
        of_tiles = TableFilters(con, None, pa.table({}), every_scene=True, excluded=excluded)  # type: ignore[arg-type]
        of_ground = TableFilters(con, None, pa.table({}), every_scene=True, excluded=excluded, pick="latest")  # type: ignore[arg-type]
    rows = table.to_pylist()
    assert np.flatnonzero(of_tiles.excluded_rows(rows, segments)).tolist() == [7, 2700]
    assert np.flatnonzero(of_ground.excluded_rows(rows, segments)).tolist() == [6, 7, 8, 2700, 2701, 2702]


def test_a_footprint_that_is_no_wkb_is_an_error_of_one_line(table: pa.Table, tmp_path: Path) -> None:
    broken = pa.array([b"\x01\x03"] * ROWS, pa.binary())
    segment = FilterColumns("dataset 'x'", table.set_column(table.column_names.index("geometry"), "geometry", broken))
    with pytest.raises(DataError, match=r"^dataset 'x': a footprint in its vector index cannot be read"):
        segment.in_areas(_areas(tmp_path, "circle"))


def test_a_segment_without_rows() -> None:
    empty = FilterColumns("x", pa.table({"bbox": pa.array([], pa.struct([("xmin", pa.float64())]))}))
    assert empty.in_areas(read_areas(Where(bbox=(0, 0, 1, 1)))).tolist() == []
