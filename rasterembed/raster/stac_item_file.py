"""Read a STAC Item from its file: the assets, and the facts about their bands.

The Item is data from somebody else. It is read with a limit, every field may have any type, and an address in it is
used only if `asset_uri` allows it. STAC 1.0 (`eo:bands`, `raster:bands`) and STAC 1.1 (`bands`) are read.
"""

from __future__ import annotations

import json
import math
import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import unquote

from rasterembed.errors import DataError, UsageError, utf8_text
from rasterembed.raster.acquisition_time import parse_time
from rasterembed.raster.source import BandFacts
from rasterembed.store.https_url import is_https, joined_url, shown_url
from rasterembed.store.object_store import ObjectStore, is_remote, locate

ITEM_SUFFIXES = (".json", ".geojson")
"""Endings of the names of STAC Items. A raster never has such a name."""

_MAX_BYTES = 16 * 2**20
"""Largest size of an Item's file. Items of public catalogues have about 20 KB."""

_OFFSET_APPLIED = ("earthsearch:boa_offset_applied", "sentinel:boa_offset_applied")
"""Properties of an Item that say: the pixels have no offset any more, although the Item still gives one. Earth Search
removed the offset of Sentinel-2's baseline 04.00 from its files, and kept -0.1 in `raster:bands`."""

_BASELINE = re.compile(r"\d\d\.\d\d")
_BASELINE_WITH_OFFSET = "04.00"
"""Processing baseline of Sentinel-2 since which 1000 is added to all pixels. Baselines compare as texts."""

_SENTINEL2_BAND = re.compile(r"B(0[1-9]|1[0-2]|8A)")
"""Key of an asset that holds reflectances of Sentinel-2, and not a picture or a classification."""

_NOT_DATA = {"thumbnail", "overview", "metadata", "data-mask", "cloud", "cloud-shadow", "saturation", "snow-ice"}
"""Roles of assets that are not the image itself."""


@dataclass(frozen=True)
class ItemAsset:
    """One asset of an Item."""

    key: str
    """Key of the asset in the Item."""
    hrefs: tuple[str, ...]
    """Addresses of the same file as the Item writes them: `href`, then those in `alternate`."""
    roles: frozenset[str]
    media_type: str
    bands: tuple[BandFacts, ...]
    """Facts about the bands of the file, in the order of the file. Empty if the Item gives none."""

    @property
    def is_raster(self) -> bool:
        """Whether the media type or the name is that of a raster."""
        name = self.hrefs[0].partition("?")[0].lower() if self.hrefs else ""
        return self.media_type.startswith("image/") or name.endswith((".tif", ".tiff", ".jp2", ".png", ".jpg", ".jpeg"))

    @property
    def is_data(self) -> bool:
        """Whether the asset is an image of the scene: a raster with the role `data`, or with no role in `_NOT_DATA`."""
        return self.is_raster and ("data" in self.roles or not self.roles & _NOT_DATA)


@dataclass(frozen=True)
class ItemFile:
    """A STAC Item, as far as a scene needs it."""

    uri: str
    """Address of the Item's file: absolute path, s3://bucket/key, or an https:// address."""
    id: str
    assets: Mapping[str, ItemAsset]
    """The assets by key."""
    acquired: datetime | None
    """`datetime`, else `start_datetime`, UTC; or None."""
    cloud_cover: float | None
    """`eo:cloud_cover`, in percent, or None."""


