"""A store whose tiles are all known, and the answer to a query by NumPy alone.

Nothing here calls the search. Vectors are read from the shards by pyarrow, distances are computed by NumPy in float64,
and places are compared by shapely.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import rasterio
import shapely
from numpy.typing import NDArray
from rasterio.transform import Affine

from rasterembed.dataset.dataset import Dataset
from rasterembed.model.choice import Dinov3
from rasterembed.raster.grid import Grid
from rasterembed.store.object_store import ObjectStore
from tests.support.vectors import SIDE, blank_raster, write_dataset

DECIMALS = 12
"""Distances that agree to this number of decimals are equal. Equal tiles are in the order of their ids."""


@dataclass(frozen=True)
class Tiles:
    """All tiles of some datasets, n of them."""

    dataset: NDArray[np.object_]
    tile: NDArray[np.object_]
    vector: NDArray[np.float64]
    valid: NDArray[np.float32]
    footprint: NDArray[np.object_]

    def __len__(self) -> int:
        return len(self.tile)

    def distances(self, query: NDArray[np.generic]) -> NDArray[np.float64]:
        """Return the cosine distance of each tile. A zero vector is at a right angle to everything."""
        wide = np.asarray(query, np.float64)
        products = (self.vector * wide).sum(axis=1)
        lengths = np.sqrt((self.vector**2).sum(axis=1)) * np.sqrt((wide**2).sum())
        cosines = np.divide(products, lengths, out=np.zeros(len(self)), where=lengths > 0)
        return np.round(1.0 - cosines, DECIMALS)

    def nearest(
        self, query: NDArray[np.generic], k: int, keep: NDArray[np.bool_]
    ) -> tuple[list[tuple[str, str]], NDArray[np.float64]]:
        """Return dataset and tile of the k nearest tiles of a mask, and their distances."""
        distances = self.distances(query)
        order = np.lexsort((self.dataset, self.tile, distances))
        order = order[keep[order]][:k]
        return list(zip(self.dataset[order], self.tile[order], strict=True)), distances[order]

    def number(self, dataset: str, tile: str) -> int:
        """Return the number of a tile."""
        return int(np.flatnonzero((self.dataset == dataset) & (self.tile == tile))[0])


def tiles_of(store: ObjectStore, dataset_ids: Sequence[str]) -> Tiles:
    """Read all tiles of some datasets from their shards."""
    parts: list[dict[str, Any]] = []
    for dataset_id in dataset_ids:
        for shard in Dataset.open(store, dataset_id).shards:
            table = pq.read_table(store.uri(shard.path), partitioning=None)
            vectors = table["embedding"].combine_chunks()
            parts.append(
                {
                    "dataset": [dataset_id] * len(table),
                    "tile": table["tile_id"].to_pylist(),
                    "vector": np.asarray(vectors.flatten(), np.float64).reshape(len(table), -1),
                    "valid": table["valid_fraction"].to_numpy(),
                    "footprint": shapely.from_wkb(table["geometry"].cast(pa.binary()).to_numpy()),
                }
            )
    texts = ("dataset", "tile", "footprint")
    return Tiles(
        **{
            name: np.concatenate([np.asarray(part[name], dtype=object if name in texts else None) for part in parts])
            for name in parts[0]
        }
    )


@dataclass(frozen=True)
class Scene:
    """A scene that `write_scene_and_dataset` writes."""

    name: str
    rows: int
    cols: int
    east: int = 0
    """Distance of its left edge from that of other scenes, in tiles."""
    when: datetime | None = None
    cloud: float | None = None
    edition: int = 0
    """Another number makes another raster file, which is to be embedded again."""

    @property
    def count(self) -> int:
        """Number of tiles."""
        return self.rows * self.cols


def write_scene_and_dataset(
    folder: Path,
    store: ObjectStore,
    scene: Scene,
    model: Dinov3,
    vectors: NDArray[np.float32],
    valid: NDArray[np.float32] | None = None,
    **options: Any,
) -> str:
    """Write a raster without pixels, and a dataset of it. Return the address of the scene."""
    place = Affine(10, 0, 360_000 + 10 * SIDE * scene.east, 0, -10, 6_720_000)
    path = blank_raster(folder / f"{scene.name}.tif", scene.rows, scene.cols, transform=place)
    with rasterio.open(path, "r+") as raster:
        raster.update_tags(EDITION=str(scene.edition))
    if scene.when is not None:
        item = {
            "type": "Feature",
            "stac_version": "1.1.0",
            "id": scene.name,
            "properties": {"datetime": scene.when.isoformat()}
            | ({} if scene.cloud is None else {"eo:cloud_cover": scene.cloud}),
            "assets": {"visual": {"href": path.name}},
        }
        path = folder / f"{scene.name}.json"
        path.write_text(json.dumps(item))
    write_dataset(store, scene.name, path, model, vectors, valid_fraction=valid, **options)
    return str(path)


ANCHORED = Grid(size=SIDE, anchor="crs")
"""A grid in which the same ground has the same tile id in each scene."""


def special_vectors(random: np.random.Generator, count: int, dimensions: int) -> NDArray[np.float32]:
    """Return vectors among which some are equal, parallel, opposite or zero, shape (count, dimensions).

    The same seed gives the same special vectors, so different scenes have equal tiles.
    """
    fixed = np.random.default_rng(5).standard_normal((2, dimensions)).astype(np.float32)
    vectors = random.standard_normal((count, dimensions)).astype(np.float32)
    vectors *= random.uniform(0.1, 20, (count, 1)).astype(np.float32)
    kinds = [fixed[0], fixed[0], 2 * fixed[0], -fixed[0], 0 * fixed[0], fixed[1], 0.25 * fixed[1], 0 * fixed[1]]
    places = random.permutation(count)[: min(count, len(kinds))]
    vectors[places] = np.stack(kinds)[: len(places)]
    return vectors
