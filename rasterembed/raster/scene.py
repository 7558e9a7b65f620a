"""A scene: one raster, or several files that are the bands of one image.

A person names a scene by

- the path or URI of a raster,
- the path or URI of a STAC Item, whose assets are the files, or
- a mapping of channels to files, such as `{"red": "B04.tif", "green": "B03.tif", "blue": "B02.tif"}`, in a command or
  a form as the text `red=B04.tif,green=B03.tif,blue=B02.tif`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping

from rasterembed.comma_list import split_commas
from rasterembed.errors import DataError, UsageError
from rasterembed.raster.source import SceneAsset, SceneFiles, Source, register
from rasterembed.raster.stac_item_file import ITEM_SUFFIXES, ItemAsset, ItemFile, asset_uri, read_item
from rasterembed.store.https_url import is_https
from rasterembed.store.layout import is_pattern
from rasterembed.store.object_store import ObjectStore

Scene = str | Mapping[str, str]
"""A raster, a STAC Item, or a mapping of channels to files."""

_CHANNEL = re.compile(r"[A-Za-z0-9][\w-]*")
"""Name of a channel in the text form of a mapping."""


def split_assets(assets: str | None) -> tuple[str, ...]:
    """Split the names of assets that a person typed as `red,green,blue`. None and the empty text give no name."""
    return split_commas(assets or "")


MAX_FILES = 64
"""Largest number of files of a scene. Sentinel-2 has 13 bands, and hyperspectral images are one file."""

_LIST_SUFFIXES = (".txt", ".parquet")
"""Endings of files that name the scenes of a collection."""

COLOURS = ("red", "green", "blue")
"""Names of the three channels."""


def register_scene(store: ObjectStore, scene: Scene, assets: Iterable[str] = ()) -> Source:
    """Find all files of a scene, and return its identity.

    Args:
        store: gives the credentials for files on S3, and the hosts that may be read over https.
        scene: a raster, a STAC Item or a mapping. A name that ends in .json or .geojson is a STAC Item. The text form
            of a mapping has at least two channels; if a file has this name, the file is the raster.
        assets: keys or common names of the STAC Item's assets to use, in this order. By default: the asset `visual`,
            else the assets with the common names red, green and blue, else the Item's only data asset.

    Raises:
        UsageError: if a name is not a file, or `assets` are given and the scene is not a STAC Item.
        DataError: if a file is empty, or the STAC Item cannot be used.
        StoreError: if a file does not exist or may not be read.

    Example:
        >>> from rasterembed.store.object_store import ObjectStore
        >>> store = ObjectStore(root="embeddings")
        >>> for band in ("B04", "B03", "B02"):
        ...     _ = open(f"{band}.tif", "wb").write(b"not read before the header is inspected")
        >>> scene = register_scene(store, {"red": "B04.tif", "green": "B03.tif", "blue": "B02.tif"})
        >>> print(*(asset.name for asset in scene.scene.assets))
        red green blue
    """
    wanted = tuple(assets)
    scene = _mapping_in(scene) or scene if isinstance(scene, str) else scene
    if isinstance(scene, str) and _one_channel(scene) is not None:
        raise UsageError(
            f"{scene!r} has one channel, and a mapping has at least two: for a single file, give {_one_channel(scene)}"
        )
    several = _several(scene) if isinstance(scene, str) else None
    if several is not None:
        raise UsageError(
            f"{scene!r} is {several}: give one raster, or embed all of its rasters as a collection "
            "(`rasterembed collection embed SCENES --collection NAME`)"
        )
    if isinstance(scene, str) and scene.lower().endswith(ITEM_SUFFIXES):
        return _register_item(store, scene, wanted)
    if wanted:
        raise UsageError("`assets` chooses files of a STAC Item: leave it out for a raster or for a mapping")
    return register(store, scene) if isinstance(scene, str) else _register_mapping(store, scene)


def _mapping_in(text: str) -> dict[str, str] | None:
    """Return the mapping that a person typed as `red=B04.tif,green=B03.tif`, or None if the text is no mapping."""
    pairs = [part.strip().partition("=") for part in text.split(",")]
    if len(pairs) < 2 or not all(_CHANNEL.fullmatch(name) and file for name, _, file in pairs):
        return None
    if "\0" not in text and os.path.lexists(text):
        return None
    names = [name for name, _, _ in pairs]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"channel {twice!r} has two files: give each channel once")
    return {name: file for name, _, file in pairs}


def _one_channel(text: str) -> str | None:
    """Return the file of a mapping with only one channel, such as `red=B04.tif`, or None if the text is no mapping."""
    name, _, file = text.partition("=")
    is_mapping = _CHANNEL.fullmatch(name) and file and "\0" not in text and not os.path.lexists(text)
    return file if is_mapping and "," not in file else None


def _several(text: str) -> str | None:
    """Return words for a name that can stand for several scenes, such as `a folder`. None if it names one file."""
    if text.startswith("s3://"):
        if text.endswith("/") or "/" not in text.removeprefix("s3://"):
            return "a bucket or a prefix"
    elif "\0" not in text and os.path.isdir(os.path.expanduser(text)):
        return "a folder"
    if is_pattern(text) and not is_https(text) and ("\0" in text or not os.path.lexists(text)):
        return "a pattern"
    return "a list of scenes" if text.lower().endswith(_LIST_SUFFIXES) else None


def _register_mapping(store: ObjectStore, channels: Mapping[str, str]) -> Source:
    if not 1 <= len(channels) <= MAX_FILES:
        raise UsageError(f"a mapping of {len(channels)} channels is no scene: give 1 to {MAX_FILES} channels")
    if not all(isinstance(part, str) and part for pair in channels.items() for part in pair):
        raise UsageError("a channel or its file has no name: give a mapping of texts, such as red: B04.tif")
    files = tuple(
        SceneAsset(name=name, source=register(store, file, what=f"file of channel {name!r}"))
        for name, file in channels.items()
    )
    return files[0].source.model_copy(update={"scene": SceneFiles(assets=files)})


def _register_item(store: ObjectStore, raster: str, wanted: tuple[str, ...]) -> Source:
    source = register(store, raster, what="STAC Item")
    item = read_item(store, source.uri)
    scene = _register_files(store, item, item_files(store, item, wanted))
    return source.model_copy(update={"scene": scene})


def item_files(store: ObjectStore, item: ItemFile, wanted: tuple[str, ...] = ()) -> list[tuple[ItemAsset, str]]:
    """Return the assets of a STAC Item that are a scene, with the addresses of their files. No file is looked at.

    Args:
        store: tells which hosts may be read over https.
        item: the Item.
        wanted: see `assets` of `register_scene`.

    Raises:
        UsageError: if an asset does not exist, or if there are too many.
        DataError: if the Item has no assets for a scene, or an address cannot be read.
    """
    chosen = _chosen(item, wanted) if wanted else _default(item)
    if len(chosen) > MAX_FILES:
        raise UsageError(f"{item.uri}: a scene may have {MAX_FILES} assets, and not {len(chosen)}: choose fewer")
    return [(asset, asset_uri(store, item, asset)) for asset in chosen]


def register_item_files(store: ObjectStore, item: ItemFile, files: list[tuple[ItemAsset, str]]) -> Source:
    """Return the identity of the scene of a STAC Item, without the document of the Item.

    A document with many Items changes whenever an Item is added. The identity therefore covers only the files with
    pixels, and what the Item says about them. Its URI is that of the first file.

    Args:
        store: gives the credentials for files on S3, and the hosts that may be read over https.
        item: the Item.
        files: the result of `item_files`.

    Raises:
        StoreError: if a file does not exist or may not be read.
        DataError: if a file is empty.
    """
    scene = _register_files(store, item, files)
    return scene.assets[0].source.model_copy(update={"scene": scene})


def _register_files(store: ObjectStore, item: ItemFile, files: list[tuple[ItemAsset, str]]) -> SceneFiles:
    assets = tuple(
        SceneAsset(
            name=asset.key,
            source=register(store, uri, what=f"file of asset {asset.key!r}"),
            bands=asset.bands,
        )
        for asset, uri in files
    )
    return SceneFiles(assets=assets, item_id=item.id, acquired=item.acquired, cloud_cover=item.cloud_cover)


def _chosen(item: ItemFile, wanted: tuple[str, ...]) -> list[ItemAsset]:
    """Return the assets with these keys or common names. An asset that is named twice is returned once."""
    found: dict[str, ItemAsset] = {}
    for name in wanted:
        asset = item.assets.get(name) or _by_common_name(item, name)
        if asset is None:
            raise UsageError(f"{item.uri}: no asset has the key or the common name {name!r}: choose from {_keys(item)}")
        found[asset.key] = asset
    return list(found.values())


def _default(item: ItemFile) -> list[ItemAsset]:
    """Return the asset `visual`, else those of red, green and blue, else the only data asset."""
    visual = item.assets.get("visual")
    if visual is not None and visual.is_raster:
        return [visual]
    colours = [_by_common_name(item, colour) for colour in COLOURS]
    if None not in colours:
        return list({asset.key: asset for asset in colours if asset is not None}.values())
    data = [asset for asset in item.assets.values() if asset.is_data]
    if len(data) == 1:
        return data
    raise DataError(
        f"{item.uri}: it has {len(data)} data assets, no asset `visual`, and none for each of red, green and blue: "
        f"choose with `assets` from {_keys(item)}"
    )


def _by_common_name(item: ItemFile, name: str) -> ItemAsset | None:
    """Return the data asset with a band of this common name, or None if no asset has one.

    Raises:
        UsageError: if several assets have one, and no key is the name.
    """
    found = [asset for asset in item.assets.values() if asset.is_data and name in [band.name for band in asset.bands]]
    exact = [asset for asset in found if asset.key == name]
    # One file of several bands, such as a composite, is used only if no file holds this band alone.
    alone = exact or [asset for asset in found if len(asset.bands) == 1] or found
    if len(alone) > 1:
        keys = ", ".join(repr(asset.key[:100]) for asset in alone[:10])
        raise UsageError(f"{item.uri}: several assets have the common name {name!r}: choose with `assets` from {keys}")
    return alone[0] if alone else None


def _keys(item: ItemFile) -> str:
    keys = [key for key, asset in item.assets.items() if asset.is_raster] or list(item.assets)
    return ", ".join(repr(key[:100]) for key in keys[:30]) or "its assets (it has none)"