def read_item(store: ObjectStore, uri: str) -> ItemFile:
    """Read a STAC Item.

    Args:
        store: gives the credentials for an Item on S3.
        uri: absolute path, s3://bucket/key, or an https:// address.

    Raises:
        DataError: if the file is too large, or is not a STAC Item with assets.
        StoreError: if the file does not exist or may not be read.
    """
    try:
        item = json.loads(store.read_uri(uri, _MAX_BYTES, "give a raster or a STAC Item"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{uri}: it is not JSON, so it is no STAC Item: give a raster or a STAC Item") from error
    return parse_item(uri, item)


def parse_item(uri: str, item: object) -> ItemFile:
    """Return the parts of a STAC Item that a scene needs.

    Args:
        uri: address of the document with the Item: absolute path, s3://bucket/key, or an https:// address.
        item: the Item as JSON values.

    Raises:
        DataError: if it is not a STAC Item with assets.
    """
    if not isinstance(item, dict) or item.get("type") != "Feature" or not isinstance(item.get("assets"), dict):
        kind = item.get("type") if isinstance(item, dict) else None
        if kind in ("FeatureCollection", "Catalog", "Collection"):
            raise DataError(
                f"{uri}: its type is {kind!r}, which can have several scenes: embed this file by itself "
                "(`rasterembed collection embed FILE --collection NAME`), or give one Item of it"
            )
        what = f" (its type is {str(kind)[:40]!r})" if kind is not None else ""
        raise DataError(
            f"{uri}: it is not a STAC Item{what}. An Item is a Feature with a member named assets: give an Item or a "
            "raster"
        )
    properties = _mapping(item.get("properties"))
    applied = any(properties.get(name) is True for name in _OFFSET_APPLIED)
    baseline = _baseline_facts(properties)
    assets = {
        utf8_text(key): _asset(key, asset, baseline if _SENTINEL2_BAND.fullmatch(key) else None, offset_applied=applied)
        for key, asset in item["assets"].items()
        if isinstance(asset, dict)
    }
    cloud_cover = _number(properties.get("eo:cloud_cover"))
    return ItemFile(
        uri=uri,
        id=utf8_text(str(item.get("id", ""))[:1000]),
        assets=assets,
        acquired=_time(properties.get("datetime")) or _time(properties.get("start_datetime")),
        cloud_cover=cloud_cover if cloud_cover is not None and 0 <= cloud_cover <= 100 else None,
    )


def asset_uri(store: ObjectStore, item: ItemFile, asset: ItemAsset) -> str:
    """Return the address of an asset's file: an absolute path, s3://bucket/key, or an https:// address.

    A relative address is relative to the Item. The first address that may be read is returned. See `resolve_href`.

    Args:
        store: tells which hosts may be read over https.
        item: the Item.
        asset: one of its assets.

    Raises:
        DataError: if no address of the asset can be read.
    """
    problems = []
    for href in asset.hrefs:
        try:
            return resolve_href(store, item.uri, href)
        except (DataError, UsageError) as error:
            problems.append(str(error))
    reason = problems[0] if problems else "it has no href"
    raise DataError(f"{item.uri}: asset {asset.key!r}: {reason}")


def resolve_href(store: ObjectStore, item_uri: str, href: str) -> str:
    """Return the address that a document means: an absolute path, s3://bucket/key, or an https:// address.

    A document on a server may not name a local file: somebody else wrote the document, and it must not make a worker
    read the worker's own files.

    Args:
        store: tells which hosts may be read over https.
        item_uri: address of the document, such as a STAC Item. A relative address begins in the document's folder.
        href: address in the document.

    Raises:
        DataError: if the address is on a host that may not be read, is a local file named by a document on a server, or
            leads out of the bucket.
        UsageError: if the address is no path, or is an https:// address with a query.
    """
    shown = repr(shown_url(href)[:200])
    scheme = href.partition("://")[0].lower() if "://" in href else ""
    if scheme == "s3":
        return locate(href, "asset")
    if scheme == "https" or (is_https(item_uri) and not scheme):
        return _checked_https(store, joined_url(item_uri, href) if is_https(item_uri) else href)
    if scheme not in ("", "file"):
        raise DataError(
            f"{shown} is no path, no s3://bucket/key and no https:// address, so it is not read: copy the file, and "
            "name it"
        )
    path = unquote(href[len("file://") :]) if scheme else href
    if not is_remote(item_uri):
        return locate(posixpath.normpath(posixpath.join(posixpath.dirname(item_uri), path)), "asset")
    if scheme or path.startswith("/"):
        raise DataError(f"{shown} is a local file, and a document on a server may name files on servers only")
    bucket, _, key = item_uri.removeprefix("s3://").partition("/")
    joined = posixpath.normpath(posixpath.join(posixpath.dirname(key), path))
    if joined.startswith(".."):
        raise DataError(f"{shown} is outside the bucket of the document that names it")
    return locate(f"s3://{bucket}/{joined}", "asset")


def _checked_https(store: ObjectStore, url: str) -> str:
    """Return an https:// address in its one form, if its host may be read."""
    # The host is checked first, so that the other addresses of an asset on a host that is not listed are tried.
    store.https.check(url)
    return locate(url, "asset")


def _baseline_facts(properties: Mapping[str, Any]) -> BandFacts | None:
    """Return scale and offset that follow from the processing baseline of a Sentinel-2 Item, or None if it has none.

    The Items of some catalogues, such as the Planetary Computer, give the baseline and no scale or offset.
    """
    baseline = properties.get("s2:processing_baseline")
    if not isinstance(baseline, str) or not _BASELINE.fullmatch(baseline):
        return None
    return BandFacts(scale=0.0001, offset=-0.1 if baseline >= _BASELINE_WITH_OFFSET else 0.0)


def _asset(key: str, asset: Mapping[str, Any], baseline: BandFacts | None, *, offset_applied: bool) -> ItemAsset:
    bands = _bands(asset, offset_applied=offset_applied)
    if baseline is not None and all(band.scale is None and band.offset is None for band in bands):
        offset = 0.0 if offset_applied else baseline.offset
        bands = tuple(band.model_copy(update={"scale": baseline.scale, "offset": offset}) for band in bands)
    alternates = [_mapping(value).get("href") for value in _mapping(asset.get("alternate")).values()]
    roles = asset.get("roles")
    return ItemAsset(
        key=utf8_text(key),
        hrefs=tuple(href for href in (asset.get("href"), *alternates) if isinstance(href, str) and href),
        roles=frozenset(role for role in roles if isinstance(role, str)) if isinstance(roles, list) else frozenset(),
        media_type=str(asset.get("type") or "").lower(),
        bands=bands,
    )


def _bands(asset: Mapping[str, Any], *, offset_applied: bool) -> tuple[BandFacts, ...]:
    """Return the facts about each band. A field of the asset itself holds for all of its bands (STAC 1.1)."""
    lists = [value if isinstance(value := asset.get(n), list) else [] for n in ("bands", "eo:bands", "raster:bands")]
    facts = []
    for number in range(max(map(len, lists))):
        fields = dict(asset)
        for values in lists:
            fields |= _mapping(values[number]) if number < len(values) else {}
        facts.append(_facts(fields, offset_applied=offset_applied))
    return tuple(facts) or (_facts(asset, offset_applied=offset_applied),)


def _facts(fields: Mapping[str, Any], *, offset_applied: bool) -> BandFacts:
    names = (fields.get(name) for name in ("eo:common_name", "common_name", "name"))
    scale = _number(fields.get("raster:scale", fields.get("scale")))
    offset = _number(fields.get("raster:offset", fields.get("offset")))
    return BandFacts(
        name=next((utf8_text(name[:100]) for name in names if isinstance(name, str) and name), None),
        nodata=_number(fields.get("nodata")),
        scale=scale if scale is not None and scale > 0 else None,
        offset=0.0 if offset is not None and offset_applied else offset,
    )


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _number(value: object) -> float | None:
    """Return a finite number, or None for every other value."""
    try:
        number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _time(value: object) -> datetime | None:
    return parse_time(value) if isinstance(value, str) else None
