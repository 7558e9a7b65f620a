"""Small rasters, and embedding without the quality checks, for tests that read or search the shards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from rasterembed.dataset.manifest import Manifest, set_state
from rasterembed.pipeline import EmbedOptions, Steps, embed_raster
from rasterembed.store.object_store import ObjectStore
from tests.support.rasters import write


def embed(store: ObjectStore, raster: str, **options: Any) -> Manifest:
    """Embed a raster without the quality checks, which many rasters made for tests would not pass.

    Args:
        store: store for the dataset.
        raster: path of the raster.
        options: fields of `EmbedOptions`.
    """
    return embed_raster(store, raster, EmbedOptions(**options, quality_checks=False)).manifest


def embed_ready(store: ObjectStore, raster: str, *, steps: Steps | None = None, **options: Any) -> Manifest:
    """Embed a raster without the quality checks, and let it be searched as if it had passed them.

    Args:
        store: store for the dataset.
        raster: path of the raster.
        steps: see `embed_raster`.
        options: fields of `EmbedOptions`.
    """
    result = embed_raster(store, raster, EmbedOptions(**options, quality_checks=False), steps=steps)
    return set_state(store, result.manifest, "ready")


def noise_raster(path: Path) -> Path:
    """Write a raster of 128 x 128 px of noise with three bands. Every pixel is valid."""
    pixels = np.random.default_rng(0).integers(1, 255, (3, 128, 128)).astype(np.uint8)
    return write(path, pixels)
