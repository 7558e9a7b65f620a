"""The catalogue of a collection: a stac-geoparquet file with one row for each scene.

The catalogue is derived from the manifests of the scenes. Only the reasons of failed scenes are nowhere else.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection as Group
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import PurePosixPath
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import shapely
from numpy.typing import NDArray

from rasterembed.collection.scene_row import QaVerdict, SceneRow, SceneState
from rasterembed.dataset.geoparquet import BBOX_TYPE, PARQUET_ERRORS, GeoMetadata, geoparquet_writer, write_metadata
from rasterembed.dataset.stac import EO_EXTENSION
from rasterembed.dataset.stac_fields import EMBEDDING_EXTENSION, PARQUET, STAC_VERSION
from rasterembed.dataset.whole_table import TableLimits, read_whole_table
from rasterembed.dataset.wkb import FootprintError, read_footprints
from rasterembed.errors import DataError, ObjectMissingError, UsageError, one_line
from rasterembed.escape import cut, href_of
from rasterembed.known_parameters import known_parameters
from rasterembed.raster.footprints import Footprints
from rasterembed.raster.grid import MAX_TILES
from rasterembed.store.layout import MAX_SHARD_NUMBER, CollectionLayout, DatasetLayout, is_dataset_id
from rasterembed.store.local_file import local_file
from rasterembed.store.object_store import ObjectStore
from rasterembed.store.storage import MAX_OBJECT_BYTES
from rasterembed.store.store_command import store_command

_TIME = pa.timestamp("us", tz="UTC")

CLOUD_COVER = "eo:cloud_cover"
"""Name of the column for `SceneRow.cloud_cover`, as STAC's extension `eo` calls it."""

DATED = "dated"
"""Name of the column for `SceneRow.dated`."""

SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("source_size", pa.int64()),
        pa.field("source_version", pa.string()),
        pa.field("state", pa.string(), nullable=False),
        pa.field("reason", pa.string()),
        pa.field("qa", pa.string()),
        pa.field("rows", pa.int64(), nullable=False),
        pa.field("skipped", pa.int64(), nullable=False),
        pa.field("shards", pa.int32(), nullable=False),
        pa.field("fingerprint", pa.string()),
        pa.field("datetime", _TIME),
        pa.field(CLOUD_COVER, pa.float64()),
        pa.field("geometry", pa.binary()),
        pa.field("item", pa.string()),
        pa.field("listing", pa.string(), nullable=False),
        pa.field("gone", pa.bool_(), nullable=False),
        pa.field(DATED, pa.bool_(), nullable=False),
    ]
)
"""Columns of the catalogue that hold the fields of `SceneRow`. The file has further columns, which these columns give:
`type`, `stac_version`, `stac_extensions`, `bbox`, `links`, `assets` and `collection`, as stac-geoparquet asks for."""

_LINKS = pa.list_(pa.struct([pa.field(name, pa.string()) for name in ("href", "rel", "type")]))
_ASSET = pa.struct(
    [pa.field("href", pa.string()), pa.field("type", pa.string()), pa.field("roles", pa.list_(pa.string()))]
)
_ASSETS = pa.struct([pa.field(name, _ASSET) for name in ("embeddings", "index", "manifest", "source")])

_MEDIA_TYPES = {
    ".tif": "image/tiff; application=geotiff",
    ".tiff": "image/tiff; application=geotiff",
    ".jp2": "image/jp2",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
}
"""Media types of scenes by the ending of their names."""

_FILE_SCHEMA = pa.schema(
    [
        # The specification leaves `type` out, but stac-geoparquet makes Items without a type of such files.
        pa.field("type", pa.string(), nullable=False),
        pa.field("stac_version", pa.string(), nullable=False),
        pa.field("stac_extensions", pa.list_(pa.string()), nullable=False),
        *SCHEMA,
        pa.field("bbox", BBOX_TYPE),
        pa.field("links", _LINKS, nullable=False),
        pa.field("assets", _ASSETS, nullable=False),
        pa.field("collection", pa.string(), nullable=False),
    ]
)

