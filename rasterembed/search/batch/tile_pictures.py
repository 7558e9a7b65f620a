"""Rows of thumbnails of tiles, on a sheet."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image
from pydantic import ValidationError

from rasterembed.dataset.dataset import Dataset
from rasterembed.search.batch.all_tiles import AllTiles, open_datasets
from rasterembed.search.batch.result_file import Drawn
from rasterembed.search.collection_searcher import scene_fields
from rasterembed.search.picture_sheet import CaptionedPicture, Section, draw_sheet
from rasterembed.search.searched_collection import scene_text
from rasterembed.search.thumbnails import thumbnails
from rasterembed.search.tile_lookup import Tile

THUMB = 108
"""Width and height of a thumbnail, px."""

COLUMNS = 8
"""Number of thumbnails in a row."""

_FRAME = "#1a7f37"
"""Colour of the frame around the first tile of a row."""


@dataclass(frozen=True)
class TileRow:
    """A row of tiles on a sheet."""

    title: str
    numbers: Sequence[int]
    """Row numbers of the tiles, at most `COLUMNS`."""
    captions: Sequence[str]
    """First line of the caption of each tile. The second line is the id of the tile. In a collection, the third line is
    the date and the file of the scene."""
    framed: bool = False
    """Whether the first tile has a frame."""
    colour: str | None = None
    """Colour of a square before the title."""


def draw_tile_rows(
    tiles: AllTiles, title: str, rows: Sequence[TileRow], remark: str = "", above: Image.Image | None = None
) -> Drawn:
    """Draw rows of tiles.

    Args:
        tiles: all tiles.
        title: first line of the heading.
        rows: the rows.
        remark: text at the end of the second line of the heading.
        above: picture between the heading and the rows.

    Raises:
        RasterChangedError: if a raster was changed after it was embedded.
        DataError: if a raster is missing or cannot be read.
    """
    numbers = list(dict.fromkeys(number for row in rows for number in row.numbers))
    datasets = open_datasets(tiles, numbers)
    pictures = _pictures(tiles, numbers, datasets)
    scenes = _scene_lines(tiles, datasets)
    sections = [Section(row.title, _captioned(tiles, row, pictures, scenes), row.colour) for row in rows]
    subtitle = "   |   ".join(filter(None, [tiles.files.name, f"model {tiles.model}", remark]))
    sheet = draw_sheet(title, subtitle, sections, COLUMNS, lines=2 if scenes else 1, thumb=THUMB, above=above)
    data = io.BytesIO()
    sheet.save(data, "PNG", optimize=True)
    return Drawn(data.getvalue(), datasets)


def _pictures(tiles: AllTiles, numbers: Sequence[int], datasets: Sequence[Dataset]) -> dict[int, Image.Image]:
    """Return the thumbnails by the row numbers of the tiles."""
    if not numbers:
        return {}
    try:
        found = [Tile.model_validate(row) for row in tiles.take(np.array(numbers, np.int64))]
    except ValidationError as error:
        raise tiles.files.impossible_row(error) from error
    images: dict[tuple[str, str], Image.Image] = {}
    for dataset in datasets:
        images |= thumbnails(dataset, [tile for tile in found if tile.dataset_id == dataset.id], THUMB)
    return {number: images[tile.dataset_id, tile.tile_id] for number, tile in zip(numbers, found, strict=True)}


def _scene_lines(tiles: AllTiles, datasets: Sequence[Dataset]) -> dict[str, str]:
    """Return the line about the scene of a tile, by dataset id. Empty if the tiles are of one dataset."""
    if isinstance(tiles.owner, Dataset):
        return {}
    scenes = scene_fields(tiles.owner.catalogue, [dataset.id for dataset in datasets])
    return {
        name: scene_text(scene["scene"], "" if scene["acquired"] is None else scene["acquired"].date().isoformat())
        for name, scene in scenes.items()
    }


def _captioned(
    tiles: AllTiles, row: TileRow, pictures: dict[int, Image.Image], scenes: dict[str, str]
) -> list[CaptionedPicture]:
    captioned = []
    for place, (number, caption) in enumerate(zip(row.numbers, row.captions, strict=True)):
        frame = _FRAME if row.framed and place == 0 else None
        scene = scenes.get(tiles.dataset_ids[number].as_py())
        lines = (tiles.tile_ids[number].as_py(), *([] if scene is None else [scene]))
        captioned.append(CaptionedPicture(pictures[number], caption, lines, frame))
    return captioned
