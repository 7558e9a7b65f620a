"""The search that a person sends to a STAC API. It is checked before any request is sent."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime, time
from typing import Any

from pydantic import Field, ValidationError, field_validator, model_validator

from rasterembed.errors import UsageError
from rasterembed.number_text import number_text
from rasterembed.options_model import OptionsModel, ShownValueError, allowed_values
from rasterembed.raster.acquisition_time import first_and_last_day, time_text

EXAMPLE = '{"collections": ["sentinel-2-l2a"], "bbox": [24, 60, 25, 61], "datetime": "2026-06/2026-08"}'
"""A search, as errors show it."""

_OPERATORS = ("eq", "neq", "lt", "lte", "gt", "gte", "startsWith", "endsWith", "contains", "in")
"""Operators of the STAC API query extension."""

_GEOMETRIES = ("Point", "MultiPoint", "LineString", "MultiLineString", "Polygon", "MultiPolygon", "GeometryCollection")

_SHOWN_LETTERS = 1000
"""Largest length of a search in the address of a listing. The catalogue repeats the address in each row."""


class StacSearch(OptionsModel):
    """The body of an Item Search of a STAC API.

    Raises:
        ValidationError: if a key is unknown, or a value cannot be searched for. The text has one line.

    Example:
        >>> search = StacSearch(collections=("sentinel-2-l2a",), datetime="2026-06/2026-08")
        >>> search.datetime
        '2026-06-01T00:00:00Z/2026-08-31T23:59:59Z'
    """

    collections: tuple[str, ...] = Field(default=(), description="Ids of the STAC Collections to search.")
    ids: tuple[str, ...] = Field(default=(), description="Ids of Items.")
    bbox: tuple[float, ...] | None = Field(
        default=None,
        description="West, south, east and north in degrees. If west is greater than east, the box crosses the "
        "antimeridian.",
    )
    intersects: dict[str, Any] | None = Field(default=None, description="A GeoJSON geometry, in place of bbox.")
    datetime: str | None = Field(
        default=None,
        description="A time, or two with a slash between them, such as 2026-06/2026-08. `..` leaves one side open.",
    )
    query: dict[str, dict[str, Any]] | None = Field(
        default=None, description='Conditions on properties, such as {"eo:cloud_cover": {"lt": 10}}.'
    )
    filter: dict[str, Any] | None = Field(default=None, description="A condition in CQL2 JSON.")
    limit: int = Field(
        default=250, ge=1, le=10_000, description="Number of Items in one answer. It does not change what is found."
    )

    @model_validator(mode="before")
    @classmethod
    def _check_keys(cls, value: Any) -> Any:
        if isinstance(value, Mapping):
            unknown = [str(key)[:40] for key in value if key not in cls.model_fields]
            if unknown:
                raise ValueError(f"the key {unknown[0]!r} is unknown: choose from {', '.join(cls.model_fields)}")
        return value

    @field_validator("collections", "ids", mode="before")
    @classmethod
    def _check_names(cls, value: Any) -> Any:
        if not isinstance(value, list | tuple) or not all(isinstance(name, str) and name for name in value):
            raise ValueError('give a list of names, such as ["sentinel-2-l2a"]')
        return value

    @field_validator("bbox")
    @classmethod
    def _check_bbox(cls, bbox: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if bbox is None:
            return None
        if len(bbox) not in (4, 6) or not all(map(math.isfinite, bbox)):
            raise ValueError("give four numbers: west, south, east, north (or six, with heights)")
        half = len(bbox) // 2
        (west, south), (east, north) = bbox[:2], bbox[half : half + 2]
        if not all(-180 <= longitude <= 180 for longitude in (west, east)):
            raise ValueError("west and east are degrees from -180 to 180: the order is west, south, east, north")
        if not -90 <= south <= north <= 90:
            raise ShownValueError(
                f"south {number_text(south)} and north {number_text(north)} are no range within -90 to 90: the order "
                "is west, south, east, north"
            )
        return bbox

    @field_validator("intersects")
    @classmethod
    def _check_geometry(cls, geometry: dict[str, Any] | None) -> dict[str, Any] | None:
        if geometry is None:
            return None
        if geometry.get("type") not in _GEOMETRIES:
            raise ValueError(f"it is no GeoJSON geometry: its type must be one of {', '.join(_GEOMETRIES)}")
        import shapely  # A command without a search does not wait for this import.

        try:
            shape = shapely.from_geojson(json.dumps(geometry))
        except (shapely.errors.ShapelyError, ValueError, RecursionError):
            raise ValueError("it is no GeoJSON geometry: its coordinates cannot be read") from None
        if shape.is_empty:
            raise ValueError("the geometry is empty")
        return geometry

    @field_validator("datetime")
    @classmethod
    def _check_datetime(cls, text: str | None) -> str | None:
        return None if text is None else _interval(text)

    @field_validator("query", mode="before")
    @classmethod
    def _check_query(cls, query: Any) -> Any:
        if query is None:
            return None
        if not isinstance(query, Mapping) or not all(isinstance(each, Mapping) and each for each in query.values()):
            raise ValueError('give conditions such as {"eo:cloud_cover": {"lt": 10}}')
        unknown = next((name for each in query.values() for name in each if name not in _OPERATORS), None)
        if unknown is not None:
            raise ValueError(f"the operator {str(unknown)[:40]!r} is unknown: choose from {', '.join(_OPERATORS)}")
        return query

    @field_validator("filter")
    @classmethod
    def _check_filter(cls, condition: dict[str, Any] | None) -> dict[str, Any] | None:
        if condition is not None and not (isinstance(condition.get("op"), str) and "args" in condition):
            raise ValueError('it is no CQL2 JSON: give {"op": "<=", "args": [{"property": "eo:cloud_cover"}, 10]}')
        return condition

    @model_validator(mode="after")
    def _check_together(self) -> StacSearch:
        if self.bbox is not None and self.intersects is not None:
            raise ValueError("give bbox or intersects, not both")
        if not self.parameters():
            raise ValueError(f"the search is empty and would find everything: give at least one key, such as {EXAMPLE}")
        return self

    @property
    def box(self) -> tuple[float, float, float, float] | None:
        """`bbox` without heights: west, south, east, north in degrees. None if the search has no box."""
        if self.bbox is None:
            return None
        half = len(self.bbox) // 2
        return self.bbox[0], self.bbox[1], self.bbox[half], self.bbox[half + 1]

    def parameters(self) -> dict[str, Any]:
        """Return the conditions as JSON values, without those that are not given, and without `limit`."""
        values = self.model_dump(mode="json", exclude={"limit"}, exclude_none=True)
        return {key: value for key, value in values.items() if value != []}

    def address(self, api: str) -> str:
        """Return the address of the listing that this search finds. Equal searches have equal addresses.

        Args:
            api: URL of the STAC API.

        Returns:
            The URL and the conditions, or a digest of the conditions if they are long.
        """
        text = json.dumps(self.parameters(), sort_keys=True, separators=(",", ":"))
        if len(text) > _SHOWN_LETTERS:
            text = f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
        return f"{api.rstrip('/')}#{text}"


def parse_search(search: str | Mapping[str, Any] | StacSearch | None) -> StacSearch | None:
    """Return the search that a person gave as JSON text, as values, or as a `StacSearch`. None and "" are no search.

    Raises:
        UsageError: if it is no search. The text names the first wrong key.

    Example:
        >>> parse_search('{"datetime": "2026-06/2026-08"}').datetime
        '2026-06-01T00:00:00Z/2026-08-31T23:59:59Z'
    """
    if search is None or search == "":
        return None
    if isinstance(search, StacSearch):
        return search
    try:
        value = json.loads(search) if isinstance(search, str) else search
    except (ValueError, RecursionError) as error:
        raise UsageError(f"`search` is no JSON: give an object such as {EXAMPLE}") from error
    if not isinstance(value, Mapping):
        raise UsageError(f"`search` is no JSON object: give an object such as {EXAMPLE}")
    try:
        return StacSearch.model_validate(value)
    except ValidationError as error:
        location = error.errors(include_url=False, include_input=False)[0]["loc"]
        place = "".join(f"{str(part)[:40]}: " for part in location[:1])
        raise UsageError(f"`search`: {place}{allowed_values(error)}") from error


def _interval(text: str) -> str:
    """Return a time, or an interval of two times, in the form that every STAC API reads (RFC 3339, UTC).

    A year, a month or a day stands for all of its seconds.
    """
    parts = text.strip().split("/")
    if len(parts) > 2:
        raise ValueError("give one time, or two with a slash between them, such as 2026-06/2026-08")
    if len(parts) == 1:
        first, last = _first_and_last(parts[0])
        return first if first == last else f"{first}/{last}"
    start = ".." if parts[0] in ("", "..") else _first_and_last(parts[0])[0]
    stop = ".." if parts[1] in ("", "..") else _first_and_last(parts[1])[1]
    if start == stop == "..":
        raise ValueError("both sides of the interval are open: leave datetime out")
    if ".." not in (start, stop) and datetime.fromisoformat(start) > datetime.fromisoformat(stop):
        raise ShownValueError(f"the interval begins at {start}, after its end at {stop}")
    return f"{start}/{stop}"


def _first_and_last(text: str) -> tuple[str, str]:
    """Return the first and the last second of a time that is a year, a month, a day or an exact time."""
    try:
        days = first_and_last_day(text)
        if days is None:
            exact = datetime.fromisoformat(text)
            if "T" not in text.upper() and " " not in text:
                raise ValueError  # Python also reads weeks, such as 2026-W03, which STAC APIs do not know.
            moment = time_text(exact if exact.tzinfo is not None else exact.replace(tzinfo=UTC))
            return moment, moment
        start = datetime.combine(days[0], time.min, UTC)
        stop = datetime.combine(days[1], time(23, 59, 59), UTC)
    except ValueError:
        raise ShownValueError(
            f"{text[:40]!r} is no time: give a year, a month, a day or an exact time, such as 2026, 2026-06, "
            "2026-06-21 or 2026-06-21T09:30:00Z"
        ) from None
    return time_text(start), time_text(stop)