_LARGEST = {
    "rows": MAX_TILES,
    "skipped": MAX_TILES,
    "shards": MAX_SHARD_NUMBER + 1,
    "source_size": MAX_OBJECT_BYTES,
}
"""Largest believed value of each column with numbers."""

_FIRST_US, _LAST_US = (round(datetime(*day, tzinfo=UTC).timestamp()) * 1_000_000 for day in ((1, 1, 1), (9999, 12, 31)))
"""First and last time that Python can hold, in microseconds since 1970."""

_ROW_GROUP_ROWS = 65_536
"""Largest number of rows in a row group."""

MAX_FOOTPRINT_BYTES = 65_536
"""Largest size of a scene's footprint as WKB, which is about 4,000 corners."""

CATALOGUE_LIMITS = TableLimits(rows=2_000_000, bytes=2**31)
"""Largest catalogue that is read. A scene takes about a kilobyte of memory, and a footprint with many corners more."""

_SHOWN_LETTERS = 80
"""Longest part of a wrong value that an error shows."""

_STATES = {state.value for state in SceneState}
_VERDICTS = {verdict.value for verdict in QaVerdict}


@dataclass(frozen=True)
class Catalogue:
    """The scenes of a collection.

    Example:
        >>> Catalogue.of([]).filter(bbox=(24.0, 60.0, 25.0, 61.0)).count
        0
    """

    table: pa.Table
    """The rows with the columns of `SCHEMA`, in the order of the ids."""

    @classmethod
    def of(cls, rows: Iterable[SceneRow]) -> Catalogue:
        """Return a catalogue with these rows. The ids must differ."""
        values = [_values(row) for row in rows]
        return cls(pa.Table.from_pylist(values, schema=SCHEMA).sort_by("id"))

    @cached_property
    def digest(self) -> str:
        """SHA-256 digest of all values, in hexadecimal digits. It is computed once."""
        digest = hashlib.sha256()
        for name in self.table.column_names:
            digest.update(repr((name, self.table[name].to_pylist())).encode(errors="surrogatepass"))
        return digest.hexdigest()

    @property
    def count(self) -> int:
        """Number of scenes."""
        return int(self.table.num_rows)

    def counts(self) -> dict[SceneState, int]:
        """Return the number of scenes in each state that occurs."""
        counted = pc.value_counts(self.table["state"]).to_pylist()
        found = {entry["values"]: entry["counts"] for entry in counted}
        return {state: found[state.value] for state in SceneState if state.value in found}

    @property
    def vectors(self) -> int:
        """Number of vectors of all scenes together."""
        return int(pc.sum(self.table["rows"]).as_py() or 0)

    @property
    def undated(self) -> int:
        """Number of embedded scenes whose time of acquisition is not known. They have the time of their file."""
        embedded = pc.not_equal(self.table["state"], SceneState.FAILED.value)
        return int(pc.sum(pc.and_(embedded, pc.invert(self.table[DATED]))).as_py() or 0)

    def state_of(self, dataset_id: str) -> SceneState | None:
        """Return the state of the scene with this dataset id, or None if the catalogue does not have it."""
        found = self.table.filter(pc.equal(self.table["id"], dataset_id))["state"].to_pylist()
        return SceneState(found[0]) if found else None

    def row(self, dataset_id: str) -> SceneRow | None:
        """Return the row of a scene, or None if the catalogue does not have it."""
        chosen = Catalogue(self.table.filter(pc.equal(self.table["id"], dataset_id)))
        return next(chosen.rows(), None)

    def rows(self) -> Iterator[SceneRow]:
        """Yield all rows, in the order of the ids."""
        for values in self.table.rename_columns([_field(name) for name in SCHEMA.names]).to_pylist():
            values["state"] = SceneState(values["state"])
            values["qa"] = None if values["qa"] is None else QaVerdict(values["qa"])
            yield SceneRow(**values)

    def updated(self, rows: Iterable[SceneRow], *, without: Group[str] = ()) -> Catalogue:
        """Return a catalogue in which these rows replace the rows with the same ids, or of the same scenes.

        Args:
            rows: new rows. Rows with a new id are added. If another row has the same source, it is left out: the scene
                has a new dataset.
            without: ids of scenes to leave out.
        """
        new = Catalogue.of(rows).table
        replaced = pa.chunked_array([pa.array([*new["id"].to_pylist(), *without], type=pa.string())])
        stale = pc.or_(
            pc.is_in(self.table["id"], replaced.combine_chunks()),
            pc.is_in(self.table["source"], new["source"].combine_chunks()),
        )
        kept = self.table.filter(pc.invert(stale))
        return Catalogue(pa.concat_tables([kept, new]).combine_chunks().sort_by("id"))

    def with_values(self, ids: Group[str], **values: str | bool) -> Catalogue:
        """Return a catalogue in which some columns of these scenes have other values.

        Args:
            ids: ids of the scenes.
            values: new values, by column.
        """
        chosen = pc.is_in(self.table["id"], pa.array(list(ids), type=pa.string()))
        table = self.table
        for name, value in values.items():
            column = pc.if_else(chosen, value, table[name])
            table = table.set_column(SCHEMA.get_field_index(name), SCHEMA.field(name), column)
        return Catalogue(table)

    @known_parameters
    def filter(
        self,
        *,
        bbox: tuple[float, float, float, float] | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        max_cloud_cover: float | None = None,
        states: Group[SceneState] | None = None,
    ) -> Catalogue:
        """Return the scenes that pass all given filters.

        Args:
            bbox: west, south, east, north in degrees, OGC:CRS84. If west is greater than east, the box crosses the
                antimeridian. A scene passes if its footprint and the box have a point in common.
            since: earliest time of acquisition. A time without a zone is UTC.
            until: latest time of acquisition.
            max_cloud_cover: largest cloud cover in percent. A scene without a known cloud cover does not pass.
            states: states that pass.

        Raises:
            UsageError: if the box is not on Earth, if south is greater than north, or if a value is of another kind,
                such as a text in place of a time.
        """
        keep = pa.chunked_array([pa.array(np.ones(self.count, dtype=bool))])
        if states is not None:
            keep = pc.and_(keep, pc.is_in(self.table["state"], _state_values(states)))
        if since is not None:
            keep = pc.and_(keep, pc.greater_equal(self.table["datetime"], _scalar(since)))
        if until is not None:
            keep = pc.and_(keep, pc.less_equal(self.table["datetime"], _scalar(until)))
        if max_cloud_cover is not None:
            if not isinstance(max_cloud_cover, int | float):
                raise UsageError(f"`max_cloud_cover`: give a number of percent, not {_shown(max_cloud_cover)}")
            keep = pc.and_(keep, pc.less_equal(self.table[CLOUD_COVER], max_cloud_cover))
        chosen = Catalogue(self.table.filter(pc.fill_null(keep, False)))
        return chosen if bbox is None else chosen._in_box(bbox)

    def _in_box(self, bbox: tuple[float, float, float, float]) -> Catalogue:
        boxes = _boxes(bbox)
        geometry = self.geometry()
        return Catalogue(self.table.filter(pa.array(shapely.intersects(geometry, boxes))))

    def geometry(self) -> NDArray[np.object_]:
        """Return the footprint of each scene, shape (n,). A scene without a place on Earth has None."""
        return read_footprints(self.table["geometry"], MAX_FOOTPRINT_BYTES)

    def extent(self) -> tuple[list[float] | None, list[datetime | None]]:
        """Return the bounds of all footprints, and the first and the last time of acquisition of the embedded scenes.

        The time of a failed scene is often only that of its file, and the collection has no vectors of it.

        Returns:
            West, south, east, north in degrees, or None if no scene has a place on Earth. The times are None if no
            embedded scene has one.
        """
        return self._extent

    @cached_property
    def _extent(self) -> tuple[list[float] | None, list[datetime | None]]:
        # A run writes the STAC Collection several times. All footprints are decoded once.
        geometry = self.geometry()
        placed = geometry[~(shapely.is_missing(geometry) | shapely.is_empty(geometry))]
        embedded = self.table.filter(pc.not_equal(self.table["state"], SceneState.FAILED.value))
        times = pc.min_max(embedded["datetime"]).as_py()
        bounds = [float(value) for value in shapely.total_bounds(placed)] if len(placed) else None
        return bounds, [times["min"], times["max"]]


