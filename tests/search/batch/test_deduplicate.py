"""Groups of tiles that are almost equal, compared with brute force in NumPy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from rasterembed import Dataset, UsageError
from rasterembed.search.batch import deduplicate, vector_lists
from rasterembed.search.batch.deduplicate import write_deduplicated
from tests.search.batch.conftest import TILES, VALID, VECTORS
from tests.search.batch.support import cosine_distances

DISTANCES = cosine_distances(VECTORS)


def kept_one_after_the_other(threshold: float) -> list[int]:
    """Visit the tiles in the order of their quality, and keep each that is not near a kept one."""
    kept: list[int] = []
    for number in sorted(range(len(TILES)), key=lambda n: (-VALID[n], TILES[n])):
        if all(DISTANCES[number, other] > threshold for other in kept):
            kept.append(number)
    return kept


@pytest.mark.parametrize("exact_rows", [50_000, 20])
@pytest.mark.parametrize("block", [16_384, 32])
@pytest.mark.parametrize("threshold", [0.0001, 0.05, 0.3])
def test_one_tile_of_each_group_is_kept(
    dataset: Dataset, out: Path, threshold: float, block: int, exact_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deduplicate, "EXACT_ROWS", exact_rows)
    monkeypatch.setattr(deduplicate, "_BLOCK", block)
    monkeypatch.setattr(deduplicate, "_SMALL_BLOCK", block // 4)
    monkeypatch.setattr(vector_lists, "MOST_PROBED", 8)
    monkeypatch.setattr(vector_lists, "WANTED_RECALL", 2.0)  # It cannot be reached, so all lists are compared.
    result = write_deduplicated(dataset, out, threshold)
    table = pq.read_table(out)
    assert table["tile_id"].to_pylist() == TILES
    kept = kept_one_after_the_other(threshold)
    keep = table["keep"].to_numpy()
    assert np.flatnonzero(keep).tolist() == sorted(kept)
    assert result.facts["kept"] == len(kept)
    group, far = table["group"].to_numpy(), table["distance"].to_numpy()
    np.testing.assert_allclose(far, DISTANCES[:, kept].min(axis=1), atol=1e-6)
    for number in set(range(len(TILES))) - set(kept):
        (own,) = np.flatnonzero(keep & (group == group[number]))
        assert DISTANCES[number, own] == pytest.approx(DISTANCES[number, kept].min(), abs=1e-6)
    sizes = np.bincount(group)
    assert sizes.tolist() == sorted(sizes, reverse=True)
    assert table["group_tiles"].to_pylist() == sizes[group].tolist()


def test_the_tile_with_most_valid_pixels_is_kept_of_equal_tiles(dataset: Dataset, out: Path) -> None:
    write_deduplicated(dataset, out, 1e-6)
    rows = {row["tile_id"]: row for row in pq.read_table(out).to_pylist()}
    equal = [rows[TILES[number]] for number in (3, 50, 51)]
    assert [row["keep"] for row in equal] == [False, False, True]  # Tile 51 has no invalid pixel.
    assert [(row["group"], row["group_tiles"], row["distance"]) for row in equal] == [(0, 3, 0.0)] * 3


@pytest.mark.parametrize("threshold", [-0.1, 1.0, float("nan")])
def test_an_impossible_threshold_is_refused(dataset: Dataset, out: Path, threshold: float) -> None:
    with pytest.raises(UsageError, match="give a cosine distance from 0 to below 1"):
        write_deduplicated(dataset, out, threshold)
