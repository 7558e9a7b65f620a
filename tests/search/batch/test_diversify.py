"""Tiles that differ as much as possible, compared with brute force in NumPy."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from rasterembed import Dataset, UsageError
from rasterembed.search.batch.diversify import write_diverse_tiles
from tests.search.batch.conftest import TILES, VALID, VECTORS
from tests.search.batch.support import cosine_distances

DISTANCES = cosine_distances(VECTORS)


def farthest_first(first: int, count: int) -> tuple[list[int], list[float]]:
    """Return the numbers of the chosen tiles, and their distances to the tiles before."""
    chosen, far = [first], [0.0]
    while len(chosen) < count:
        nearest = DISTANCES[:, chosen].min(axis=1)
        chosen.append(int(nearest.argmax()))
        far.append(float(nearest.max()))
    return chosen, far


def test_each_tile_is_the_farthest_from_those_before(dataset: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "sample.parquet"
    result = write_diverse_tiles(dataset, out, 9)
    unit = VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True)
    numbers, far = farthest_first(int((unit @ unit.mean(axis=0)).argmax()), 9)
    table = pq.read_table(out)
    assert table["tile_id"].to_pylist() == [TILES[number] for number in numbers]
    np.testing.assert_allclose(table["distance"].to_numpy(), far, atol=1e-6)
    assert result.facts["farthest"] == pytest.approx(DISTANCES[:, numbers].min(axis=1).max(), abs=1e-6)


def test_a_seed_begins_with_a_random_tile(dataset: Dataset, tmp_path: Path) -> None:
    first = set()
    for seed in range(3):
        write_diverse_tiles(dataset, tmp_path / "sample.geojson", 4, seed=seed)
        document = json.loads((tmp_path / "sample.geojson").read_text())
        found = [feature["properties"]["tile_id"] for feature in document["features"]]
        assert found == [TILES[number] for number in farthest_first(TILES.index(found[0]), 4)[0]]
        first.add(found[0])
    assert len(first) == 3


def test_only_tiles_with_enough_valid_pixels_are_chosen(dataset: Dataset, tmp_path: Path) -> None:
    """Only tile 51 is wholly valid."""
    result = write_diverse_tiles(dataset, tmp_path / "sample.csv", 5, min_valid_fraction=0.95)
    assert VALID[51] == 1.0
    assert (tmp_path / "sample.csv").read_text().count("\n") == 2
    assert result.summary == (
        "1 tile of 5 that were asked for, because only 1 of 120 tiles has a valid fraction of 0.95 or more"
    )


def test_equal_tiles_are_chosen_once(dataset: Dataset, tmp_path: Path) -> None:
    """Tiles 3, 50 and 51 are equal."""
    result = write_diverse_tiles(dataset, tmp_path / "sample.parquet", 120)
    chosen = set(pq.read_table(tmp_path / "sample.parquet")["tile_id"].to_pylist())
    assert len(chosen) == 118
    assert TILES[3] in chosen
    assert result.facts["farthest"] < 1e-6
    assert result.summary == (
        "118 tiles of 120 that were asked for, because every other tile is equal to one of these; of 120 "
        "tiles, each of the others is within cosine distance 0.0000 of one of them"
    )


@pytest.mark.parametrize(("options", "message"), [
    ({"count": 0}, "ask for 1 to 5000 tiles"),
    ({"min_valid_fraction": 1.5}, "give a share from 0 to 1"),
    ({"seed": -1}, "give 0 or more"),
])  # fmt: skip
def test_impossible_numbers_are_refused(
    dataset: Dataset, tmp_path: Path, options: dict[str, float], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        write_diverse_tiles(dataset, tmp_path / "sample.geojson", **options)  # type: ignore[arg-type]