def _field(column: str) -> str:
    return "cloud_cover" if column == CLOUD_COVER else column


def _values(row: SceneRow) -> dict[str, Any]:
    values = asdict(row)
    values[CLOUD_COVER] = values.pop("cloud_cover")
    return values


def _shown(value: object) -> str:
    """Return a wrong value as text for an error."""
    return cut(repr(value), _SHOWN_LETTERS)


def _state_values(states: Group[SceneState]) -> pa.Array:
    """Return the states as they are in the catalogue."""
    # A single state is a text too, so its letters would be taken as states.
    if isinstance(states, str) or not (
        isinstance(states, Group) and all(isinstance(state, SceneState) for state in states)
    ):
        raise UsageError(
            f"the states are a list: give states=[SceneState.READY], not {_shown(states)}; there are "
            f"{', '.join(state.name for state in SceneState)}"
        )
    return pa.array([state.value for state in states], type=pa.string())


def _scalar(time: datetime) -> pa.Scalar:
    if not isinstance(time, datetime):
        raise UsageError(f"the scenes are filtered by times: give a datetime.datetime, not {_shown(time)}")
    return pa.scalar(time if time.tzinfo else time.replace(tzinfo=UTC), type=_TIME)


def _boxes(bbox: tuple[float, float, float, float]) -> shapely.Geometry:
    """Return a box as one polygon, or as two polygons if it crosses the antimeridian."""
    try:
        west, south, east, north = map(float, bbox)
    except (TypeError, ValueError):
        raise UsageError(
            f"a box has four numbers: give (west, south, east, north) in degrees, not {_shown(bbox)}"
        ) from None
    if not (-180 <= west <= 180 and -180 <= east <= 180 and -90 <= south <= north <= 90):
        raise UsageError(
            f"the box {west},{south},{east},{north} is not on Earth: give west,south,east,north in degrees, "
            "with longitudes from -180 to 180 and south below north"
        )
    if west <= east:
        return shapely.box(west, south, east, north)
    return shapely.union(shapely.box(west, south, 180.0, north), shapely.box(-180.0, south, east, north))


