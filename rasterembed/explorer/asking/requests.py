"""The bodies of requests that ask for tiles. They hold the fields of `Query` and `Where`, but never the name of a file.

An image is named by the digest that its upload returned. A polygon is part of the request.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, FiniteFloat, model_validator

from rasterembed.errors import UsageError
from rasterembed.explorer.asking.library_options import library_options
from rasterembed.explorer.wrong_requests import unknown_field
from rasterembed.options_model import OptionsModel
from rasterembed.search.query import DEFAULT_K, Pick, Query, TileRef, Where

MAX_K = 500
"""Largest number of tiles in an answer of the explorer. The page shows a picture of each of them."""

MAX_EXAMPLES = 100
"""Largest number of liked and unliked tiles in a request. Each of them takes up to 20 ms to look up."""

MAX_CORNERS = 10_000
"""Largest number of corners of a polygon."""

MAX_SCENES = 100
"""Largest number of names and patterns of scenes in a request."""

_DIGEST_LETTERS = frozenset("0123456789abcdef")


def _check_tile(name: str) -> str:
    TileRef.parse(name)
    return name


def _check_digest(digest: str) -> str:
    if len(digest) != 64 or not _DIGEST_LETTERS.issuperset(digest):
        raise ValueError("an image is named by the 64 letters and digits that its upload returned: send it again")
    return digest


TileName = Annotated[str, Field(max_length=200), AfterValidator(_check_tile)]
"""Name of a tile, such as `scene/r000012_c000034`."""

Digest = Annotated[str, Field(max_length=200), AfterValidator(_check_digest)]
"""SHA-256 digest of an uploaded image, in hexadecimal."""


def _check_fits(kind: type[OptionsModel], values: dict[str, Any]) -> None:
    """Refuse values that the library refuses, so that the error has their place in the body."""
    try:
        library_options(kind, **values)
    except UsageError as error:
        raise ValueError(str(error)) from error


Longitude = Annotated[FiniteFloat, Field(ge=-360, le=360)]
Latitude = Annotated[FiniteFloat, Field(ge=-90, le=90)]

Position = tuple[Longitude, Latitude]
"""Longitude and latitude of a corner, in degrees."""

Ring = Annotated[list[Position], Field(min_length=4, max_length=MAX_CORNERS)]
"""Corners of a ring. The last one equals the first one."""

Rings = Annotated[list[Ring], Field(min_length=1, max_length=MAX_CORNERS)]
"""Rings of a polygon: the outer ring, and then the holes."""


class _Request(BaseModel):
    """Base of all bodies. An unknown field is an error, because it may be a filter that would have no effect."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _has_only_known_fields(cls, values: Any) -> Any:
        """Name the known fields in the error. Pydantic, which refuses unknown fields too, does not name them."""
        for name in values if isinstance(values, dict) else ():
            if name not in cls.model_fields:
                raise ValueError(unknown_field(name, cls.model_fields))
        return values


_TILE = {"tile": "r000001_c000002"}
"""The query of the examples in the description of the API."""


def _example(**fields: Any) -> ConfigDict:
    """Return the settings of a body that has an example in the description of the API. Errors show it too."""
    return ConfigDict(json_schema_extra={"examples": [fields]})


class Polygon(_Request):
    """A polygon in GeoJSON. If it crosses the antimeridian, its longitudes go on beyond 180 or -180."""

    type: Literal["Polygon"]
    coordinates: Rings


class MultiPolygon(_Request):
    """Several polygons in GeoJSON. See `Polygon`."""

    type: Literal["MultiPolygon"]
    coordinates: Annotated[list[Rings], Field(min_length=1, max_length=MAX_CORNERS)]


class AskedQuery(_Request):
    """The examples of a question. See `rasterembed.search.query.Query`."""

    tile: TileName | None = Field(default=None, description="Tile to look for. In a collection: dataset_id/tile_id.")
    lonlat: Position | None = Field(default=None, description="Longitude and latitude of a place in the example tile.")
    image: Digest | None = Field(default=None, description="SHA-256 digest that the upload of an image returned.")
    like: list[TileName] = Field(
        default=[], max_length=MAX_EXAMPLES, description="Liked tiles. The search finds similar tiles."
    )
    unlike: list[TileName] = Field(
        default=[], max_length=MAX_EXAMPLES, description="Unliked tiles. The search avoids similar tiles."
    )
    include_query: bool = Field(default=False, description="Allow the query's tiles in the answer.")

    @model_validator(mode="after")
    def _fits_the_library(self) -> AskedQuery:
        _check_fits(Query, self.model_dump())
        return self


