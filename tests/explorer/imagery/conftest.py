"""A store of real and made rasters with dummy vectors, and the explorer over it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import morecantile
import numpy as np
import pytest
from starlette.testclient import TestClient

from rasterembed.dataset.dataset import Dataset
from rasterembed.explorer.app import create_app
from rasterembed.explorer.map_tile import MapTile
from rasterembed.explorer.settings import ExplorerSettings
from rasterembed.model.choice import Dinov3
from rasterembed.raster.grid import Grid
from rasterembed.store.object_store import ObjectStore
from tests.support.vectors import checkpoint, write_dataset

DIMENSIONS = 8


class Store:
    """A store to which tests add datasets of their rasters.

    Args:
        folder: folder of the store and the model.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = ObjectStore(root=str(folder / "store"))
        self._model = Dinov3(model=str(checkpoint(folder / "model", DIMENSIONS)))

    def add(self, dataset_id: str, raster: Path | str, grid: Grid = Grid(size=224)) -> Dataset:
        """Write a dataset with random vectors for a raster. Return it."""

        def vectors(tiles: np.ndarray) -> np.ndarray:
            return np.random.default_rng(0).standard_normal((len(tiles), DIMENSIONS), np.float32)

        return Dataset(self.store, write_dataset(self.store, dataset_id, raster, self._model, vectors, grid=grid))


def tile_at(lon: float, lat: float, zoom: int) -> MapTile:
    """Return the map tile at a place."""
    found = morecantile.tms.get("WebMercatorQuad").tile(lon, lat, zoom)
    return MapTile(found.z, found.x, found.y)


def path_of(tile: MapTile) -> str:
    """Return the map tile as a part of an address."""
    return f"{tile.z}/{tile.x}/{tile.y}"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Return an empty store."""
    return Store(tmp_path_factory.mktemp("imagery"))


@pytest.fixture(scope="module")
def service(made: Store) -> Iterator[TestClient]:
    """Run the explorer over the store, without a network."""
    settings = ExplorerSettings.read(store=made.store, device="cpu")
    with TestClient(create_app(settings), base_url="http://127.0.0.1", raise_server_exceptions=False) as client:
        yield client
