"""Maps with one cell for each tile. Rows and columns of a map are the rows and columns of the tile grid."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from rasterio.control import GroundControlPoint
from rasterio.io import MemoryFile

from rasterembed.dataset.arrow_arrays import booleans_of, values_of, view_of
from rasterembed.dataset.plan import Plan
from rasterembed.dataset.tile_index import TileStatus
from rasterembed.drawing.raster_map import cell_to_pixel
from rasterembed.qa.vector_statistics import Principal, Vectors

EMBEDDED, MISSING = 0, 1
"""First two classes of a status map. Each skip reason has a class, from 2 on."""

_NOT_IN_INDEX = 255


@dataclass(frozen=True)
class StatusMap:
    """A map of the tiles' classes: embedded, missing, or skipped for one of several reasons."""

    labels: tuple[str, ...]
    """Text for people for each class."""
    counts: tuple[int, ...]
    """Number of tiles in each class."""
    cells: NDArray[np.uint8]
    """Class of each tile, shape (rows, columns). 255 for a tile that is not in the tile index."""


def status_map(plan: Plan, windows: Iterable[pa.RecordBatch], reasons: Mapping[str, str]) -> StatusMap:
    """Return a map of the status of every planned tile.

    Args:
        plan: the dataset's plan.
        windows: all planned tiles, from `rasterembed.qa.checked_tiles.CheckedTiles.windows`.
        reasons: maps each skip reason in `windows` to its text for people.
    """
    cells = np.full((plan.sharding.rows, plan.sharding.cols), _NOT_IN_INDEX, dtype=np.uint8)
    for batch in windows:
        row, col = (view_of(batch.column(name)) for name in ("row", "col"))
        has_vector = booleans_of(batch.column("has_vector"))
        status, reason = (values_of(batch.column(name)) for name in ("status", "reason"))
        skipped = ~has_vector & (status == TileStatus.SKIPPED)
        tile_class = np.where(has_vector, EMBEDDED, MISSING).astype(np.uint8)
        for i, name in enumerate(reasons, start=2):
            tile_class[skipped & (reason == name)] = i
        inside = (row < cells.shape[0]) & (col < cells.shape[1])
        cells[row[inside], col[inside]] = tile_class[inside]
    labels = ("embedded", "missing", *(f"skipped, {text}" for text in reasons.values()))
    counts = np.bincount(cells.ravel(), minlength=256)
    return StatusMap(labels, tuple(int(counts[i]) for i in range(len(labels))), cells)


def colour_map(
    plan: Plan, principal: Principal, projections: Iterable[tuple[NDArray[np.int32], NDArray[np.int32], Vectors]]
) -> NDArray[np.uint8]:
    """Return a map with the principal components 1 to 3 as red, green and blue.

    The range of each colour goes from the 2nd to the 98th percentile of the component.

    Args:
        plan: the dataset's plan.
        principal: the components.
        projections: batches from `rasterembed.qa.checked_tiles.CheckedTiles.projections`.

    Returns:
        Colours of shape (rows, columns, 3), with values from 1 to 255. The value is 0 if the tile has no vector.
    """
    colours = np.zeros((plan.sharding.rows, plan.sharding.cols, 3), dtype=np.uint8)
    width = principal.high - principal.low
    # A component that is absent or constant has no range. It gets the middle value of its colour.
    flat = width <= 0
    for row, col, values in projections:
        share = np.where(flat, 0.5, (values - principal.low) / np.where(flat, 1.0, width))
        inside = (row < colours.shape[0]) & (col < colours.shape[1])
        colours[row[inside], col[inside]] = (1 + 254 * np.clip(share, 0.0, 1.0)[inside]).round().astype(np.uint8)
    return colours


def write_pca_tif(plan: Plan, principal: Principal, colours: NDArray[np.uint8], tags: Mapping[str, str]) -> bytes:
    """Return the colour map as a Cloud Optimized GeoTIFF in the raster's CRS. Each tile is one pixel. Nodata is 0.

    If the raster has ground control points, the map has the same points.

    Args:
        plan: the dataset's plan.
        principal: the components. Their shares of the variance become band descriptions.
        colours: the colour map from `colour_map`.
        tags: tags of the file.
    """
    profile, to_pixel = plan.profile, cell_to_pixel(plan)
    options = {
        "driver": "COG",
        "height": colours.shape[0],
        "width": colours.shape[1],
        "count": 3,
        "dtype": "uint8",
        "nodata": 0,
        "compress": "deflate",
        "crs": profile.crs_wkt,
    }
    if profile.gcps:
        from_pixel = ~to_pixel
        points = []
        for point in profile.gcps:
            col, row = from_pixel @ (point.col, point.row)
            points.append(GroundControlPoint(row, col, point.x, point.y, point.z))
        options["gcps"] = points
    else:
        options["transform"] = profile.affine @ to_pixel
    with MemoryFile() as file:
        with file.open(**options) as raster:
            raster.write(np.moveaxis(colours, -1, 0))
            raster.update_tags(**tags)
            for i, share in enumerate(principal.explained, start=1):
                raster.set_band_description(i, f"PC{i}, {share:.1%} of the variance")
        return bytes(file.read())
