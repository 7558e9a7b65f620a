"""Datasets that were embedded one by one are filtered by cloud cover, by the names of their scenes, and by polygons."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import shapely

from rasterembed.command_line.run import run
from rasterembed.commands.main import app
from rasterembed.dataset.dataset import Dataset
from rasterembed.model.choice import Dinov3
from rasterembed.search.not_searched import NotSearchedReason
from rasterembed.search.query import Query, Where
from rasterembed.search.searcher import search
from rasterembed.store.object_store import ObjectStore
from tests.support.vectors import blank_raster, checkpoint, write_dataset

CLOUDS = {"clear": 5.0, "cloudy": 40.5, "unknown": None}
"""Cloud cover of each dataset's scene in percent. The scene `unknown` is a raster without a STAC Item."""
NAMES = list(CLOUDS)
VECTORS = np.random.default_rng(8).standard_normal((3, 4, 8)).astype(np.float32)
"""Vectors of the datasets in the order of `NAMES`, shape (datasets, tiles, dimensions)."""
TILES = [f"r00000{n // 2}_c00000{n % 2}" for n in range(4)]
QUERY = Query(tile=f"clear/{TILES[0]}", include_query=True)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ObjectStore:
    folder = tmp_path_factory.mktemp("clouds")
    store = ObjectStore(root=str(folder / "store"))
    model = Dinov3(model=str(checkpoint(folder / "model", 8)))
    for (name, cloud), vectors in zip(CLOUDS.items(), VECTORS, strict=True):
        scene = blank_raster(folder / f"{name}.tif", 2, 2)
        if cloud is not None:
            item = {
                "type": "Feature",
                "stac_version": "1.1.0",
                "id": name,
                "properties": {"datetime": "2026-06-01T10:00:00Z", "eo:cloud_cover": cloud},
                "assets": {"visual": {"href": scene.name}},
            }
            scene = folder / f"{name}-item.json"
            scene.write_text(json.dumps(item))
        write_dataset(store, name, scene, model, vectors)
    return store


def expected(*datasets: str, tiles: tuple[int, ...] = (0, 1, 2, 3)) -> list[tuple[str, str]]:
    """Return dataset and tile of the answer to QUERY by NumPy, nearest first."""
    unit = VECTORS.astype(np.float64) / np.linalg.norm(VECTORS, axis=2, keepdims=True)
    distances = 1 - unit @ unit[0, 0]
    return [
        (name, TILES[n])
        for _, name, n in sorted((distances[NAMES.index(name), n], name, n) for name in datasets for n in tiles)
    ]


@pytest.mark.parametrize(
    ("where", "datasets", "reason"),
    [
        (Where(max_cloud_cover=40.5), ["clear", "cloudy"], NotSearchedReason.TOO_CLOUDY),
        (Where(max_cloud_cover=40.4), ["clear"], NotSearchedReason.TOO_CLOUDY),
        (Where(scenes=("cloudy",)), ["cloudy"], NotSearchedReason.OTHER_SCENE),
        (Where(scenes=("*-item.json",)), ["clear", "cloudy"], NotSearchedReason.OTHER_SCENE),
        (Where(scenes=("*/unknown.tif", "clear")), ["clear", "unknown"], NotSearchedReason.OTHER_SCENE),
    ],
)
def test_scenes_with_more_clouds_or_other_names_are_left_out(
    store: ObjectStore, where: Where, datasets: list[str], reason: NotSearchedReason
) -> None:
    answer = search(store, ["*"], QUERY, where, k=50)
    assert [(hit.dataset_id, hit.tile_id) for hit in answer.hits] == expected(*datasets)
    left_out = {one.dataset_id: one.reason for one in answer.not_searched}
    assert left_out == {name: reason for name in NAMES if name not in datasets}


def test_the_command_has_the_filters(store: ObjectStore, tmp_path: Path) -> None:
    rows = [row for batch in Dataset.open(store, "clear").batches(["tile_id", "geometry"]) for row in batch.to_pylist()]
    places = {row["tile_id"]: shapely.from_wkb(row["geometry"]).centroid for row in rows}
    # A thin strip along the upper two tiles. It does not reach the lower two.
    area = shapely.LineString([places[TILES[0]], places[TILES[1]]]).buffer(1e-6)
    (tmp_path / "area.geojson").write_text(json.dumps(shapely.geometry.mapping(area)))
    options = {"scenes": "*item*,unknown", "max-cloud-cover": "50", "within": str(tmp_path / "area.geojson")}
    words = [part for name, value in options.items() for part in (f"--{name}", value)]
    words += ["--include-query", "--tile", f"clear/{TILES[0]}", "--out", str(tmp_path / "found.csv")]
    answer = str(run(app, ["search", "--all", *words, "--root", store.root]))
    assert "unknown (too many clouds, or an unknown cloud cover)" in answer
    with (tmp_path / "found.csv").open() as file:
        found = [(row["dataset_id"], row["tile_id"]) for row in csv.DictReader(file)]
    assert found == expected("clear", "cloudy", tiles=(0, 1))
