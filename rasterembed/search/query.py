"""The query of a search, with its examples, and the filters for the tiles of the answer."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from rasterembed.comma_list import split_commas
from rasterembed.errors import UsageError, path_text
from rasterembed.name_pattern import fits_pattern
from rasterembed.options_model import OptionsModel, ShownValueError
from rasterembed.raster.acquisition_time import first_and_last_day

DEFAULT_K = 12
"""Default number of tiles in an answer."""

MAX_K = 10_000
"""Largest number of tiles in an answer. If you need more vectors, read the shards."""

MAX_EXAMPLES = 1000
"""Largest number of liked and unliked tiles in a query. Each different tile is looked up, which takes about 20 ms."""

Pick = Literal["all", "latest", "clearest"]
"""Which scenes may give a tile of the answer, if several scenes cover the tile. See `Where.pick`."""

EngineChoice = Literal["auto", "scan", "flat", "ivf", "vss"]
"""Search engine that a user chooses. `auto` uses the vector index if there is one. `scan` reads every vector. `flat`,
`ivf` and `vss` use the vector index if it is of this engine. Without such an index, the exact scan answers."""

_TILE = re.compile(
    r"(?:(?P<dataset>[a-z0-9][a-z0-9._-]{0,127})/)?(?P<tile>r[0-9]{6}_c[0-9]{6}|x[+-][0-9]{6,12}_y[+-][0-9]{6,12})"
)


def dataset_names(dataset: str | None, every: bool, collection: str | None = None) -> list[str]:
    """Return the names and patterns of datasets that a person typed. Empty if a collection is searched.

    Args:
        dataset: names and patterns, separated by commas, or None.
        every: whether all datasets of the store are meant.
        collection: name of a collection, or None.

    Raises:
        UsageError: if not exactly one of names, `every` and a collection is given.
    """
    names = list(split_commas(dataset or ""))
    if collection is not None:
        if every or names:
            raise UsageError("give a collection, or datasets, but not both")
        return []
    if every and names:
        raise UsageError("give names of datasets, or `all`, but not both")
    if not every and not names:
        raise UsageError(
            "give the name of a dataset, several names with commas, a pattern such as 'incoming-*', `all`, or a "
            "`collection`"
        )
    return names or ["*"]


class TileRef(BaseModel):
    """Name of a tile. It includes the dataset's name if several datasets are searched."""

    model_config = ConfigDict(frozen=True)

    tile_id: str
    dataset_id: str | None = None
    """Name of the dataset. None means the only dataset of the search."""

    @classmethod
    def parse(cls, text: str) -> TileRef:
        """Parse a tile's name in the form `r000012_c000034` or `dataset/r000012_c000034`.

        In a grid that is anchored to the CRS, the form is `x+000160_y+030000` or `dataset/x+000160_y+030000`.

        Raises:
            ValueError: if the text has another form.

        Example:
            >>> TileRef.parse("scene/r000012_c000034").dataset_id
            'scene'
        """
        match = _TILE.fullmatch(text.strip())
        if match is None:
            several = "; put commas between several tile ids" if len(text.split()) > 1 else ""
            raise ShownValueError(
                f"{text!r} is not a tile id: tile ids look like r000012_c000034, or dataset/r000012_c000034, or "
                f"x+000160_y+030000 in a grid with `anchor=crs`{several}"
            )
        return cls(tile_id=match["tile"], dataset_id=match["dataset"])


def _split(value: Any) -> Any:
    """Split each word at its commas. `--like A,B` then means the same as `--like A --like B`."""
    words = [value] if isinstance(value, str) else value
    if not isinstance(words, list | tuple) or not all(isinstance(word, str) for word in words):
        return value
    return tuple(name for word in words for name in split_commas(word))