def read_catalogue(store: ObjectStore, layout: CollectionLayout) -> Catalogue | None:
    """Read the catalogue of a collection, or return None if there is none yet.

    Args:
        store: store of the collection.
        layout: layout of the collection.

    Raises:
        DataError: if the file is not a catalogue of this version.
    """
    key = layout.catalogue
    rebuild = store_command(store, f"collection rebuild {layout.collection_id}")
    remedy = f"run {rebuild}, which makes the catalogue again"
    try:
        with store.open(key) as file:
            return read_rows_of_catalogue(file, store.uri(key), remedy)
    except ObjectMissingError:
        return None


def read_rows_of_catalogue(
    file: IO[bytes], name: str, remedy: str, limits: TableLimits = CATALOGUE_LIMITS
) -> Catalogue:
    """Read a Parquet file with the columns of a catalogue, and check every row.

    Args:
        file: the file.
        name: address of the file, for errors.
        remedy: advice for a person if the file cannot be used.
        limits: largest size that is believed.

    Raises:
        DataError: if this library cannot have written the rows, or if they are too many or too large.
    """
    try:
        table = _read_columns(file, limits).cast(SCHEMA)
        table.validate(full=True)  # It finds texts that are not UTF-8.
    except PARQUET_ERRORS as error:
        raise DataError(f"{name}: it is not a catalogue ({one_line(error)}): {remedy}") from error
    reason = _why_unusable(table)
    if reason is not None:
        raise DataError(f"{name}: this version cannot use the catalogue ({reason}): {remedy}")
    return Catalogue(table.replace_schema_metadata(None).combine_chunks())


