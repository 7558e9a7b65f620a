"""The STAC Collection of a collection: its extent, its model, its files and its configuration."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from rasterembed.collection.catalogue import Catalogue
from rasterembed.collection.configuration import CollectionConfiguration
from rasterembed.collection.scene_row import QaVerdict
from rasterembed.dataset.stac_fields import (
    EMBEDDING_EXTENSION,
    PARQUET,
    STAC_VERSION,
    asset_metadata,
    quantization,
    vector_fields,
)
from rasterembed.number_text import counted
from rasterembed.raster.acquisition_time import time_text
from rasterembed.store.layout import CollectionLayout, name_of


class CollectionState(StrEnum):
    """State of a collection."""

    EMBEDDING = "embedding"
    """A run works on the collection, or it was killed. The catalogue may lack scenes that are embedded."""
    READY = "ready"
    """The last run worked through all scenes of its listing, and the catalogue is complete."""


NOT_ENDED = "a run works on the collection or was stopped: wait for its end, or start it again"
"""Text for people about a collection in the state `EMBEDDING`: the reason, and the remedy."""


@dataclass(frozen=True)
class CollectionVerdict:
    """Result of the quality checks of a whole collection."""

    verdict: QaVerdict
    breached: tuple[str, ...]
    """Names of the metrics that breach their threshold."""


def stac_collection(
    layout: CollectionLayout,
    configuration: CollectionConfiguration,
    catalogue: Catalogue,
    state: CollectionState,
    quality: CollectionVerdict | None = None,
    listing: str | None = None,
) -> dict[str, Any]:
    """Return the STAC 1.1 Collection with the fields of the embedding extension (v0.0.1).

    The Items are in the asset `items`, a stac-geoparquet file. They are not linked one by one, because a collection may
    have a hundred thousand Items. The result holds no time of the run: equal collections give equal content.

    Args:
        layout: layout of the collection.
        configuration: configuration of the collection.
        catalogue: all scenes.
        state: state of the collection.
        quality: result of the quality checks. None if they were not made for this catalogue.
        listing: address of the scenes of a run that has not ended.
    """
    checked = {} if quality is None else {"rasterembed:qa": {"verdict": quality.verdict, "breached": quality.breached}}
    bounds, times = catalogue.extent()
    model = configuration.model
    return {
        "type": "Collection",
        "stac_version": STAC_VERSION,
        "stac_extensions": [EMBEDDING_EXTENSION],
        "id": layout.collection_id,
        "description": f"Tile embeddings of {counted(catalogue.count, 'scene')}, computed by {model.name}",
        "license": "other",
        "extent": {
            # STAC asks for a box even if no scene has a place on Earth. The whole Earth is never wrong.
            "spatial": {"bbox": [bounds or [-180.0, -90.0, 180.0, 90.0]]},
            "temporal": {"interval": [[None if time is None else time_text(time) for time in times]]},
        },
        "links": [
            {
                "rel": "emb:model",
                "href": name_of(layout.stac_model),
                "type": "application/geo+json",
                "title": model.name,
            },
            {"rel": "emb:source-data", "href": name_of(layout.catalogue), "type": PARQUET},
        ],
        "assets": {
            "items": {
                "href": name_of(layout.catalogue),
                "type": PARQUET,
                "title": "The Items, one row a scene",
                "roles": ["collection-mirror"],
            }
        },
        "item_assets": {
            "embeddings": {"title": "Embeddings, one row a tile", "type": PARQUET, "roles": ["data"]},
        },
        **vector_fields(model, configuration.selection.vector_dtype, configuration.grid),
        "rasterembed:state": state.value,
        "rasterembed:scenes": {name.value: number for name, number in catalogue.counts().items()},
        "rasterembed:vectors": catalogue.vectors,
        "rasterembed:fingerprint": configuration.fingerprint,
        "rasterembed:configuration": configuration.model_dump(mode="json"),
        **checked,
        **({} if listing is None else {"rasterembed:listing": listing}),
    }


def stac_text(document: dict[str, Any]) -> bytes:
    """Return a STAC document as it is stored: JSON with sorted keys, so that equal documents have equal bytes."""
    return json.dumps(document, indent=1, sort_keys=True).encode()


def table_asset(layout: CollectionLayout, configuration: CollectionConfiguration) -> bytes:
    """Return the value of the footer's key `emb` for the files of the table. Each row names its Item by `dataset_id`.

    Args:
        layout: layout of the collection.
        configuration: configuration of the collection.
    """
    vector_dtype = configuration.selection.vector_dtype
    fields = {
        "title": f"Tile embeddings of collection {layout.collection_id}",
        **vector_fields(configuration.model, vector_dtype, configuration.grid),
        **quantization(vector_dtype),
    }
    up = ".."
    links = [
        {"rel": "collection", "href": f"{up}/{name_of(layout.stac_collection)}", "type": "application/json"},
        {"rel": "items", "href": f"{up}/{name_of(layout.catalogue)}", "type": PARQUET},
        {"rel": "emb:model", "href": f"{up}/{name_of(layout.stac_model)}", "type": "application/geo+json"},
    ]
    return asset_metadata(fields, links)
