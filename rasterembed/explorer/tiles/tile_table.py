"""The tile table: all tiles of a view with their outlines on the map, their scenes and their times."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rasterembed.collection.catalogue import CLOUD_COVER, DATED
from rasterembed.collection.collection import Collection
from rasterembed.dataset.dataset import Dataset
from rasterembed.dataset.manifest import ALL_STATES
from rasterembed.explorer.made_up_place import MadeUpPlace
from rasterembed.explorer.tiles.shapes import Rings, Shapes, rings_of_column
from rasterembed.explorer.tiles.world import metres_to_world, to_lonlat
from rasterembed.search.batch.all_tiles import AllTiles, open_all_tiles
from rasterembed.search.filter_columns import FilterColumns


@dataclass(frozen=True)
class TileScene:
    """What a tile table knows of a dataset."""

    dataset_id: str
    source: str
    """Address of the raster."""
    acquired: datetime | None
    """Time of acquisition, UTC. None if it is not known."""
    cloud_cover: float | None
    """Cloud cover in percent. None if it is not known."""
    time: datetime | None
    """Time for filters and the order, UTC. See `rasterembed.explorer.views.SceneInfo.time`."""


class TileTable:
    """All embedded tiles of a dataset in any state, or of the scenes of a collection that are ready, n of them.

    The outlines are in memory, about 92 bytes for each tile. Ids, windows and vectors stay in mapped files. Several
    threads may use one table. Close it when no thread uses it any more.

    Args:
        owner: the dataset or the collection.

    Raises:
        DataError: if there is no such tile, or if a file cannot be read.
        StoreError: if the store refuses or does not answer.
    """

    def __init__(self, owner: Dataset | Collection) -> None:
        with ExitStack() as stack:
            opened = open_all_tiles(owner, check_directions=False, states=ALL_STATES)
            self.tiles: AllTiles = stack.enter_context(opened)
            """The rows and the vectors of all tiles."""
            ids, codes = self.tiles.dataset_ids.dictionary, self.tiles.dataset_ids.indices
            self.dataset: NDArray[np.int32] = codes.to_numpy(zero_copy_only=False).astype(np.int32)
            """Number of each tile's dataset in `scenes`, shape (n,)."""
            self.scenes: list[TileScene] = _scenes(owner, ids.to_pylist())
            """The datasets of the tiles."""
            self.rank = self._rank()
            """Place of each tile in the order of painting, shape (n,). The tile with the largest number lies on top."""
            self.shapes = Shapes(self._rings(), self.rank)
            """The outlines of the tiles on the map. A tile without a place on the map has no outline."""
            self.columns = FilterColumns(self.tiles.files.name, self.tiles.rows.table)
            """The columns of the tiles that filters read."""
            self._stack = stack.pop_all()

    @property
    def count(self) -> int:
        """Number of tiles."""
        return self.tiles.count

    @property
    def owner(self) -> Dataset | Collection:
        """The dataset or the collection of the tiles."""
        return self.tiles.owner

    @property
    def nbytes(self) -> int:
        """Memory of the table in bytes, without the mapped files."""
        return self.shapes.nbytes + self.dataset.nbytes + self.rank.nbytes + self.columns.nbytes

    @cached_property
    def times(self) -> NDArray[np.float64]:
        """Time of acquisition of each scene in seconds since 1970, shape (scenes,). NaN if it is not known."""
        times = [np.nan if scene.acquired is None else scene.acquired.timestamp() for scene in self.scenes]
        return np.array(times, np.float64)

    @cached_property
    def made_up_place(self) -> MadeUpPlace | None:
        """The place on the map of a dataset without a place on Earth. None for all other views."""
        return MadeUpPlace.of(self.owner)

    @cached_property
    def bbox(self) -> tuple[float, float, float, float] | None:
        """West, south, east and north of all tiles on the map in degrees, or None if no tile has a place on it."""
        if self.shapes.bounds is None:
            return None
        west, north, east, south = self.shapes.bounds
        lon, lat = to_lonlat(np.array([west, east]), np.array([south, north]))
        return float(lon[0]), float(lat[0]), float(lon[1]), float(lat[1])

    def close(self) -> None:
        """Close the mapped files, and remove the temporary ones."""
        self._stack.close()

    def _rings(self) -> Rings:
        """Return the outlines of all tiles."""
        if self.made_up_place is not None:
            return made_up_rings(self.tiles.rows.table, self.made_up_place)
        try:
            return rings_of_column(self.tiles.rows.table["geometry"], 0)
        except ValueError as error:
            raise self.tiles.files.impossible_row(error) from error

    def _rank(self) -> NDArray[np.int64]:
        """Return the order of painting: the latest scene lies on top, and one of an unknown time at the bottom."""
        times = np.array([-np.inf if scene.time is None else scene.time.timestamp() for scene in self.scenes])
        ids = np.array([scene.dataset_id for scene in self.scenes])
        scene_rank = np.empty(len(ids), np.int64)
        scene_rank[np.lexsort((ids, times))] = np.arange(len(ids))
        rank: NDArray[np.int64] = scene_rank[self.dataset] * self.count + np.arange(self.count)
        return rank


def _scenes(owner: Dataset | Collection, ids: list[str]) -> list[TileScene]:
    """Return the datasets with these ids."""
    if isinstance(owner, Dataset):
        plan = owner.plan
        files = plan.source.scene
        clouds = None if files is None else files.cloud_cover
        acquired = plan.profile.acquired
        return [TileScene(owner.id, plan.source.uri, acquired, clouds, acquired)]
    table = owner.catalogue.table.select(["id", "source", "datetime", DATED, CLOUD_COVER])
    known = {
        row["id"]: TileScene(
            dataset_id=row["id"],
            source=row["source"],
            acquired=row["datetime"] if row[DATED] else None,
            cloud_cover=row[CLOUD_COVER],
            time=row["datetime"],
        )
        for row in table.to_pylist()
    }
    return [known[dataset_id] for dataset_id in ids]


def made_up_rings(table: pa.Table, place: MadeUpPlace) -> Rings:
    """Return the windows of tiles as rings at a made-up place."""
    left, top, width, height = (
        table[name].to_numpy().astype(np.float64) for name in ("col_off", "row_off", "width", "height")
    )
    cols = np.stack([left, left, left + width, left + width, left], axis=1)
    rows = np.stack([top, top + height, top + height, top, top], axis=1)
    x, y = metres_to_world(*place.metres(cols.ravel(), rows.ravel()))
    return Rings(x, y, np.arange(len(left) + 1) * 5, np.arange(len(left), dtype=np.int32))
