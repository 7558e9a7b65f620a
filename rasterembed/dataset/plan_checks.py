"""Check a plan that was read from a store. Anybody who can write to the store may have changed the plan."""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np

from rasterembed.errors import RasterEmbedError
from rasterembed.raster.anchor import find_anchor
from rasterembed.raster.crs_files import named_path, refusal
from rasterembed.raster.grid import grid_shape
from rasterembed.raster.place_on_earth import why_crs_is_not_of_earth, why_points_place_nothing
from rasterembed.raster.profile import RasterProfile, ValidMask
from rasterembed.raster.same_grid import same_crs
from rasterembed.raster.sharding import Sharding
from rasterembed.raster.warp import MAX_SAMPLES, WARPED_FIELDS, crs_of_grid
from rasterembed.store.layout import MAX_SHARD_NUMBER
from rasterembed.store.object_store import locate
from rasterembed.store.storage import MAX_OBJECT_BYTES

if TYPE_CHECKING:
    from rasterembed.dataset.plan import Plan
    from rasterembed.model.choice import ResolvedModel

MAX_DIMENSIONS = 65536
"""Largest length of a vector. The largest DINOv3 model gives 8192 numbers with pooling `cls+mean`."""

_MAX_SIDE = 2**31 - 1
"""GDAL's largest width and height of a raster, px."""

_MAX_INPUT_SIDE = 65536
"""Largest believed side of a model's input, px."""

_MAX_BANDS = 65536
"""GDAL's largest number of bands."""

_NUMBER_TYPES = frozenset(np.dtype(code).name for code in np.typecodes["AllInteger"] + np.typecodes["Float"])
"""Names of the types of numbers. NumPy would read a text in a plan as a description of a type, with many errors."""

_MAX_CRS_LETTERS = 2**20
"""Largest number of characters in a CRS. A real CRS has a few thousand."""


def why_unusable(plan: Plan, dataset_id: str) -> str | None:
    """Return the reason why this library cannot have written a stored plan, or None if it can.

    This check also refuses numbers with which a run would need too much memory or time.

    Args:
        plan: the plan as it was read.
        dataset_id: name of the dataset whose folder holds the plan.
    """
    reasons = {
        "dataset_id: it is another dataset's plan": plan.dataset_id == dataset_id,
        "source.uri: it is no absolute path, no s3://bucket/key and no https:// address": all(
            map(_is_address, plan.rasters)
        ),
        "source.size: the number is impossible": 0 < plan.source.size <= MAX_OBJECT_BYTES,
        "radiometry.bands: the raster has no such band": all(
            1 <= band <= plan.profile.count for band in plan.radiometry.bands
        ),
        "radiometry.low, radiometry.high: a number is not finite, or two are equal": plan.radiometry.is_possible,
        "radiometry.palette: the raster has no palette": not plan.radiometry.palette or bool(plan.profile.palette),
        "profile.acquired: the time has no zone, or is impossible": _is_time(plan.profile.acquired),
    }
    own = next((reason for reason, right in reasons.items() if not right), None)
    return (
        own
        or why_model_is_unusable(plan.model)
        or _profile_reason(plan.profile)
        or _warp_reason(plan)
        or _scene_reason(plan)
        or _sharding_reason(plan.sharding, plan.profile)
    )


def why_model_is_unusable(model: ResolvedModel) -> str | None:
    """Return the reason why this library cannot have written the model of a plan or a collection, or None if it can."""
    reasons = {
        "model.dimensions: the number is impossible": 0 < model.dimensions <= MAX_DIMENSIONS,
        "model.input_size: the number is impossible": 0 < model.input_size <= _MAX_INPUT_SIDE,
    }
    return next((reason for reason, right in reasons.items() if not right), None)


def _warp_reason(plan: Plan) -> str | None:
    """Return what is impossible about the warp of a raster, or None. A raster that is read unchanged has no warp."""
    profile, grid = plan.profile, plan.sharding.grid
    if profile.warp is None:
        return None
    from rasterio.errors import CRSError  # rasterio takes long to import.

    original = profile.warp.unwarped
    reason = _profile_reason(original)
    if reason is not None:
        return f"profile.warp: {reason}"
    try:
        crs = original.crs_wkt if grid.crs is None else crs_of_grid(grid.crs)
        if not profile.crs_wkt or not same_crs(profile.crs_wkt, crs):
            return "profile.warp: the CRS is not that of the grid"
        anchor = find_anchor(profile, grid)
    except (RasterEmbedError, CRSError) as error:
        return f"profile.warp: {error}"
    own = original.model_dump(exclude=set(WARPED_FIELDS))
    reasons = {
        "profile.warp: the raster was warped before, or has no place": original.warp is None
        and original.on_earth
        and not original.gcps
        and bool(original.crs_wkt)
        and original.transform[0] * original.transform[4] != original.transform[1] * original.transform[3],
        "profile.warp: the number of samples is impossible": 1 <= profile.warp.samples <= MAX_SAMPLES,
        "profile.warp: its anchor is another raster's": profile.warp.anchor == anchor,
        "profile.warp: the pixel size is not that of the grid": (profile.transform[0], -profile.transform[4])
        == (grid.resolution, grid.resolution),
        "profile.warp: it is another raster": profile.model_dump(exclude=set(WARPED_FIELDS)) == own,
    }
    return next((reason for reason, right in reasons.items() if not right), None)


