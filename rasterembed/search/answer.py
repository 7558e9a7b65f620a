"""What a search answers: the nearest tiles, and who found them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

from rasterembed.search.tiles import Tile

EngineName = Literal["scan", "vss"]
_ENGINES: dict[EngineName, str] = {"scan": "the exact scan", "vss": "the HNSW index"}


class Hit(BaseModel):
    """A tile that was found."""

    model_config = ConfigDict(frozen=True, ser_json_bytes="base64", val_json_bytes="base64")

    rank: int
    """From 1."""
    dataset_id: str
    tile_id: str
    distance: float
    """Cosine distance to the query: 0 in its direction, 1 at a right angle, 2 opposite."""
    lon: float | None
    """Longitude of the tile's middle in degrees; None if the raster has no place on Earth."""
    lat: float | None
    """Latitude, likewise."""
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
    acquired: datetime | None
    """Time of the raster's acquisition, if it is known."""
    geometry: bytes
    """Footprint as WKB, in longitude and latitude, or in pixels if the raster has no place on Earth."""

    def place(self) -> str:
        """Where the tile's middle is, for people."""
        if self.lon is None or self.lat is None:
            return f"px {self.col_off + self.width // 2}, {self.row_off + self.height // 2}"
        return f"{self.lon:.5f}, {self.lat:.5f}"


class Example(BaseModel):
    """What the query showed: a tile, or an image."""

    model_config = ConfigDict(frozen=True)

    role: Literal["query", "like", "unlike"]
    label: str
    """Tile id, or name of the image."""
    tile: Tile | None = None
    image: str | None = None
    """Path, or s3://bucket/key."""


class Engine(BaseModel):
    """Who went through a dataset's vectors, and why not another."""

    model_config = ConfigDict(frozen=True)

    dataset_id: str
    name: EngineName
    why: str
    """In a few words."""
    recall: float | None = None
    """Of the index: the share of the exact answer that it found in a sample when it was built."""


class Answer(BaseModel):
    """Up to k tiles, nearest first; fewer only where fewer match."""

    model_config = ConfigDict(frozen=True)

    query: str
    """The question in a few words."""
    examples: tuple[Example, ...]
    model: str
    """Model of the vectors, or `demo (untrained)`."""
    k: int
    """Tiles asked for."""
    hits: tuple[Hit, ...]
    engines: tuple[Engine, ...]
    """One for each dataset that was gone through."""
    seconds: float
    """From the question to the answer."""

    def __str__(self) -> str:
        """The answer as a table for a terminal."""
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
        return "\n".join([self.summary(), "", *_columns([heads, *rows]), "", *self.notes()])

    def summary(self) -> str:
        """What was asked, in one line."""
        return f"{self.query}; model: {self.model}"

    def notes(self) -> list[str]:
        """Who answered, and whether anything is missing."""
        notes = [f"{engine.dataset_id}: answered by {_ENGINES[engine.name]} ({engine.why})" for engine in self.engines]
        if len(self.hits) < self.k:
            notes.append(f"{len(self.hits)} of {self.k} asked for: no other tile matches")
        return notes


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
