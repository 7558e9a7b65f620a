"""The header of a scene: the headers of its files, joined to that of one raster."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import numpy as np

from rasterembed.errors import DataError
from rasterembed.raster.profile import AssetProfile, RasterProfile, inspect_raster
from rasterembed.raster.same_grid import crs_name, grid_difference, same_crs
from rasterembed.raster.scene import COLOURS
from rasterembed.raster.source import BandFacts, SceneAsset, Source
from rasterembed.store.object_store import ObjectStore


def inspect_scene(store: ObjectStore, source: Source, *, allow_no_crs: bool = False) -> RasterProfile:
    """Read the header of a raster, or of all files of a scene. Refuse a scene that cannot be embedded.

    Args:
        store: gives the credentials for files on S3.
        source: the raster or the scene as it was registered.
        allow_no_crs: True to accept a raster without a place on Earth, False to refuse it.

    Raises:
        DataError: if a file cannot be embedded, or if the pixels of two files lie at different places.
        StoreError: if a file does not exist or may not be read.
    """
    if source.scene is None:
        return inspect_raster(store, source.uri, allow_no_crs=allow_no_crs)
    by_item = source.scene.item_id is not None
    assets = [_inspect_asset(store, asset, by_item=by_item, allow_no_crs=allow_no_crs) for asset in source.scene.assets]
    return join_assets(source.uri, assets, acquired=source.scene.acquired)


def _inspect_asset(store: ObjectStore, asset: SceneAsset, *, by_item: bool, allow_no_crs: bool) -> AssetProfile:
    found = inspect_raster(store, asset.source.uri, allow_no_crs=allow_no_crs)
    data = [band for band in range(1, found.count + 1) if band != found.alpha_band]
    if not by_item and len(data) != 1:
        raise DataError(
            f"{asset.source.uri}: it has {len(data)} bands, and the file of channel {asset.name!r} needs one: "
            "choose a band (gdal_translate -b 1 FILE NEW.tif), or embed the file without a mapping"
        )
    # An Item with another number of bands does not describe this file.
    facts = asset.bands if len(asset.bands) in (len(data), found.count) else ()
    facts = (*facts, *(BandFacts() for _ in range(found.count - len(facts))))
    alone = len(data) == 1
    names = tuple(
        asset.name if alone and not by_item else fact.name or (asset.name if alone else found.descriptions[number])
        for number, fact in enumerate(facts)
    )
    return AssetProfile(name=asset.name, source=asset.source, profile=_completed(found, facts), band_names=names)


def _completed(found: RasterProfile, facts: Sequence[BandFacts]) -> RasterProfile:
    """Return a file's header with the nodata values, scales and offsets that only the STAC Item gives."""
    changes: dict[str, object] = {}
    if not found.nodata_nan and all(value is None for value in found.nodata):
        changes["nodata"] = tuple(fact.nodata for fact in facts)
    if not found.scale_offset:
        pairs = [
            None if fact.scale is None and fact.offset is None else (fact.scale or 1.0, fact.offset or 0.0)
            for fact in facts
        ]
        changes["scale_offset"] = tuple(pairs) if any(pairs) else ()
    return found.model_copy(update=changes)


