"""The answer to a query: the nearest tiles, and the search engine that found these tiles."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any, Literal

import shapely
from pydantic import AfterValidator, BaseModel, ConfigDict, PrivateAttr, ValidationInfo

from rasterembed.dataset.wkb import read_footprint
from rasterembed.errors import UsageError
from rasterembed.escape import escape_terminal
from rasterembed.number_text import counted, significant_text
from rasterembed.search.engines.engine import EngineName, NoIndexReason
from rasterembed.search.not_searched import NotSearched, describe_all
from rasterembed.search.radiometry_groups import RadiometryGroup, radiometry_warning
from rasterembed.search.searched_collection import SearchedCollection
from rasterembed.search.tile_lookup import Tile

if TYPE_CHECKING:
    import geopandas
    import pandas

    from rasterembed.dataset.dataset import Dataset
    from rasterembed.store.object_store import ObjectStore

Role = Literal["query", "like", "unlike"]
"""Role of an example. `query`: the tile, place or image to look for. `like`, `unlike`: a liked or an unliked tile."""

_LISTED = 6
"""Largest number of searched datasets for which the notes have one line each."""

_PLACES = 3
"""Largest number of tiles at one place that the notes name. Many scenes may cover the place."""

_SHOWN_HITS = 3
"""Largest number of tiles in the `repr` of an answer."""

_ENGINE_TEXTS: dict[EngineName, str] = {
    "scan": "the exact scan",
    "flat": "the flat index",
    "ivf": "the ivf index",
    "vss": "the HNSW index",
}


def _check_footprint(footprint: bytes, info: ValidationInfo) -> bytes:
    """Refuse bytes that are no footprint, because the row may come from a stranger's file."""
    if info.context is not _FOOTPRINTS_ARE_READ:
        read_footprint(footprint)
    return footprint


_FOOTPRINTS_ARE_READ = {"footprints": "read"}
"""Context of the validation of hits whose footprints the caller has read. To read them one by one takes longer."""


def hits_of(rows: Iterable[Mapping[str, Any]]) -> tuple[Hit, ...]:
    """Return rows as hits. Their footprints must have been read without an error.

    Args:
        rows: the fields of each hit.

    Raises:
        ValidationError: if a row has an impossible value.
    """
    return tuple(Hit.model_validate(row, context=_FOOTPRINTS_ARE_READ) for row in rows)


def pixel_footprint(row: Mapping[str, Any]) -> bytes:
    """Return the window of a tile in pixels, as WKB. It is the footprint of a tile without a place on Earth.

    Args:
        row: the row of the tile, with the columns `col_off`, `row_off`, `width` and `height`.
    """
    left, top = row["col_off"], row["row_off"]
    footprint: bytes = shapely.to_wkb(shapely.box(left, top, left + row["width"], top + row["height"]))
    return footprint


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
    """Number of valid pixels divided by the number of pixels in the window, 0 to 1. Padding does not count."""
    acquired: datetime | None
    """The raster's time of acquisition. None if the raster's file does not hold this time. In an answer over a
    collection, the time is from the catalogue, which may know it from a STAC Item."""
    scene: str | None = None
    """Address of the scene's file. Only an answer over a collection has it."""
    cloud_cover: float | None = None
    """Share of the scene that clouds cover, in percent. None if it is not known, or if no collection was searched."""
    geometry: Annotated[bytes, AfterValidator(_check_footprint)]
    """Footprint as WKB, in longitude and latitude. If the raster has no place on Earth, the unit is pixels."""

    def __repr__(self) -> str:
        """Return one short line. The footprint is left out."""
        name = f"{self.dataset_id}/{self.tile_id}"
        return escape_terminal(f"Hit {self.rank}: {name}, distance {self.distance_text()}, at {self.place()}")

    __str__ = __repr__  # That of pydantic shows every field.

    def distance_text(self) -> str:
        """Return the distance as text for people, with enough digits to tell close tiles apart."""
        return f"{self.distance:.6f}" if abs(self.distance) >= 1e-4 else significant_text(self.distance, 3)

    def date_text(self) -> str:
        """Return the day of acquisition as text for people. Empty if it is not known."""
        return "" if self.acquired is None else self.acquired.date().isoformat()

    def cloud_text(self) -> str:
        """Return the cloud cover as text for people. Empty if it is not known."""
        return "" if self.cloud_cover is None else f"{self.cloud_cover:.0f}%"

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
    lonlat: tuple[float, float] | None = None
    """Longitude and latitude in degrees, if the example was given as a place. `tile` is the tile at this place."""
    remark: str = ""
    """Remark about the example, as text for people. Empty if there is nothing to say."""
    read_like: str | None = None
    """Id of the dataset whose radiometry and tile size an image was read with. None if the example is a tile."""

    def place_text(self) -> str:
        """Return a text that names the tile at the example's place. Empty if the example is not a place."""
        if self.lonlat is None or self.tile is None:
            return ""
        lon, lat = self.lonlat
        text = (
            f"longitude {lon:.5f}, latitude {lat:.5f} is in tile {self.tile.tile_id} of dataset {self.tile.dataset_id}"
        )
        numbers = self.tile.tile_id.removeprefix("r").split("_c")
        # The id of a tile in an anchored grid has no row and no column.
        return text + (f" (column {int(numbers[1])}, row {int(numbers[0])})" if len(numbers) == 2 else "")


