"""The layers of a view: its tile table, the colourings that were computed, and the tiles that pass filters.

Some colourings take seconds for a million tiles. They are computed in the background, once for each view. A request
waits for a short time, and then says that the colouring is not ready yet.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rasterembed.collection.collection import Collection
from rasterembed.dataset.dataset import Dataset
from rasterembed.explorer.map_tile import MapTile
from rasterembed.explorer.tiles.colouring import (
    Colouring,
    class_colouring,
    date_colouring,
    pca_colouring,
    similarity_colouring,
    validity_colouring,
)
from rasterembed.explorer.tiles.drawing import empty_picture, picture_of
from rasterembed.explorer.tiles.legend import Colour, RampLegend
from rasterembed.explorer.tiles.painting import top_shapes
from rasterembed.explorer.tiles.quality import QualityColours, Skipped, quality_of
from rasterembed.explorer.tiles.tile_table import TileTable
from rasterembed.explorer.views import View
from rasterembed.memory_cache import MemoryCache
from rasterembed.search.batch.similarity import similarities
from rasterembed.search.collection_searcher import CollectionSearcher
from rasterembed.search.query import Where
from rasterembed.search.searcher import Searcher

_SIMILARITY_BYTES, _MASK_BYTES = 64 * 2**20, 32 * 2**20
"""Memory limits of the kept similarities and of the kept answers to filters, for one view. One of a million tiles takes
1 MB."""

_KEY_LETTERS = 32
"""Length of the name of a similarity."""


_QUICK = {Colour.VALIDITY: validity_colouring, Colour.DATE: date_colouring}
"""Colourings that take milliseconds, so they need not wait for others in the background."""


@dataclass(frozen=True)
class Choice:
    """A choice of colours for the tiles."""

    colour: Colour
    classes: int
    """Number of classes of the colour `cluster`. It has no effect on other colours."""
    similarity: str | None
    """Name of the similarity of the colour `similarity`. It has no effect on other colours."""


@dataclass(frozen=True)
class FoundSimilarity:
    """A computed similarity."""

    key: str
    low: float
    high: float


class NotReadyError(Exception):
    """A colouring is being computed."""


class UnknownSimilarityError(Exception):
    """A similarity is not kept any more, or was never computed."""


class TileLayers:
    """The layers of a view. Several threads may use one object. Close it when no thread uses it any more.

    Args:
        owner: the dataset or the collection.
        searcher: searcher of the same dataset or collection, which applies the filters. It stays open as long as this
            object.

    Raises:
        DataError: if there is no tile that is shown, or if a file cannot be read.
        StoreError: if the store refuses or does not answer.
    """

    def __init__(self, owner: Dataset | Collection, searcher: Searcher | CollectionSearcher) -> None:
        self.table = TileTable(owner)
        self._searcher = searcher
        # One thread: a computation uses all cores by itself.
        self._background = ThreadPoolExecutor(1, "colouring")
        self._lock = threading.Lock()
        self._computed: dict[Hashable, Future[Colouring | QualityColours]] = {}
        self._quick: dict[Colour, Colouring] = {}
        self._similarities = MemoryCache[Colouring](_SIMILARITY_BYTES, lambda colouring: colouring.nbytes)
        self._masks = MemoryCache[NDArray[np.bool_]](_MASK_BYTES, lambda mask: mask.nbytes)

    @property
    def nbytes(self) -> int:
        """Memory of the layers in bytes, without the mapped files."""
        with self._lock:
            done: list[Colouring | QualityColours] = list(self._quick.values())
            done += [future.result() for future in self._computed.values() if _succeeded(future)]
        kept = self._similarities.nbytes + self._masks.nbytes
        return self.table.nbytes + sum(colouring.nbytes for colouring in done) + kept

    def close(self) -> None:
        """Stop the computations that have not begun, and close the files.

        A computation that runs goes on until its end. Its mapped files stay readable until then.
        """
        self._background.shutdown(wait=False, cancel_futures=True)
        self.table.close()

    def colouring(self, choice: Choice, wait_s: float) -> Colouring:
        """Return the colours of the embedded tiles.

        Args:
            choice: the choice of colours.
            wait_s: seconds to wait if the colours are being computed.

        Raises:
            NotReadyError: if the colouring is still being computed.
            UnknownSimilarityError: if the similarity is not kept.
            DataError: if a file cannot be read.
        """
        if choice.colour is Colour.SIMILARITY:
            found = None if choice.similarity is None else self._similarities.get(choice.similarity)
            if found is None:
                raise UnknownSimilarityError
            return found
        if choice.colour is Colour.QA:
            return self.quality(wait_s).embedded
        if choice.colour in _QUICK:
            with self._lock:
                if choice.colour not in self._quick:
                    self._quick[choice.colour] = _QUICK[choice.colour](self.table)
                return self._quick[choice.colour]
        key = (choice.colour, choice.classes if choice.colour is Colour.CLUSTER else None)
        result = self._wait(key, lambda: self._compute(choice), wait_s)
        assert isinstance(result, Colouring)
        return result

    def quality(self, wait_s: float) -> QualityColours:
        """Return the quality of all tiles. See `colouring` for the errors."""
        result = self._wait(Colour.QA, lambda: quality_of(self.table), wait_s)
        assert isinstance(result, QualityColours)
        return result

    def add_similarity(self, vector: NDArray[np.float32]) -> FoundSimilarity:
        """Compute the similarity of all tiles to the vector of a query, and keep it.

        Args:
            vector: the vector, shape (dimensions,).

        Raises:
            DataError: if a file cannot be read.
        """
        key = hashlib.sha256(vector.tobytes()).hexdigest()[:_KEY_LETTERS]
        found = self._similarities.get_or_build(
            key, lambda: similarity_colouring(similarities(self.table.tiles.vectors, vector))
        )
        assert isinstance(found.legend, RampLegend)
        return FoundSimilarity(key, found.legend.low or 0.0, found.legend.high or 0.0)

    def passing(self, where: Where) -> NDArray[np.bool_] | None:
        """Return which tiles pass the filters of a search, shape (n,). None: all of them.

        Raises:
            UsageError: if the filters do not fit the view.
        """
        if where == Where():
            return None
        return self._masks.get_or_build(
            where.model_dump_json(), lambda: self._searcher.passing(self.table.columns, where)
        )

    def draw(self, at: MapTile, choice: Choice, where: Where, wait_s: float) -> bytes:
        """Return a map tile with the tiles as flat colours, as a PNG file.

        Args:
            at: the map tile.
            choice: the choice of colours.
            where: filters for the tiles. Areas have no effect.
            wait_s: seconds to wait if the colours are being computed.

        Raises:
            NotReadyError: if the colouring is still being computed.
            UnknownSimilarityError: if the similarity is not kept.
            UsageError: if the filters do not fit the view.
            DataError: if a file cannot be read.
        """
        colouring = self.colouring(choice, wait_s)
        top = top_shapes(self.table.shapes, at, self.passing(where))
        below = None
        if choice.colour is Colour.QA and where.pick == "all":
            below = self._draw_skipped(at, where, self.quality(wait_s).skipped)
        if below is None and not (top >= 0).any():
            return empty_picture()
        tiles = np.where(top >= 0, self.table.shapes.tile[top] if self.table.shapes.count else -1, -1)
        return picture_of(tiles, colouring, below)

    def _draw_skipped(self, at: MapTile, where: Where, skipped: Skipped) -> tuple[NDArray[np.int32], Colouring] | None:
        """Return the skipped tile at each pixel and the colours, or None if no skipped tile is shown."""
        if where.min_valid_fraction or not skipped.shapes.count:
            # Skipped tiles have few valid pixels.
            return None
        scenes = self.table.scenes
        allowed = [where.acquired_within(scene.time) and where.allows_clouds(scene.cloud_cover) for scene in scenes]
        # The last entry is for datasets without an embedded tile, whose dates the table does not know.
        passes = np.array([*allowed, where == Where()])
        top = top_shapes(skipped.shapes, at, passes[skipped.scene])
        if not (top >= 0).any():
            return None
        return np.where(top >= 0, skipped.shapes.tile[top], -1), skipped.colouring

    def _compute(self, choice: Choice) -> Colouring:
        if choice.colour is Colour.CLUSTER:
            return class_colouring(self.table, choice.classes)
        return pca_colouring(self.table)

    def _wait(
        self, key: Hashable, compute: Callable[[], Colouring | QualityColours], wait_s: float
    ) -> Colouring | QualityColours:
        """Return a computed object. The computation begins with the first request, and again after an error."""
        with self._lock:
            future = self._computed.get(key)
            if future is None or (future.done() and not _succeeded(future)):
                future = self._computed[key] = self._background.submit(compute)
        try:
            return future.result(wait_s)
        except FutureTimeoutError as error:
            if future.done():
                raise
            raise NotReadyError from error


def _succeeded(future: Future[Colouring | QualityColours]) -> bool:
    return future.done() and not future.cancelled() and future.exception() is None


def layers_of(view: View) -> TileLayers:
    """Return the layers of a view. They are built once, and closed with the view.

    Raises:
        DataError: if the view has no tile, or if a file cannot be read.
    """
    searcher = view.tile_searcher
    return view.keep("layers", lambda: TileLayers(view.content, searcher))
