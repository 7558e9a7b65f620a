"""Search with the vector index if there is one, and with the exact scan otherwise."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rasterembed.search.answer import UsedEngine
from rasterembed.search.engines.engine import IndexUnusableError, NoIndexReason, SearchEngine
from rasterembed.search.engines.vss import VssEngine
from rasterembed.search.filters import TileFilters
from rasterembed.search.query import EngineChoice
from rasterembed.search.vector_files import VectorFiles


class IndexFirst:
    """Chooses between the two search engines of one `VectorFiles`, for each query.

    Args:
        files: the files that are searched.
        engine: `auto` uses the vector index if there is one. `scan` compares the query with every vector.
        ef_search: number of candidates in a search of the vector index. None means the default of the index.
    """

    def __init__(self, files: VectorFiles, engine: EngineChoice, ef_search: int | None) -> None:
        self.index: SearchEngine | None = None
        """Engine with the vector index. None if it is not used."""
        self._owner_id = files.owner_id
        self._no_index, self._detail = NoIndexReason.SCAN_REQUESTED, ""
        if engine == "scan":
            return
        try:
            self.index, self._no_index = VssEngine(files, ef_search), NoIndexReason.UNDECIDED
        except IndexUnusableError as error:
            self._no_index, self._detail = error.reason, error.detail

    def nearest(
        self, vector: NDArray[np.float32], k: int, filters: TileFilters, scan: Callable[[], pa.Table]
    ) -> tuple[pa.Table, UsedEngine]:
        """Return the k nearest tiles that pass the filters, and the engine that found them.

        The vector index is asked first. The exact scan is used if there is no index, if the index fails, or if it is
        not sure of its result. An index that failed is not used again.

        Args:
            vector: the query, shape (dimensions,).
            k: largest number of rows.
            filters: filters for the tiles.
            scan: function that returns the result of the exact scan.

        Raises:
            DataError: if a file cannot be read.
        """
        if self.index is not None:
            try:
                rows = self.index.nearest(vector, k, filters)
            except IndexUnusableError as error:
                self.close()
                self.index, self._no_index, self._detail = None, error.reason, error.detail
            else:
                if rows is not None:
                    return rows, UsedEngine(
                        dataset_id=self._owner_id,
                        name=self.index.name,
                        settings=self.index.settings,
                        recall=self.index.recall,
                    )
        return scan(), UsedEngine(dataset_id=self._owner_id, name="scan", no_index=self._no_index, detail=self._detail)

    def close(self) -> None:
        """Release the memory of the index."""
        if self.index is not None:
            self.index.close()
