"""A small dataset and a small collection with known vectors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from rasterembed import Dataset, Dinov3, ObjectStore
from rasterembed.raster.grid import tile_id
from tests.support.vectors import blank_raster, checkpoint, write_dataset

ROWS, COLS, DIMENSIONS = 12, 10, 8


def made_up() -> NDArray[np.float32]:
    """Vectors in four groups. Tiles 3, 50 and 51 are equal, and tile 7 is almost equal to tile 8."""
    rng = np.random.default_rng(5)
    count = ROWS * COLS
    vectors = rng.standard_normal((4, DIMENSIONS))[np.arange(count) % 4] + 0.3 * rng.standard_normal(
        (count, DIMENSIONS)
    )
    vectors[[50, 51]] = vectors[3]
    vectors[8] = vectors[7] * 2 + 0.01
    return vectors.astype(np.float32)


VECTORS = made_up()
TILES = [tile_id(number // COLS, number % COLS) for number in range(ROWS * COLS)]
VALID = np.where(np.arange(ROWS * COLS) == 51, 1.0, 0.9).astype(np.float32)


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """A dataset of the tiles `TILES` with the vectors `VECTORS`, in two shards."""
    folder = tmp_path_factory.mktemp("batch")
    store = ObjectStore(root=str(folder / "store"))
    model = Dinov3(model=str(checkpoint(folder / "model", DIMENSIONS)))
    raster = blank_raster(folder / "blank.tif", ROWS, COLS)
    write_dataset(store, "small", raster, model, VECTORS, valid_fraction=VALID, shard_tiles=64)
    return Dataset.open(store, "small")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A file for a result."""
    return tmp_path / "result.parquet"
