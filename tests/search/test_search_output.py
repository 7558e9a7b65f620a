"""Answers as files and pictures, read back with the programs that people use."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio
import shapely
from numpy.typing import NDArray
from PIL import Image

from rasterembed.errors import DataError, StoreError, UsageError
from rasterembed.model.choice import Dinov3
from rasterembed.search.answer import Answer
from rasterembed.search.contact_sheet import MAX_SHOWN, write_sheet
from rasterembed.search.output import FORMATS, write_answer
from rasterembed.search.output_file import ANSWER_ENDINGS, find_output, find_outputs
from rasterembed.search.query import Query, Where
from rasterembed.search.searcher import Searcher, search
from rasterembed.store.object_store import ObjectStore
from tests.support.vectors import SIDE, blank_raster, checkpoint, write_dataset

ROWS, COLS = 3, 5
COLOURS = np.stack(
    [np.arange(ROWS * COLS) * 16 + 15, np.arange(ROWS * COLS) % 4 * 60 + 30, 250 - np.arange(ROWS * COLS) * 14], axis=1
).astype(np.uint8)
"""Colour of each tile, shape (tiles, 3)."""


def painted(path: Path) -> Path:
    """Write a raster whose tiles have one colour each. Its last row and column of tiles are 4 px short."""
    blank_raster(path, ROWS, COLS, when="2024:07:03 09:41:00")
    with rasterio.open(path) as source:
        profile = source.profile | {"height": ROWS * SIDE - 4, "width": COLS * SIDE - 4}
        tags = source.tags()
    pixels = COLOURS.T.reshape(3, ROWS, COLS).repeat(SIDE, 1).repeat(SIDE, 2)[:, :-4, :-4]
    with rasterio.open(path, "w", **profile) as target:
        target.write(pixels)
        target.update_tags(**tags)
    return path


@pytest.fixture(scope="module")
def searcher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Searcher]:
    folder = tmp_path_factory.mktemp("output")
    store = ObjectStore(root=str(folder / "store"))
    vectors = np.random.default_rng(6).standard_normal((ROWS * COLS, 12)).astype(np.float32)
    model = Dinov3(model=str(checkpoint(folder / "model", 12)))
    write_dataset(store, "painted", painted(folder / "painted.tif"), model, vectors)
    with Searcher(store, ["painted"]) as searcher:
        yield searcher


@pytest.fixture(scope="module")
def answer(searcher: Searcher) -> Answer:
    return searcher.ask(Query(tile="r000001_c000002", like=("r000000_c000001",), unlike=("r000002_c000004",)), k=7)


def test_geojson_is_read_by_geopandas(answer: Answer, tmp_path: Path) -> None:
    write_answer(answer, tmp_path / "found.geojson")
    frame = geopandas.read_file(tmp_path / "found.geojson")
    check_frame(frame, answer)
    assert frame["acquired"].astype(str).str.startswith("2024-07-03 09:41:00").all()
    content = json.loads((tmp_path / "found.geojson").read_text())
    assert content["features"][0]["id"] == f"painted/{answer.hits[0].tile_id}"


def test_geoparquet_is_read_by_geopandas(answer: Answer, tmp_path: Path) -> None:
    write_answer(answer, tmp_path / "found.parquet")
    frame = geopandas.read_parquet(tmp_path / "found.parquet")
    check_frame(frame, answer)
    metadata = pq.read_metadata(tmp_path / "found.parquet").metadata
    geo = json.loads(metadata[b"geo"])
    assert (geo["version"], geo["primary_column"]) == ("1.1.0", "geometry")
    assert geo["columns"]["geometry"]["bbox"] == pytest.approx(frame.total_bounds)
    assert metadata[b"query"].decode() == answer.query
    assert metadata[b"model"].decode() == answer.model


def check_frame(frame: Any, answer: Answer) -> None:
    assert frame.crs.to_authority() in (("OGC", "CRS84"), ("EPSG", "4326"))
    assert frame["rank"].tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert frame["model"].unique().tolist() == [answer.model]
    for hit, row in zip(answer.hits, frame.to_dict("records"), strict=True):
        for name in ("dataset_id", "tile_id", "row", "col", "col_off", "row_off", "width", "height"):
            assert row[name] == getattr(hit, name)
        for name in ("distance", "lon", "lat", "valid_fraction"):
            assert row[name] == pytest.approx(getattr(hit, name))
        assert row["geometry"].equals(shapely.from_wkb(hit.geometry))


def test_an_answer_is_json_and_comes_back_the_same(answer: Answer) -> None:
    assert Answer.model_validate_json(answer.model_dump_json()) == answer


def test_csv_has_a_row_a_tile(answer: Answer, tmp_path: Path) -> None:
    write_answer(answer, tmp_path / "found.csv")
    with (tmp_path / "found.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["tile_id"] for row in rows] == [hit.tile_id for hit in answer.hits]
    assert [float(row["distance"]) for row in rows] == [hit.distance for hit in answer.hits]
    assert shapely.from_wkt(rows[0]["wkt"]).equals(shapely.from_wkb(answer.hits[0].geometry))
    assert rows[0]["acquired"] == "2024-07-03T09:41:00Z"
    assert {(row["dataset_id"], row["model"]) for row in rows} == {("painted", answer.model)}


@pytest.mark.parametrize("ending", ["geojson", "parquet", "csv"])
def test_an_answer_without_tiles_is_a_file_without_rows(searcher: Searcher, tmp_path: Path, ending: str) -> None:
    nothing = searcher.ask(Query(tile="r000001_c000002"), Where(bbox=(0, 0, 1, 1)))
    path = tmp_path / f"nothing.{ending}"
    write_answer(nothing, path)
    if ending == "geojson":
        assert json.loads(path.read_text()) == {
            "type": "FeatureCollection", "query": nothing.query, "model": nothing.model, "features": [],
        }  # fmt: skip
    elif ending == "parquet":
        assert len(geopandas.read_parquet(path)) == 0
    else:
        assert path.read_text().splitlines()[0].startswith("rank,dataset_id,tile_id,distance")
        assert len(path.read_text().splitlines()) == 1


def test_footprints_in_pixels_are_no_places(tmp_path: Path) -> None:
    store = ObjectStore(root=str(tmp_path / "store"))
    model = Dinov3(model=str(checkpoint(tmp_path / "model", 4)))
    write_dataset(store, "lost", blank_raster(tmp_path / "l.tif", 2, 2, crs=None), model, np.eye(4, dtype=np.float32))
    answer = search(store, ["lost"], Query(tile="r000000_c000000"))
    write_answer(answer, tmp_path / "lost.geojson")
    features = json.loads((tmp_path / "lost.geojson").read_text())["features"]
    assert [feature["geometry"] for feature in features] == [None] * 3
    write_answer(answer, tmp_path / "lost.parquet")
    assert b"geo" not in pq.read_metadata(tmp_path / "lost.parquet").metadata
    write_sheet(answer, [Searcher(store, ["lost"]).datasets[0]], tmp_path / "lost.png")
    assert Image.open(tmp_path / "lost.png").format == "PNG"


def test_a_file_is_replaced_whole_or_not_at_all(answer: Answer, tmp_path: Path) -> None:
    path = tmp_path / "found.csv"
    path.write_text("old")
    write_answer(answer, path)
    assert path.read_text().startswith("rank,")
    file = find_output(None, tmp_path / "taken.csv", ".csv")
    (tmp_path / "taken.csv").mkdir()
    with pytest.raises(StoreError, match=r"taken\.csv") as error:
        write_answer(answer, file)
    assert "\n" not in str(error.value)
    with pytest.raises(UsageError, match=r"taken\.csv: it is a folder"):
        write_answer(answer, tmp_path / "taken.csv")
    assert {entry.name for entry in tmp_path.iterdir()} == {"found.csv", "taken.csv"}


def test_a_result_never_replaces_a_file_that_the_search_reads(tmp_path: Path) -> None:
    store = ObjectStore(root=str(tmp_path / "store"))
    area = tmp_path / "area.geojson"
    area.write_text("{}")
    (tmp_path / "link").symlink_to(tmp_path)
    for out in (str(area), str(tmp_path / "link/area.geojson")):
        with pytest.raises(UsageError, match=r"area\.geojson: the search reads this file, and would replace it"):
            find_outputs(store, out, None, inputs=(None, str(area)))
    with pytest.raises(UsageError, match=r"chip\.png: the search reads this file"):
        find_outputs(store, None, "store:searches/chip.png", inputs=(store.uri("searches/chip.png"),))
    with pytest.raises(UsageError, match=r"classes\.csv: the search reads this file"):
        find_outputs(store, "store:searches/classes.csv", None, inputs=("store:searches/classes.csv",))
    other, _ = find_outputs(store, str(tmp_path / "found.geojson"), None, inputs=(str(area),))
    assert other is not None


def test_a_sheet_never_replaces_a_searched_raster(tmp_path: Path) -> None:
    store = ObjectStore(root=str(tmp_path / "store"))
    model = Dinov3(model=str(checkpoint(tmp_path / "model", 4)))
    raster = blank_raster(tmp_path / "l.png.tif", 2, 2).rename(tmp_path / "l.png")
    write_dataset(store, "picture", raster, model, np.eye(4, dtype=np.float32))
    before = raster.read_bytes()
    with Searcher(store, ["picture"]) as searcher:
        answer = searcher.ask(Query(tile="r000000_c000000"))
        with pytest.raises(UsageError, match=r"l\.png: the search reads this file"):
            write_sheet(answer, searcher.datasets, raster)
    assert raster.read_bytes() == before


def test_every_ending_has_a_format() -> None:
    assert tuple(FORMATS) == ANSWER_ENDINGS


def test_a_name_that_says_no_format_is_refused(answer: Answer, searcher: Searcher, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"found\.xlsx: give a file name that ends in \.geojson or \.parquet or \.csv"):
        write_answer(answer, tmp_path / "found.xlsx")
    with pytest.raises(UsageError, match="there is no folder"):
        write_answer(answer, tmp_path / "nowhere" / "found.csv")
    with pytest.raises(UsageError, match=r"sheet\.jpg: give a file name that ends in \.png"):
        write_sheet(answer, searcher.datasets, tmp_path / "sheet.jpg")


def squares(path: Path) -> list[int]:
    """Tiles whose colour fills a square of a sheet, in reading order."""
    sheet: NDArray[np.uint8] = np.asarray(Image.open(path).convert("RGB"))
    found = []
    for number, colour in enumerate(COLOURS):
        rows, columns = np.nonzero((sheet == colour).all(axis=-1))
        if len(rows) > 10_000:
            found.append((int(rows.min()) // 100, int(columns.min()), number))
    return [number for _, _, number in sorted(found)]


def test_a_sheet_shows_the_examples_and_then_the_tiles_in_order(
    answer: Answer, searcher: Searcher, tmp_path: Path
) -> None:
    write_sheet(answer, searcher.datasets, tmp_path / "sheet.png")
    numbers = [hit.row * COLS + hit.col for hit in answer.hits]
    assert squares(tmp_path / "sheet.png") == [COLS + 2, 1, 2 * COLS + 4, *numbers]


def test_a_sheet_shows_where_a_tile_ends(searcher: Searcher, tmp_path: Path) -> None:
    write_sheet(searcher.ask(Query(tile="r000002_c000004"), k=1), searcher.datasets, tmp_path / "sheet.png")
    sheet = np.asarray(Image.open(tmp_path / "sheet.png")).astype(int)
    rows, columns = np.nonzero((np.abs(sheet - COLOURS[14]) < 20).all(axis=-1))
    # 12 of 16 px a side of a thumbnail of 208, less the frame at two of its edges and a smooth end at the others
    for place in (rows, columns):
        assert np.ptp(place) + 1 == pytest.approx(208 * 12 / 16 - 5, abs=10)


def test_a_sheet_shows_no_more_than_it_can_hold(tmp_path: Path) -> None:
    store = ObjectStore(root=str(tmp_path / "store"))
    model = Dinov3(model=str(checkpoint(tmp_path / "model", 4)))
    vectors = np.random.default_rng(1).standard_normal((200, 4)).astype(np.float32)
    write_dataset(store, "many", blank_raster(tmp_path / "m.tif", 10, 20), model, vectors)
    with Searcher(store, ["many"]) as searcher:
        write_sheet(searcher.ask(Query(tile="r000000_c000000"), k=199), searcher.datasets, tmp_path / "many.png")
        write_sheet(searcher.ask(Query(tile="r000000_c000000"), k=MAX_SHOWN), searcher.datasets, tmp_path / "full.png")
    assert Image.open(tmp_path / "many.png").size == Image.open(tmp_path / "full.png").size


def test_a_sheet_of_a_raster_that_changed_is_refused(tmp_path: Path) -> None:
    store = ObjectStore(root=str(tmp_path / "store"))
    model = Dinov3(model=str(checkpoint(tmp_path / "model", 4)))
    raster = blank_raster(tmp_path / "r.tif", 2, 2)
    write_dataset(store, "changed", raster, model, np.eye(4, dtype=np.float32))
    with Searcher(store, ["changed"]) as searcher:
        answer = searcher.ask(Query(tile="r000000_c000000"))
        raster.write_bytes(raster.read_bytes() + b"\0")
        with pytest.raises(DataError, match=r"r\.tif: it was changed since this dataset was planned") as error:
            write_sheet(answer, searcher.datasets, tmp_path / "sheet.png")
        again = f"rasterembed embed {raster} --dataset-id changed --root {store.root} "
        assert str(error.value).endswith(f": run `{again}--replace` to embed its new state")
        raster.unlink()
        with pytest.raises(DataError, match=r"r\.tif: there is no such"):
            write_sheet(answer, searcher.datasets, tmp_path / "sheet.png")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "sheet.png").exists()


def test_the_table_is_for_people(answer: Answer) -> None:
    lines = str(answer).splitlines()
    assert lines[0] == (f"tile r000001_c000002; like r000000_c000001; unlike r000002_c000004; model: {answer.model}")
    assert lines[2].split() == ["#", "tile", "distance", "place", "valid"]
    first = answer.hits[0]
    assert lines[3].split() == [
        "1", first.tile_id, f"{first.distance:.6f}", f"{first.lon:.5f},", f"{first.lat:.5f}", "100%",
    ]  # fmt: skip
    assert lines[-1] == "painted: answered by the exact scan (there is no index)"
    assert len({line.index("r0000") for line in lines[3:10]}) == 1