class UsedEngine(BaseModel):
    """The search engine that was used for one dataset, or for a collection."""

    model_config = ConfigDict(frozen=True)

    dataset_id: str
    """Id of the dataset or the collection."""
    name: EngineName
    settings: str = ""
    """Settings and measured recall of the engine, as text for people. Empty for the exact scan."""
    recall: float | None = None
    """Recall that was measured when the index was built, 0 to 1. None for the exact scan."""
    no_index: NoIndexReason | None = None
    """Reason why no vector index was used. None if a vector index was used."""
    detail: str = ""
    """Value of the parameter `detail` of `NoIndexReason.describe`."""

    @property
    def why(self) -> str:
        """Settings of the vector index, or the reason why no vector index was used. This is text for people."""
        return self.settings if self.no_index is None else self.no_index.describe(self.detail)


class Answer(BaseModel):
    """The k nearest tiles. The nearest tile comes first.

    If fewer than k tiles pass the filters, the answer has fewer tiles.

    A notebook shows an answer as a table with pictures. `print` shows the answer as text. `to_dataframe` returns a
    table of pandas, and `to_geodataframe` returns a table of GeoPandas.

    Example:
        >>> answer = dataset.search(Query(tile="r000008_c000008"), k=5)  # doctest: +SKIP
        >>> answer.to_dataframe()[["rank", "tile_id", "distance"]]  # doctest: +SKIP
    """

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
    """The search engine for each searched dataset."""
    not_searched: tuple[NotSearched, ...] = ()
    """Datasets that were asked for, but not searched, with the reasons."""
    seconds: float
    """Time from the query to the answer, in seconds."""
    radiometries: tuple[RadiometryGroup, ...] = ()
    """Groups of searched datasets with the same radiometry. Empty if all datasets have the same radiometry.

    The same ground has different colours in each group. Two vectors of the same ground are therefore far apart if they
    are from different groups."""

    collection: SearchedCollection | None = None
    """The collection that was searched. None if datasets were searched."""

    hint: str = ""
    """Which filter left no tile, and what the caller may have meant instead, one line each. Usually empty."""

    _datasets: tuple[Any, ...] = PrivateAttr(default=())
    """The searched datasets. A notebook's pictures are cut from their rasters. A dataset holds the credentials of its
    store, so the datasets are never stored with the answer."""

    _store: Any = PrivateAttr(default=None)
    """The store of a collection that was searched. A notebook opens the datasets of the shown tiles. It is never stored
    with the answer, because it holds credentials."""

    def with_store(self, store: ObjectStore) -> Answer:
        """Return a copy of this answer that can open datasets. A notebook can then show pictures of the tiles."""
        answer = self.model_copy()
        answer._store = store
        return answer

    def with_datasets(self, datasets: Sequence[Dataset]) -> Answer:
        """Return a copy of this answer that holds the datasets. A notebook can then show pictures of the tiles."""
        answer = self.model_copy()
        answer._datasets = tuple(datasets)
        return answer

    def __eq__(self, other: object) -> bool:
        """Return whether two answers have equal fields. The datasets for the pictures are not compared."""
        return isinstance(other, Answer) and self.__dict__ == other.__dict__

    def __getstate__(self) -> dict[Any, Any]:
        """Return the state for pickle. The datasets are left out, because they hold the credentials of the store."""
        return super().__getstate__() | {"__pydantic_private__": {"_datasets": (), "_store": None}}

    def _repr_html_(self) -> str:
        """Return the answer as a table with pictures. Jupyter calls this method."""
        from rasterembed.search.answer_html import answer_html  # These imports are slow: they import rasterio and PIL.
        from rasterembed.search.answer_table import MAX_PICTURES
        from rasterembed.search.contact_sheet import shown_datasets

        datasets = self._datasets if self._store is None else shown_datasets(self._store, self, MAX_PICTURES)
        return answer_html(self, datasets)

    def to_dataframe(self) -> pandas.DataFrame:
        """Return the tiles as a table of pandas, with a row for each tile. Footprints are left out.

        Returns:
            The columns `rank`, `dataset_id`, `tile_id`, `distance`, `lon`, `lat` (degrees), `row`, `col`, `col_off`,
            `row_off`, `width`, `height` (px), `valid_fraction`, `acquired` (UTC) and `model`. If a collection was
            searched, also `scene` and `cloud_cover` (percent).

        Raises:
            UsageError: if pandas is not installed.
        """
        pandas = _import("pandas")
        frame = pandas.DataFrame({name: [getattr(hit, name) for hit in self.hits] for name in self.columns})
        frame["acquired"] = pandas.to_datetime(frame["acquired"], utc=True)
        frame["model"] = self.model
        return frame

    def to_geodataframe(self) -> geopandas.GeoDataFrame:
        """Return the tiles as a table of GeoPandas: the columns of `to_dataframe`, and `geometry`.

        The geometry is the footprint in longitude and latitude (OGC:CRS84). If a raster has no place on Earth, its
        footprints are in pixels, and the table has no CRS.

        Raises:
            UsageError: if GeoPandas is not installed.
        """
        geopandas = _import("geopandas")
        frame = self.to_dataframe()
        geometry = geopandas.GeoSeries.from_wkb([hit.geometry for hit in self.hits])
        placed = all(hit.lon is not None for hit in self.hits)
        return geopandas.GeoDataFrame(frame, geometry=geometry.array, crs="OGC:CRS84" if placed else None)

    @property
    def columns(self) -> list[str]:
        """Names of a hit's fields that tables show. The footprint is left out."""
        hidden = {"geometry"} if self.collection is not None else {"geometry", "scene", "cloud_cover"}
        return [name for name in Hit.model_fields if name not in hidden]

    @property
    def several_datasets(self) -> bool:
        """Whether tiles may be of several datasets. Tables and pictures then show the dataset of each tile."""
        return self.collection is not None or len(self.engines) > 1

    @property
    def heads(self) -> list[str]:
        """Heads of the columns of a table for people."""
        return ["#", "dataset", "tile", "distance", "place", "valid", *(["date", "cloud"] if self.collection else [])]

    def cells(self, hit: Hit) -> dict[str, str]:
        """Return the texts of a tile in a table for people, by the heads of the columns. They are not escaped."""
        texts = (
            str(hit.rank),
            hit.dataset_id,
            hit.tile_id,
            hit.distance_text(),
            hit.place(),
            f"{hit.valid_fraction:.0%}",
            hit.date_text(),
            hit.cloud_text(),
        )
        return dict(zip(self.heads, texts, strict=False))

    def __repr__(self) -> str:
        """Return a few lines: the query, the engines, the nearest tiles and the hint. `print` shows everything."""
        engines = " and ".join(dict.fromkeys(_ENGINE_TEXTS[engine.name] for engine in self.engines))
        found = f"{len(self.hits)} of k = {counted(self.k, 'tile')}" + (f", answered by {engines}" if engines else "")
        table = self._table(self.hits[:_SHOWN_HITS]) if self.hits else []
        more = len(self.hits) - _SHOWN_HITS
        end = [f"and {counted(more, 'more tile')}: print the answer to see them"] if more > 0 else []
        return "\n".join([f"Answer: {self.summary()}; {found}", *table, *end, *self.hint.splitlines()])

    def __str__(self) -> str:
        """Return the answer as a table for a terminal."""
        return "\n".join([self.summary(), "", *self._table(self.hits), "", *self.notes()])

    def _table(self, hits: Sequence[Hit]) -> list[str]:
        """Return some tiles as the lines of a table for a terminal. The first line has the heads of the columns."""
        heads = [head for head in self.heads if self.several_datasets or head != "dataset"]
        return _align([heads, *([escape_terminal(self.cells(hit)[head]) for head in heads] for hit in hits)])

    def summary(self) -> str:
        """Return the query and the model in one line."""
        return escape_terminal(f"{self.query}; model: {self.model}")

    def notes(self) -> list[str]:
        """Return the lines below the table of tiles, as text for people.

        The lines name:

        - the tile at an example's place, and remarks about examples. An answer without tiles names no place;
        - the search engine that was used for each dataset;
        - the number of searched scenes of a collection;
        - the datasets that were not searched, with the reasons;
        - the groups of datasets with different radiometry;
        - the number of tiles, if it is smaller than k;
        - the lines of the hint.
        """
        # Of an answer without tiles, a person wants to know why it is empty.
        notes = self._place_notes() if self.hits else []
        notes += [f"{example.label}: {example.remark}" for example in self.examples if example.remark]
        notes += self._engine_notes()
        if self.not_searched:
            notes.append(f"not searched: {describe_all(self.not_searched)}")
        if self.radiometries:
            notes.append(radiometry_warning(self.radiometries))
        if len(self.hits) < self.k:
            other = "no other tile" if self.hits else "no tile"
            notes.append(f"{len(self.hits)} of {counted(self.k, 'tile')} found: {other} matches")
        notes += self.hint.splitlines()
        return list(map(escape_terminal, notes))

    def _place_notes(self) -> list[str]:
        """Return lines that name the tiles at the examples' places. Many tiles are counted."""
        places = [text for example in self.examples if (text := example.place_text())]
        notes = places[:_PLACES]
        if len(places) > _PLACES:
            notes.append(f"and in tiles of {counted(len(places) - _PLACES, 'more scene')}")
        return notes

    def _engine_notes(self) -> list[str]:
        """Return lines that name the search engine of each dataset. Many datasets have one line for each engine."""
        asked = len(self.engines) + len(self.not_searched)
        if self.collection is not None:
            notes = self.collection.notes()
        else:
            all_are = asked == 1 and self.engines
            notes = [] if all_are else [f"searched {len(self.engines):,} of {counted(asked, 'dataset')}"]
        if len(self.engines) <= _LISTED:
            return notes + [
                f"{engine.dataset_id}: answered by {_ENGINE_TEXTS[engine.name]} ({engine.why})"
                for engine in self.engines
            ]
        by_engine = Counter(f"{_ENGINE_TEXTS[engine.name]} ({engine.why})" for engine in self.engines)
        return notes + [f"{counted(count, 'dataset')}: answered by {text}" for text, count in by_engine.most_common()]


def _import(package: str) -> Any:
    """Import a package that this library does not require.

    Raises:
        UsageError: if the package is not installed.
    """
    try:
        return import_module(package)
    except ModuleNotFoundError as error:
        raise UsageError(f"{package} is not installed: pip install {package}") from error


def _align(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows of cells as lines with aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
