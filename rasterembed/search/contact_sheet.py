"""The contact sheet: the query and the tiles that were found, cut from their rasters, as one PNG."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from rasterio.errors import RasterioError
from rasterio.windows import Window

from rasterembed.dataset.dataset import Dataset
from rasterembed.dataset.plan import Plan
from rasterembed.errors import DataError
from rasterembed.raster.pixels import Pixels, open_pixels
from rasterembed.raster.radiometry import ResolvedRadiometry
from rasterembed.raster.source import check_unchanged
from rasterembed.search.answer import Answer, Example, Hit
from rasterembed.search.chip import read_chip
from rasterembed.search.output import check_writable, write_file
from rasterembed.search.tiles import Tile

MAX_SHOWN = 120
"""Hits on a sheet; the rest are in the table."""

_THUMB, _GAP, _MARGIN, _FRAME = 208, 18, 32, 5
_CAPTION = 62
_MOST_COLUMNS = 8

_PAPER, _INK, _SOFT, _EMPTY, _HATCH = "#ffffff", "#1d2329", "#6a737d", (238, 240, 243), (222, 226, 230)
_FRAMES = {"query": "#1d2329", "like": "#1a7f37", "unlike": "#cf222e"}


@dataclass(frozen=True)
class _Card:
    picture: Image.Image
    head: str
    lines: tuple[str, ...]
    frame: str | None = None


def write_sheet(answer: Answer, datasets: Sequence[Dataset], path: Path) -> None:
    """Write the contact sheet, whole or not at all; a file that is there is replaced.

    Args:
        answer: what was found.
        datasets: the datasets that were searched.
        path: a file name that ends in `.png`.

    Raises:
        UsageError: if it does not.
        DataError: if a raster is gone, cannot be read, or was changed since it was embedded.
    """
    check_writable(path, ".png")
    by_id = {dataset.id: dataset for dataset in datasets}
    tiles = [example.tile for example in answer.examples if example.tile]
    pictures: dict[tuple[str, str], Image.Image] = {}
    for dataset in datasets:
        everything: tuple[Tile | Hit, ...] = (*tiles, *answer.hits[:MAX_SHOWN])
        wanted = [item for item in everything if item.dataset_id == dataset.id]
        if wanted:
            pictures |= _cut_out(dataset, wanted)
    examples = [_example_card(example, by_id, pictures) for example in answer.examples]
    hits = [_hit_card(hit, pictures) for hit in answer.hits[:MAX_SHOWN]]
    sheet = _draw(answer, examples, hits)
    data = io.BytesIO()
    sheet.save(data, "PNG", optimize=True)
    write_file(path, data.getvalue())


def _example_card(
    example: Example, datasets: dict[str, Dataset], pictures: dict[tuple[str, str], Image.Image]
) -> _Card:
    if example.tile is not None:
        cut = pictures[example.tile.dataset_id, example.tile.tile_id]
        place = _place(datasets[example.tile.dataset_id], example.tile)
        return _Card(cut, example.role, (place, example.label), _FRAMES[example.role])
    first = next(iter(datasets.values()))
    pixels, valid, radiometry = read_chip(first.plan, first.store, str(example.image))
    side = first.plan.sharding.grid.size
    return _Card(picture(pixels, valid, radiometry, side), example.role, (example.label,), _FRAMES[example.role])


def _hit_card(hit: Hit, pictures: dict[tuple[str, str], Image.Image]) -> _Card:
    head = f"{hit.rank}    {hit.distance:.4f}"
    return _Card(pictures[hit.dataset_id, hit.tile_id], head, (hit.place(), hit.tile_id))


def _place(dataset: Dataset, tile: Tile) -> str:
    middle = dataset.lonlat(tile.col_off + tile.width / 2, tile.row_off + tile.height / 2)
    if middle is None:
        return f"px {tile.col_off + tile.width // 2}, {tile.row_off + tile.height // 2}"
    return "{:.5f}, {:.5f}".format(*middle)


def _cut_out(dataset: Dataset, tiles: Iterable[Tile | Hit]) -> dict[tuple[str, str], Image.Image]:
    """Pictures of tiles, read in the order of the raster's rows."""
    plan, store, uri = dataset.plan, dataset.store, dataset.plan.source.uri
    check_unchanged(store, plan.source, mask_file=plan.profile.mask_file)
    pictures = {}
    with open_pixels(store, uri, plan.profile) as raster:
        for tile in sorted(tiles, key=lambda t: (t.row_off, t.col_off)):
            pictures[tile.dataset_id, tile.tile_id] = _read(raster, plan, tile)
    return pictures


