"""The answer to a query: the nearest tiles, and which search engine found them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

from rasterembed.search.engines.engine import EngineName, NoIndexReason
from rasterembed.search.tile_lookup import Tile

Role = Literal["query", "like", "unlike"]
"""What an example is for: the query itself, a tile to find more of, or a tile to keep away from."""

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
    """Longitude of the tile's centre, degrees; None if the raster has no place on Earth."""
    lat: float | None
    """Latitude of the tile's centre, degrees; None if the raster has no place on Earth."""
    row: int
    """Row in the grid, from 0."""
    col: int
    """Column in the grid, from 0."""
    col_off: int
    """Left edge of the window, px."""
    row_off: int
    """Upper edge of the window, px."""
    width: int
    """Columns of the window, px."""
    height: int
    """Rows of the window, px."""
    valid_fraction: float
    """Share of valid pixels, 0 to 1."""
    acquired: datetime | None
    """When the raster was acquired; None if its file does not say."""
    geometry: bytes
    """Footprint as WKB, in longitude and latitude, or in pixels if the raster has no place on Earth."""

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
    """Path or s3://bucket/key of the image; None if the example is a tile."""


class UsedEngine(BaseModel):
    """The search engine that searched one dataset."""

    model_config = ConfigDict(frozen=True)

    dataset_id: str
    name: EngineName
    settings: str = ""
    """Settings and measured recall of the engine, as text for people; empty for the exact scan."""
    recall: float | None = None
    """Recall measured when the index was built, 0 to 1; None for the exact scan."""
    no_index: NoIndexReason | None = None
    """Why no index answered; None if one did."""
    detail: str = ""
    """See `NoIndexReason.describe`."""

    @property
    def why(self) -> str:
        """Why this engine answered, or how: text for people."""
        return self.settings if self.no_index is None else self.no_index.describe(self.detail)


class Answer(BaseModel):
    """Up to k tiles, nearest first. There are fewer than k only if fewer match."""

    model_config = ConfigDict(frozen=True)

    query: str
    """The query as text for people."""
    examples: tuple[Example, ...]
    model: str
    """Model that made the vectors, or `demo (untrained)`."""
    k: int
    """Number of tiles asked for."""
    hits: tuple[Hit, ...]
    engines: tuple[UsedEngine, ...]
    """One for each dataset that was searched. A dataset outside the dates asked for is not searched."""
    seconds: float
    """Time from the query to the answer, seconds."""

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
        return "\n".join([self.summary(), "", *_align([heads, *rows]), "", *self.notes()])

    def summary(self) -> str:
        """Return the query and the model in one line."""
        return f"{self.query}; model: {self.model}"

    def notes(self) -> list[str]:
        """Return lines that say which engine answered and whether there are fewer than k tiles."""
        notes = [
            f"{engine.dataset_id}: answered by {_ENGINE_TEXTS[engine.name]} ({engine.why})" for engine in self.engines
        ]
        if len(self.hits) < self.k:
            notes.append(f"{len(self.hits)} of {self.k} asked for: no other tile matches")
        return notes


def _align(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows of cells as lines with aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
