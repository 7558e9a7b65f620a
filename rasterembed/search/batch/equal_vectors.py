"""Find tiles whose vectors are equal bit for bit. They are compared with other tiles only once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rasterembed.errors import Access, os_errors
from rasterembed.search.index.stored_rows import BLOCK_ROWS, StoredVectors


@dataclass(frozen=True)
class EqualVectors:
    """Groups of tiles with equal vectors. Most groups have one tile. n is the number of tiles, g that of groups."""

    members: NDArray[np.int64]
    """Row numbers of the tiles, ordered by group, and within a group by their ids, shape (n,)."""
    starts: NDArray[np.int64]
    """Place in `members` where each group begins, and n at the end, shape (g + 1,)."""

    @property
    def first(self) -> NDArray[np.int64]:
        """Row number of the first tile of each group, shape (g,)."""
        return self.members[self.starts[:-1]]

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Number of tiles in each group, shape (g,)."""
        return np.diff(self.starts)


def find_equal_vectors(vectors: StoredVectors, id_rank: NDArray[np.int64]) -> EqualVectors:
    """Return the groups of tiles whose vectors have the same bits.

    Args:
        vectors: the vectors.
        id_rank: place of each tile in the order of the ids, shape (n,).
    """
    factors = np.random.default_rng(1).integers(1, 2**63, vectors.dimensions, dtype=np.uint64) | np.uint64(1)
    digests = np.empty(vectors.rows, np.uint64)
    start = 0
    for block in vectors.blocks():
        # A sum of products modulo 2**64. Different vectors may have the same digest, but that is rare.
        digests[start : start + len(block)] = (block.view(np.uint32) * factors).sum(axis=1, dtype=np.uint64)
        start += len(block)
    order = np.lexsort((id_rank, digests))
    same = digests[order[1:]] == digests[order[:-1]]
    for place in range(0, len(same), BLOCK_ROWS):
        chosen = place + np.flatnonzero(same[place : place + BLOCK_ROWS])
        if len(chosen):
            equal = vectors.unit(order[chosen + 1]).view(np.uint32) == vectors.unit(order[chosen]).view(np.uint32)
            same[chosen] = equal.all(axis=1)
    starts = np.concatenate([[0], np.flatnonzero(~same) + 1, [vectors.rows]])
    return EqualVectors(order.astype(np.int64), starts.astype(np.int64))


def write_vectors(vectors: StoredVectors, numbers: NDArray[np.int64], path: Path) -> StoredVectors:
    """Write some unit vectors to a file, and return them mapped.

    Args:
        vectors: the vectors.
        numbers: row numbers, shape (n,).
        path: the new file.

    Raises:
        StoreError: if the disk is full.
    """
    with os_errors(str(path), Access.WRITE), path.open("wb") as file:
        for start in range(0, len(numbers), BLOCK_ROWS):
            file.write(vectors.unit(numbers[start : start + BLOCK_ROWS]).data)
    return StoredVectors.of_file(path, len(numbers), vectors.dimensions, "float32")
