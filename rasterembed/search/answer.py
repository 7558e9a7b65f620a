"""The answer to a query: the nearest tiles, and the search engine that found these tiles."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

from rasterembed.escape import escape_terminal
from rasterembed.search.engines.engine import EngineName, NoIndexReason
from rasterembed.search.tile_lookup import Tile

Role = Literal["query", "like", "unlike"]
"""Role of an example. `query`: the example itself. `like`: find similar tiles. `unlike`: avoid similar tiles."""

_ENGINE_TEXTS: dict[EngineName, str] = {"scan": "the exact scan", "vss": "the HNSW index"}


class Hit(BaseModel):
    """A tile of the answer."""

    model_config = ConfigDict(frozen=True, ser_json_bytes="base64", val_json_bytes="base64")

    rank: int
    """Place in the answer, from 1."""
    dataset_id: str
    tile_id: str
    distance: float
    """Cosine distance to the query: 0 for the same direction, 1 for a right angle, 2 for the opposite direction."""
    lon: float | None
    """Longitude of the tile's centre, degrees. None if the raster has no place on Earth."""
    lat: float | None
    """Latitude of the tile's centre, degrees. None if the raster has no place on Earth."""
    row: int
    """Row in the grid, from 0."""
    col: int
    """Column in the grid, from 0."""
    col_off: int
    """Left edge of the window, px."""
    row_off: int
    """Upper edge of the window, px."""
    width: int
    """Width of the window, px."""
    height: int
    """Height of the window, px."""
    valid_fraction: float
    """Share of valid pixels, 0 to 1."""
    acquired: datetime | None
    """The raster's time of acquisition. None if the raster's file does not hold this time."""
    geometry: bytes
    """Footprint as WKB, in longitude and latitude. If the raster has no place on Earth, the unit is pixels."""

    def place(self) -> str:
        """Return the position of the tile's centre as text for people."""
        if self.lon is None or self.lat is None:
            return f"px {self.col_off + self.width // 2}, {self.row_off + self.height // 2}"
        return f"{self.lon:.5f}, {self.lat:.5f}"


class Example(BaseModel):
    """An example of the query: a tile or an image."""

    model_config = ConfigDict(frozen=True)

    role: Role
    label: str
    """Tile id, or name of the image file."""
    tile: Tile | None = None
    image: str | None = None
    """Path or s3://bucket/key of the image. None if the example is a tile."""


class UsedEngine(BaseModel):
    """The search engine that searched one dataset."""

    model_config = ConfigDict(frozen=True)

    dataset_id: str
    name: EngineName
    settings: str = ""
    """Settings and measured recall of the engine, as text for people. Empty for the exact scan."""
    recall: float | None = None
    """Recall that was measured when the index was built, 0 to 1. None for the exact scan."""
    no_index: NoIndexReason | None = None
    """Reason why no vector index was used. None if a vector index was used."""
    detail: str = ""
    """Further text for `NoIndexReason.describe`."""

    @property
    def why(self) -> str:
        """Settings of the vector index, or the reason why no vector index was used. This is text for people."""
        return self.settings if self.no_index is None else self.no_index.describe(self.detail)


class Answer(BaseModel):
    """The k nearest tiles, with the nearest tile first. If fewer than k tiles pass the filters, it has fewer tiles."""

    model_config = ConfigDict(frozen=True)

    query: str
    """The query as text for people."""
    examples: tuple[Example, ...]
    model: str
    """Id of the model that computed the vectors, or `demo (untrained)`."""
    k: int
    """Requested number of tiles."""
    hits: tuple[Hit, ...]
    engines: tuple[UsedEngine, ...]
    """The search engine for each searched dataset. A dataset outside the requested dates is not searched."""
    seconds: float
    """Time from the query to the answer, in seconds."""

    def __str__(self) -> str:
        """Return the answer as a table for a terminal."""
        several = len({engine.dataset_id for engine in self.engines}) > 1
        heads = ["#", *(["dataset"] if several else []), "tile", "distance", "place", "valid"]
        rows = [
            [
                str(hit.rank),
                *([hit.dataset_id] if several else []),
                hit.tile_id,
                f"{hit.distance:.6f}",
                hit.place(),
                f"{hit.valid_fraction:.0%}",
            ]
            for hit in self.hits
        ]
        table = _align([heads, *([escape_terminal(cell) for cell in row] for row in rows)])
        return "\n".join([self.summary(), "", *table, "", *self.notes()])

    def summary(self) -> str:
        """Return the query and the model in one line."""
        return escape_terminal(f"{self.query}; model: {self.model}")

    def notes(self) -> list[str]:
        """Return lines for people. They name the engine of each dataset, and say if there are fewer than k tiles."""
        notes = [
            f"{engine.dataset_id}: answered by {_ENGINE_TEXTS[engine.name]} ({engine.why})" for engine in self.engines
        ]
        if len(self.hits) < self.k:
            notes.append(f"{len(self.hits)} of {self.k} tiles found: no other tile matches")
        return list(map(escape_terminal, notes))


def _align(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows of cells as lines with aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
