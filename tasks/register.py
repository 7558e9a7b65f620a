"""Step 1: find the raster."""

from __future__ import annotations

from prefect import task

from rasterembed.raster.source import Source, register
from rasterembed.store.object_store import ObjectStore
from tasks.policy import STEP


@task(name="register", **STEP)
def register_raster(store: ObjectStore, raster: str) -> Source:
    """Find the raster, and return its URI, size and version; see `rasterembed.raster.source.register`."""
    return register(store, raster)
