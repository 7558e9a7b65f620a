"""Map tiles and thumbnails of a view."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

from rasterembed.dataset.dataset import Dataset
from rasterembed.errors import DataError, ObjectMissingError, RasterChangedError
from rasterembed.explorer.imagery.drawing import Drawing, draw
from rasterembed.explorer.imagery.mosaic import SceneBoxes, draw_mosaic
from rasterembed.explorer.imagery.open_rasters import OpenRasters
from rasterembed.explorer.imagery.raster_place import RasterPlace
from rasterembed.explorer.imagery.reading import smallest_zoom
from rasterembed.explorer.map_tile import MapTile
from rasterembed.explorer.problems import ProblemError, ProblemType
from rasterembed.explorer.views import SceneInfo, View, ViewKind
from rasterembed.memory_cache import MemoryCache
from rasterembed.search.query import Where
from rasterembed.search.thumbnails import read_thumbnail, webp
from rasterembed.search.tile_lookup import Tile, why_no_tile

PICTURE_BYTES = 64 * 2**20
"""Largest size of the pictures of a view that stay in memory, in bytes."""

_SAMPLED_SCENES = 4
"""Number of scenes of a collection whose plans are read to find out the zooms."""


@dataclass(frozen=True)
class Zooms:
    """Zooms at which the rasters of a view are drawn."""

    smallest: int
    """Map tiles of a smaller zoom may be transparent, because too many pixels or scenes would be read."""
    largest: int
    """Map tiles of a larger zoom show no more details."""


class ViewImagery:
    """The rasters of a view as pictures. `imagery_of` gives the one of a view.

    Args:
        view: the view.
    """

    def __init__(self, view: View) -> None:
        self._view = view
        self._rasters = OpenRasters()
        self._pictures = MemoryCache[bytes](PICTURE_BYTES, len)

    @property
    def nbytes(self) -> int:
        """Memory of the kept pictures, in bytes."""
        return self._pictures.nbytes

    def close(self) -> None:
        """Close all rasters."""
        self._rasters.close()

    @cached_property
    def _boxes(self) -> SceneBoxes:
        return SceneBoxes(self._view.scenes)

    def map_tile(self, tile: MapTile, where: Where = Where()) -> bytes:
        """Return a map tile of the view's rasters as a WebP file. It is transparent where no raster is valid.

        The newest scene is on top.

        Args:
            tile: the map tile.
            where: `since` and `until` leave scenes out.

        Raises:
            ProblemError: with status 404, if a dataset's raster is missing or was changed. In a collection, all scenes
                of the map tile must have this problem.
            DataError: if the raster cannot be read, or if the store may not name it.
        """
        with _gone_as_problem():
            return self._pictures.get_or_build(
                (tile, where.since, where.until), lambda: self._draw(tile, where).encoded()
            )

    def _draw(self, tile: MapTile, where: Where) -> Drawing:
        if self._view.kind is ViewKind.DATASETS:
            (scene,) = self._view.scenes
            return self._draw_scene(scene, tile) if where.acquired_within(scene.time) else Drawing.empty()
        scenes = self._boxes.choose(tile, where)
        if not scenes:
            return Drawing.empty()
        return draw_mosaic(scenes, lambda scene: self._draw_scene(scene, tile), skipped=(DataError,))

    def _draw_scene(self, scene: SceneInfo, tile: MapTile) -> Drawing:
        with self._rasters.use(self._view.dataset(scene.dataset_id), on_grid=False) as raster:
            return draw(raster, tile)

    def thumbnail(self, dataset_id: str, tile_id: str, side: int) -> bytes:
        """Return the thumbnail of a grid tile as a WebP file.

        Args:
            dataset_id: id of the tile's dataset.
            tile_id: id of the tile.
            side: width and height of the thumbnail, px.

        Raises:
            ProblemError: with status 404, if the view has no such tile, or if the raster is missing or was changed.
            DataError: if the raster cannot be read, or if the store may not name it.
        """
        dataset = self._view.dataset(dataset_id)
        tile = _tile_of(dataset, tile_id)

        def read() -> bytes:
            with self._rasters.use(dataset, on_grid=True) as raster:
                return webp(raster.read(lambda pixels: read_thumbnail(pixels, dataset.plan, tile, side)))

        with _gone_as_problem():
            return self._pictures.get_or_build((dataset_id, tile_id, side), read)

    @cached_property
    def zooms(self) -> Zooms:
        """Zooms at which the rasters are drawn. Of a collection, a few scenes are looked at.

        Raises:
            DataError: if the catalogue of a collection cannot be read.
        """
        scenes = self._view.scenes
        if self._view.kind is ViewKind.COLLECTIONS:
            scenes = self._boxes.scenes
        found = []
        for scene in scenes[:: max(1, len(scenes) // _SAMPLED_SCENES)][:_SAMPLED_SCENES]:
            try:
                plan = self._view.dataset(scene.dataset_id).plan
                native = RasterPlace(plan).native_zoom()
            except DataError:
                continue  # Its map tiles have the error. The other scenes can be shown.
            found.append((smallest_zoom(plan.profile.original, native), native))
        low, high = min((low for low, _ in found), default=0), max((high for _, high in found), default=0)
        if self._view.kind is ViewKind.COLLECTIONS:
            low = max(low, self._boxes.smallest_zoom)
        return Zooms(min(low, high), high)


def imagery_of(view: View) -> ViewImagery:
    """Return the pictures of a view. They are kept and closed with the view."""
    return view.keep("imagery", lambda: ViewImagery(view))


def _tile_of(dataset: Dataset, tile_id: str) -> Tile:
    found = dataset.plan.sharding.find(tile_id)
    if found is None:
        raise ProblemError(404, ProblemType.UNKNOWN_TILE, why_no_tile(dataset, tile_id))
    left, top, width, height = (int(values[0]) for values in (found.col_off, found.row_off, found.width, found.height))
    return Tile(dataset_id=dataset.id, tile_id=tile_id, col_off=left, row_off=top, width=width, height=height)


@contextmanager
def _gone_as_problem() -> Iterator[None]:
    """Turn errors about a raster that is missing or was changed into a problem of their own."""
    try:
        yield
    except (RasterChangedError, ObjectMissingError) as error:
        raise ProblemError(404, ProblemType.RASTER_GONE, str(error)) from error
