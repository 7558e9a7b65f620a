"""An image chip as a query: read like a tile, scaled like the dataset's raster, embedded by its model."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window

from rasterembed.dataset.plan import Plan
from rasterembed.errors import DataError, one_line
from rasterembed.model.choice import Device, resolve_device
from rasterembed.raster.pixels import open_pixels
from rasterembed.raster.profile import RasterProfile, inspect_raster
from rasterembed.raster.radiometry import Radiometry, ResolvedRadiometry, resolve_radiometry
from rasterembed.store.object_store import ObjectStore, locate

MAX_SIDE = 4096
"""Side in px beyond which an image is no chip but a raster to be embedded."""


def embed_chip(
    plan: Plan, store: ObjectStore, image: str, *, device: Device = "auto", hub_token: str | None = None
) -> NDArray[np.float32]:
    """The vector that the dataset's model gives an image.

    Args:
        plan: the dataset's plan: its model, radiometry and tile size.
        store: gives the credentials for an image on S3.
        image: a path, or s3://bucket/key.
        device: where the model runs.
        hub_token: access token for gated weights.

    Returns:
        Shape (dimensions,), not normalised.

    Raises:
        UsageError: if `image` is neither.
        DataError: if it cannot be read, or its values do not mean what the raster's mean.
    """
    pixels, valid, radiometry = read_chip(plan, store, image)
    from rasterembed.model.embedder import load_embedder  # a search without an image does without PyTorch

    embedder = load_embedder(plan.model, resolve_device(device), hub_token)
    vector: NDArray[np.float32] = embedder.embed(pixels[None], valid[None], radiometry)[0]
    return vector


def read_chip(
    plan: Plan, store: ObjectStore, image: str
) -> tuple[NDArray[np.generic], NDArray[np.bool_], ResolvedRadiometry]:
    """An image as a tile of the dataset: its middle square, resized to the tile's side.

    Returns:
        Pixels of shape (1 or 3, size, size), valid pixels of shape (size, size), and how values become colour.

    Raises:
        DataError: see `embed_chip`.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # few chips are, and none needs to be
        return _read(plan, store, locate(image))


def _read(
    plan: Plan, store: ObjectStore, uri: str
) -> tuple[NDArray[np.generic], NDArray[np.bool_], ResolvedRadiometry]:
    profile = inspect_raster(store, uri, allow_no_crs=True)
    if max(profile.width, profile.height) > MAX_SIDE:
        raise DataError(
            f"{uri}: {profile.width}x{profile.height} px is no chip (up to {MAX_SIDE} px a side): "
            "cut out what to look for"
        )
    radiometry = chip_radiometry(plan, profile, store, uri)
    side = min(profile.width, profile.height)
    window = Window((profile.width - side) // 2, (profile.height - side) // 2, side, side)
    try:
        with open_pixels(store, uri, profile) as raster:
            pixels, valid = raster.read(radiometry.distinct_bands, window)
    except RasterioError as error:
        raise DataError(f"{uri}: the image cannot be read: {one_line(error.__cause__ or error)}") from error
    pixels = radiometry.channels(pixels, profile)
    if not valid.any():
        raise DataError(f"{uri}: the image has no valid pixel to look for")
    pixels, valid = _resized(pixels, valid, plan.sharding.grid.size)
    return pixels, valid, radiometry


def chip_radiometry(plan: Plan, chip: RasterProfile, store: ObjectStore, uri: str) -> ResolvedRadiometry:
    """How a chip's values become colour.

    A chip of the raster's own type holds the raster's own values and is scaled as they are; its bands are the raster's
    if it has as many. Any other chip of 8 bit is a picture, whose colours are scaled already.

    Raises:
        DataError: for a chip of another type: what its values mean is not known.
    """
    own = resolve_radiometry(store, uri, chip, Radiometry(range=(0.0, 255.0)))
    if own.palette:
        return own
    source = plan.profile
    if chip.dtype == source.dtype and not plan.radiometry.palette:
        bands = plan.radiometry.bands if chip.count == source.count else own.bands
        return plan.radiometry.model_copy(update={"bands": bands})
    if chip.dtype == "uint8":
        return own
    raise DataError(
        f"{uri}: its pixels are {chip.dtype}, those of {source.driver} {plan.source.uri} are {source.dtype}: "
        "give a chip cut from such a raster, or an 8-bit picture"
    )


def _resized(
    pixels: NDArray[np.generic], valid: NDArray[np.bool_], side: int
) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
    """Square pixels at another side, invalid ones left out of every average; untouched if the side is right."""
    if pixels.shape[-1] == side:
        return pixels, valid
    import torch
    from torch.nn import functional

    def resize(values: Any) -> Any:
        return functional.interpolate(values, size=(side, side), mode="bilinear", align_corners=False, antialias=True)

    share = torch.from_numpy(valid)[None, None].double()
    values = torch.from_numpy(np.where(valid, pixels, 0).astype(np.float64))[None]
    weight = resize(share)
    resized = (resize(values * share) / weight.clamp_min(1e-9))[0].float().numpy()
    return resized, weight[0, 0].numpy() >= 0.5
