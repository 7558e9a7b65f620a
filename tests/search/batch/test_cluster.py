"""Classes of tiles by k-means."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from rasterembed import Dataset, UsageError
from rasterembed.search.batch.cluster import write_classes
from tests.search.batch.conftest import TILES, VECTORS

UNIT = VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True)


def test_every_tile_is_in_the_class_of_the_nearest_centre(dataset: Dataset, out: Path) -> None:
    """The made-up vectors have four groups: tile n is in group n % 4, except the tiles 8, 50 and 51."""
    write_classes(dataset, out, 4)
    table = pq.read_table(out)
    assert table["tile_id"].to_pylist() == TILES
    number, far = table["class"].to_numpy(), table["distance"].to_numpy()
    truth = np.arange(len(TILES)) % 4
    truth[[8, 50, 51]] = 3
    pairs = set(zip(truth.tolist(), number.tolist(), strict=True))
    assert len(pairs) == 4, "each made-up group is one class"
    assert number[3] == 0, "the largest class is class 0"
    # After the last round, a centre is the mean of its tiles, scaled to length 1.
    centres = np.stack([UNIT[number == one].sum(axis=0) for one in range(4)]).astype(np.float64)
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    distances = 1.0 - UNIT @ centres.T
    assert (distances.argmin(axis=1) == number).all()
    np.testing.assert_allclose(far, distances.min(axis=1), atol=1e-5)
    facts = json.loads(pq.read_schema(out).metadata[b"raster_embeddings_result"])
    assert facts["sizes"] == np.bincount(number).tolist()


def test_the_same_seed_gives_the_same_file(dataset: Dataset, tmp_path: Path) -> None:
    files = [tmp_path / f"{name}.parquet" for name in ("one", "two", "other")]
    for file, seed in zip(files, (3, 3, 4), strict=True):
        write_classes(dataset, file, 9, seed=seed)
    one, two, other = (file.read_bytes() for file in files)
    assert one == two
    assert one != other


@pytest.mark.parametrize(("classes", "seed", "message"), [
    (1, 0, "ask for 2 to 1000 classes"), (121, 0, "has 120 tiles: ask for fewer"), (4, -1, "give 0 or more"),
])  # fmt: skip
def test_impossible_numbers_are_refused(dataset: Dataset, out: Path, classes: int, seed: int, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        write_classes(dataset, out, classes, seed=seed)
    assert not out.exists()
