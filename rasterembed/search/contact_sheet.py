"""The contact sheet: one PNG with pictures of the query's examples and of the tiles in the answer."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from rasterembed.dataset.dataset import Dataset
from rasterembed.number_text import counted
from rasterembed.search.answer import Answer, Example, Hit, Role
from rasterembed.search.chip import read_chip
from rasterembed.search.output_file import OutputFile, find_output
from rasterembed.search.picture_sheet import THUMB, CaptionedPicture, Section, draw_sheet
from rasterembed.search.searched_collection import scene_text
from rasterembed.search.thumbnails import picture, thumbnails
from rasterembed.search.tile_lookup import Tile
from rasterembed.store.object_store import ObjectStore

MAX_SHOWN = 120
"""Largest number of hits on a sheet."""

_NAMED = 4
"""Largest number of datasets that are named in the heading."""

_MAX_EXAMPLES = 24
"""Largest number of examples on a sheet. A place in a collection gives an example of each scene."""

_MAX_COLUMNS = 8
"""Largest number of thumbnails side by side."""

_FRAMES: dict[Role, str] = {"query": "#1d2329", "like": "#1a7f37", "unlike": "#cf222e"}
"""Colour of an example's frame."""


def write_sheet(
    answer: Answer,
    datasets: Sequence[Dataset],
    file: OutputFile | Path,
    title: str = "nearest tiles, with cosine distance",
) -> None:
    """Write a contact sheet in one atomic step. An existing file is replaced.

    Args:
        answer: the answer to show.
        datasets: the searched datasets, or the result of `shown_datasets`.
        file: the file. Its name ends in `.png`.
        title: title above the tiles of the answer.

    Raises:
        UsageError: if the file's name has another ending, if its folder does not exist, or if it is a searched raster.
        RasterChangedError: if a raster was changed after it was embedded.
        DataError: if a raster is missing or cannot be read.
        StoreError: if the file cannot be written.
    """
    output = find_output(None, file, ".png") if isinstance(file, Path) else file
    output.check_not_read(address for dataset in datasets for address in dataset.plan.rasters)
    by_id = {dataset.id: dataset for dataset in datasets}
    shown_examples = answer.examples[:_MAX_EXAMPLES]
    tiles = [example.tile for example in shown_examples if example.tile]
    pictures: dict[tuple[str, str], Image.Image] = {}
    for dataset in datasets:
        shown: tuple[Tile | Hit, ...] = (*tiles, *answer.hits[:MAX_SHOWN])
        own = [tile for tile in shown if tile.dataset_id == dataset.id]
        if own:
            pictures |= thumbnails(dataset, own, THUMB)
    several = answer.several_datasets or len({hit.dataset_id for hit in answer.hits}) > 1
    dated = answer.collection is not None
    examples = [_captioned_example(example, by_id, pictures, several, dated) for example in shown_examples]
    hits = [_captioned_hit(hit, pictures, several, dated) for hit in answer.hits[:MAX_SHOWN]]
    sheet = _draw(answer, examples, hits, title, lines=3 if several else 2)
    data = io.BytesIO()
    sheet.save(data, "PNG", optimize=True)
    output.write(data.getvalue())


def shown_datasets(store: ObjectStore, answer: Answer, most: int = MAX_SHOWN) -> list[Dataset]:
    """Open the datasets that a contact sheet of the answer needs.

    Args:
        store: the store that was searched.
        answer: the answer.
        most: largest number of hits that are shown.
    """
    examples = answer.examples[:_MAX_EXAMPLES]
    ids = dict.fromkeys(
        [
            *(example.read_like for example in examples if example.read_like is not None),
            *(example.tile.dataset_id for example in examples if example.tile),
            *(hit.dataset_id for hit in answer.hits[:most]),
        ]
    )
    return [Dataset.open(store, dataset_id) for dataset_id in ids]


def _captioned_example(
    example: Example,
    datasets: dict[str, Dataset],
    pictures: dict[tuple[str, str], Image.Image],
    several: bool,
    dated: bool,
) -> CaptionedPicture:
    if example.tile is not None:
        dataset = datasets[example.tile.dataset_id]
        thumbnail = pictures[dataset.id, example.tile.tile_id]
        owner = scene_text(dataset.plan.source.uri, "") if dated else dataset.id
        lines = (_place(dataset, example.tile), example.label, *([owner] if several else []))
        return CaptionedPicture(thumbnail, example.role, lines, _FRAMES[example.role])
    first = datasets[example.read_like] if example.read_like in datasets else next(iter(datasets.values()))
    pixels, valid, radiometry = read_chip(first.store, first.plan, str(example.image))
    side = first.plan.sharding.grid.size
    return CaptionedPicture(
        picture(pixels, valid, radiometry, side, THUMB), example.role, (example.label,), _FRAMES[example.role]
    )


def _captioned_hit(
    hit: Hit, pictures: dict[tuple[str, str], Image.Image], several: bool, dated: bool
) -> CaptionedPicture:
    head = f"{hit.rank}    {hit.distance_text()}"
    owner = scene_text(hit.scene or hit.dataset_id, hit.date_text()) if dated else hit.dataset_id
    lines = (hit.place(), hit.tile_id, *([owner] if several else []))
    return CaptionedPicture(pictures[hit.dataset_id, hit.tile_id], head, lines)


def _place(dataset: Dataset, tile: Tile) -> str:
    """Return the position of the tile's centre as text for people."""
    centre = dataset.lonlat(tile.col_off + tile.width / 2, tile.row_off + tile.height / 2)
    if centre is None:
        return f"px {tile.col_off + tile.width // 2}, {tile.row_off + tile.height // 2}"
    return "{:.5f}, {:.5f}".format(*centre)


def _draw(
    answer: Answer, examples: Sequence[CaptionedPicture], hits: Sequence[CaptionedPicture], title: str, lines: int
) -> Image.Image:
    """Draw the sheet: a heading, the examples if there are any, and the hits in the order of their ranks."""
    shown = "" if len(hits) == len(answer.hits) else f", {len(hits)} of {len(answer.hits)}"
    sections = [*([Section("examples", examples)] if examples else []), Section(f"{title}{shown}", hits)]
    columns = min(_MAX_COLUMNS, max(4, round((1.6 * max(len(hits), 1)) ** 0.5)))
    return draw_sheet(answer.query, _subtitle(answer), sections, columns, lines=lines)


def _subtitle(answer: Answer) -> str:
    ids = [engine.dataset_id for engine in answer.engines] or list(dict.fromkeys(hit.dataset_id for hit in answer.hits))
    if answer.collection is not None:
        ids = [answer.collection.id]
    names = ", ".join(ids[:_NAMED])
    if len(ids) > _NAMED:
        names += f" and {counted(len(ids) - _NAMED, 'more dataset')}"
    engines = ", ".join(dict.fromkeys(engine.name for engine in answer.engines))
    return "   |   ".join([names, f"model {answer.model}", *([f"search {engines}"] if engines else [])])
