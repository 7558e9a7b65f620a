"""Maps with one value per tile, laid out as the tile grid lies on the raster."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from affine import Affine
from numpy.typing import NDArray
from rasterio.control import GroundControlPoint
from rasterio.io import MemoryFile

from rasterembed.dataset.plan import Plan
from rasterembed.dataset.tile_index import TileStatus
from rasterembed.qa.vector_statistics import Principal, Vectors

EMBEDDED, MISSING = 0, 1
"""Classes of a status map. Each reason for skipping is one class more, from 2."""

_NOT_IN_INDEX = 255


@dataclass(frozen=True)
class StatusMap:
    """Class of each tile: embedded, missing, or skipped for one of several reasons."""

    labels: tuple[str, ...]
    """Text for people of each class."""
    counts: tuple[int, ...]
    """Number of tiles of each class."""
    cells: NDArray[np.uint8]
    """Class of each tile, shape (rows, columns). 255 for a tile that the index does not have."""


def status_map(plan: Plan, windows: Iterable[pa.RecordBatch], reasons: Mapping[str, str]) -> StatusMap:
    """Lay out the status of every planned tile.

    Args:
        plan: the dataset's plan.
        windows: all planned tiles, from `rasterembed.qa.tile_table.TileTable.windows`.
        reasons: text for people of each reason for skipping in `windows`.
    """
    cells = np.full((plan.sharding.rows, plan.sharding.cols), _NOT_IN_INDEX, dtype=np.uint8)
    for batch in windows:
        row, col = (batch.column(name).to_numpy() for name in ("row", "col"))
        has_vector, status, reason = (
            batch.column(name).to_numpy(zero_copy_only=False) for name in ("has_vector", "status", "reason")
        )
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
    """Draw principal components 1 to 3 as red, green and blue, each stretched from its 2nd to its 98th percentile.

    Args:
        plan: the dataset's plan.
        principal: the components.
        projections: batches from `rasterembed.qa.tile_table.TileTable.projections`.

    Returns:
        Colours of shape (rows, columns, 3), values 1 to 255. 0 where there is no vector.
    """
    colours = np.zeros((plan.sharding.rows, plan.sharding.cols, 3), dtype=np.uint8)
    width = principal.high - principal.low
    # A component that is absent or constant has nothing to stretch, and becomes a middle grey.
    flat = width <= 0
    for row, col, values in projections:
        share = np.where(flat, 0.5, (values - principal.low) / np.where(flat, 1.0, width))
        inside = (row < colours.shape[0]) & (col < colours.shape[1])
        colours[row[inside], col[inside]] = (1 + 254 * np.clip(share, 0.0, 1.0)[inside]).round().astype(np.uint8)
    return colours


def cell_to_pixel(plan: Plan) -> Affine:
    """Return the affine from (column, row) of the tile grid to those of the raster.

    The middle of a cell becomes the middle of its tile. This is exact except in the last row and column under
    `edge=shift`, whose tiles are moved inward.
    """
    grid = plan.sharding.grid
    offset = (grid.size - grid.step) / 2
    return Affine.translation(offset, offset) @ Affine.scale(grid.step)


def write_pca_tif(plan: Plan, principal: Principal, colours: NDArray[np.uint8], tags: Mapping[str, str]) -> bytes:
    """Return the colour map as a Cloud Optimized GeoTIFF in the raster's CRS, one pixel per tile, nodata 0.

    If the raster is placed by ground control points, the map is placed by the same points.

    Args:
        plan: the dataset's plan.
        principal: the components, whose shares of the variance become band descriptions.
        colours: the colour map, from `colour_map`.
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