def _read_columns(file: IO[bytes], limits: TableLimits) -> pa.Table:
    try:
        return read_whole_table(file, limits, SCHEMA.names)
    except KeyError:
        # Catalogues had no column `dated` at first. All dates were then called times of acquisition.
        table = read_whole_table(file, limits, [name for name in SCHEMA.names if name != DATED])
        return table.append_column(DATED, pa.repeat(True, table.num_rows))


def _why_unusable(table: pa.Table) -> str | None:
    """Return the reason why this library cannot have written the rows of a catalogue, or None if it can."""
    for field in SCHEMA:
        if not field.nullable and table[field.name].null_count:
            return f"{field.name}: a row has no value"
    ids = table["id"].combine_chunks()
    if len(pc.unique(ids)) != len(ids) or len(pc.unique(table["source"])) != len(ids):
        return "id, source: a scene occurs twice"
    if not all(map(is_dataset_id, ids.to_pylist())):
        return "id: it is no id of a dataset"
    if not set(pc.unique(table["state"]).to_pylist()) <= _STATES:
        return "state: it has an unknown value"
    if not set(pc.unique(table["qa"]).to_pylist()) <= _VERDICTS | {None}:
        return "qa: it has an unknown value"
    for name, most in _LARGEST.items():
        extremes = pc.min_max(table[name]).as_py()
        if extremes["min"] is not None and not (extremes["min"] >= 0 and extremes["max"] <= most):
            return f"{name}: a number is impossible"
    times = pc.min_max(pc.cast(table["datetime"], pa.int64())).as_py()
    if times["min"] is not None and not (times["min"] >= _FIRST_US and times["max"] <= _LAST_US):
        return "datetime: a time is impossible"
    # The result is null if all scenes have failed.
    if pc.all(pc.match_substring_regex(table["fingerprint"], "^[0-9a-f]{64}$")).as_py() is False:
        return "fingerprint: it is no digest"
    try:
        read_footprints(table["geometry"], MAX_FOOTPRINT_BYTES)
    except FootprintError as error:
        return f"geometry: {error}"
    return None


def write_catalogue(
    store: ObjectStore, layout: CollectionLayout, catalogue: Catalogue, stac_collection: dict[str, Any]
) -> None:
    """Write the catalogue. Readers see the old file or the new file, and never a part of one.

    The columns are those of stac-geoparquet, so that each row is also a STAC Item. The file holds no time of the run:
    equal catalogues give equal bytes.

    Args:
        store: store of the collection.
        layout: layout of the collection.
        catalogue: all scenes.
        stac_collection: the STAC Collection, which stac-geoparquet wants in the footer.
    """
    geo = GeoMetadata()
    with (
        local_file(store, layout.catalogue, replace=True) as file,
        geoparquet_writer(file.path, _FILE_SCHEMA, compression="zstd") as writer,
    ):
        # An empty table makes an empty row group, so a catalogue without scenes has a valid file too.
        for start in range(0, max(catalogue.count, 1), _ROW_GROUP_ROWS):
            part = Catalogue(catalogue.table.slice(start, _ROW_GROUP_ROWS))
            writer.write_table(_file_rows(layout, part, geo))
        collections = {"version": "1.1.0", "collections": {layout.collection_id: stac_collection}}
        write_metadata(
            writer,
            _FILE_SCHEMA,
            {"geo": geo.json(), "stac-geoparquet": json.dumps(collections, sort_keys=True).encode()},
        )


