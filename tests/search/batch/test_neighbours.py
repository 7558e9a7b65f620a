"""The nearest tiles of every tile, compared with brute force in NumPy."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from rasterembed import Dataset, StoreError
from rasterembed.search.batch import neighbours, vector_lists
from rasterembed.search.batch.neighbours import write_neighbours
from tests.search.batch.conftest import TILES, VECTORS
from tests.search.batch.support import cosine_distances

DISTANCES = cosine_distances(VECTORS)


def expected(number: int, k: int) -> list[tuple[str, float]]:
    """Return the nearest tiles and their distances. Distances that float64 cannot distinguish are equal."""
    rows = sorted((round(max(DISTANCES[number, n], 0), 12), TILES[n]) for n in range(len(TILES)) if n != number)
    return [(tile, distance) for distance, tile in rows[:k]]


@pytest.mark.parametrize(("k", "exact_rows"), [(1, 50_000), (5, 50_000), (100, 50_000), (5, 20), (100, 20)])
def test_every_tile_has_its_nearest_tiles_in_order(
    dataset: Dataset, out: Path, k: int, exact_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With lists, all lists are compared here, because the wanted recall is 1."""
    monkeypatch.setattr(neighbours, "EXACT_ROWS", exact_rows)
    monkeypatch.setattr(vector_lists, "WANTED_RECALL", 1.0)
    result = write_neighbours(dataset, out, k)
    table = pq.read_table(out).to_pylist()
    assert len(table) == len(TILES) * k
    for number, tile in enumerate(TILES):
        rows = table[number * k : (number + 1) * k]
        assert {row["tile_id"] for row in rows} == {tile}
        assert [row["rank"] for row in rows] == list(range(1, k + 1))
        wanted = expected(number, k)
        assert [row["neighbour_tile_id"] for row in rows] == [name for name, _ in wanted]
        np.testing.assert_allclose([row["distance"] for row in rows], [far for _, far in wanted], atol=1e-6)
    assert result.facts["recall"] == 1.0
    facts = json.loads(pq.read_schema(out).metadata[b"raster_embeddings_result"])
    assert (facts["question"], facts["dataset"]) == ("neighbours", "small")
    assert facts["method"] == ("exact" if exact_rows == 50_000 else "lists")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for the vectors of the tiles, and not for 100 neighbours of each."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "none", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("only root may mount a small file system")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_is_an_error_and_not_the_end_of_the_process(
    dataset: Dataset, out: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system ends a process that writes to a mapped file for which the disk has no room."""
    monkeypatch.setattr(tempfile, "tempdir", str(small_disk))
    with pytest.raises(StoreError, match="the disk is full: free some space"):
        dataset.neighbours(out, k=100)
    assert not out.exists()
    assert not list(small_disk.rglob("*.bin"))
    dataset.neighbours(out, k=3)
    assert pq.read_metadata(out).num_rows == 3 * len(TILES)
