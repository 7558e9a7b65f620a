"""Scenes of STAC documents: an Item, an ItemCollection, a static Catalog or Collection, stac-geoparquet, a STAC API."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow.parquet as pq
import shapely

from rasterembed.collection.catalogue import MAX_FOOTPRINT_BYTES
from rasterembed.collection.found_scene import REASON_LETTERS, FoundScene, with_files
from rasterembed.collection.stac_api import search_items
from rasterembed.collection.stac_search import StacSearch
from rasterembed.collection.threaded import map_threaded
from rasterembed.dataset.geoparquet import PARQUET_ERRORS
from rasterembed.dataset.wkb import read_footprint
from rasterembed.errors import DataError, ObjectMissingError, RasterEmbedError, one_line, utf8_text
from rasterembed.raster.scene import item_files, register_item_files
from rasterembed.raster.stac_item_file import parse_item, resolve_href
from rasterembed.store.object_store import ObjectStore

MAX_DOCUMENT_BYTES = 512 * 2**20
"""Largest size of a STAC document that is read. An ItemCollection of 100,000 Items has about 300 MB."""

MAX_DOCUMENTS = 1_000_000
"""Largest number of documents of a static catalog that are read."""


def scenes_of_document(store: ObjectStore, uri: str, assets: tuple[str, ...]) -> list[FoundScene]:
    """Return the scenes of a STAC document, and of all documents that a catalog links to.

    Args:
        store: gives the credentials for S3.
        uri: address of the document: absolute path, s3://bucket/key, or an https:// address.
        assets: keys or common names of the assets with the pixels. See `register_scene`.

    Raises:
        DataError: if a document cannot be read, or is no STAC document.
    """
    return _registered(store, _items(store, uri), assets)


@dataclass(frozen=True)
class SearchedScenes:
    """The scenes of the Items that a STAC API found."""

    scenes: list[FoundScene]
    ended_early: bool
    """See `Listing.ended_early`."""


def scenes_of_search(store: ObjectStore, api: str, search: StacSearch, assets: tuple[str, ...]) -> SearchedScenes:
    """Return the scenes of the Items that a STAC API finds.

    Args:
        store: its source store lists the hosts that may be read, and gives the credentials for S3.
        api: https:// address of the STAC API.
        search: the search.
        assets: keys or common names of the assets with the pixels. See `register_scene`.

    Raises:
        UsageError: if the API has no such search.
        DataError: if the answer cannot be read.
        StoreError: if a host may not be read, or the server refuses.
    """
    ended_early = False

    def items() -> Iterator[tuple[str, dict[str, Any]]]:
        nonlocal ended_early
        ended_early = yield from search_items(store, api, search)

    scenes = _registered(store, items(), assets)
    return SearchedScenes(scenes, ended_early)


def _items(store: ObjectStore, uri: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the address of the document and the Item, for each Item of a document and of its children."""
    waiting, seen = [uri], {uri}
    named_by: dict[str, str] = {}

    def read(address: str) -> dict[str, Any]:
        try:
            return _read_json(store, address)
        except ObjectMissingError as error:
            parent = f"; {named_by[address]} names it" if address in named_by else ""
            raise ObjectMissingError(f"{error}{parent}") from error

    while waiting:
        level, waiting = waiting, []
        for base, document in zip(level, map_threaded(read, level), strict=True):
            kind = document.get("type")
            if kind == "Feature":
                yield base, document
            elif kind == "FeatureCollection":
                yield from ((base, item) for item in _dicts(document.get("features")))
            elif kind in ("Catalog", "Collection"):
                for link in _children(store, document, base):
                    if link not in seen:
                        seen.add(link)
                        named_by[link] = base
                        waiting.append(link)
            else:
                raise DataError(f"{base}: it is no STAC Item, ItemCollection, Catalog or Collection")
        if len(seen) > MAX_DOCUMENTS:
            raise DataError(f"{uri}: the catalog has more than {MAX_DOCUMENTS} documents: give a part of it")


def _children(store: ObjectStore, document: Mapping[str, Any], base: str) -> Iterator[str]:
    for link in _dicts(document.get("links")):
        if link.get("rel") in ("item", "child") and isinstance(link.get("href"), str):
            yield resolve_href(store, base, link["href"])


def _registered(
    store: ObjectStore, items: Iterable[tuple[str, dict[str, Any]]], assets: tuple[str, ...]
) -> list[FoundScene]:
    return list(map_threaded(lambda entry: scene_of_item(store, entry[0], entry[1], assets), items))


