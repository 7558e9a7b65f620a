"""Small pictures of tiles, cut from the raster in the colours of the model's input."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rasterio.errors import RasterioError
from rasterio.windows import Window

from rasterembed.dataset.continuing import check_unchanged
from rasterembed.dataset.dataset import Dataset
from rasterembed.dataset.plan import Plan
from rasterembed.errors import DataError, RasterEmbedError, one_line
from rasterembed.raster.pixels import Pixels, open_pixels
from rasterembed.raster.radiometry import ResolvedRadiometry
from rasterembed.search.answer import Answer, Hit
from rasterembed.search.tile_lookup import Tile

_HATCHING = (238, 240, 243), (222, 226, 230)
"""Colours of the stripes that are drawn for invalid pixels."""


def thumbnails(dataset: Dataset, tiles: Iterable[Tile | Hit], side: int) -> dict[tuple[str, str], Image.Image]:
    """Return thumbnails of tiles by dataset id and tile id. The tiles are read from top to bottom.

    Args:
        dataset: the dataset of all tiles.
        tiles: the tiles.
        side: width and height of a thumbnail, px.

    Raises:
        RasterChangedError: if the raster was changed after it was embedded.
        DataError: if the raster is missing or cannot be read.
    """
    plan, store, uri = dataset.plan, dataset.store, dataset.plan.source.uri
    check_unchanged(store, plan)
    pictures = {}
    with open_pixels(store, uri, plan.profile) as raster:
        for tile in sorted(tiles, key=lambda t: (t.row_off, t.col_off)):
            pictures[tile.dataset_id, tile.tile_id] = read_thumbnail(raster, plan, tile, side)
    return pictures


@dataclass(frozen=True)
class ThumbnailUris:
    """Thumbnails of tiles as data URIs."""

    pictures: dict[tuple[str, str], str]
    """The data URIs by dataset id and tile id."""
    missing: dict[str, str]
    """Why the tiles of a dataset have no thumbnails, by dataset id, in one line."""


def thumbnail_uris(answer: Answer, datasets: Sequence[Dataset], most: int, side: int) -> ThumbnailUris:
    """Return thumbnails of the nearest tiles as data URIs.

    If a dataset's raster cannot be read, for example because its file was moved, its tiles have no thumbnails.

    Args:
        answer: the answer.
        datasets: the datasets that were searched.
        most: largest number of thumbnails. If the answer has more tiles, the nearest ones get a thumbnail.
        side: width and height of a thumbnail, px.
    """
    found = ThumbnailUris({}, {})
    for dataset in datasets:
        hits = [hit for hit in answer.hits[:most] if hit.dataset_id == dataset.id]
        if not hits:
            continue
        try:
            images = thumbnails(dataset, hits, side)
        except (RasterEmbedError, RasterioError) as error:
            found.missing[dataset.id] = one_line(error)
            continue
        found.pictures.update({key: _data_uri(image) for key, image in images.items()})
    return found


def _data_uri(image: Image.Image) -> str:
    return f"data:image/webp;base64,{base64.b64encode(webp(image)).decode()}"


def webp(image: Image.Image, *, effort: int = 4) -> bytes:
    """Return a picture as a WebP file. Colours are slightly changed, and transparency is kept exactly.

    Args:
        image: the picture.
        effort: 0 to 6. A larger number gives smaller files and takes longer.
    """
    data = io.BytesIO()
    image.save(data, "WEBP", quality=85, method=effort)
    return data.getvalue()


def read_thumbnail(raster: Pixels, plan: Plan, tile: Tile | Hit, side: int) -> Image.Image:
    """Return the thumbnail of a tile.

    Args:
        raster: the open raster of the dataset.
        plan: plan of the dataset.
        tile: the tile.
        side: width and height of the thumbnail, px.

    Raises:
        DataError: if the tile cannot be read.
    """
    window = Window(tile.col_off, tile.row_off, tile.width, tile.height)
    try:
        pixels, valid = raster.read(plan.radiometry.distinct_bands, window)
    except RasterioError as error:
        raise DataError(f"{plan.source.uri}: tile {tile.tile_id} cannot be read: {one_line(error)}") from error
    pixels = plan.radiometry.channels(pixels, plan.profile)
    return picture(pixels, valid, plan.radiometry, plan.sharding.grid.size, side)


def picture(
    pixels: NDArray[np.generic], valid: NDArray[np.bool_], radiometry: ResolvedRadiometry, tile_side: int, side: int
) -> Image.Image:
    """Return a thumbnail of a tile. Its colours are those of the model's input.

    Invalid pixels, and pixels outside the raster, are drawn as stripes.

    Args:
        pixels: colour channels, shape (1 or 3, rows, columns). Rows and columns are at most `tile_side`.
        valid: booleans, shape (rows, columns): True where the pixel is valid.
        radiometry: how values become colour.
        tile_side: side of a tile in the grid, px.
        side: width and height of the thumbnail, px.
    """
    colours = np.moveaxis(radiometry.colours(pixels), 0, -1)
    rows, columns = np.indices((tile_side, tile_side))
    period = max(tile_side // 14, 2)
    stripes = ((rows + columns) // period) % 2 == 0
    whole = np.where(stripes[..., None], *_HATCHING).astype(np.uint8)
    height, width = valid.shape
    whole[:height, :width][valid] = colours[valid]
    return Image.fromarray(whole).resize((side, side), Image.Resampling.LANCZOS)
