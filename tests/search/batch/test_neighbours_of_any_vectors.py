"""Neighbours of vectors with many equal and parallel ones, compared with brute force in NumPy."""

from __future__ import annotations

import tempfile
from pathlib import Path
from unittest import mock

import hypothesis.extra.numpy as arrays
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rasterembed import Dataset
from rasterembed.search.batch import neighbours, vector_lists
from rasterembed.search.batch.all_tiles import AllTiles
from rasterembed.search.batch.neighbours import NeighbourTable, find_neighbours
from rasterembed.search.index.stored_rows import StoredRows, StoredVectors
from rasterembed.search.vector_files import VectorFiles
from tests.search.batch.support import cosine_distances

SMALL_NUMBERS = st.integers(-2, 2).map(float)


@st.composite
def vectors(draw: st.DrawFn) -> NDArray[np.float32]:
    """Vectors of small whole numbers, without a vector of zeros."""
    count, dimensions = draw(st.integers(1, 40)), draw(st.integers(1, 4))
    found = draw(arrays.arrays(np.float32, (count, dimensions), elements=SMALL_NUMBERS))
    found[~found.any(axis=1), 0] = 1.0
    return found


def find(dataset: Dataset, values: NDArray[np.float32], k: int) -> tuple[NeighbourTable, NDArray[np.int64]]:
    """Return the neighbours, and the ranks of the ids, which are in an order that depends on the vectors."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        values.tofile(folder / "vectors.bin")
        stored = StoredVectors.of_file(folder / "vectors.bin", *values.shape, "float32")
        ids = [f"t{number * 7919 % 1000:03d}" for number in range(len(values))]
        table = pa.table({"tile_id": ids})
        tiles = AllTiles(dataset, VectorFiles.of_dataset(dataset), "demo", StoredRows(table, stored), folder)
        found = find_neighbours(tiles, k)
        copy = NeighbourTable(np.array(found.numbers), np.array(found.distances), found.lists, found.recall, 0)
        return copy, np.argsort(np.argsort(ids))


@pytest.mark.parametrize("lists", [False, True])
@settings(max_examples=40)
@given(values=vectors(), k=st.integers(1, 12))
def test_the_nearest_are_found(dataset: Dataset, lists: bool, values: NDArray[np.float32], k: int) -> None:
    with (
        mock.patch.object(neighbours, "EXACT_ROWS", 12 if lists else 50_000),
        mock.patch.object(vector_lists, "MOST_PROBED", 8),
        mock.patch.object(vector_lists, "WANTED_RECALL", 2.0),  # It cannot be reached, so all lists are compared.
    ):
        found, rank = find(dataset, values, k)
    truth = cosine_distances(values)
    np.fill_diagonal(truth, np.inf)
    wanted = np.sort(truth, axis=1)[:, :k]
    for number in range(len(values)):
        near = found.numbers[number][found.numbers[number] >= 0]
        assert len(near) == min(k, len(values) - 1)
        assert len(set(near.tolist()) | {number}) == len(near) + 1, "no tile twice, and not the tile itself"
        far = found.distances[number][: len(near)]
        np.testing.assert_allclose(far, wanted[number][: len(near)], atol=1e-6)
        np.testing.assert_allclose(far, truth[number][near], atol=1e-6)
        assert (np.diff(far) >= 0).all()
        # Equal vectors are equally far away, and so in the order of their ids, and none is left out.
        for one in near:
            equal = np.flatnonzero((values == values[one]).all(axis=1))
            equal = equal[equal != number][np.argsort(rank[equal[equal != number]])]
            shown = near[np.isin(near, equal)]
            assert shown.tolist() == equal[: len(shown)].tolist()
            assert len(shown) == len(equal) or near[-1] in equal or far[-1] - truth[number][one] < 1e-6
