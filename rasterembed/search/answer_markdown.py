"""Show an answer as Markdown: a table with a small picture of each tile. Prefect shows the Markdown as an artifact."""

from __future__ import annotations

from collections.abc import Sequence

from rasterembed.dataset.dataset import Dataset
from rasterembed.escape import cut, escape_markdown
from rasterembed.search.answer import Answer, Hit
from rasterembed.search.answer_table import answer_table

_SIDE = 80
"""Width and height of a picture, px."""

_ID_LETTERS = 40
"""Largest number of letters of a dataset's id. A longer id is cut, because the table would be wider than Prefect's
page."""

_NUMBERS = ("distance", "valid", "cloud")
"""Heads of the columns that are aligned at the right."""


def answer_markdown(answer: Answer, datasets: Sequence[Dataset]) -> str:
    """Return an answer as Markdown. All texts are escaped. The pictures are part of the Markdown.

    If a raster cannot be read, for example because its file was moved, its tiles have no picture, and a note
    below the table says why.

    Args:
        answer: the answer.
        datasets: the datasets that were searched. The pictures are cut from their rasters.
    """
    table = answer_table(answer, datasets, _SIDE)
    rank, *heads = answer.heads
    rules = ("---:" if head in _NUMBERS else "---" for head in heads)
    lines = [
        escape_markdown(answer.summary()),
        "",
        f"| {rank} | | {' | '.join(heads)} |",
        f"|---:|---|{'|'.join(rules)}|",
        *(_row(answer, hit, picture) for hit, picture in table.rows),
        "",
        *(f"- {escape_markdown(note)}" for note in table.notes),
    ]
    return "\n".join(lines) + "\n"


def _row(answer: Answer, hit: Hit, picture: str | None) -> str:
    rank, *heads = answer.heads
    cells = answer.cells(hit)
    cells["dataset"] = cut(cells["dataset"], _ID_LETTERS)
    shown = f"![tile {escape_markdown(hit.tile_id)}]({picture})" if picture else ""
    return f"| {' | '.join([cells[rank], shown, *(escape_markdown(cells[head]) for head in heads)])} |"
