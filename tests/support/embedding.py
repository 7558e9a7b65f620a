"""Embedding for tests that look at shards, and at nothing that comes after them."""

from __future__ import annotations

from typing import Any

from rasterembed.dataset.manifest import Manifest
from rasterembed.pipeline import EmbedOptions, embed_raster
from rasterembed.store.object_store import ObjectStore


def embed(store: ObjectStore, raster: str, **options: Any) -> Manifest:
    """Embed a raster without the quality checks, which many rasters made for tests would not pass.

    Args:
        store: where the dataset goes.
        raster: path of the raster.
        options: fields of `EmbedOptions`.
    """
    return embed_raster(store, raster, EmbedOptions(**options, quality_checks=False)).manifest
