"""The similarity of all tiles to a query."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from rasterembed.collection.collection import Collection
from rasterembed.dataset.dataset import Dataset
from rasterembed.errors import UsageError
from rasterembed.search.batch.all_tiles import open_all_tiles
from rasterembed.search.collection_searcher import CollectionSearcher
from rasterembed.search.engines.workers import run_all, shares
from rasterembed.search.examples import vector_example
from rasterembed.search.index.stored_rows import StoredVectors
from rasterembed.search.searcher import Searcher

if TYPE_CHECKING:
    from rasterembed.search.query import Query


_ROWS_AT_ONCE = 1024
"""Number of vectors that are compared at once. They fit into a processor's cache, which halves the time."""


def similarities(vectors: StoredVectors, query: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return the cosine similarity of all vectors to a query: 1 minus the cosine distance.

    All vectors are read once, in blocks, by all cores. A result differs from the exact one by less than 1e-6.

    Args:
        vectors: n vectors.
        query: a vector that is not zero, shape (dimensions,). It need not be normalised.

    Returns:
        Similarities from -1 to 1, shape (n,). 0 for a vector of zeros, and NaN for one that is not finite.
    """
    wide = np.asarray(query, np.float64)
    unit = (wide / np.linalg.norm(wide)).astype(np.float32)

    def compare(rows: range) -> NDArray[np.float32]:
        blocks = (vectors.values[start : min(start + _ROWS_AT_ONCE, rows.stop)] for start in rows[::_ROWS_AT_ONCE])
        return np.concatenate([_cosines(block, unit) for block in blocks])

    return np.concatenate(run_all([partial(compare, rows) for rows in shares(vectors.rows)]))


def _cosines(stored: NDArray[np.generic], unit: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the cosines of stored vectors with a unit vector."""
    block = np.asarray(stored, np.float32)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        squares = np.einsum("ij,ij->i", block, block)
        # NumPy's own sums start no threads. Those of a matrix product would wait for each other at every small block.
        cosines: NDArray[np.float32] = np.einsum("ij,j->i", block, unit) / np.sqrt(squares)
    # The squares of very small and very large numbers do not fit into float32. Such vectors are rare.
    unsure = np.flatnonzero(~((squares >= 1e-30) & (squares <= 1e37)))
    if len(unsure):
        exact = block[unsure].astype(np.float64)
        lengths = np.linalg.norm(exact, axis=1)
        with np.errstate(invalid="ignore"):
            cosines[unsure] = exact @ unit / np.where(lengths == 0.0, 1.0, lengths)
    return np.clip(cosines, -1.0, 1.0)


def similarity_table(
    owner: Dataset | Collection, query: Query | None = None, *, vector: ArrayLike | None = None
) -> pa.Table:
    """Return the similarity of every tile to a query.

    Args:
        owner: a dataset or a collection.
        query: an example, such as a tile or an image. Give either `query` or `vector`.
        vector: a vector of the same model, shape (dimensions,). It need not be normalised.

    Returns:
        A row for each tile that a search could find: `dataset_id`, `tile_id` and `similarity`, which is 1 minus the
        cosine distance, as float32.

    Raises:
        UsageError: if not exactly one of `query` and `vector` is given, or if it does not fit the tiles.
        DataError: if the dataset is not ready, or if a file cannot be read.

    Example:
        >>> similarity_table(dataset, Query(tile="r000008_c000008")).column_names  # doctest: +SKIP
        ['dataset_id', 'tile_id', 'similarity']
    """
    if (query is None) == (vector is None):
        raise UsageError("give either `query` or `vector`")
    with open_all_tiles(owner, check_directions=False) as tiles:
        if query is not None:
            with _open_searcher(owner) as searcher:
                wanted = searcher.resolve(query).vector
        else:
            wanted = vector_example(np.asarray(vector), tiles.vectors.dimensions).vector
        ids = [tiles.dataset_ids.dictionary_decode(), tiles.tile_ids]
        found = pa.array(similarities(tiles.vectors, wanted))
        return pa.table([*ids, found], names=["dataset_id", "tile_id", "similarity"])


def _open_searcher(owner: Dataset | Collection) -> Searcher | CollectionSearcher:
    if isinstance(owner, Dataset):
        return Searcher(owner.store, [owner.id])
    return CollectionSearcher(owner.store, owner.id)
