"""Two overlapping rasters in grids that are anchored to the CRS: the same ground has the same tiles and vectors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import rasterio
import shapely
from PIL import Image
from rasterio.transform import Affine
from rasterio.windows import Window

from rasterembed.dataset.dataset import Dataset
from rasterembed.drawing.raster_map import cell_to_pixel
from rasterembed.errors import UsageError
from rasterembed.pipeline import EmbedOptions, embed_raster
from rasterembed.qa.metrics import Status
from rasterembed.qa.thresholds import QaThresholds
from rasterembed.raster.grid import Grid
from rasterembed.search.query import Query
from rasterembed.search.thumbnails import thumbnails
from rasterembed.search.tile_lookup import Tile
from rasterembed.store.object_store import ObjectStore
from tests.support.pictures import plain_pictures
from tests.support.promise import assert_vectors_agree
from tests.support.runs import choices

SIDE = 32
GROUND = Affine(10, 0, 500_130, 0, -10, 6_700_070)
"""Transform of the ground in EPSG:32635. Its corner is no tile's corner."""

WINDOWS = {"west": Window(0, 0, 150, 140), "east": Window(57, 21, 143, 119)}
"""Parts of the ground that the rasters show. Their upper left corners differ by no whole number of tiles."""


@dataclass(frozen=True)
class Embedded:
    """The two rasters, embedded into one store."""

    ground: np.ndarray[Any, np.dtype[np.uint8]]
    datasets: dict[str, Dataset]
    coverage: dict[str, tuple[Status, float | None]]


@pytest.fixture(scope="module")
def embedded(tiny_vit: Path, tmp_path_factory: pytest.TempPathFactory) -> Embedded:
    folder = tmp_path_factory.mktemp("anchored")
    store = ObjectStore(root=str(folder / "store"))
    ground = np.random.default_rng(5).integers(1, 256, (3, 140, 200), dtype=np.uint8)
    datasets, coverage = {}, {}
    with plain_pictures():
        for name, window in WINDOWS.items():
            part = ground[:, *window.toslices()]
            place = {"crs": "EPSG:32635", "transform": GROUND @ Affine.translation(window.col_off, window.row_off)}
            with rasterio.open(
                folder / f"{name}.tif", "w", driver="GTiff", count=3, height=window.height, width=window.width,
                dtype="uint8", nodata=0, **place,
            ) as file:  # fmt: skip
                file.write(part)
            options = choices(tiny_vit) | {"dataset_id": name, "grid": Grid(size=SIDE, anchor="crs")}
            lenient = QaThresholds(max_mean_cosine=1.0)
            result = embed_raster(store, str(folder / f"{name}.tif"), EmbedOptions(**options, qa=lenient))
            datasets[name] = Dataset.open(store, name)
            assert result.report is not None
            metric = next(metric for metric in result.report.metrics if metric.name == "coverage")
            coverage[name] = metric.status, metric.value
    return Embedded(ground, datasets, coverage)


def rows_of(dataset: Dataset) -> dict[str, dict[str, Any]]:
    table = pa.Table.from_batches(dataset.batches())
    return {row["tile_id"]: row for row in table.to_pylist()}


def test_the_same_ground_has_the_same_ids_footprints_and_vectors(embedded: Embedded) -> None:
    west, east = (rows_of(embedded.datasets[name]) for name in ("west", "east"))
    planned = [set(embedded.datasets[name].tiles()["tile_id"].to_pylist()) for name in ("west", "east")]
    # The rasters share the columns 57 to 150 and the rows 21 to 140 of the ground.
    left, top = 50_013 + 57, 670_007 - 21
    assert len(planned[0] & planned[1]) == len(range(left // 32, (50_013 + 150 - 1) // 32 + 1)) * len(
        range((670_007 - 140) // 32, (top - 1) // 32 + 1)
    )
    shared = sorted(west.keys() & east.keys())
    degrees_per_hundredth_px = 0.01 * 10 / 111_320
    for name in shared:
        one, other = (shapely.from_wkb(rows[name]["geometry"]) for rows in (west, east))
        assert shapely.hausdorff_distance(one, other) < degrees_per_hundredth_px
    whole = [name for name in shared if west[name]["valid_fraction"] == east[name]["valid_fraction"] == 1.0]
    assert len(whole) >= 3
    assert_vectors_agree(*(np.array([rows[name]["embedding"] for name in whole], np.float32) for rows in (west, east)))
    partial = [name for name in shared if west[name]["valid_fraction"] != east[name]["valid_fraction"]]
    assert partial
    assert all(west[name]["embedding"] != east[name]["embedding"] for name in partial)


@pytest.mark.parametrize("name", WINDOWS)
def test_the_valid_fraction_is_the_share_of_the_whole_tile(embedded: Embedded, name: str) -> None:
    window = WINDOWS[name]
    left, top = GROUND @ (window.col_off, window.row_off)
    raster = shapely.box(left, top - 10 * window.height, left + 10 * window.width, top)
    rows = rows_of(embedded.datasets[name])
    for row in rows.values():
        x, y = int(row["tile_id"][1:8]) * 320, int(row["tile_id"][10:17]) * 320
        tile = shapely.box(x, y, x + 320, y + 320)
        assert row["valid_fraction"] == pytest.approx(tile.intersection(raster).area / tile.area, abs=1e-6)
    skipped = [row for row in embedded.datasets[name].tiles().to_pylist() if row["status"] == "skipped"]
    assert {row["reason"] for row in skipped} <= {"low_valid_fraction"}
    assert len(rows) + len(skipped) == embedded.datasets[name].plan.sharding.tile_count


@pytest.mark.parametrize("name", WINDOWS)
def test_quality_checks_and_maps_know_the_place_of_the_tiles(embedded: Embedded, name: str) -> None:
    assert embedded.coverage[name] == (Status.PASSED, 1.0)
    plan = embedded.datasets[name].plan
    cell = plan.profile.affine @ cell_to_pixel(plan)
    first = plan.sharding.first_tile.id(0)
    x, y = int(first[1:8]) * 320, int(first[10:17]) * 320
    assert cell @ (0.5, 0.5) == pytest.approx((x + 160, y + 160))


def test_a_tile_is_found_by_its_anchored_id_in_both_datasets(embedded: Embedded) -> None:
    west, east = embedded.datasets["west"], embedded.datasets["east"]
    shared = sorted(rows_of(west).keys() & rows_of(east).keys())
    answer = west.search(Query(tile=shared[0], include_query=True), k=3)
    assert answer.hits[0].tile_id == shared[0]
    with pytest.raises(UsageError, match=r"its tiles are x\+001562_y\+020937 in the upper left corner to x\+"):
        west.search(Query(tile="x+000001_y+000001"))


def test_the_picture_of_a_partial_tile_has_its_pixels_at_their_place(embedded: Embedded) -> None:
    west = embedded.datasets["west"]
    first = west.plan.sharding.first_tile
    row = next(row for row in rows_of(west).values() if row["col_off"] == first.col_off[0] and row["row_off"] > 0)
    fields = {name: row[name] for name in Tile.model_fields if name in row}
    picture = thumbnails(west, [Tile(dataset_id="west", shard=0, **fields)], SIDE)["west", row["tile_id"]]
    outside = -row["col_off"]
    assert 0 < outside < SIDE
    assert isinstance(picture, Image.Image)
    inside = embedded.ground[:, row["row_off"] : row["row_off"] + SIDE, : SIDE - outside]
    np.testing.assert_array_equal(np.asarray(picture)[:, outside:], np.moveaxis(inside, 0, -1))
