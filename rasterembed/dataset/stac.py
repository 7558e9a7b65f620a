"""The STAC Item of a dataset. It describes the dataset's place on Earth, its raster, its model and its files."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import pystac
import shapely
from pystac.extensions.file import FileExtension
from pystac.extensions.projection import ProjectionExtension
from pystac.extensions.raster import DataType, NoDataStrings, RasterBand, RasterExtension

from rasterembed.dataset.extent import bounding_box, outline
from rasterembed.dataset.plan import Plan
from rasterembed.dataset.receipts import receipt_of
from rasterembed.dataset.shards import Shard
from rasterembed.dataset.stac_fields import EMBEDDING_EXTENSION, PARQUET, model_links, preprocessing, quantization
from rasterembed.escape import href_of
from rasterembed.number_text import counted
from rasterembed.raster.georeference import crs_of
from rasterembed.raster.profile import RasterProfile
from rasterembed.raster.source import Source
from rasterembed.store.layout import name_of

EO_EXTENSION = "https://stac-extensions.github.io/eo/v1.1.0/schema.json"
"""Schema of the extension that has the cloud cover."""

_MULTIHASH_SHA256 = "1220"
"""Beginning of a SHA-256 digest in the form of a multihash: the code of SHA-256, and the length of 32 bytes."""


def stac_item(plan: Plan, shards: Sequence[Shard]) -> dict[str, Any]:
    """Return the dataset as a STAC 1.1 Item with the projection, raster, file and embedding (v0.0.1) extensions.

    `datetime` is the raster's time of acquisition. If the raster's file does not hold this time, `datetime` is the time
    of the file's last modification. The property `rasterembed:datetime_from` is `acquired` in the first case, and
    `modified` in the second. Hrefs to files of the dataset are relative to the Item.

    Args:
        plan: plan of the dataset.
        shards: all shards, in the order of their numbers.
    """
    geometry = outline(plan)
    item = pystac.Item(
        id=plan.dataset_id,
        geometry=None if geometry is None else shapely.geometry.mapping(geometry),
        bbox=None if geometry is None else list(bounding_box(geometry)),
        datetime=plan.profile.acquired or plan.source.modified,
        properties={
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "rasterembed:datetime_from": "acquired" if plan.profile.acquired else "modified",
            **_cloud_cover(plan),
            **_embedding(plan, shards),
        },
        stac_extensions=[EMBEDDING_EXTENSION, *([EO_EXTENSION] if _cloud_cover(plan) else [])],
    )
    _projection(item, plan)
    _assets(item, plan, shards)
    for card in model_links(plan.model):
        item.add_link(pystac.Link(card["rel"], card["href"], card.get("type"), card["title"]))
    for _, source, profile in _source_files(plan):
        link = pystac.Link("emb:source-data", href_of(source.uri), media_type=_media_type(profile.driver))
        item.add_link(link)
    # The scenes of a collection are identified by their files only, so the address of the Item is not known.
    by_item = plan.source.scene is not None and plan.source.scene.item_id is not None
    if by_item and plan.source.uri not in [file.uri for file in plan.source.files]:
        item.add_link(pystac.Link("derived_from", href_of(plan.source.uri), media_type=pystac.MediaType.GEOJSON))
    return item.to_dict(include_self_link=False)


def _cloud_cover(plan: Plan) -> dict[str, Any]:
    """Return the cloud cover that the STAC Item of the scene gave, in percent. Empty if it gave none."""
    scene = plan.source.scene
    return {} if scene is None or scene.cloud_cover is None else {"eo:cloud_cover": scene.cloud_cover}


def _source_files(plan: Plan) -> list[tuple[str, Source, RasterProfile]]:
    """Return key of the asset, identity and header of each file with pixels: the raster, or the files of the scene."""
    if not plan.profile.assets:
        return [("source", plan.source, plan.profile)]
    return [(f"source-{asset.name}", asset.source, asset.profile) for asset in plan.profile.assets]


def _embedding(plan: Plan, shards: Sequence[Shard]) -> dict[str, Any]:
    """Return the fields of the embedding extension."""
    receipt = receipt_of(plan)
    computations = dict.fromkeys(shard.computation for shard in shards if shard.computation is not None)
    parameters = (
        "model",
        "model_id",
        "model_revision",
        "weights_sha256",
        "pooling",
        "dimensions",
        "compute_dtype",
        "input_size",
        "grid",
        "min_valid_fraction",
        "fingerprint",
    )
    runtime = {name: receipt[name] for name in parameters}
    runtime["computations"] = [computation.model_dump(mode="json") for computation in computations]
    return {
        "emb:runtime_parameters": runtime,
        **preprocessing(plan),
        **quantization(plan.selection.vector_dtype),
    }


def _projection(item: pystac.Item, plan: Plan) -> None:
    profile = plan.profile
    projection = ProjectionExtension.ext(item, add_if_missing=True)
    projection.shape = [profile.height, profile.width]
    if not profile.gcps:
        projection.transform = list(profile.transform)
    if profile.crs_wkt is None:
        return
    code = _code_of(profile.crs_wkt)
    if code is not None:
        projection.code = code
    else:
        projection.wkt2 = profile.crs_wkt


@lru_cache(maxsize=64)  # PROJ needs milliseconds to find the code, and the scenes of an archive have few CRSs.
def _code_of(crs_wkt: str) -> str | None:
    """Return the code of a CRS, such as `EPSG:32635`, or None if it has none."""
    authority = crs_of(crs_wkt).to_authority(min_confidence=90)  # With a lower confidence, the datum could be wrong.
    return ":".join(authority) if authority else None


def _assets(item: pystac.Item, plan: Plan, shards: Sequence[Shard]) -> None:
    up = "../.."
    files = [
        pystac.Asset(
            href=href_of(f"{up}/{shard.path}"), media_type=PARQUET, roles=["data"], title="Embeddings, one row a tile"
        )
        for shard in shards
    ]
    if len(files) == 1:
        item.add_asset("embeddings", files[0])
    else:
        folder = pystac.Asset(
            href=href_of(f"{up}/{plan.layout.shards_folder}/"),
            media_type=PARQUET,
            roles=["data"],
            title=f"Folder of {counted(len(files), 'file')} of embeddings",
        )
        item.add_asset("embeddings", folder)
        for shard, file in zip(shards, files, strict=True):
            item.add_asset(f"embeddings-{shard.number:05d}", file)
    for shard, file in zip(shards, files, strict=True):
        FileExtension.ext(file, add_if_missing=True).apply(
            size=shard.bytes, checksum=f"{_MULTIHASH_SHA256}{shard.sha256}"
        )
    item.add_asset(
        "index",
        pystac.Asset(
            href=href_of(f"{up}/{plan.layout.tile_index}"), media_type=PARQUET, roles=["metadata"], title="Tiles"
        ),
    )
    item.add_asset(
        "manifest",
        pystac.Asset(href=href_of(name_of(plan.layout.manifest)), media_type="application/json", roles=["metadata"]),
    )
    for key, source, profile in _source_files(plan):
        asset = pystac.Asset(href=href_of(source.uri), media_type=_media_type(profile.driver), roles=["source"])
        item.add_asset(key, asset)
        RasterExtension.ext(asset, add_if_missing=True).apply(
            [_band(profile, band) for band in range(1, profile.count + 1)]
        )


def _band(profile: RasterProfile, band: int) -> RasterBand:
    nodata: float | NoDataStrings | None = profile.nodata[band - 1]
    if nodata is None and profile.nodata_nan:
        nodata = NoDataStrings.NAN  # JSON cannot hold NaN as a number.
    scale, offset = (profile.scale_offset[band - 1] if profile.scale_offset else None) or (None, None)
    return RasterBand.create(data_type=DataType(profile.dtype), nodata=nodata, scale=scale, offset=offset)


def _media_type(driver: str) -> str | None:
    types = {
        "GTiff": pystac.MediaType.GEOTIFF,
        "PNG": pystac.MediaType.PNG,
        "JPEG": pystac.MediaType.JPEG,
        "JP2OpenJPEG": pystac.MediaType.JPEG2000,
        "netCDF": pystac.MediaType.NETCDF,
    }
    found = types.get(driver)
    return str(found.value) if found else None
