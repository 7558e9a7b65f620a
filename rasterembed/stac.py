"""A STAC item for a dataset: where it lies, what it was made from, and how."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyproj
import pystac
import shapely
from pystac.extensions.projection import ProjectionExtension
from pystac.extensions.raster import DataType, NoDataStrings, RasterBand, RasterExtension

from rasterembed.footprints import Footprinter
from rasterembed.grid import Tiles
from rasterembed.plan import Plan
from rasterembed.receipts import receipt_of
from rasterembed.shards import Shard

EMBEDDING_EXTENSION = "https://stac-extensions.github.io/embeddings/v0.0.1/schema.json"

_PARQUET = "application/vnd.apache.parquet"


def stac_item(plan: Plan, shards: Sequence[Shard]) -> dict[str, Any]:
    """The dataset as a STAC 1.1 item with the projection, raster and embedding (v0.0.1) extensions.

    Its `datetime` is the source's time of acquisition, or of its last modification where the file tells none, which
    `rasterembed:datetime_from` says. Hrefs are relative to the item.
    """
    geometry = _outline(plan)
    item = pystac.Item(
        id=plan.dataset_id,
        geometry=None if geometry is None else shapely.geometry.mapping(geometry),
        bbox=None if geometry is None else list(geometry.bounds),
        datetime=plan.profile.acquired or plan.source.modified,
        properties={
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "rasterembed:datetime_from": "acquired" if plan.profile.acquired else "modified",
            **_embedding(plan),
        },
        stac_extensions=[EMBEDDING_EXTENSION],
    )
    _projection(item, plan)
    _assets(item, plan, shards)
    item.add_link(pystac.Link("emb:source-data", plan.source.uri, media_type=_media_type(plan)))
    return item.to_dict(include_self_link=False)


def _outline(plan: Plan) -> shapely.Geometry | None:
    """Footprint of the whole raster."""
    if not plan.profile.on_earth:
        return None
    zero = np.zeros(1, dtype=np.int32)
    width = np.array([plan.profile.width], dtype=np.int32)
    height = np.array([plan.profile.height], dtype=np.int32)
    whole = Tiles(row=zero, col=zero, col_off=zero, row_off=zero, width=width, height=height)
    footprinter = Footprinter(plan.profile, max(plan.profile.width, plan.profile.height))
    return footprinter(whole).geometry[0]


def _embedding(plan: Plan) -> dict[str, Any]:
    receipt = receipt_of(plan)
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
    bands, low, high = plan.radiometry.bands, plan.radiometry.low, plan.radiometry.high
    channels = ", ".join(
        f"clip((b{band} - {lo:g}) / {hi - lo:g}, 0, 1)" for band, lo, hi in zip(bands, low, high, strict=True)
    )
    fields: dict[str, Any] = {
        "emb:runtime_parameters": {name: receipt[name] for name in parameters},
        "emb:preprocessing": {
            "format": "text",
            "expression": f"([{channels}] - {list(plan.model.mean)}) / {list(plan.model.std)}",
        },
    }
    if plan.selection.vector_dtype != "float32":
        fields["emb:quantization"] = {
            "method": "cast",
            "original_dtype": "float32",
            "quantized_dtype": plan.selection.vector_dtype,
        }
    return fields


def _projection(item: pystac.Item, plan: Plan) -> None:
    profile = plan.profile
    projection = ProjectionExtension.ext(item, add_if_missing=True)
    projection.shape = [profile.height, profile.width]
    if not profile.gcps:
        projection.transform = list(profile.transform)
    if profile.crs_wkt is None:
        return
    crs = pyproj.CRS.from_wkt(profile.crs_wkt)
    authority = crs.to_authority()
    if authority:
        projection.code = ":".join(authority)
    else:
        projection.wkt2 = profile.crs_wkt


def _assets(item: pystac.Item, plan: Plan, shards: Sequence[Shard]) -> None:
    up = "../.."
    one = len(shards) == 1
    item.add_asset(
        "embeddings",
        pystac.Asset(
            href=f"{up}/{shards[0].path}" if one else f"{up}/{plan.layout.shards}/",
            title="Embeddings, one row a tile" if one else "Folder of the shards that the manifest lists",
            media_type=_PARQUET,
            roles=["data"],
        ),
    )
    item.add_asset(
        "index",
        pystac.Asset(href=f"{up}/{plan.layout.index}", media_type=_PARQUET, roles=["metadata"], title="Tiles"),
    )
    item.add_asset(
        "manifest",
        pystac.Asset(href="manifest.json", media_type="application/json", roles=["metadata"]),
    )
    source = pystac.Asset(href=plan.source.uri, media_type=_media_type(plan), roles=["source"])
    item.add_asset("source", source)
    RasterExtension.ext(source, add_if_missing=True).apply(
        [_band(plan, band) for band in range(1, plan.profile.count + 1)]
    )


def _band(plan: Plan, band: int) -> RasterBand:
    nodata: float | NoDataStrings | None = plan.profile.nodata[band - 1]
    if nodata is None and plan.profile.nodata_nan:
        nodata = NoDataStrings.NAN
    return RasterBand.create(data_type=DataType(plan.profile.dtype), nodata=nodata)


def _media_type(plan: Plan) -> str | None:
    types = {
        "GTiff": pystac.MediaType.GEOTIFF,
        "PNG": pystac.MediaType.PNG,
        "JPEG": pystac.MediaType.JPEG,
        "JP2OpenJPEG": pystac.MediaType.JPEG2000,
        "netCDF": pystac.MediaType.NETCDF,
    }
    found = types.get(plan.profile.driver)
    return str(found.value) if found else None
