"""A store whose answers are known, and the explorer over it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from rasterio.transform import Affine
from starlette.testclient import TestClient

from rasterembed.collection_upkeep import rebuild_collection
from rasterembed.dataset.dataset import Dataset
from rasterembed.dataset.manifest import set_state
from rasterembed.explorer.app import create_app
from rasterembed.explorer.settings import ExplorerSettings
from rasterembed.model.choice import Dinov3
from rasterembed.pipeline import EmbedOptions, embed_raster
from rasterembed.raster.grid import Grid
from rasterembed.store.object_store import ObjectStore
from tests.support.rasters import write
from tests.support.search_world import ANCHORED, Scene, special_vectors, write_scene_and_dataset
from tests.support.vectors import blank_raster, checkpoint, write_dataset

SCENES = (
    Scene("first", 6, 7, when=datetime(2025, 6, 1, 10, tzinfo=UTC), cloud=3.0),
    Scene("second", 6, 7, east=2, when=datetime(2026, 6, 1, 10, tzinfo=UTC), cloud=30.0),
    Scene("third", 4, 4, east=1, when=datetime(2026, 7, 1, 10, tzinfo=UTC)),
)
"""Scenes that overlap, so that several of them cover a tile."""

DIMENSIONS = 8


@pytest.fixture(scope="package")
def store(tmp_path_factory: pytest.TempPathFactory) -> ObjectStore:
    """Write three datasets, the collection `survey` of them, and a dataset on the antimeridian. Their model is a dummy.

    The vectors are random, and some of them are equal, opposite or zero.
    """
    folder = tmp_path_factory.mktemp("asked")
    store = ObjectStore(root=str(folder / "store"))
    model = Dinov3(model=str(checkpoint(folder / "model", DIMENSIONS)))
    for number, scene in enumerate(SCENES):
        random = np.random.default_rng(number)
        vectors = special_vectors(random, scene.count, DIMENSIONS)
        valid = random.uniform(0.2, 1.0, scene.count).astype(np.float32)
        write_scene_and_dataset(folder, store, scene, model, vectors, valid, grid=ANCHORED)
    rebuild_collection(store, "survey", datasets=[scene.name for scene in SCENES])
    # Tiles of 0.16 degrees around longitude 180.
    place = Affine(0.01, 0, 179.52, 0, -0.01, 10)
    raster = blank_raster(folder / "dateline.tif", 3, 6, crs="EPSG:4326", transform=place)
    vectors = np.random.default_rng(9).standard_normal((18, DIMENSIONS)).astype(np.float32)
    write_dataset(store, "dateline", raster, model, vectors)
    return store


PHOTO_SIDE, PHOTO_TILES = 32, 4
"""Side of a tile of the dataset `photo` in px, and number of tiles in a row."""


def photo_pixels() -> NDArray[np.uint8]:
    """Return the pixels of `photo`: tiles with different colours and some noise, shape (3, rows, columns)."""
    random = np.random.default_rng(3)
    shape = (3, PHOTO_TILES, PHOTO_TILES)
    colours = random.uniform(0.15, 0.85, shape).repeat(PHOTO_SIDE, 1).repeat(PHOTO_SIDE, 2)
    noise = 0.05 * random.standard_normal(colours.shape)
    return (np.clip(colours + noise, 0, 1) * 255).astype(np.uint8)


@pytest.fixture(scope="package")
def photo(store: ObjectStore, tiny_vit: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Embed a raster with a real, tiny model into the store, as the dataset `photo` and the collection `photos`."""
    raster = write(
        tmp_path_factory.mktemp("photo") / "photo.tif",
        photo_pixels(),
        crs="EPSG:32635",
        transform=Affine(10, 0, 360_000, 0, -10, 6_720_000),
    )
    model = Dinov3(model=str(tiny_vit), device="cpu")
    options = EmbedOptions(dataset_id="photo", grid=Grid(size=PHOTO_SIDE), model=model, quality_checks=False)
    set_state(store, embed_raster(store, str(raster), options).manifest, "ready")
    rebuild_collection(store, "photos", datasets=["photo"])
    return Dataset.open(store, "photo")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the service an empty cache folder, and return it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="package")
def service(store: ObjectStore) -> Iterator[TestClient]:
    """Run the explorer over the store, without a network."""
    settings = ExplorerSettings.read(store=store, device="cpu")
    with TestClient(create_app(settings), base_url="http://127.0.0.1", raise_server_exceptions=False) as client:
        yield client
