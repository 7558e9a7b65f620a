"""A scene as a listing names it, before it is embedded."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from rasterembed.errors import RasterEmbedError, StoreUnavailableError, one_line
from rasterembed.raster.scene import register_scene
from rasterembed.raster.source import Source
from rasterembed.raster.stac_item_file import ITEM_SUFFIXES
from rasterembed.store.object_store import ObjectStore

REASON_LETTERS = 1000
"""Largest length of the reason why a scene failed. The remedy is often at its end, so nearly no reason is cut."""


@dataclass(frozen=True, slots=True)
class FoundScene:
    """A scene in a listing."""

    uri: str
    """Address of the scene's file, or of its first file: absolute path, or s3://bucket/key."""
    size: int | None = None
    """Size of all files in bytes. None if it is not known. See `state_of`."""
    version: str | None = None
    """Version of the files. None if it is not known. See `state_of`."""
    modified: float | None = None
    """Time of the file's last modification, in seconds since 1970."""
    item: str | None = None
    """Id of the STAC Item that names the scene."""
    datetime: datetime | None = None
    """Time of acquisition from the STAC Item, UTC."""
    cloud_cover: float | None = None
    """Share of the scene that clouds cover, in percent, from the STAC Item."""
    geometry: bytes | None = None
    """Footprint from the STAC Item in OGC:CRS84, as WKB."""
    source: Source | None = None
    """The files of a scene that a STAC Item names. None for a raster."""
    problem: str | None = None
    """Why the scene cannot be embedded, in one line. None if nothing speaks against it."""

    @property
    def is_item(self) -> bool:
        """Whether the address is that of a STAC Item. A list can name such files beside rasters."""
        return self.uri.lower().endswith(ITEM_SUFFIXES)

    def register(self, store: ObjectStore, assets: tuple[str, ...]) -> Source:
        """Find the files of the scene, unless the listing names them. See `register_scene` for the errors.

        Args:
            store: gives the credentials for files on S3, and the hosts that may be read over https.
            assets: keys or common names of the assets to use, if the address is that of a STAC Item.
        """
        return self.source or register_scene(store, self.uri, assets if self.is_item else ())


def with_files(scene: FoundScene, find: Callable[[], Source]) -> FoundScene:
    """Return a scene of a STAC Item with its files and their state. If they cannot be found, the scene has a problem.

    Args:
        scene: the scene.
        find: function that finds the files.

    Raises:
        StoreUnavailableError: if the store does not answer.
    """
    try:
        source = find()
    except StoreUnavailableError:
        raise
    except RasterEmbedError as error:
        return replace(scene, problem=one_line(error, REASON_LETTERS))
    size, version = state_of(source)
    return replace(scene, source=source, size=size, version=version, modified=source.modified.timestamp())


def state_of(source: Source) -> tuple[int, str]:
    """Return the size and the version of a scene. If its dataset must be written again, one of the two has changed.

    Args:
        source: the scene.

    Returns:
        Size of all files in bytes, and the version of the file. If a STAC Item names the files, the version is a digest
        of their versions and of what the Item says about their bands, the time of acquisition and the cloud cover.
    """
    if source.scene is None:
        return source.size, source.version
    digest = hashlib.sha256()
    for asset in source.scene.assets:
        file = asset.source
        digest.update(f"{asset.name}\n{file.uri}\n{file.size}\n{file.version}\n".encode(errors="surrogatepass"))
        digest.update("".join(band.model_dump_json() for band in asset.bands).encode())
    digest.update(json.dumps(source.scene.statements()).encode())
    return sum(file.size for file in source.files), digest.hexdigest()[:32]


@dataclass(frozen=True)
class Listing:
    """The scenes that were found at one address."""

    address: str
    """The address in its full form: an absolute path or pattern, or s3://bucket/..."""
    scenes: tuple[FoundScene, ...]
    """The scenes in the order of their addresses. Each address occurs once."""
    repeated: tuple[str, ...] = ()
    """Addresses of scenes that the listing names more than once."""
    ended_early: bool = False
    """Whether a server named more pages, but sent only empty ones, so that the search was ended. The listing may then
    lack scenes, so no scene is called gone."""


def listing_of(address: str, scenes: list[FoundScene]) -> Listing:
    """Return a listing in which each scene occurs once. Of equal addresses, the first scene stays.

    Args:
        address: address of the listing.
        scenes: all scenes that were found, in any order.
    """
    first: dict[str, FoundScene] = {}
    repeated: set[str] = set()
    for scene in scenes:
        if first.setdefault(scene.uri, scene) is not scene:
            repeated.add(scene.uri)
    ordered = tuple(first[uri] for uri in sorted(first))
    return Listing(address, ordered, tuple(sorted(repeated)))
