"""Declare which pixels of a raster are valid, if its file does not say so or is wrong."""

from __future__ import annotations

import math
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from rasterembed.errors import UsageError
from rasterembed.raster.profile import Nodata, RasterProfile

_EXACT = 2**53
"""Whole numbers up to this size are exact in float64."""


def _read_nodata(value: object) -> object:
    """Return a nodata value that a person typed as an int, a float or `nan`. Equal values become equal objects."""
    if isinstance(value, bool):
        raise ValueError("give a number, or nan")
    try:
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
        if value.is_integer() and abs(value) <= _EXACT:
            return int(value)
    return value


class Validity(BaseModel):
    """Declare which pixels are valid. Without a declaration, the raster's file decides.

    Example:
        >>> Validity(nodata="-9999").nodata
        -9999
        >>> Validity().nodata is None
        True
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

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
    ignore_alpha: bool = Field(
        default=False,
        description="Use a band that the file calls alpha as data, such as infrared. Its zeros hide no pixel then.",
    )


def apply_validity(profile: RasterProfile, validity: Validity, uri: str) -> RasterProfile:
    """Return a raster's profile with the declarations that a person made.

    Args:
        profile: the raster's header.
        validity: the declarations.
        uri: name of the raster in errors.

    Raises:
        UsageError: if no pixel of the raster can have the nodata value.
    """
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
    return profile.model_copy(update=changes) if changes else profile


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