def join_assets(uri: str, assets: Sequence[AssetProfile], *, acquired: datetime | None) -> RasterProfile:
    """Join the headers of a scene's files to the header of one raster with all their bands but alpha.

    Args:
        uri: address of the scene, for errors.
        assets: the files, in the order of their bands.
        acquired: time of acquisition from the STAC Item, or None.

    Raises:
        DataError: if the files differ in CRS or extent, if a file of coarser resolution cannot be resampled, or if one
            of several files has a palette.
    """
    finest = max(assets, key=lambda asset: asset.profile.width * asset.profile.height)
    first = finest.profile
    for asset in assets:
        if asset is finest:
            continue
        problem = grid_difference(asset.profile, first, finest.source.uri)
        if problem is not None and asset.is_coarser_than(first):
            problem = _why_not_resampled(asset, finest)
        if problem is not None:
            raise DataError(
                f"{asset.source.uri}: the bands of a scene need one pixel grid, but {problem}: choose other assets, or "
                f"warp it (rio warp FILE NEW.tif --like {finest.source.uri} --resampling bilinear)"
            )
        if (asset.profile.palette or first.palette) is not None:
            raise DataError(f"{asset.source.uri}: a file with a palette cannot be one of several files of a scene")
    bands = [(asset, band - 1) for asset in assets for band in asset.bands]
    if not bands:
        raise DataError(f"{uri}: its only band is alpha, so it has no colour to embed: choose other assets")
    scale_offset = tuple(a.profile.scale_offset[i] if a.profile.scale_offset else None for a, i in bands)
    profiles = [asset.profile for asset in assets]
    bits = {profile.bits for profile in profiles}
    compressions = {profile.compression for profile in profiles}
    return first.model_copy(
        update={
            "count": len(bands),
            "dtype": str(np.result_type(*(profile.dtype for profile in profiles))),
            "colorinterp": tuple(_colour(asset, i) for asset, i in bands),
            "descriptions": tuple(asset.band_names[i] for asset, i in bands),
            "nodata": tuple(asset.profile.nodata[i] for asset, i in bands),
            "nodata_nan": any(profile.nodata_nan for profile in profiles),
            "masked": False,  # Masks belong to the files, and the reader of each file applies them.
            "mask_file": None,
            "mask_overviews": (),
            "block_height": max(profile.block_height for profile in profiles),
            "block_width": max(profile.block_width for profile in profiles),
            "interleave": first.interleave if len(assets) == 1 else "band",
            "compression": first.compression if len(compressions) == 1 else None,
            "bits": first.bits if len(bits) == 1 else None,
            "overviews": tuple(sorted(set.intersection(*map(_overviews, profiles)))),
            "acquired": acquired or next((p.acquired for p in profiles if p.acquired is not None), None),
            "on_earth": all(profile.on_earth for profile in profiles),
            "scale_offset": scale_offset if any(scale_offset) else (),
            "assets": tuple(assets),
        }
    )


def _overviews(profile: RasterProfile) -> set[int]:
    """Return the factors of the overviews that a file and the mask file beside it both have."""
    factors = set(profile.overviews)
    return factors if profile.mask_file is None else factors & set(profile.mask_overviews)


def _why_not_resampled(asset: AssetProfile, finest: AssetProfile) -> str | None:
    """Return why a file cannot be resampled to the grid of the finest file, or None if it can be."""
    from affine import Affine  # rasterio and affine take long to import.
    from rasterio.transform import array_bounds

    coarse, fine = asset.profile, finest.profile
    name = finest.source.uri
    if not same_crs(coarse.crs_wkt, fine.crs_wkt):
        return f"its CRS is {crs_name(coarse.crs_wkt)}, and that of {name} is {crs_name(fine.crs_wkt)}"
    if coarse.crs_wkt is None or coarse.gcps or fine.gcps:
        return (
            f"it has {coarse.width}x{coarse.height} px, and {name} has {fine.width}x{fine.height} px, and a file "
            "without CRS or with ground control points is not resampled"
        )
    stretched = coarse.affine @ Affine.scale(coarse.width / fine.width, coarse.height / fine.height)
    resized = coarse.model_copy(update={"width": fine.width, "height": fine.height, "transform": tuple(stretched)[:6]})
    if grid_difference(resized, fine, name) is not None:
        bounds = [array_bounds(one.height, one.width, one.affine) for one in (coarse, fine)]
        return f"its bounds are {list(bounds[0])}, and those of {name} are {list(bounds[1])}"
    if coarse.alpha_band or coarse.masked or coarse.mask_file or len({coarse.nodata[b - 1] for b in asset.bands}) > 1:
        return (
            f"it has {coarse.width}x{coarse.height} px, and {name} has {fine.width}x{fine.height} px, and a file with "
            "an alpha band, a mask or several nodata values is not resampled"
        )
    return None


def _colour(asset: AssetProfile, index: int) -> str:
    """Return the colour interpretation of a band in the scene: its name if that is a colour, else as in the file."""
    name = (asset.band_names[index] or "").lower()
    in_file = asset.profile.colorinterp[index]
    if name in COLOURS:
        return name
    return "undefined" if in_file == "alpha" else in_file
