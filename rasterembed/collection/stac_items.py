"""Scenes of STAC documents: an Item, an ItemCollection, a static Catalog or Collection, and stac-geoparquet."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import shapely

from rasterembed.collection.found_scene import FoundScene
from rasterembed.collection.hrefs import resolve_href
from rasterembed.errors import DataError, RasterEmbedError, StoreUnavailableError, one_line
from rasterembed.store.object_store import ObjectStore

MAX_DOCUMENT_BYTES = 512 * 2**20
"""Largest size of a STAC document that is read. An ItemCollection of 100,000 Items has about 300 MB."""

MAX_DOCUMENTS = 1_000_000
"""Largest number of documents of a static catalog that are read."""

_THREADS = 8
"""Number of documents that are read at the same time. On S3, each read is a request."""

_VISUAL = "visual"
"""Key of the asset with colours for people, as Sentinel-2 and Landsat have it."""


def scenes_of_document(store: ObjectStore, uri: str, asset: str | None) -> Iterator[FoundScene]:
    """Yield the scenes of a STAC document, and of all documents that a catalog links to.

    Args:
        store: gives the credentials for documents on S3.
        uri: address of the document: absolute path, or s3://bucket/key.
        asset: key of the asset with the pixels. See `choose_asset`.

    Raises:
        DataError: if a document cannot be read, or is no STAC document.
    """
    waiting, seen = [uri], {uri}
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="stac") as pool:
        while waiting:
            documents = zip(waiting, pool.map(lambda each: _read_json(store, each), waiting), strict=True)
            waiting = []
            for base, document in documents:
                kind = document.get("type")
                if kind == "Feature":
                    yield scene_of_item(document, base, asset)
                elif kind == "FeatureCollection":
                    yield from (scene_of_item(item, base, asset) for item in _dicts(document.get("features")))
                elif kind in ("Catalog", "Collection"):
                    for link in _children(document, base):
                        if link not in seen:
                            seen.add(link)
                            waiting.append(link)
                else:
                    raise DataError(f"{base}: it is no STAC Item, ItemCollection, Catalog or Collection")
            if len(seen) > MAX_DOCUMENTS:
                raise DataError(f"{uri}: the catalog has more than {MAX_DOCUMENTS} documents: give a part of it")


def _children(document: Mapping[str, Any], base: str) -> Iterator[str]:
    for link in _dicts(document.get("links")):
        if link.get("rel") in ("item", "child") and isinstance(link.get("href"), str):
            yield resolve_href(base, link["href"], encoded=True)


def scene_of_item(item: Mapping[str, Any], base: str, asset: str | None) -> FoundScene:
    """Return the scene of a STAC Item. If the Item's pixels cannot be read, the scene has a problem.

    Args:
        item: the Item.
        base: address of the document with the Item. Relative links begin in the document's folder.
        asset: key of the asset with the pixels. See `choose_asset`.
    """
    found = item.get("properties")
    properties: Mapping[str, Any] = found if isinstance(found, Mapping) else {}
    name = item.get("id") if isinstance(item.get("id"), str) else None
    time = _time(properties.get("datetime") or properties.get("start_datetime"))
    cover = properties.get("eo:cloud_cover")
    is_number = isinstance(cover, int | float) and not isinstance(cover, bool) and math.isfinite(cover)
    uri, problem = _address_of(item.get("assets"), base, name, asset)
    return FoundScene(
        uri=uri,
        item=name,
        datetime=time,
        cloud_cover=float(cover) if is_number and cover is not None else None,
        geometry=_wkb(item.get("geometry")),
        problem=problem,
    )


def _address_of(assets: object, base: str, name: str | None, asset: str | None) -> tuple[str, str | None]:
    """Return the address of the file with an Item's pixels, and the reason why it cannot be read, if any.

    Without a file, the address is the one of the Item in its document.
    """
    try:
        return resolve_href(base, choose_asset(assets, asset), encoded=True), None
    except StoreUnavailableError:
        raise
    except RasterEmbedError as error:
        return f"{base}#{name}", one_line(error)


def choose_asset(assets: object, asset: str | None) -> str:
    """Return the href of the asset with a scene's pixels.

    Args:
        assets: the assets of an Item, by key.
        asset: key of the asset. The default is `visual` if the Item has it, or else its only asset with the role
            `data`, or else its only asset.

    Raises:
        DataError: if the Item does not have such an asset, or has several.
    """
    given = assets if isinstance(assets, Mapping) else {}
    known = {
        str(key): value
        for key, value in given.items()
        if isinstance(value, Mapping) and isinstance(value.get("href"), str)
    }
    if asset is not None:
        chosen = [asset] if asset in known else []
    elif _VISUAL in known:
        chosen = [_VISUAL]
    else:
        data = [key for key, value in known.items() if "data" in (value.get("roles") or ())]
        chosen = data or list(known)
    if len(chosen) == 1:
        return str(known[chosen[0]]["href"])
    names = ", ".join(sorted(known)[:20])
    if not known:
        raise DataError("the STAC Item has no asset with an address")
    if asset is not None:
        raise DataError(f"the STAC Item has no asset {asset!r}: choose `asset` from {names}")
    raise DataError(f"the STAC Item has several assets with pixels: choose `asset` from {names}")


def scenes_of_geoparquet(store: ObjectStore, uri: str, asset: str | None) -> Iterator[FoundScene]:
    """Yield the scenes of a stac-geoparquet file.

    Args:
        store: gives the credentials for a file on S3.
        uri: address of the file: absolute path, or s3://bucket/key.
        asset: key of the asset with the pixels. See `choose_asset`.

    Raises:
        DataError: if the file cannot be read, or has no Items.
    """
    wanted = ("id", "geometry", "datetime", "start_datetime", "eo:cloud_cover", "assets")
    try:
        with store.open_uri(uri) as file:
            parquet = pq.ParquetFile(file)
            names = [name for name in wanted if name in parquet.schema_arrow.names]
            if not {"id", "assets"} <= set(names):
                raise DataError(f"{uri}: it has no columns id and assets, so it is no stac-geoparquet file")
            for batch in parquet.iter_batches(columns=names):
                for row in batch.to_pylist():
                    yield _scene_of_row(row, uri, asset)
    except pa.ArrowException as error:
        raise DataError(f"{uri}: it cannot be read as Parquet ({one_line(error)}): give a stac-geoparquet file") from (
            error
        )


def _scene_of_row(row: Mapping[str, Any], uri: str, asset: str | None) -> FoundScene:
    """Return the scene of a row of stac-geoparquet. The properties are columns, and a missing asset is null."""
    times = {name: row.get(name) for name in ("datetime", "start_datetime")}
    properties = {name: time.isoformat() if isinstance(time, datetime) else time for name, time in times.items()} | {
        "eo:cloud_cover": row.get("eo:cloud_cover")
    }
    scene = scene_of_item({"id": row["id"], "assets": row["assets"], "properties": properties}, uri, asset)
    geometry = row.get("geometry")
    if not isinstance(geometry, bytes) or shapely.from_wkb(geometry, on_invalid="ignore") is None:
        return scene
    return FoundScene(
        uri=scene.uri,
        item=scene.item,
        datetime=scene.datetime,
        cloud_cover=scene.cloud_cover,
        geometry=geometry,
        problem=scene.problem,
    )


def _read_json(store: ObjectStore, uri: str) -> dict[str, Any]:
    with store.open_uri(uri) as file:
        data = file.read(MAX_DOCUMENT_BYTES + 1)
    if len(data) > MAX_DOCUMENT_BYTES:
        raise DataError(f"{uri}: it has more than {MAX_DOCUMENT_BYTES // 2**20} MiB: give a stac-geoparquet file")
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{uri}: it is no JSON: give a STAC document") from error
    if not isinstance(document, dict):
        raise DataError(f"{uri}: it is no JSON object: give a STAC document")
    return document


def _dicts(value: object) -> list[dict[str, Any]]:
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def _time(text: object) -> datetime | None:
    """Return a time of a STAC Item, or None if it is no time. A time without a zone is UTC."""
    if not isinstance(text, str):
        return None
    try:
        time = datetime.fromisoformat(text)
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _wkb(geometry: object) -> bytes | None:
    """Return a GeoJSON geometry as WKB, or None if it is no geometry."""
    if not isinstance(geometry, Mapping):
        return None
    try:
        data: bytes = shapely.to_wkb(shapely.force_2d(shapely.from_geojson(json.dumps(geometry))))
    except (shapely.errors.ShapelyError, ValueError, RecursionError):
        return None
    return data
