"""Step 1: find the raster."""

from __future__ import annotations

from collections.abc import Sequence

from prefect import task

from rasterembed.raster.scene import Scene, register_scene
from rasterembed.raster.source import Source
from rasterembed.store.object_store import ObjectStore
from tasks.policy import STEP


@task(name="register", **STEP)
def register_raster(store: ObjectStore, raster: Scene, assets: Sequence[str] = ()) -> Source:
    """Find the raster or the files of the scene, and return URIs, sizes and versions.

    See `rasterembed.raster.scene.register_scene`.
    """
    return register_scene(store, raster, assets)
