"""The tiles at a place, and the outlines of the tiles in a box."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import shapely
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from rasterembed.dataset.wkb import FootprintError, read_footprints
from rasterembed.explorer.tiles.tile_table import TileTable
from rasterembed.explorer.tiles.world import to_world
from rasterembed.search.answer import pixel_footprint
from rasterembed.search.tile_lookup import Place

MAX_FOOTPRINTS = 4000
"""Largest number of outlines in one answer."""

_MOST_CANDIDATES = 20_000
"""Largest number of tiles whose footprints are compared with a place. At the poles, Web Mercator puts all tiles beyond
85 degrees of latitude onto its edge."""

_ROUNDING = 2
"""Rounding of world coordinates, in units."""


class PlacedTile(BaseModel):
    """A tile with its place on the map. A tile of a collection's scene without a place on Earth has no place."""

    model_config = ConfigDict(frozen=True)

    dataset_id: str
    tile_id: str
    lon: float | None
    """Longitude of the middle of the outline, degrees. A dataset without a place on Earth has a made-up place."""
    lat: float | None
    """Latitude of the middle of the outline, degrees."""
    valid_fraction: float
    """Share of valid pixels."""
    acquired: datetime | None
    """Time of acquisition, UTC. None if it is not known."""
    cloud_cover: float | None
    """Cloud cover of the scene in percent. None if it is not known."""
    scene: str
    """Address of the raster."""
    col_off: int
    """Left edge of the window, px."""
    row_off: int
    """Upper edge of the window, px."""
    width: int
    """Width of the window, px."""
    height: int
    """Height of the window, px."""
    geometry: dict[str, Any] | None
    """Outline as a GeoJSON geometry."""


class Footprint(BaseModel):
    """The outline of a tile as a GeoJSON Feature."""

    type: Literal["Feature"]
    id: str
    """`dataset_id/tile_id`."""
    geometry: dict[str, Any]
    properties: dict[str, Any]
    """`dataset_id`, `tile_id` and `valid_fraction`."""


class FootprintCollection(BaseModel):
    """The outlines of the tiles in a box as a GeoJSON FeatureCollection."""

    type: Literal["FeatureCollection"]
    features: list[Footprint]
    truncated: bool
    """Whether the box has too many tiles. Then no outline is given."""


def tiles_at(table: TileTable, lon: float, lat: float, passing: NDArray[np.bool_] | None) -> list[PlacedTile]:
    """Return the tile of each scene that contains a place, the latest scene first.

    If several tiles of a scene contain the place, it is the one with the nearest centre. These are the tiles that the
    library takes for `Query(lonlat=…)`.

    Args:
        table: the tiles.
        lon: longitude in degrees, -360 to 360.
        lat: latitude in degrees.
        passing: the tiles that may be found, shape (n,). None: all tiles.

    Raises:
        DataError: if a footprint cannot be read.
    """
    place = Place(lon, lat)
    # The antimeridian is both edges of the map.
    lons = [-180.0, 180.0] if abs(place.east) == 180.0 else [place.east]
    numbers = np.unique(np.concatenate([_near(table, lon, lat) for lon in lons]))
    if passing is not None:
        numbers = numbers[passing[numbers]]
    rows = _rows(table, numbers[:_MOST_CANDIDATES])
    found: dict[str, dict[str, Any]] = {}
    for row in place.covered_by(rows):
        found.setdefault(row["dataset_id"], row)
    ordered = sorted(found.values(), key=lambda row: -int(table.rank[row["number"]]))
    return _placed(table, ordered)


def tile_named(table: TileTable, dataset_id: str, tile_id: str) -> PlacedTile | None:
    """Return the tile with an id, or None if the view has no such tile.

    Args:
        table: the tiles.
        dataset_id: id of the tile's dataset.
        tile_id: id of the tile.

    Raises:
        DataError: if the footprint cannot be read.
    """
    scene = next((number for number, scene in enumerate(table.scenes) if scene.dataset_id == dataset_id), None)
    if scene is None:
        return None
    named = table.columns.with_tile_ids(pa.array([tile_id])) & (table.dataset == scene)
    tiles = _placed(table, _rows(table, np.flatnonzero(named)))
    return tiles[0] if tiles else None


