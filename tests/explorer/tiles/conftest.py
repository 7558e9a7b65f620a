"""Stores for the tests of the explorer's tiles. Their vectors are given, so no model runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import pytest
from rasterio.transform import Affine
from starlette.testclient import TestClient

from rasterembed.collection_upkeep import rebuild_collection
from rasterembed.explorer.app import create_app
from rasterembed.explorer.settings import ExplorerSettings
from rasterembed.model.choice import Dinov3
from rasterembed.store.object_store import ObjectStore
from tests.support.search_world import ANCHORED, Scene, write_scene_and_dataset
from tests.support.vectors import SIDE, blank_raster, checkpoint, write_dataset

DIMENSIONS = 24

ROWS, COLS = 9, 12
"""Tiles of each dataset."""

SKIPPED = frozenset({5, 40, 41, 107})
"""Tiles of `town` without a vector."""

SCENES = (
    Scene("first", ROWS, COLS, 0, datetime(2024, 7, 3, 10, tzinfo=UTC), 2.0),
    Scene("second", ROWS, COLS, 4, datetime(2025, 7, 1, 10, tzinfo=UTC), 8.0),
    Scene("third", ROWS, COLS, 8, datetime(2025, 8, 20, 10, tzinfo=UTC), 41.0),
)
"""Scenes of the collection `survey`. Each covers two thirds of the one before."""


@dataclass(frozen=True)
class World:
    """The store with all datasets and the collection."""

    store: ObjectStore
    valid: np.ndarray
    """Valid fraction of the tiles of each dataset, in row-major order."""


@pytest.fixture(scope="package")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("tiles")
    store = ObjectStore(root=str(folder / "store"))
    random = np.random.default_rng(8)
    model = Dinov3(model=str(checkpoint(folder / "model", DIMENSIONS)), device="cpu")
    vectors = random.standard_normal((ROWS * COLS, DIMENSIONS)).astype(np.float32)
    # Four groups of similar vectors, so that classes have a meaning.
    vectors += 6 * np.eye(4, DIMENSIONS, dtype=np.float32)[np.arange(ROWS * COLS) // COLS * 4 // ROWS]
    valid = random.uniform(0.1, 1.0, ROWS * COLS).astype(np.float32)

    def write(name: str, crs: str | None, transform: Affine | None, **options: object) -> None:
        raster = blank_raster(folder / f"{name}.tif", ROWS, COLS, crs=crs, transform=transform)
        write_dataset(store, name, raster, model, vectors, valid_fraction=valid, **options)  # type: ignore[arg-type]

    write("town", "EPSG:32635", None, skip=SKIPPED)
    write("rotated", "EPSG:32635", Affine(10, 0, 360_000, 0, -10, 6_720_000) @ Affine.rotation(30))
    pole = Affine(40_000, 0, -40_000 * COLS * SIDE / 2, 0, -40_000, 40_000 * ROWS * SIDE / 2)
    write("polar", "EPSG:3413", pole)
    write("dateline", "EPSG:32601", Affine(100, 0, 160_000, 0, -100, 100_000), vector_dtype="int8")
    write("nowhere", None, None)
    write("striding", "EPSG:32635", None)
    for number, scene in enumerate(SCENES):
        own = random.standard_normal((ROWS * COLS, DIMENSIONS)).astype(np.float32)
        fraction = np.roll(valid, 7 * number)
        write_scene_and_dataset(folder, store, scene, model, own, fraction, grid=ANCHORED, vector_dtype="float16")
    rebuild_collection(store, "survey", datasets=[scene.name for scene in SCENES])
    return World(store, valid)


@pytest.fixture(scope="package")
def client(world: World) -> Iterator[TestClient]:
    app = create_app(ExplorerSettings(store=world.store))
    with TestClient(app, base_url="http://127.0.0.1") as client:
        yield client
