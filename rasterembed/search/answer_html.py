"""Show an answer in a notebook: a table with a small picture of each tile."""

from __future__ import annotations

from collections.abc import Sequence

from rasterembed.dataset.dataset import Dataset
from rasterembed.escape import escape_html
from rasterembed.search.answer import Answer, Hit
from rasterembed.search.answer_table import answer_table

_SIDE = 96
"""Width and height of a picture, px."""


def answer_html(answer: Answer, datasets: Sequence[Dataset]) -> str:
    """Return an answer as HTML. All texts are escaped. The pictures are part of the HTML.

    If a raster cannot be read, for example because its file was moved, its tiles have no picture, and a note
    below the table says why.

    Args:
        answer: the answer.
        datasets: the datasets that were searched. The pictures are cut from their rasters.
    """
    table = answer_table(answer, datasets, _SIDE)
    rank, *heads = answer.heads
    rows = [
        [cells[rank], _picture(hit, picture), *(escape_html(cells[head]) for head in heads)]
        for hit, picture in table.rows
        for cells in [answer.cells(hit)]
    ]
    return "\n".join(
        [
            "<table>",
            f"<caption>{escape_html(answer.summary())}</caption>",
            f"<thead><tr>{''.join(f'<th>{head}</th>' for head in (rank, '', *heads))}</tr></thead>",
            "<tbody>",
            *(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows),
            "</tbody>",
            "</table>",
            *(f"<div>{escape_html(note)}</div>" for note in table.notes),
        ]
    )


def _picture(hit: Hit, address: str | None) -> str:
    if address is None:
        return ""
    return f'<img src="{address}" width="{_SIDE}" height="{_SIDE}" alt="{escape_html(f"tile {hit.tile_id}")}">'
