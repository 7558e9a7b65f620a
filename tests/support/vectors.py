"""Write datasets with given vectors, without a model. Plan, shards, tile index and manifest are written as in a run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.transform import Affine
from rasterio.windows import Window

from rasterembed.dataset.dataset import Dataset
from rasterembed.dataset.manifest import Manifest, State, commit, set_state
from rasterembed.dataset.plan import PlanSettings, make_plan
from rasterembed.dataset.selection import Selection
from rasterembed.dataset.shards import EmbeddedBatch, write_shard
from rasterembed.model.checkpoints import write_preprocessor
from rasterembed.model.choice import Dinov3
from rasterembed.raster.grid import Grid
from rasterembed.raster.scene import register_scene
from rasterembed.raster.skip_reason import SkipReason
from rasterembed.raster.tile_batch import SkippedTile
from rasterembed.store.lease import hold_lease
from rasterembed.store.object_store import ObjectStore

SIDE = 16
"""Side of a tile in px. A pixel is 10 m wide in EPSG:32635."""

Vectors = NDArray[np.float32] | Callable[[NDArray[np.intp]], NDArray[np.float32]]


def checkpoint(folder: Path, dimensions: int, weights: bytes = b"none") -> Path:
    """Write a folder that looks like a DINOv3 checkpoint. Its weights cannot be loaded."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {"model_type": "dinov3_vit", "patch_size": 16, "hidden_size": dimensions, "num_register_tokens": 4}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(weights)
    write_preprocessor(folder, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    return folder


_TOWN = Affine(10, 0, 360_000, 0, -10, 6_720_000)
"""Transform of a raster in EPSG:32635 (UTM zone 35 north). Its origin is near 24.5 E, 60.6 N."""


def blank_raster(
    path: Path,
    rows: int,
    cols: int,
    *,
    crs: str | None = "EPSG:32635",
    transform: Affine | None = None,
    when: str | None = None,
) -> Path:
    """Write a GeoTIFF of `rows` x `cols` tiles. By default, its transform is `_TOWN`.

    The first tile is 1, and all other pixels are 0. Only the first block is in the file.
    """
    with rasterio.open(
        path, "w", driver="GTiff", width=cols * SIDE, height=rows * SIDE, count=3, dtype="uint8", crs=crs,
        transform=transform or _TOWN, tiled=True, sparse_ok=True, compress="zstd",
    ) as raster:  # fmt: skip
        # A large raster without a single block is refused, because it looks like a copy that broke off.
        raster.write(np.ones((3, SIDE, SIDE), np.uint8), window=Window(0, 0, SIDE, SIDE))
        if when is not None:
            raster.update_tags(TIFFTAG_DATETIME=when)
    return path


def write_dataset(
    store: ObjectStore,
    dataset_id: str,
    raster: Path | str,
    model: Dinov3,
    vectors: Vectors,
    *,
    valid_fraction: NDArray[np.float32] | None = None,
    skip: frozenset[int] = frozenset(),
    shard_tiles: int = 2048,
    vector_dtype: str = "float32",
    state: State = "ready",
    grid: Grid = Grid(size=SIDE),
) -> Manifest:
    """Write a dataset with the given vectors, and return its manifest.

    Args:
        store: store for the dataset.
        dataset_id: id of the dataset.
        raster: a raster that `blank_raster` wrote, or a STAC Item of one.
        model: a model whose folder `checkpoint` wrote.
        vectors: vectors of the tiles in row-major order, shape (tiles, dimensions). Or a function that returns them for
            an array of tile numbers.
        valid_fraction: valid fraction of each tile in row-major order, shape (tiles,). By default 1 for all tiles.
        skip: numbers of the tiles that get no vector.
        shard_tiles: see `Selection`.
        vector_dtype: see `Selection`.
        state: see `Manifest`.
        grid: the tile grid. Its tiles have `SIDE` px.
    """
    selection = Selection.model_validate(
        {"shard_tiles": shard_tiles, "vector_dtype": vector_dtype, "allow_no_crs": True}
    )
    plan = make_plan(
        store,
        register_scene(store, str(raster)),
        dataset_id,
        PlanSettings(grid=grid, model=model, selection=selection),
    )
    plan.write(store)
    shards = []
    for number in range(plan.sharding.count):
        tiles = plan.sharding.tiles(number)
        order = tiles.row.astype(np.intp) * plan.sharding.cols + tiles.col
        left_out = np.isin(order, list(skip))
        skipped = tuple(SkippedTile(int(n), SkipReason.NO_VALID_PIXEL) for n in np.flatnonzero(left_out))
        kept = np.flatnonzero(~left_out)
        fraction = np.ones(len(kept), np.float32) if valid_fraction is None else valid_fraction[order[kept]]
        values = vectors(order[kept]) if callable(vectors) else vectors[order[kept]]
        batch = EmbeddedBatch(kept, fraction, values.astype(np.float32), skipped)
        shards.append(write_shard(store, plan, number, [batch]))
    with hold_lease(store, plan.layout, "vectors", wait_s=0, on_wait=print) as lease:
        return set_state(store, commit(store, plan, shards, lease), state)


def write_town(folder: Path) -> Dataset:
    """Write the dataset `town` of 16 tiles with random vectors into a store below a folder, and return it."""
    store = ObjectStore(root=str(folder / "store"))
    model = Dinov3(model=str(checkpoint(folder / "model", 8)))
    vectors = np.random.default_rng(1).standard_normal((16, 8)).astype(np.float32)
    write_dataset(store, "town", blank_raster(folder / "town.tif", 4, 4), model, vectors)
    return Dataset.open(store, "town")