class Query(OptionsModel):
    """Examples for a search. Give at least a tile, a place, an image or liked tiles.

    Liked and unliked tiles can be added to a tile, a place or an image. Unliked tiles alone are not enough.

    In Rocchio's formula, the tile, place or image is the query. The liked and unliked tiles are the feedback. See
    `rasterembed.search.examples`.

    Example:
        >>> Query(tile="r000012_c000034", unlike=("r000020_c000001",)).text()
        'tile r000012_c000034; unlike r000020_c000001'
    """

    tile: str | None = Field(default=None, description="Tile id, such as r000012_c000034 or x+000160_y+030000.")
    lonlat: tuple[float, float] | None = Field(
        default=None, description="Longitude and latitude in degrees of a point in the example tile."
    )
    image: str | None = Field(
        default=None, description="A small image: path or s3://bucket/key of a PNG, JPEG or TIFF file."
    )
    like: tuple[str, ...] = Field(
        default=(), description="Ids of liked tiles, separated by commas. The search finds similar tiles."
    )
    unlike: tuple[str, ...] = Field(
        default=(), description="Ids of unliked tiles, separated by commas. The search avoids similar tiles."
    )
    include_query: bool = Field(default=False, description="Allow the query's tiles in the answer.")

    _path_of_image = field_validator("image", mode="before")(path_text)

    _split_words = field_validator("like", "unlike", mode="before")(_split)

    @field_validator("tile", "like", "unlike")
    @classmethod
    def _are_tiles(cls, value: str | tuple[str, ...] | None) -> str | tuple[str, ...] | None:
        for text in (value,) if isinstance(value, str) else value or ():
            TileRef.parse(text)
        return value

    @field_validator("lonlat")
    @classmethod
    def _is_on_earth(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None and not (-360 <= value[0] <= 360 and -90 <= value[1] <= 90):
            raise ValueError("give longitude (-360 to 360), then latitude (-90 to 90), in degrees")
        return value

    @model_validator(mode="after")
    def _has_an_example(self) -> Query:
        if sum(start is not None for start in (self.tile, self.lonlat, self.image)) > 1:
            raise ValueError("give only one of `tile`, `lonlat` and `image`")
        if self.tile is None and self.lonlat is None and self.image is None and not self.like:
            raise ValueError("give an example of what to look for: `tile`, `lonlat`, `image` or `like`")
        if len(self.like) + len(self.unlike) > MAX_EXAMPLES:
            raise ValueError(
                f"`like` and `unlike` have {len(self.like) + len(self.unlike)} tiles: give at most {MAX_EXAMPLES}"
            )
        return self

    @property
    def dataset_of_example(self) -> str | None:
        """Name of the dataset in the first tile's name: `scene` in `scene/r000012_c000034`.

        None if the query has no tile, or if the first tile's name has no dataset.
        """
        first = next(iter([*([self.tile] if self.tile else []), *self.like]), None)
        return None if first is None else TileRef.parse(first).dataset_id

    def text(self) -> str:
        """Return the query as text for people."""
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


class Where(OptionsModel):
    """Filters for the tiles of an answer. Every field is optional.

    Example:
        >>> where = Where(bbox=(24.9, 60.1, 25.1, 60.3), min_valid_fraction=0.9, since="2024-06-01")
        >>> where.since
        datetime.date(2024, 6, 1)
    """

    bbox: tuple[float, float, float, float] | None = Field(
        default=None,
        description="West, south, east, north in degrees: only tiles that intersect this box. If west > east, the box "
        "crosses the antimeridian.",
    )
    within: str | None = Field(
        default=None,
        description="GeoJSON file with polygons in longitude and latitude: only tiles that intersect a polygon.",
    )
    min_valid_fraction: float | None = Field(
        default=None,
        ge=0.0,
        le=1.0,
        description="Only tiles with at least this share of valid pixels, 0 to 1. Padding does not count.",
    )
    since: datetime | date | None = Field(
        default=None,
        description="Only datasets whose raster was acquired at or after this time (UTC), such as 2024-06-01T12:00, "
        "2024-06-01, 2024-06 or 2024.",
    )
    until: datetime | date | None = Field(
        default=None,
        description="Only datasets whose raster was acquired at or before this time (UTC). A date, a month or a year "
        "is included as a whole.",
    )
    max_cloud_cover: float | None = Field(
        default=None,
        ge=0.0,
        le=100.0,
        description="Only scenes with at most this cloud cover in percent, as their STAC Items say. A scene without a "
        "known cloud cover has no tile in the answer.",
    )
    scenes: tuple[str, ...] = Field(
        default=(),
        description="Only scenes whose dataset id or address matches one of these names or patterns, such as "
        "'incoming-*', separated by commas.",
    )
    class_file: str | None = Field(
        default=None,
        description="Parquet or CSV file with the class of each tile, such as the clusters of a dataset: columns "
        "`tile_id`, `class` and, for several datasets, `dataset_id`. `store:KEY` is an object of the store.",
    )
    classes: tuple[str, ...] = Field(
        default=(), description="Only tiles that have one of these classes in `class_file`, separated by commas."
    )
    pick: Pick = Field(
        default="all",
        description="Of a collection with an anchored grid, if several scenes cover a tile: all of them may answer, or "
        "only the latest, or only the clearest (most valid pixels, then fewest clouds, then latest).",
    )

    _path_within = field_validator("within", "class_file", mode="before")(path_text)
    _split_scenes = field_validator("scenes", mode="before")(_split)

    @field_validator("classes", mode="before")
    @classmethod
    def _classes_as_texts(cls, value: Any) -> Any:
        """Return classes as texts. The numbers of clusters are classes too."""
        if isinstance(value, str | int):
            value = [value]
        if isinstance(value, list | tuple):
            value = [str(one) if isinstance(one, int) and not isinstance(one, bool) else one for one in value]
        return _split(value)

    @field_validator("since", "until", mode="before")
    @classmethod
    def _day_or_instant(cls, value: Any, info: ValidationInfo) -> Any:
        """Read a date or a time. A year or a month is its first day for `since`, and its last day for `until`.

        Pydantic would turn a date into midnight of the day, and the number 2025 into a time of the year 1970.
        """
        if value is None or isinstance(value, date):
            return _in_utc(value)
        try:
            if not isinstance(value, str):
                raise ValueError
            days = first_and_last_day(value.strip())
            if days is None:
                if not re.search("[T ]", value.strip(), re.IGNORECASE):
                    raise ValueError  # Python also reads 20240601 and 2024-W22, as midnight of a day.
                return _in_utc(datetime.fromisoformat(value.strip().upper()))
        except ValueError:
            raise ValueError(
                "give a year, a month, a day or a time, such as 2024, 2024-06, 2024-06-01 or 2024-06-01T12:00:00Z"
            ) from None
        return days[0] if info.field_name == "since" else days[1]

    @field_validator("bbox")
    @classmethod
    def _is_a_box(cls, box: tuple[float, float, float, float] | None) -> tuple[float, float, float, float] | None:
        if box is not None:
            west, south, east, north = box
            on_earth = all(-360 <= x <= 360 for x in (west, east)) and all(-90 <= y <= 90 for y in (south, north))
            if not on_earth or south > north:
                raise ValueError("give west, south, east, north in degrees, south below north")
        return box

    @model_validator(mode="after")
    def _class_file_has_classes(self) -> Where:
        if (self.class_file is None) != (not self.classes):
            raise ValueError("give `class_file` and `classes` together: the file, and which classes to search")
        return self

    def acquired_within(self, acquired: datetime | None) -> bool:
        """Return whether `since` and `until` allow a dataset with this time of acquisition.

        A dataset without a time of acquisition is allowed only if neither `since` nor `until` is given.
        """
        if self.since is None and self.until is None:
            return True
        if acquired is None:
            return False
        start, end = self.interval()
        return (start is None or acquired >= start) and (end is None or acquired <= end)

    def interval(self) -> tuple[datetime | None, datetime | None]:
        """Return the first and the last allowed time of acquisition, with a time zone. None if it is not limited."""
        start = None if self.since is None else _instant(self.since, time.min)
        return start, None if self.until is None else _instant(self.until, time.max)

    def allows_clouds(self, cloud_cover: float | None) -> bool:
        """Return whether `max_cloud_cover` allows a scene with this cloud cover in percent, or with an unknown one."""
        return self.max_cloud_cover is None or (cloud_cover is not None and cloud_cover <= self.max_cloud_cover)

    def names_scene(self, *names: str) -> bool:
        """Return whether one of the names of a scene matches one of `scenes`, or `scenes` is empty."""
        return not self.scenes or any(fits_pattern(name, pattern) for name in names for pattern in self.scenes)


def _in_utc(when: date | None) -> date | None:
    """Return a time with a zone in UTC, and any other value as it is.

    Raises:
        ValueError: if the time is outside the years 1 to 9999 in UTC.
    """
    if not isinstance(when, datetime) or when.tzinfo is None:
        return when
    try:
        return when.astimezone(UTC)
    except OverflowError:
        raise ValueError("give a time in the years 1 to 9999 (UTC)") from None


def _instant(when: date | datetime, of_day: time) -> datetime:
    """Return a date or a time as a time with a time zone.

    A date gets the time of day `of_day`. If `when` has no time zone, it is in UTC.
    """
    if not isinstance(when, datetime):
        when = datetime.combine(when, of_day)
    return when if when.tzinfo else when.replace(tzinfo=UTC)