class AskedWhere(_Request):
    """The filters of a question. See `rasterembed.search.query.Where`."""

    bbox: tuple[Longitude, Latitude, Longitude, Latitude] | None = Field(
        default=None,
        description="West, south, east, north in degrees. If west > east, the box crosses the antimeridian.",
    )
    polygon: Annotated[Polygon | MultiPolygon, Field(discriminator="type")] | None = Field(
        default=None,
        description=f"GeoJSON in longitude and latitude, with at most {MAX_CORNERS} corners: only tiles that "
        "intersect it.",
    )
    min_valid_fraction: Annotated[FiniteFloat, Field(ge=0.0, le=1.0)] | None = Field(
        default=None, description="Only tiles with at least this share of valid pixels."
    )
    since: Annotated[str, Field(max_length=40)] | None = Field(
        default=None, description="Only tiles acquired on or after this date, such as 2024-06-01, or time in UTC."
    )
    until: Annotated[str, Field(max_length=40)] | None = Field(
        default=None, description="Only tiles acquired on or before this date, or time in UTC."
    )
    max_cloud_cover: Annotated[FiniteFloat, Field(ge=0.0, le=100.0)] | None = Field(
        default=None, description="Only tiles of scenes with at most this cloud cover in percent."
    )
    scenes: list[Annotated[str, Field(max_length=1000)]] = Field(
        default=[],
        max_length=MAX_SCENES,
        description="Only tiles of scenes whose dataset id or address matches one of these names or patterns.",
    )
    pick: Pick = Field(
        default="all", description="Of several scenes that cover a tile: all, only the latest, or only the clearest."
    )

    @model_validator(mode="after")
    def _fits_the_library(self) -> AskedWhere:
        _check_fits(Where, self.model_dump(exclude={"polygon"}))
        return self

    @model_validator(mode="after")
    def _has_few_corners(self) -> AskedWhere:
        if self.polygon is not None:
            polygons = [self.polygon.coordinates] if self.polygon.type == "Polygon" else self.polygon.coordinates
            corners = sum(len(ring) for rings in polygons for ring in rings)
            if corners > MAX_CORNERS:
                raise ValueError(f"`polygon` has {corners} corners: give at most {MAX_CORNERS}")
        return self


class SimilarityRequest(_Request):
    """A question for the similarity of all tiles to the examples."""

    model_config = _example(query=_TILE)

    query: AskedQuery


class SearchRequest(_Request):
    """A question for the k tiles that are nearest to the examples and pass the filters."""

    model_config = _example(query=_TILE, where={"min_valid_fraction": 0.9}, k=5)

    query: AskedQuery
    where: AskedWhere = AskedWhere()
    k: int = Field(default=DEFAULT_K, ge=1, le=MAX_K, description="Number of tiles.")


class ClickRequest(_Request):
    """A question for the tiles that are nearest to the tile at a place, and pass the filters.

    The filters hold for the tile at the place too, but an area does not.
    """

    model_config = _example(lonlat=[24.93, 60.2], k=5)

    lonlat: Position = Field(description="Longitude and latitude of the place in degrees.")
    date: Annotated[str, Field(max_length=40)] | None = Field(
        default=None,
        description="Only scenes of this date give the tile at the place, whatever the dates of the filters are.",
    )
    where: AskedWhere = AskedWhere()
    k: int = Field(default=DEFAULT_K, ge=1, le=MAX_K, description="Number of tiles.")


class ExportFormat(StrEnum):
    """Formats in which an answer can be downloaded."""

    GEOJSON = "geojson"
    GEOPARQUET = "geoparquet"
    PYTHON = "python"
    """A Python program that gives the same answer."""


class ExportRequest(SearchRequest):
    """A question whose answer is downloaded as a file."""

    model_config = _example(query=_TILE, k=5, format="geojson")

    format: ExportFormat