def _read(raster: Pixels, plan: Plan, tile: Tile | Hit) -> Image.Image:
    window = Window(tile.col_off, tile.row_off, tile.width, tile.height)
    try:
        pixels, valid = raster.read(plan.radiometry.distinct_bands, window)
    except RasterioError as error:
        raise DataError(f"{plan.source.uri}: tile {tile.tile_id} cannot be read: {error}") from error
    pixels = plan.radiometry.channels(pixels, plan.profile)
    return picture(pixels, valid, plan.radiometry, plan.sharding.grid.size)


def picture(
    pixels: NDArray[np.generic], valid: NDArray[np.bool_], radiometry: ResolvedRadiometry, side: int
) -> Image.Image:
    """A tile as the model sees its colours, at the size of a thumbnail; where there is nothing, it is hatched.

    Args:
        pixels: source values, shape (1 or 3, rows, columns), up to side x side.
        valid: valid pixels, shape (rows, columns).
        radiometry: how values become colour.
        side: side of a whole tile, px.
    """
    colours = np.moveaxis(np.nan_to_num(radiometry.scaled(pixels)) * 255, 0, -1).round().astype(np.uint8)
    rows, columns = np.indices((side, side))
    period = max(side // 14, 2)
    stripes = ((rows + columns) // period) % 2 == 0
    whole = np.where(stripes[..., None], _EMPTY, _HATCH).astype(np.uint8)
    height, width = valid.shape
    whole[:height, :width][valid] = colours[valid]
    return Image.fromarray(whole).resize((_THUMB, _THUMB), Image.Resampling.LANCZOS)


def _draw(answer: Answer, examples: Sequence[_Card], hits: Sequence[_Card]) -> Image.Image:
    columns = min(_MOST_COLUMNS, max(4, round((1.6 * max(len(hits), 1)) ** 0.5)))
    width = 2 * _MARGIN + columns * _THUMB + (columns - 1) * _GAP
    cell = _THUMB + _CAPTION + _GAP
    heading = 78
    section = 34
    rows = [-(-len(cards) // columns) for cards in (examples, hits)]
    height = 2 * _MARGIN + heading + sum(section + n * cell for n in rows) - _GAP
    sheet = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    y = _MARGIN
    _text(draw, (_MARGIN, y), answer.query, 24, _INK, width - 2 * _MARGIN)
    _text(draw, (_MARGIN, y + 36), _subtitle(answer), 14, _SOFT, width - 2 * _MARGIN)
    y += heading
    more = "" if len(hits) == len(answer.hits) else f", {len(hits)} of {len(answer.hits)}"
    for title, cards, count in (
        ("looked for", examples, rows[0]),
        (f"nearest tiles, with cosine distance{more}", hits, rows[1]),
    ):
        draw.line([(_MARGIN, y), (width - _MARGIN, y)], fill="#d0d7de")
        _text(draw, (_MARGIN, y + 8), title, 14, _SOFT, width - 2 * _MARGIN)
        y += section
        for i, card in enumerate(cards):
            place = _MARGIN + (i % columns) * (_THUMB + _GAP), y + (i // columns) * cell
            _draw_card(sheet, draw, card, place)
        y += count * cell
    return sheet


def _subtitle(answer: Answer) -> str:
    names = ", ".join(engine.dataset_id for engine in answer.engines)
    engines = ", ".join(dict.fromkeys(engine.name for engine in answer.engines))
    return f"{names}   |   model {answer.model}   |   search {engines}"


def _draw_card(sheet: Image.Image, draw: ImageDraw.ImageDraw, card: _Card, place: tuple[int, int]) -> None:
    x, y = place
    sheet.paste(card.picture, place)
    if card.frame:
        draw.rectangle([x, y, x + _THUMB - 1, y + _THUMB - 1], outline=card.frame, width=_FRAME)
    _text(draw, (x, y + _THUMB + 6), card.head, 16, card.frame or _INK, _THUMB)
    for i, line in enumerate(card.lines):
        _text(draw, (x, y + _THUMB + 27 + 17 * i), line, 13, _SOFT, _THUMB)


def _text(draw: ImageDraw.ImageDraw, place: tuple[int, int], text: str, size: int, colour: str, room: int) -> None:
    """One line, cut off where there is no more room."""
    font = ImageFont.load_default(size)
    if draw.textlength(text, font=font) > room:
        while text and draw.textlength(f"{text}...", font=font) > room:
            text = text[:-1]
        text += "..."
    draw.text(place, text, font=font, fill=colour)
