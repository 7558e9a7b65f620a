"""What is asked: an example of what to look for, and which tiles may answer."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

DEFAULT_K = 12
"""Tiles in an answer."""

MAX_K = 10_000
"""More rows than this are an export, for which the shards themselves are there."""

EngineChoice = Literal["auto", "scan"]
"""Which search engine answers: `auto` uses a dataset's vector index if it has one, `scan` scans every vector."""

_TILE = re.compile(r"(?:(?P<dataset>[a-z0-9][a-z0-9._-]{0,127})/)?(?P<tile>r[0-9]{6}_c[0-9]{6})")


class TileRef(BaseModel):
    """A tile by its name, and its dataset where several are searched."""

    model_config = ConfigDict(frozen=True)

    tile_id: str
    dataset_id: str | None = None

    @classmethod
    def parse(cls, text: str) -> TileRef:
        """A tile as people write it: `r000012_c000034`, or `dataset/r000012_c000034`.

        Raises:
            ValueError: if it is neither.
        """
        found = _TILE.fullmatch(text.strip())
        if found is None:
            raise ValueError(f"{text!r} is no tile id: they look like r000012_c000034, or dataset/r000012_c000034")
        return cls(tile_id=found["tile"], dataset_id=found["dataset"])


class Query(BaseModel):
    """An example of what to look for: a tile, a place or an image; liked and unliked tiles; or both.

    The first is the query of Rocchio's formula, the liked and unliked tiles are its feedback; see
    `rasterembed.search.examples`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    tile: str | None = Field(default=None, description="Tile id, as r000012_c000034.")
    lonlat: tuple[float, float] | None = Field(
        default=None, description="Longitude and latitude in degrees: the tile that contains the point."
    )
    image: str | None = Field(default=None, description="An image chip: a PNG, JPEG or TIFF file, or s3://bucket/key.")
    like: tuple[str, ...] = Field(default=(), description="Ids of tiles to find more of, separated by commas.")
    unlike: tuple[str, ...] = Field(default=(), description="Ids of tiles to keep away from, separated by commas.")
    include_query: bool = Field(default=False, description="Let the tiles that the query names be among the results.")

    @field_validator("like", "unlike", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        """Commas within a word separate ids, so that `--like A,B` and `--like A --like B` are the same."""
        words = [value] if isinstance(value, str) else value
        if not isinstance(words, list | tuple) or not all(isinstance(word, str) for word in words):
            return value
        return tuple(part.strip() for word in words for part in word.split(",") if part.strip())

    @field_validator("tile", "like", "unlike")
    @classmethod
    def _are_tiles(cls, value: str | tuple[str, ...] | None) -> str | tuple[str, ...] | None:
        for text in (value,) if isinstance(value, str) else value or ():
            TileRef.parse(text)
        return value

    @field_validator("lonlat")
    @classmethod
    def _is_on_earth(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None and not (-180 <= value[0] <= 180 and -90 <= value[1] <= 90):
            raise ValueError("give longitude (-180 to 180), then latitude (-90 to 90), in degrees")
        return value

    @model_validator(mode="after")
    def _starts_once(self) -> Query:
        if sum(start is not None for start in (self.tile, self.lonlat, self.image)) > 1:
            raise ValueError("give one of tile, lonlat and image")
        return self

    @property
    def has_example(self) -> bool:
        """Whether it shows anything to look for."""
        return self.tile is not None or self.lonlat is not None or self.image is not None or bool(self.like)

    def text(self) -> str:
        """The question in a few words."""
        words = []
        if self.tile is not None:
            words.append(f"tile {self.tile}")
        if self.lonlat is not None:
            words.append("{:.5f}, {:.5f}".format(*self.lonlat))
        if self.image is not None:
            words.append(f"image {self.image.rsplit('/', 1)[-1]}")
        words += [
            f"{sign} {', '.join(tiles)}" for sign, tiles in (("like", self.like), ("unlike", self.unlike)) if tiles
        ]
        return "; ".join(words)


class Where(BaseModel):
    """Which tiles may answer. What is left out does not restrict."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bbox: tuple[float, float, float, float] | None = Field(
        default=None,
        description="West, south, east, north in degrees: tiles that meet the box; west > east crosses 180.",
    )
    within: str | None = Field(
        default=None, description="GeoJSON file with polygons in longitude and latitude: tiles that meet them."
    )
    min_valid_fraction: float | None = Field(
        default=None, ge=0.0, le=1.0, description="Tiles with a smaller share of valid pixels are left out."
    )
    since: datetime | date | None = Field(default=None, description="Only datasets acquired at or after it (UTC).")
    until: datetime | date | None = Field(
        default=None, description="Only datasets acquired at or before it (UTC); a date takes in its whole day."
    )

    @field_validator("since", "until", mode="before")
    @classmethod
    def _day_or_instant(cls, value: Any) -> Any:
        """A date alone stays a date; pydantic would read it as that day's midnight."""
        if isinstance(value, str) and re.fullmatch(r"\d{4}-\d{2}-\d{2}", value.strip()):
            return date.fromisoformat(value.strip())
        return value

    @field_validator("bbox")
    @classmethod
    def _is_a_box(cls, box: tuple[float, float, float, float] | None) -> tuple[float, float, float, float] | None:
        if box is not None:
            west, south, east, north = box
            on_earth = all(-180 <= x <= 180 for x in (west, east)) and all(-90 <= y <= 90 for y in (south, north))
            if not on_earth or south > north:
                raise ValueError("give west, south, east, north in degrees, south below north")
        return box

    def acquired_within(self, acquired: datetime | None) -> bool:
        """Whether a dataset of this time of acquisition may answer; without one, only if no date was asked for."""
        if self.since is None and self.until is None:
            return True
        if acquired is None:
            return False
        first = self.since is None or acquired >= _instant(self.since, time.min)
        last = self.until is None or acquired <= _instant(self.until, time.max)
        return first and last


def _instant(when: date | datetime, of_day: time) -> datetime:
    if not isinstance(when, datetime):
        when = datetime.combine(when, of_day)
    return when if when.tzinfo else when.replace(tzinfo=UTC)
