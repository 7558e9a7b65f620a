"""The rows, pictures and notes that every table of an answer shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rasterembed.dataset.dataset import Dataset
from rasterembed.number_text import counted
from rasterembed.search.answer import Answer, Hit
from rasterembed.search.thumbnails import thumbnail_uris

MAX_PICTURES = 24
"""Largest number of pictures. A picture takes about 5 kB in a notebook's file, and 3 kB in Prefect's database."""

MAX_ROWS = 100
"""Largest number of tiles in the table."""


_REASONS = 3
"""Largest number of datasets whose missing pictures are explained."""


@dataclass(frozen=True)
class AnswerTable:
    """The content of a table, not yet escaped."""

    rows: Sequence[tuple[Hit, str | None]]
    """The nearest tiles, each with the data URI of its picture. None if the tile has no picture."""
    notes: Sequence[str]
    """Lines below the table."""


def answer_table(answer: Answer, datasets: Sequence[Dataset], side: int) -> AnswerTable:
    """Return the content of the table of an answer.

    If a raster cannot be read, for example because its file was moved, its tiles have no picture, and a note
    says why.

    Args:
        answer: the answer.
        datasets: the datasets that were searched. The pictures are cut from their rasters.
        side: width and height of a picture, px.
    """
    found = thumbnail_uris(answer, datasets, MAX_PICTURES, side)
    rows = [(hit, found.pictures.get((hit.dataset_id, hit.tile_id))) for hit in answer.hits[:MAX_ROWS]]
    reasons = [f"no picture of the tiles of {name}: {why}" for name, why in found.missing.items()]
    notes = [*answer.notes(), *reasons[:_REASONS]]
    if len(reasons) > _REASONS:
        notes.append(f"no pictures of the tiles of {counted(len(reasons) - _REASONS, 'more dataset')}")
    if len(answer.hits) > MAX_ROWS:
        notes.insert(0, f"{MAX_ROWS} of {len(answer.hits)} tiles are shown")
    return AnswerTable(rows, notes)
