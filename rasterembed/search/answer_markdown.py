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


def answer_markdown(answer: Answer, datasets: Sequence[Dataset]) -> str:
    """Return an answer as Markdown. All texts are escaped. The pictures are part of the Markdown.

    If a raster cannot be read, for example because its file was moved, the rows of its tiles have no picture.

    Args:
        answer: the answer.
        datasets: the datasets that were searched. The pictures are cut from their rasters.
    """
    table = answer_table(answer, datasets, _SIDE)
    dated = answer.collection is not None
    lines = [
        escape_markdown(answer.summary()),
        "",
        f"| # | | dataset | tile | distance | place | valid |{' date | cloud |' if dated else ''}",
        f"|---:|---|---|---|---:|---|---:|{'---|---:|' if dated else ''}",
        *(_row(hit, picture, dated) for hit, picture in table.rows),
        "",
        *(f"- {escape_markdown(note)}" for note in table.notes),
    ]
    return "\n".join(lines) + "\n"


def _row(hit: Hit, picture: str | None, dated: bool) -> str:
    tile = escape_markdown(hit.tile_id)
    cells = [
        str(hit.rank),
        f"![tile {tile}]({picture})" if picture else "",
        escape_markdown(cut(hit.dataset_id, _ID_LETTERS)),
        tile,
        hit.distance_text(),
        escape_markdown(hit.place()),
        f"{hit.valid_fraction:.0%}",
        *([hit.date_text(), hit.cloud_text()] if dated else []),
    ]
    return f"| {' | '.join(cells)} |"
