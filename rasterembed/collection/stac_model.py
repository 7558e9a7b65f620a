"""The model of a collection as a STAC Item of the machine learning model extension (MLM). It is the model's card."""

from __future__ import annotations

import re
from typing import Any

from rasterembed.collection.configuration import CollectionConfiguration
from rasterembed.dataset.stac_fields import STAC_VERSION, model_links
from rasterembed.model.checkpoints import DEMO
from rasterembed.raster.scene import COLOURS
from rasterembed.store.layout import CollectionLayout

MLM_EXTENSION = "https://stac-extensions.github.io/mlm/v1.4.0/schema.json"
"""Schema of the machine learning model extension."""


def stac_model(layout: CollectionLayout, configuration: CollectionConfiguration) -> dict[str, Any]:
    """Return the model of a collection as a STAC 1.1 Item with the fields of the MLM extension (v1.4.0).

    The embedding extension wants a Collection to link such an Item. A model has no place and no time. As the best
    practices of the extension say, the Item covers the whole Earth and the years 1900 to 9999.

    Args:
        layout: layout of the collection.
        configuration: configuration of the collection.
    """
    model = configuration.model
    west, south, east, north = bbox = [-180.0, -90.0, 180.0, 90.0]
    # MLM wants the bands in the properties. Core STAC allows them in the properties only if an asset has them too.
    bands = [{"name": colour} for colour in COLOURS]
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    return {
        "type": "Feature",
        "stac_version": STAC_VERSION,
        "stac_extensions": [MLM_EXTENSION],
        "id": f"{layout.collection_id}-model",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "bbox": bbox,
        "properties": {
            "title": model.name,
            "datetime": None,
            "start_datetime": "1900-01-01T00:00:00Z",
            "end_datetime": "9999-12-31T23:59:59Z",
            "bands": bands,
            **_model_fields(configuration),
        },
        # The demo model is made by the library, so there is no file to link. Its digest identifies it.
        "assets": {
            "model": {
                "href": next((link["href"] for link in model_links(model)), f"urn:sha256:{model.weights_sha256}"),
                "title": model.name,
                "roles": ["mlm:model"],
                "mlm:artifact_type": "safetensors",
                "bands": bands,
            }
        },
        "links": [],
    }


def _model_fields(configuration: CollectionConfiguration) -> dict[str, Any]:
    """Return the properties of the extension MLM."""
    model, side = configuration.model, configuration.model.input_size
    scaling = [
        {"type": "z-score", "mean": mean, "stddev": std} for mean, std in zip(model.mean, model.std, strict=True)
    ]
    resized = configuration.grid.size != side
    pretrained = {"mlm:pretrained": False, "mlm:pretrained_source": None} if model.id == DEMO else {}
    return {
        "mlm:name": _plain_name(model.name),
        "mlm:architecture": "DINOv3",
        "mlm:framework": "PyTorch",
        "mlm:tasks": ["similarity-search"],
        **pretrained,
        "mlm:input": [
            {
                "name": "tile",
                "description": "Red, green and blue of a tile, stretched to 0..1",
                "bands": list(COLOURS),
                "input": {
                    "shape": [-1, 3, side, side],
                    "dim_order": ["batch", "channel", "height", "width"],
                    "data_type": "float32",
                },
                "value_scaling": scaling,
                "resize_type": "interpolation-linear" if resized else None,
            }
        ],
        "mlm:output": [
            {
                "name": "embedding",
                "tasks": ["similarity-search"],
                "result": {
                    "shape": [-1, model.dimensions],
                    "dim_order": ["batch", "embedding"],
                    "data_type": "float32",
                },
            }
        ],
        "mlm:hyperparameters": {
            "pooling": model.pooling,
            "input_size": side,
            "compute_dtype": model.dtype,
            "weights_sha256": model.weights_sha256,
        },
    }


def _plain_name(name: str) -> str:
    """Return a name in which every character is one that MLM allows: letters, digits, and `_ . -`."""
    plain = re.sub(r"[^a-zA-Z0-9_.-]+", "-", name).strip("_.-")
    return plain if re.match("[a-zA-Z].*..", plain) else f"model-{plain or 'x'}"