def scene_of_item(store: ObjectStore, base: str, item: dict[str, Any], assets: tuple[str, ...] = ()) -> FoundScene:
    """Return the scene of a STAC Item. If its files cannot be read, the scene has a problem.

    Args:
        store: gives the credentials for S3.
        base: address of the document with the Item. Relative links begin in the document's folder.
        item: the Item. Its `geometry` is GeoJSON, or WKB as in stac-geoparquet.
        assets: keys or common names of the assets with the pixels.

    Raises:
        StoreUnavailableError: if the store does not answer.
    """
    geometry = _wkb(item.get("geometry"))
    name = utf8_text(str(item.get("id"))[:1000])
    uri = f"{base}#{name}"  # Address of a scene whose Item has no usable file.
    try:
        parsed = parse_item(base, item)
        files = item_files(store, parsed, assets)
        uri = files[0][1]
    except RasterEmbedError as error:
        return FoundScene(uri, item=name, geometry=geometry, problem=one_line(error, REASON_LETTERS))
    found = FoundScene(uri, item=parsed.id, datetime=parsed.acquired, cloud_cover=parsed.cloud_cover, geometry=geometry)
    return with_files(found, lambda: register_item_files(store, parsed, files))


def scenes_of_geoparquet(store: ObjectStore, uri: str, assets: tuple[str, ...]) -> list[FoundScene]:
    """Return the scenes of a stac-geoparquet file.

    Args:
        store: gives the credentials for S3.
        uri: address of the file: absolute path, s3://bucket/key, or an https:// address.
        assets: keys or common names of the assets with the pixels.

    Raises:
        DataError: if the file cannot be read, or has no Items.
    """
    return _registered(store, _rows(store, uri), assets)


_BATCH_ROWS = 1024
"""Number of rows that are read at once. An Item can have megabytes."""

_COLUMNS = ("id", "geometry", "assets", "datetime", "start_datetime", "eo:cloud_cover")


def _rows(store: ObjectStore, uri: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the address of the file and the Item, for each row of stac-geoparquet."""
    try:
        with store.open_uri(uri) as file:
            parquet = pq.ParquetFile(file)
            # The properties `*boa_offset_applied` decide whether an offset counts.
            known = parquet.schema_arrow.names
            names = [name for name in known if name in _COLUMNS or name.endswith(":boa_offset_applied")]
            if not {"id", "assets"} <= set(names):
                raise DataError(f"{uri}: it has no columns id and assets, so it is no stac-geoparquet file")
            for batch in parquet.iter_batches(_BATCH_ROWS, columns=names):
                for row in batch.to_pylist():
                    yield uri, _item_of(row)
    except (*PARQUET_ERRORS, OverflowError) as error:  # A time may be impossible, or its zone unknown.
        reason = one_line(error, REASON_LETTERS)
        raise DataError(f"{uri}: it cannot be read as Parquet ({reason}): give a stac-geoparquet file") from error


def _item_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row of stac-geoparquet as a STAC Item: its properties are columns, and a missing field is null."""
    core = ("id", "geometry", "assets")
    properties = {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in row.items()
        if name not in core
    }
    return {"type": "Feature", "properties": properties, **{name: row.get(name) for name in core}}


def _read_json(store: ObjectStore, uri: str) -> dict[str, Any]:
    try:
        document = json.loads(store.read_uri(uri, MAX_DOCUMENT_BYTES, "give a stac-geoparquet file"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{uri}: it is no JSON: give a STAC document") from error
    if not isinstance(document, dict):
        raise DataError(f"{uri}: it is no JSON object: give a STAC document")
    return document


def _dicts(value: object) -> list[dict[str, Any]]:
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def _wkb(geometry: object) -> bytes | None:
    """Return a geometry, GeoJSON or WKB, as WKB with two coordinates. Return None if it is no place on Earth."""
    try:
        if isinstance(geometry, bytes):
            shape = read_footprint(geometry, MAX_FOOTPRINT_BYTES)
        elif isinstance(geometry, Mapping):
            shape = shapely.from_geojson(json.dumps(geometry))
        else:
            return None
        data: bytes = shapely.to_wkb(shapely.force_2d(shape))
    except (shapely.errors.ShapelyError, TypeError, ValueError, RecursionError):
        return None
    west, south, east, north = shapely.bounds(shape)  # NaN if the geometry is empty.
    on_earth = -360 <= west <= east <= 360 and -90 <= south <= north <= 90
    return data if on_earth and len(data) <= MAX_FOOTPRINT_BYTES else None
