"""Fields of STAC's embedding extension, and the metadata of an asset with vectors.

STAC Items, the STAC Collection and the footers of Parquet files have these fields in common.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from rasterembed.dataset.plan import Plan
from rasterembed.dataset.selection import VectorDtype
from rasterembed.dataset.vector_column import EMBEDDING, SCALE
from rasterembed.escape import href_of
from rasterembed.model.checkpoints import DEMO
from rasterembed.model.choice import ResolvedModel
from rasterembed.raster.acquisition_time import time_text
from rasterembed.raster.grid import Grid
from rasterembed.raster.scene import COLOURS

EMBEDDING_EXTENSION = "https://stac-extensions.github.io/embeddings/v0.0.1/schema.json"
"""Schema of the embedding extension."""

STAC_VERSION = "1.1.0"
"""Version of STAC that all Items and Collections follow."""

PARQUET = "application/vnd.apache.parquet"
"""Media type of Parquet files."""

ASSET_KEY = "emb"
"""Key of the Parquet footer that holds the metadata of the file as a STAC asset, as geoembeddings.org asks for it."""

_UP = "../.."
"""Path from the folder of a dataset, a shard or a table to the root of the store, without the last folder."""


def vector_fields(model: ResolvedModel, vector_dtype: VectorDtype, grid: Grid) -> dict[str, Any]:
    """Return the fields that say how the vectors of a file or a collection are laid out.

    Args:
        model: model of the vectors.
        vector_dtype: type of the stored vectors.
        grid: grid of the tiles.
    """
    return {
        "emb:type": "chip",
        "emb:dimensions": model.dimensions,
        "data_type": vector_dtype,
        "emb:chip_layout": {
            "layout_type": "regular_grid",
            "chip_size": [grid.size, grid.size],
            "stride": [grid.step, grid.step],
        },
    }


def quantization(vector_dtype: VectorDtype) -> dict[str, Any]:
    """Return the field `emb:quantization`. Empty for float32, the type that the model computes.

    The field's own entry `scale` holds numbers for the whole file, so it cannot hold the scale of each row. The method
    names the column of the scale instead. No row has an offset.
    """
    match vector_dtype:
        case "float32":
            return {}
        case "float16":
            method: dict[str, Any] = {"method": "cast"}
        case "int8":
            method = {"method": f"linear, one scale a row: value = {EMBEDDING} * {SCALE}", "offset": [0.0]}
    return {"emb:quantization": {**method, "original_dtype": "float32", "quantized_dtype": vector_dtype}}


def preprocessing(plan: Plan) -> dict[str, Any]:
    """Return the field `emb:preprocessing`: the formula from pixel values to the model's input."""
    bands, low, high = plan.radiometry.bands, plan.radiometry.low, plan.radiometry.high
    values = [f"b{band}" for band in bands]
    if plan.radiometry.palette:
        values = [f"{colour}(b{bands[0]})" for colour in COLOURS]
    channels = ", ".join(
        f"clip(({value} - {lo}) / ({hi} - {lo}), 0, 1)" for value, lo, hi in zip(values, low, high, strict=True)
    )
    expression = f"([{channels}] - {list(plan.model.mean)}) / {list(plan.model.std)}"
    return {"emb:preprocessing": {"format": "text", "expression": expression}}


def model_links(model: ResolvedModel) -> list[dict[str, str]]:
    """Return a link to the model's page on the hub, or to its folder. The demo model has neither."""
    if model.id == DEMO:
        return []
    if model.revision is None:
        return [{"rel": "emb:model", "href": href_of(model.id), "title": model.name}]
    href = f"https://huggingface.co/{model.id}/tree/{model.revision}"
    return [{"rel": "emb:model", "href": href, "type": "text/html", "title": model.name}]


def asset_metadata(fields: dict[str, Any], links: Sequence[dict[str, str]]) -> bytes:
    """Return the value of the footer's key `emb`: the metadata of a Parquet file with vectors, as a STAC asset.

    geoembeddings.org asks for the metadata of the STAC asset under this key, and gives no schema. The value therefore
    has the fields of an asset and of the embedding extension, and links that lead to Item or Collection.

    Args:
        fields: fields of the asset, and of the extensions.
        links: links from the folder of the file.
    """
    return json.dumps(
        {
            "stac_version": STAC_VERSION,
            "stac_extensions": [EMBEDDING_EXTENSION],
            "type": PARQUET,
            "roles": ["data"],
            **fields,
            "links": list(links),
        }
    ).encode()


def shard_asset(plan: Plan) -> bytes:
    """Return the value of the footer's key `emb` for the shards of a dataset."""
    item = {"rel": "item", "href": href_of(f"{_UP}/{plan.layout.stac_item}"), "type": "application/geo+json"}
    sources = [{"rel": "emb:source-data", "href": href_of(file.uri)} for file in plan.source.files]
    acquired = plan.profile.acquired
    fields = {
        "title": f"Tile embeddings of dataset {plan.dataset_id}",
        **({} if acquired is None else {"datetime": time_text(acquired)}),
        **vector_fields(plan.model, plan.selection.vector_dtype, plan.sharding.grid),
        **preprocessing(plan),
        **quantization(plan.selection.vector_dtype),
    }
    return asset_metadata(fields, [item, *model_links(plan.model), *sources])
