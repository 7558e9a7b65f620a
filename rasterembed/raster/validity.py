"""Declare which pixels of a raster are valid, for files that do not say this or are wrong."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Annotated, Any

import numpy as np
from pydantic import BeforeValidator, Field, WithJsonSchema

from rasterembed.errors import DataError, UsageError
from rasterembed.options_model import OptionsModel
from rasterembed.raster.profile import Nodata, RasterProfile, ValidMask, inspect_raster
from rasterembed.raster.same_grid import grid_difference
from rasterembed.raster.scene_profile import join_assets
from rasterembed.raster.source import register
from rasterembed.store.object_store import ObjectStore

_EXACT = 2**53
"""Whole numbers up to this size are exact in float64."""


def _read_nodata(value: object) -> object:
    """Convert a nodata value that a person typed to an int, a float or "nan". 5, "5" and 5.0 all become the int 5."""
    if isinstance(value, bool):
        raise ValueError("give a number, or nan")
    try:
        typed_text = value if isinstance(value, str) else None
        if isinstance(value, str):
            try:
                value = int(value)
            except ValueError:
                value = float(value)
        if isinstance(value, int) and abs(value) > 2**64:
            value = float(value)
    except (ValueError, OverflowError) as error:
        raise ValueError("give a number, or nan") from error
    if isinstance(value, float):
        if math.isnan(value):
            return "nan"
        if math.isinf(value):
            raise ValueError("infinite pixels are invalid in any case: give a number, or nan")
        if value == 0.0 and typed_text is not None and Decimal(typed_text) != 0:
            raise ValueError("the number is too small for a pixel, and would become 0: give 0, or a larger number")
        if value.is_integer() and abs(value) <= _EXACT:
            return int(value)
    return value


class Validity(OptionsModel):
    """Declare which pixels are valid. Without a declaration, the raster's file decides.

    Example:
        >>> Validity(nodata="-9999").nodata
        -9999
        >>> Validity().nodata is None
        True
    """

    nodata: (
        Annotated[
            Nodata,
            BeforeValidator(_read_nodata),
            WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "string", "const": "nan"}]}),
        ]
        | None
    ) = Field(
        default=None,
        description="Value of pixels without data, instead of the file's nodata value. nan: no value but NaN.",
    )
    mask: str | None = Field(
        default=None,
        description="Raster with one band and the same pixel grid, as a path or s3://bucket/key. Pixels where this "
        "mask is 0 are invalid.",
    )
    ignore_alpha: bool = Field(
        default=False,
        description="Use a band that the file calls alpha as data, such as infrared. Its zeros hide no pixel then.",
    )


def apply_validity(store: ObjectStore, uri: str, profile: RasterProfile, validity: Validity) -> RasterProfile:
    """Return a raster's profile with the declarations that a person made.

    Args:
        store: gives the credentials for a mask on S3.
        uri: absolute path of the raster, or s3://bucket/key.
        profile: the raster's header.
        validity: the declarations.

    Raises:
        UsageError: if no pixel of the raster can have the nodata value, or the mask is neither a path nor an S3 URI.
        DataError: if the mask cannot be read, or if its pixels lie at other places than those of the raster.
        StoreError: if the mask does not exist or may not be read.
    """
    if profile.assets:
        profile = _declare_for_assets(store, uri, profile, validity)
    changes: dict[str, Any] = {}
    if validity.nodata is not None:
        _check_nodata(validity.nodata, np.dtype(profile.dtype), uri)
        only_nan = validity.nodata == "nan"
        changes = {
            "declared_nodata": validity.nodata,
            "nodata": (None if only_nan else validity.nodata,) * profile.count,
            "nodata_nan": only_nan and np.issubdtype(profile.dtype, np.floating),
            "transparent": (),
        }
    if validity.ignore_alpha:
        changes["alpha_ignored"] = True
    if validity.mask is not None:
        changes["valid_mask"] = _inspect_mask(store, uri, profile, validity.mask)
    return profile.model_copy(update=changes) if changes else profile


def _declare_for_assets(store: ObjectStore, uri: str, profile: RasterProfile, validity: Validity) -> RasterProfile:
    """Return the profile of a scene after the nodata value and `ignore_alpha` were declared for each of its files."""
    of_file = validity.model_copy(update={"mask": None})
    assets = [
        asset.model_copy(update={"profile": apply_validity(store, asset.source.uri, asset.profile, of_file)})
        for asset in profile.assets
    ]
    return join_assets(uri, assets, acquired=profile.acquired)


def _check_nodata(nodata: Nodata, dtype: np.dtype[Any], uri: str) -> None:
    """Refuse a nodata value that no pixel of a dtype can have."""
    if isinstance(nodata, str):
        return
    problem = f"{uri}: no pixel of type {dtype} can have the nodata value {nodata!r}"
    if np.issubdtype(dtype, np.integer):
        limits = np.iinfo(dtype)
        if isinstance(nodata, float) or not limits.min <= nodata <= limits.max:
            raise UsageError(
                f"{problem}: give a whole number from {limits.min} to {limits.max}, or nan if every pixel has data"
            )
    else:
        with np.errstate(over="ignore"):
            if not np.isfinite(dtype.type(nodata)):
                raise UsageError(f"{problem}: the largest number is {np.finfo(dtype).max!s}")
        if nodata != 0 and dtype.type(nodata) == 0:
            smallest = np.finfo(dtype).smallest_subnormal
            raise UsageError(f"{problem}, because it would become 0: the smallest number is {smallest!s}")


def _inspect_mask(store: ObjectStore, uri: str, profile: RasterProfile, mask: str) -> ValidMask:
    """Find a mask. Refuse it if it cannot be read, or if its pixels lie at other places than those of the raster."""
    source = register(store, mask, what="mask")
    found = inspect_raster(store, source.uri, allow_no_crs=True)
    problem = _why_another_grid(found, profile)
    if problem is not None:
        raise DataError(f"{source.uri}: this mask does not fit {uri}: {problem}")
    return ValidMask(
        source=source,
        dtype=found.dtype,
        block_height=found.block_height,
        block_width=found.block_width,
        overviews=found.overviews,
    )


def _why_another_grid(mask: RasterProfile, raster: RasterProfile) -> str | None:
    """Return why the pixels of a mask do not lie at the places of the raster's pixels, and what to do. Else None."""
    if mask.count != 1:
        return f"it has {mask.count} bands, and a mask has one: choose a band (gdal_translate -b 1 MASK NEW.tif)"
    problem = grid_difference(mask, raster, "the raster")
    if problem is None:
        return None
    if mask.crs_wkt is None:
        return (
            f"{problem}: assign the place of the raster (rio edit-info MASK --like RASTER --crs like --transform like)"
        )
    return f"{problem}: warp it to the grid of the raster (rio warp MASK NEW.tif --like RASTER --resampling nearest)"