def _file_rows(layout: CollectionLayout, part: Catalogue, geo: GeoMetadata) -> pa.Table:
    """Return the rows of the file: the columns of a catalogue, and those that stac-geoparquet adds."""
    geometry = part.geometry()
    bounds = shapely.bounds(geometry)
    geo.add(Footprints(geometry=geometry, bounds=bounds))
    missing = shapely.is_missing(geometry)
    bbox = pa.StructArray.from_arrays(
        [pa.array(bounds[:, number]) for number in range(4)], fields=list(BBOX_TYPE), mask=pa.array(missing)
    )
    columns: dict[str, Any] = {name: part.table[name] for name in SCHEMA.names}
    columns |= {
        "type": pa.array(["Feature"] * part.count, type=pa.string()),
        "stac_version": pa.array([STAC_VERSION] * part.count, type=pa.string()),
        "stac_extensions": pa.array(_extensions(part), type=pa.list_(pa.string())),
        "bbox": bbox,
        "links": pa.array([_links(row_id, rows) for row_id, rows in _datasets(part)], type=_LINKS),
        "assets": _assets(part),
        "collection": pa.array([layout.collection_id] * part.count, type=pa.string()),
    }
    return pa.table([columns[name] for name in _FILE_SCHEMA.names], schema=_FILE_SCHEMA)


def _extensions(part: Catalogue) -> list[list[str]]:
    """Return the extensions that each row uses.

    The embedding extension asks for the asset `embeddings`, which a failed scene lacks.
    """
    fingerprints, covers = (part.table[name].to_pylist() for name in ("fingerprint", CLOUD_COVER))
    return [
        [
            *([] if fingerprint is None else [EMBEDDING_EXTENSION]),
            *([] if cover is None else [EO_EXTENSION]),
        ]
        for fingerprint, cover in zip(fingerprints, covers, strict=True)
    ]


def _datasets(part: Catalogue) -> Iterator[tuple[str, str | None]]:
    """Yield id and fingerprint of each scene. A failed scene has no fingerprint."""
    return zip(part.table["id"].to_pylist(), part.table["fingerprint"].to_pylist(), strict=True)


_UP = "../.."
"""Path from the folder of a collection to the root of the store."""


def _links(dataset_id: str, fingerprint: str | None) -> list[dict[str, str]]:
    links = [{"href": "collection.json", "rel": "collection", "type": "application/json"}]
    if fingerprint is not None:
        item = f"{_UP}/{DatasetLayout(dataset_id).stac_item}"
        links.append({"href": href_of(item), "rel": "canonical", "type": "application/geo+json"})
    return links


def _assets(part: Catalogue) -> pa.Array:
    """Return the column `assets`. A failed scene has only its source."""
    shards, sources = part.table["shards"].to_pylist(), part.table["source"].to_pylist()
    rows = []
    for (dataset_id, fingerprint), count, source in zip(_datasets(part), shards, sources, strict=True):
        # Readers turn a missing type into null, which STAC does not allow.
        kind = _MEDIA_TYPES.get(PurePosixPath(source).suffix.lower(), "application/octet-stream")
        row: dict[str, Any] = {"source": {"href": href_of(source), "type": kind, "roles": ["source"]}}
        if fingerprint is not None:
            dataset = DatasetLayout(dataset_id)
            # Several shards are in one folder, as the dataset's own STAC Item says it.
            shard = dataset.shard(fingerprint, 0) if count == 1 else f"{dataset.shards_folder}/"
            row["embeddings"] = {"href": f"{_UP}/{shard}", "type": PARQUET, "roles": ["data"]}
            row["index"] = {"href": f"{_UP}/{dataset.tile_index}", "type": PARQUET, "roles": ["metadata"]}
            row["manifest"] = {"href": f"{_UP}/{dataset.manifest}", "type": "application/json", "roles": ["metadata"]}
        rows.append(row)
    return pa.array(rows, type=_ASSETS)
