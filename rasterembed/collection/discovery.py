"""Discover scenes: in a folder, by a pattern, in a list of paths, or in a STAC document."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import takewhile

from rasterembed.collection.found_scene import REASON_LETTERS, FoundScene, Listing, listing_of, with_files
from rasterembed.collection.listing_address import fits_path, is_file_pattern
from rasterembed.collection.stac_items import scenes_of_document, scenes_of_geoparquet, scenes_of_search
from rasterembed.collection.stac_search import StacSearch
from rasterembed.collection.threaded import map_threaded
from rasterembed.errors import (
    DataError,
    ObjectMissingError,
    RasterEmbedError,
    StoreError,
    StoreUnavailableError,
    UsageError,
    one_line,
)
from rasterembed.raster.drivers import open_raster
from rasterembed.raster.stac_item_file import resolve_href
from rasterembed.store.collection_rules import is_scene
from rasterembed.store.folder import FolderStorage
from rasterembed.store.https_url import canonical_url, is_https, shown_url
from rasterembed.store.layout import is_pattern
from rasterembed.store.object_store import ObjectStore, locate
from rasterembed.store.storage import ObjectInfo
from rasterembed.store.uploads import RASTER_SUFFIXES, is_output

_ENDINGS = "a list of scenes ends in .txt, and a STAC document in .json, .geojson or .parquet"
"""Advice for a file with another ending."""

_COMMENT = re.compile(r"(?:^|\s)#")
"""Beginning of a comment in a list of paths. Inside a name, `#` is a letter like any other."""

_MAX_LIST_BYTES = 256 * 2**20
"""Largest size of a list of paths."""


def discover(
    store: ObjectStore, address: str, assets: tuple[str, ...] = (), search: StacSearch | None = None
) -> Listing:
    """Find all scenes at an address.

    Files that runs wrote into the store are never scenes. A scene whose file is missing is part of the listing, with
    its problem. It is then recorded in the catalogue.

    Args:
        store: gives the credentials for S3, and the hosts that may be read over https.
        address: one of these:

            - a folder, or s3://bucket/prefix/: all rasters below it, by the endings `RASTER_SUFFIXES`
            - a pattern, such as `/data/2026/**/*.tif` or s3://bucket/2026-*/*.tif
            - a text file (.txt) with one path or s3:// address a line; # begins a comment, also after a blank
            - a STAC Item, ItemCollection, Catalog or Collection (.json, .geojson)
            - a stac-geoparquet file (.parquet)
            - a single raster
            - the first page of a STAC API (https://), with `search`

            All but a folder and a pattern may also be https:// addresses of a host that the source store lists.
        assets: for STAC, keys or common names of the assets with the pixels. See `register_scene`.
        search: which Items of a STAC API are scenes. Only with the address of a STAC API.

    Raises:
        UsageError: if the address is none of these, or if a search is given for an address that is no STAC API.
        DataError: if nothing is found, or if a document cannot be read.
        StoreError: if the store refuses.

    Example:
        >>> discover(store, "s3://rasters/2026/").scenes[0].uri  # doctest: +SKIP
        's3://rasters/2026/a.tif'
    """
    if search is not None:
        return _searched(store, address, assets, search)
    uri = _located(address)
    lower = uri.lower()
    if is_file_pattern(uri):
        listing = listing_of(uri, _with_items(store, list(_matching(store, uri)), assets))
    elif lower.endswith(".txt"):
        listing = listing_of(uri, _with_items(store, _described(store, _listed(store, uri)), assets))
    elif lower.endswith((".json", ".geojson")):
        listing = listing_of(uri, scenes_of_document(store, uri, assets))
    elif lower.endswith(".parquet"):
        listing = listing_of(uri, scenes_of_geoparquet(store, uri, assets))
    elif is_scene(uri) or os.path.isfile(uri):
        if not is_scene(uri):
            _check_raster(store, uri)
        listing = listing_of(uri, _described(store, [FoundScene(uri)]))
    elif is_https(uri):
        raise UsageError(
            f"{uri}: a web server has no listing of files. For a STAC API, give `search`; else give a STAC document "
            "(.json), a list (.txt), a stac-geoparquet file (.parquet) or a raster"
        )
    else:
        listing = listing_of(uri, list(_below(store, uri)))
    if not listing.scenes:
        raise DataError(f"{uri}: no scene was found: {_why_none(uri)}")
    return listing


def file_exists(store: ObjectStore, uri: str) -> bool:
    """Return whether a file of a scene exists. A file that may not be looked at counts as one that exists.

    Raises:
        StoreUnavailableError: if the store does not answer.
    """
    try:
        store.describe(uri)
    except StoreUnavailableError:
        raise
    except StoreError as error:
        return not isinstance(error, ObjectMissingError)
    return True


def _why_none(uri: str) -> str:
    """Return why an address has no scene, and what a person can do."""
    lower = uri.lower()
    if is_file_pattern(uri):
        return f"no file has such a path: check the pattern; {_ENDINGS}"
    if lower.endswith(".txt"):
        return "no line of the list has a path: write one path or s3:// address in each line"
    if lower.endswith((".json", ".geojson", ".parquet")):
        return "the document leads to no STAC Item: give one that does"
    if os.path.splitext(uri)[1] and not os.path.isdir(uri):  # An object of S3 that is not there looks like a prefix.
        return f"check the address; {_ENDINGS}"
    endings = f"{', '.join(RASTER_SUFFIXES[:-1])} or {RASTER_SUFFIXES[-1]}"
    other = f"give other scenes by a pattern, such as {uri.rstrip('/')}/*.json"
    return f"check the address; the scenes of a folder end in {endings}: {other}"


def _check_raster(store: ObjectStore, uri: str) -> None:
    """Refuse a file that is no raster, and whose ending is not that of a raster. It may be a list of scenes.

    Raises:
        DataError: if the file cannot be opened as a raster. The text names the endings of lists and documents.
    """
    try:
        with open_raster(store, uri):
            pass
    except StoreError:
        raise
    except DataError as error:
        raise DataError(f"{error}; {_ENDINGS}") from error


def _searched(store: ObjectStore, address: str, assets: tuple[str, ...], search: StacSearch) -> Listing:
    """Return the scenes that a STAC API finds. The address of the listing holds the search.

    Scenes are therefore gone only if the same search does not find them any more.
    """
    if not is_https(address):
        raise UsageError(f"`search` needs the address of a STAC API, which begins with https://, not {address!r}")
    api = canonical_url(address, "scenes").rstrip("/")
    found = scenes_of_search(store, api, search, assets)
    listing = replace(listing_of(search.address(api), found.scenes), ended_early=found.ended_early)
    if not listing.scenes:
        raise DataError(f"{listing.address}: the search finds nothing: check its place, dates and conditions")
    return listing


def _located(address: str) -> str:
    """Return an address in its full form. The address of a folder on S3 may be a whole bucket."""
    if not address.startswith("s3://"):
        return locate(address, "scenes")
    bucket, _, key = address.removeprefix("s3://").partition("/")
    if not bucket:
        raise UsageError(f"scenes {address!r} names no bucket: use s3://bucket/prefix/")
    # The same folder with and without the last slash must give the same address: the catalogue compares it.
    return f"s3://{bucket}/{key}".rstrip("/")


def _below(store: ObjectStore, folder: str) -> Iterator[FoundScene]:
    """Yield all rasters in a folder and its subfolders."""
    if not folder.startswith("s3://") and not os.path.isdir(folder):
        raise UsageError(f"{folder}: there is no such file or folder: give a folder, a pattern, a list or a STAC file")
    return _scenes(store, ((uri, info) for uri, info in _files(store, folder) if is_scene(uri)))


def _matching(store: ObjectStore, pattern: str) -> Iterator[FoundScene]:
    """Yield all files whose path matches a pattern."""
    head = "s3://" if pattern.startswith("s3://") else ""
    parts = pattern.removeprefix(head).split("/")
    fixed = list(takewhile(lambda part: not is_pattern(part), parts))
    if head and not fixed:
        raise UsageError(f"{pattern}: the name of a bucket cannot be a pattern")
    folder, rest = head + "/".join(fixed), tuple(parts[len(fixed) :])
    found = _files(store, folder or "/")
    return _scenes(
        store, ((uri, info) for uri, info in found if fits_path(tuple(uri[len(folder) :].strip("/").split("/")), rest))
    )


def _files(store: ObjectStore, folder: str) -> Iterator[tuple[str, ObjectInfo]]:
    """Yield the address and the `ObjectInfo` of every file below a folder."""
    if folder.startswith("s3://"):
        for bucket, key, info in store.find_uploads(folder):
            yield f"s3://{bucket}/{key}", info
    else:
        yield from FolderStorage().find(folder)


def _scenes(store: ObjectStore, files: Iterable[tuple[str, ObjectInfo]]) -> Iterator[FoundScene]:
    for uri, info in files:
        if not is_output(uri, store.root):
            yield FoundScene(uri, size=info.size, version=info.version, modified=info.modified)


def _listed(store: ObjectStore, uri: str) -> Iterator[FoundScene]:
    """Yield the scenes of a list of paths. A relative path begins in the folder of the list."""
    try:
        lines = store.read_uri(uri, _MAX_LIST_BYTES, "divide the list").decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{uri}: the list is not UTF-8: write it as UTF-8") from error
    refused: Counter[str] = Counter()
    for line in (_COMMENT.split(line, maxsplit=1)[0].strip() for line in lines):
        if not line:
            continue
        try:
            yield FoundScene(resolve_href(store, uri, line))
        except RasterEmbedError as error:
            # The address is written into the catalogue, so it may hold no secret, such as a query. Without their
            # queries, different lines can look equal. A number keeps them apart, also from a line without a query.
            shown = shown_url(line)
            if shown != line:
                refused[shown] += 1
                shown = f"{shown}#{refused[shown]}"
            yield FoundScene(shown, problem=one_line(error, REASON_LETTERS))


def _with_items(store: ObjectStore, scenes: list[FoundScene], assets: tuple[str, ...]) -> list[FoundScene]:
    """Return the scenes. If an address is that of a STAC Item, its scene gets the state of the files of the Item.

    The catalogue has this state too. With the state of the Item's own file, the scene would always look changed.
    """
    of_items = map_threaded(
        lambda scene: with_files(scene, lambda: scene.register(store, assets)),
        [scene for scene in scenes if scene.is_item and scene.problem is None],
    )
    return [next(of_items) if scene.is_item and scene.problem is None else scene for scene in scenes]


def _described(store: ObjectStore, scenes: Iterable[FoundScene]) -> list[FoundScene]:
    """Return the scenes with the size and version of their files."""
    return list(map_threaded(lambda scene: _describe(store, scene), scenes))


def _describe(store: ObjectStore, scene: FoundScene) -> FoundScene:
    if scene.problem is not None:
        return scene
    try:
        info = store.describe(scene.uri)
    except StoreUnavailableError:
        raise
    except StoreError as error:
        return replace(scene, problem=one_line(error, REASON_LETTERS))
    return replace(scene, size=info.size, version=info.version, modified=info.modified)
