"""One value a tile, laid out as the grid lies on the raster."""

from __future__ import annotations

from collections.abc import Iterable
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

EMBEDDED, MISSING = "embedded", "missing"


@dataclass(frozen=True)
class StatusMap:
    """What became of each tile."""

    kinds: tuple[str, ...]
    """`embedded`, `missing`, and the reasons of skipped tiles."""
    counts: tuple[int, ...]
    """Tiles of each kind."""
    cells: NDArray[np.uint8]
    """Place in `kinds` of each tile, shape (rows, columns); 255 for a tile that the index does not have."""


def status_map(plan: Plan, windows: Iterable[pa.RecordBatch], reasons: Iterable[str]) -> StatusMap:
    """Lay out the state of every planned tile.

    Args:
        plan: what the dataset was made by.
        windows: all planned tiles, see `rasterembed.qa.tile_table.TileTable.windows`.
        reasons: the reasons of skipped tiles.
    """
    kinds = (EMBEDDED, MISSING, *reasons)
    cells = np.full((plan.sharding.rows, plan.sharding.cols), 255, dtype=np.uint8)
    for batch in windows:
        row, col = (batch.column(name).to_numpy() for name in ("row", "col"))
        there = batch.column("there").to_numpy(zero_copy_only=False)
        skipped = batch.column("status").to_numpy(zero_copy_only=False) == TileStatus.SKIPPED
        reason = batch.column("reason").to_numpy(zero_copy_only=False)
        kind = np.where(there, 0, 1).astype(np.uint8)
        for i, name in enumerate(kinds[2:], start=2):
            kind[skipped & ~there & (reason == name)] = i
        inside = (row < cells.shape[0]) & (col < cells.shape[1])
        cells[row[inside], col[inside]] = kind[inside]
    counts = np.bincount(cells.ravel(), minlength=256)
    return StatusMap(kinds, tuple(int(counts[i]) for i in range(len(kinds))), cells)


def colour_map(
    plan: Plan, principal: Principal, projections: Iterable[tuple[NDArray[np.int32], NDArray[np.int32], Vectors]]
) -> NDArray[np.uint8]:
    """Principal components 1 to 3 as red, green and blue, each stretched from its 2nd to its 98th percentile.

    Returns:
        Shape (rows, columns, 3), values 1 to 255; 0 where there is no vector.
    """
    colours = np.zeros((plan.sharding.rows, plan.sharding.cols, 3), dtype=np.uint8)
    # a component that is not there, or does not vary, is a middle grey
    width = principal.high - principal.low
    flat = width <= 0
    for row, col, values in projections:
        share = np.where(flat, 0.5, (values - principal.low) / np.where(flat, 1.0, width))
        inside = (row < colours.shape[0]) & (col < colours.shape[1])
        colours[row[inside], col[inside]] = (1 + 254 * np.clip(share, 0.0, 1.0)[inside]).round().astype(np.uint8)
    return colours


def cell_to_pixel(plan: Plan) -> Affine:
    """The affine from (column, row) of the tile grid to those of the raster: a cell's middle is its tile's middle.

    Exact but for the last row and column under `edge=shift`, whose tiles are moved inward.
    """
    grid = plan.sharding.grid
    offset = (grid.size - grid.step) / 2
    return Affine.translation(offset, offset) @ Affine.scale(grid.step)


def write_pca_tif(plan: Plan, principal: Principal, colours: NDArray[np.uint8], tags: dict[str, str]) -> bytes:
    """The colour map as a COG in the raster's own CRS, one pixel a tile, nodata 0.

    A raster that is placed by ground control points gives a map that is placed by the same points.
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