def _scene_reason(plan: Plan) -> str | None:
    """Return what is impossible about the files of a scene, or None. A raster of one file has no such files."""
    profile, scene = plan.profile, plan.source.scene
    if not profile.assets and scene is None:
        return None
    if scene is None or plan.source.files != tuple(asset.source for asset in profile.assets):
        return "profile.assets: they are not the files of the source"
    for asset in profile.assets:
        reason = _profile_reason(asset.profile)
        if reason is not None:
            return f"profile.assets: {reason}"
    reasons = {
        "profile.assets: a file is a scene itself, or has a mask that a person gave": not any(
            asset.source.scene or asset.profile.assets or asset.profile.valid_mask for asset in profile.assets
        ),
        "profile.assets: the size of a file is impossible": all(
            0 < asset.source.size <= MAX_OBJECT_BYTES for asset in profile.assets
        ),
        "profile.assets: their bands are not those of the scene": profile.alpha_band is None
        and sum(len(asset.bands) for asset in profile.assets) == profile.count
        and all(len(asset.band_names) == asset.profile.count for asset in profile.assets),
        "profile.assets: a file is larger than the scene": all(
            asset.profile.width <= profile.original.width and asset.profile.height <= profile.original.height
            for asset in profile.assets
        ),
    }
    return next((reason for reason, right in reasons.items() if not right), None)


def _profile_reason(profile: RasterProfile) -> str | None:
    sides = (profile.width, profile.height, profile.block_width, profile.block_height)
    per_band = (profile.colorinterp, profile.descriptions, profile.nodata)
    points = [value for point in profile.gcps for value in (point.row, point.col, point.x, point.y, point.z)]
    colours = [part for colour in profile.palette or () for part in colour]
    crs = profile.crs_wkt or ""
    path = named_path(crs[:_MAX_CRS_LETTERS])
    if path is not None:
        return f"profile.crs_wkt: {refusal(path)}"
    reasons = {
        "profile: a size is impossible": all(1 <= side <= _MAX_SIDE for side in sides),
        "profile.count: the number is impossible": 1 <= profile.count <= _MAX_BANDS,
        "profile: the bands' properties do not fit the number of bands": all(
            len(values) == profile.count for values in per_band
        ),
        "profile.dtype: it is no type of pixels": _is_number_type(profile.dtype),
        "profile.transform, profile.gcps: a number is not finite": _finite(profile.transform) and _finite(points),
        "profile.overviews, profile.mask_overviews: a number is not positive": all(
            factor > 0 for factor in (*profile.overviews, *profile.mask_overviews)
        ),
        "profile.nodata: a number is impossible": all(
            value is None or abs(value) < math.inf for value in profile.nodata
        )
        and all(abs(value) <= 2**64 for value in profile.nodata if isinstance(value, int)),
        "profile.valid_mask: a size or the type is impossible": profile.valid_mask is None
        or _is_possible_mask(profile.valid_mask),
        "profile.palette: a colour is impossible": all(0 <= part <= 65535 for part in colours),
        "profile.crs_wkt: it is too long": len(crs) <= _MAX_CRS_LETTERS,
        "profile.on_earth: the raster has no CRS": bool(crs) or not profile.on_earth,
    }
    own = next((reason for reason, right in reasons.items() if not right), None)
    return own or (_place_reason(profile) if profile.on_earth else None)


def _place_reason(profile: RasterProfile) -> str | None:
    """Return why the pixels of a raster that is said to be on Earth have no place, or None if they have one."""
    problem = why_crs_is_not_of_earth(profile.crs_wkt or "")
    if problem is not None:
        return f"profile.crs_wkt: {problem}"
    problem = why_points_place_nothing(profile)
    if problem is not None:
        return f"profile.gcps: {problem}"
    a, b, _, d, e, _ = profile.transform
    if not profile.gcps and a * e - b * d == 0.0:
        return "profile.transform: all pixels lie on one line"
    return None


def _is_possible_mask(mask: ValidMask) -> bool:
    numbers = (mask.source.size, mask.block_width, mask.block_height, *mask.overviews)
    return all(number >= 1 for number in numbers) and _is_number_type(mask.dtype)


def _sharding_reason(sharding: Sharding, profile: RasterProfile) -> str | None:
    try:
        anchor = find_anchor(profile, sharding.grid)
        shape = grid_shape(sharding.grid, profile.height, profile.width, anchor)
    except RasterEmbedError as error:
        return f"sharding.grid: {error}"
    if sharding.anchor != anchor:
        return "sharding.anchor: it is another raster's"
    # `sharding.count` divides by `shard_rows` and `shard_cols`. These two are therefore checked before it.
    if (sharding.height, sharding.width) != (profile.height, profile.width):
        return "sharding: its raster has another size"
    if (sharding.rows, sharding.cols) != shape or sharding.grid.step > _MAX_SIDE:
        return "sharding: the grid does not fit the raster"
    if not (1 <= sharding.shard_rows <= sharding.rows and 1 <= sharding.shard_cols <= sharding.cols):
        return "sharding: the shards do not fit the grid"
    if sharding.count > MAX_SHARD_NUMBER + 1:
        return "sharding: there are too many shards"
    return None


def _is_address(uri: str) -> bool:
    try:
        # Version 0.1 kept `..` in a path.
        return locate(uri) == uri or (uri.startswith("/") and ".." in uri.split("/"))
    except RasterEmbedError:
        return False


def _finite(values: Iterable[float]) -> bool:
    return all(map(math.isfinite, values))


def _is_number_type(name: str) -> bool:
    return name in _NUMBER_TYPES


def _is_time(time: datetime | None) -> bool:
    if time is None:
        return True
    try:
        time.astimezone(UTC)
    except OverflowError:  # The zone moves it before the year 1, or after the year 9999.
        return False
    return time.tzinfo is not None
