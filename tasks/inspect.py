"""Step 2: read the raster's header."""

from __future__ import annotations

from prefect import get_run_logger, task

from rasterembed.raster.profile import RasterProfile
from rasterembed.raster.scene_profile import inspect_scene
from rasterembed.raster.source import Source
from rasterembed.store.object_store import ObjectStore
from tasks.policy import STEP


@task(name="inspect", **STEP)
def inspect_raster(store: ObjectStore, source: Source, *, allow_no_crs: bool) -> RasterProfile:
    """Read the header of the raster or of a scene's files. If it cannot be embedded, raise an error with the reason.

    See `rasterembed.raster.scene_profile.inspect_scene`.
    """
    profile = inspect_scene(store, source, allow_no_crs=allow_no_crs)
    get_run_logger().info(
        "%s: %s %dx%dx%d %s, %s", source.uri, profile.driver, profile.width, profile.height,
        profile.count, profile.dtype, "striped" if profile.striped else "tiled",
    )  # fmt: skip
    return profile