def _near(table: TileTable, lon: float, lat: float) -> NDArray[np.int64]:
    """Return the numbers of the tiles whose bounds contain a place, and of a few more."""
    x, y = to_world(np.array([lon]), np.array([lat]))
    left, top = int(x[0]) - _ROUNDING, int(y[0]) - _ROUNDING
    shapes = table.shapes.intersecting(left, top, left + 2 * _ROUNDING, top + 2 * _ROUNDING)
    return table.shapes.tile[shapes].astype(np.int64)


def footprints_json(
    table: TileTable, bbox: tuple[float, float, float, float], passing: NDArray[np.bool_] | None
) -> bytes:
    """Return the outlines of the tiles in a box as `FootprintCollection` in JSON.

    Args:
        table: the tiles.
        bbox: west, south, east, north in degrees. If west > east, the box crosses the antimeridian.
        passing: the tiles to show, shape (n,). None: all tiles.

    Raises:
        DataError: if a footprint cannot be read.
    """
    west, south, east, north = bbox
    inside = np.zeros(table.count, bool)
    for low, high in [(west, east)] if west <= east else [(west, 180.0), (-180.0, east)]:
        x, y = to_world(np.array([low, high]), np.array([north, south]))
        inside[table.shapes.tile[table.shapes.intersecting(int(x[0]), int(y[0]), int(x[1]), int(y[1]))]] = True
    if passing is not None:
        inside &= passing
    numbers = np.flatnonzero(inside)
    if len(numbers) > MAX_FOOTPRINTS:
        return b'{"type":"FeatureCollection","features":[],"truncated":true}'
    rows = _rows(table, numbers)
    features = []
    for row, outline in zip(rows, _outlines(table, rows), strict=True):
        names = {"dataset_id": row["dataset_id"], "tile_id": row["tile_id"]}
        properties = json.dumps(names | {"valid_fraction": round(row["valid_fraction"], 6)})
        name = json.dumps(f"{row['dataset_id']}/{row['tile_id']}")
        features.append(
            f'{{"type":"Feature","id":{name},"geometry":{shapely.to_geojson(outline)},"properties":{properties}}}'
        )
    return f'{{"type":"FeatureCollection","features":[{",".join(features)}],"truncated":false}}'.encode()


def _rows(table: TileTable, numbers: NDArray[np.int64]) -> list[dict[str, Any]]:
    """Return the rows of some tiles, with their numbers, and with their footprints in longitude and latitude."""
    if not len(numbers):
        return []
    rows = [row | {"number": number} for row, number in zip(table.tiles.take(numbers), numbers.tolist(), strict=True)]
    if table.made_up_place is not None:
        for row in rows:
            outline = table.made_up_place.geometry(shapely.from_wkb(pixel_footprint(row)))
            row["geometry"] = shapely.to_wkb(outline)
    return rows


def _outlines(table: TileTable, rows: Sequence[dict[str, Any]]) -> NDArray[np.object_]:
    try:
        return read_footprints([row["geometry"] for row in rows])
    except FootprintError as error:
        raise table.tiles.files.impossible_row(error) from error


def _placed(table: TileTable, rows: Sequence[dict[str, Any]]) -> list[PlacedTile]:
    tiles = []
    for row, outline in zip(rows, _outlines(table, rows), strict=True):
        scene = table.scenes[table.dataset[row["number"]]]
        # A footprint in a file may be missing, or empty.
        has_place = outline is not None and not outline.is_empty
        lon, lat = _middle(outline) if has_place else (None, None)
        values = {name: row[name] for name in PlacedTile.model_fields if name in row and name != "geometry"}
        tiles.append(
            PlacedTile(
                lon=lon,
                lat=lat,
                acquired=scene.acquired,
                cloud_cover=scene.cloud_cover,
                scene=scene.source,
                geometry=shapely.geometry.mapping(outline) if has_place else None,
                **values,
            )
        )
    return tiles


def _middle(outline: shapely.Geometry) -> tuple[float, float]:
    """Return longitude and latitude of the middle of an outline."""
    west, _, east, _ = outline.bounds
    if east - west > 180.0:
        # The outline crosses the antimeridian. Its western part is moved to the east of its eastern part.
        outline = shapely.transform(outline, lambda points: points + (points[:, :1] < 0) * [360.0, 0.0])
    centre = outline.centroid
    return float((centre.x + 180.0) % 360.0 - 180.0), float(centre.y)
