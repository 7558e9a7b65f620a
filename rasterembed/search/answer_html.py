"""Show an answer in a notebook: a table with a small picture of each tile."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

from PIL import Image
from rasterio.errors import RasterioError

from rasterembed.dataset.dataset import Dataset
from rasterembed.errors import RasterEmbedError
from rasterembed.escape import escape_html
from rasterembed.search.answer import Answer
from rasterembed.search.thumbnails import thumbnails

MAX_PICTURES = 24
"""Largest number of pictures. Each takes about 5 kB in the notebook's file."""

MAX_ROWS = 100
"""Largest number of tiles in the table."""

_SIDE = 96
"""Width and height of a picture, px."""


def answer_html(answer: Answer, datasets: Sequence[Dataset]) -> str:
    """Return an answer as HTML. Its texts are escaped, and its pictures are part of it.

    If a raster cannot be read, for example because it was moved, its tiles have a row without a picture.

    Args:
        answer: the answer.
        datasets: the datasets that were searched. The pictures are cut from their rasters.
    """
    pictures = _pictures(answer, datasets)
    heads = ["#", "", "dataset", "tile", "distance", "place", "valid"]
    rows = [
        [
            str(hit.rank),
            pictures.get((hit.dataset_id, hit.tile_id), ""),
            *(
                escape_html(text)
                for text in (
                    hit.dataset_id, hit.tile_id, f"{hit.distance:.6f}", hit.place(), f"{hit.valid_fraction:.0%}",
                )
            ),
        ]
        for hit in answer.hits[:MAX_ROWS]
    ]  # fmt: skip
    notes = answer.notes()
    if len(answer.hits) > MAX_ROWS:
        notes.insert(0, f"{MAX_ROWS} of {len(answer.hits)} tiles are shown")
    return "\n".join(
        [
            "<table>",
            f"<caption>{escape_html(answer.summary())}</caption>",
            f"<thead><tr>{''.join(f'<th>{head}</th>' for head in heads)}</tr></thead>",
            "<tbody>",
            *(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows),
            "</tbody>",
            "</table>",
            *(f"<div>{escape_html(note)}</div>" for note in notes),
        ]
    )


def _pictures(answer: Answer, datasets: Sequence[Dataset]) -> dict[tuple[str, str], str]:
    """Return pictures as HTML by dataset and tile id. A dataset whose raster cannot be read has no picture."""
    pictures: dict[tuple[str, str], str] = {}
    for dataset in datasets:
        hits = [hit for hit in answer.hits[:MAX_PICTURES] if hit.dataset_id == dataset.id]
        if not hits:
            continue
        try:
            images = thumbnails(dataset, hits, _SIDE)
        except (RasterEmbedError, RasterioError):
            continue
        for (dataset_id, tile_id), image in images.items():
            label = escape_html(f"tile {tile_id}")
            pictures[dataset_id, tile_id] = (
                f'<img src="{_data_uri(image)}" width="{_SIDE}" height="{_SIDE}" alt="{label}">'
            )
    return pictures


def _data_uri(image: Image.Image) -> str:
    data = io.BytesIO()
    image.save(data, "WEBP", quality=85)
    return f"data:image/webp;base64,{base64.b64encode(data.getvalue()).decode()}"
