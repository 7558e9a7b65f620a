"""Use an image as a query: read the image like a tile of the dataset, and embed it with the dataset's model."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.errors import RasterioError

from rasterembed.dataset.plan import Plan
from rasterembed.errors import DataError, one_line
from rasterembed.model.choice import Device, resolve_device
from rasterembed.raster.pixels import open_pixels
from rasterembed.raster.profile import RasterProfile, inspect_raster
from rasterembed.raster.radiometry import Radiometry, ResolvedRadiometry, resolve_radiometry
from rasterembed.raster.validity import Validity, apply_validity
from rasterembed.search.orientation import read_orientation
from rasterembed.store.object_store import ObjectStore, locate

_MUCH_LARGER = 4
"""An image gets a remark if its shorter side is at least this many times as long as the side of a tile."""

MAX_SIDE = 4096
"""Largest side of an image, px. A larger image is refused, because it is a raster and not an example."""

_one_image = threading.Lock()
"""Only one thread at a time reads and embeds an image. An image may take much memory, and the process has one model."""


def embed_chip(
    store: ObjectStore, plan: Plan, image: str, *, device: Device = "auto", hub_token: str | None = None
) -> NDArray[np.float32]:
    """Embed an image with the dataset's model, and return the vector.

    Args:
        store: store with the credentials for an image on S3.
        plan: the dataset's plan. Its model, radiometry and tile size are used.
        image: a path, or s3://bucket/key.
        device: device that runs the model.
        hub_token: access token of the Hugging Face Hub, for gated weights.

    Returns:
        The vector, shape (dimensions,). It is not normalised.

    Raises:
        UsageError: if `image` is neither a path nor an S3 URI.
        DataError: if the image cannot be read, or if the meaning of its values is not known.
    """
    from rasterembed.model.embedder import load_embedder  # A search without an image must not load PyTorch.

    with _one_image:
        pixels, valid, radiometry = read_chip(store, plan, image)
        embedder = load_embedder(plan.model, resolve_device(device), hub_token)
        vector: NDArray[np.float32] = embedder.embed(pixels[None], valid[None], radiometry)[0]
    return vector


def read_chip(
    store: ObjectStore, plan: Plan, image: str
) -> tuple[NDArray[np.generic], NDArray[np.bool_], ResolvedRadiometry]:
    """Read an image as a tile of the dataset. The central square of the image is resized to the side of a tile.

    A photo is turned upright first, if its EXIF data says how the camera was held.

    Returns:
        Three values, where `size` is the side of a tile:

        - the pixels, shape (1 or 3, size, size);
        - booleans, shape (size, size): True where the pixel is valid;
        - the radiometry, which turns the pixel values into colours.

    Raises:
        UsageError: see `embed_chip`.
        DataError: see `embed_chip`.
    """
    return _read(store, plan, locate(image, "image"))


@dataclass(frozen=True)
class CheckedChip:
    """An image that can be the example of a query."""

    width: int
    """Stored columns, px."""
    height: int
    """Stored rows, px."""
    remark: str
    """Remark for people, as `chip_remark` returns it."""


def check_chip(store: ObjectStore, plan: Plan, image: str) -> CheckedChip:
    """Read an image as `embed_chip` does, but without the model. An image that is read here can be embedded.

    Args:
        store: store with the credentials for an image on S3.
        plan: the dataset's plan.
        image: a path, or s3://bucket/key.

    Raises:
        UsageError: see `embed_chip`.
        DataError: see `embed_chip`.
    """
    with _one_image:
        read_chip(store, plan, image)
        profile = _inspect(store, image)
    return CheckedChip(profile.width, profile.height, _remark(plan, profile))


def chip_remark(store: ObjectStore, plan: Plan, image: str) -> str:
    """Return a remark, as text for people, if an image is much larger than a tile, or long and narrow.

    For all other images, the text is empty.

    Args:
        store: store with the credentials for an image on S3.
        plan: the dataset's plan.
        image: a path, or s3://bucket/key, that `read_chip` can read.
    """
    with _one_image:
        profile = _inspect(store, image)
    return _remark(plan, profile)


def _inspect(store: ObjectStore, image: str) -> RasterProfile:
    """Read the header of an image. The caller holds the lock."""
    return inspect_raster(store, locate(image, "image"), allow_no_crs=True)


def _remark(plan: Plan, profile: RasterProfile) -> str:
    short, long = sorted((profile.width, profile.height))
    if short < _MUCH_LARGER * plan.sharding.grid.size and long < 2 * short:
        return ""
    return (
        f"the image has {profile.width} x {profile.height} px, a tile has {plan.sharding.grid.size} px: only the "
        f"central square of {short} px was used, and resized to a tile; cut out the part to look for"
    )


def _read(
    store: ObjectStore, plan: Plan, uri: str
) -> tuple[NDArray[np.generic], NDArray[np.bool_], ResolvedRadiometry]:
    profile = _as_declared(store, plan, inspect_raster(store, uri, allow_no_crs=True), uri)
    if max(profile.width, profile.height) > MAX_SIDE:
        raise DataError(
            f"{uri}: the image is too large, {profile.width}x{profile.height} px (at most {MAX_SIDE} px a side): "
            "cut out the part to look for"
        )
    radiometry = chip_radiometry(store, plan, profile, uri)
    orientation = read_orientation(store, uri)
    window = orientation.central_square(profile.width, profile.height)
    try:
        with open_pixels(store, uri, profile) as raster:
            pixels, valid = raster.read(radiometry.distinct_bands, window)
    except RasterioError as error:
        raise DataError(f"{uri}: the image cannot be read: {one_line(error.__cause__ or error)}") from error
    if not valid.any():
        raise DataError(f"{uri}: the image has no valid pixel to look for")
    pixels, valid = orientation.upright(radiometry.channels(pixels, profile)), orientation.upright(valid)
    pixels, valid = _resize(pixels, valid, plan.sharding.grid.size)
    return pixels, valid, radiometry


def _as_declared(store: ObjectStore, plan: Plan, chip: RasterProfile, uri: str) -> RasterProfile:
    """Return the image's profile. Apply the validity that was declared for the raster, if it fits the image.

    It fits if image and raster have the same dtype and number of bands. A declared mask is never applied, because it
    belongs to the raster.
    """
    source = plan.profile
    if (chip.dtype, chip.count) != (source.dtype, source.count):
        return chip
    declared = Validity(nodata=source.declared_nodata, ignore_alpha=source.alpha_ignored)
    return apply_validity(store, uri, chip, declared)


def chip_radiometry(store: ObjectStore, plan: Plan, chip: RasterProfile, uri: str) -> ResolvedRadiometry:
    """Return the radiometry of an image.

    - An image with a palette has the colours of its palette.
    - An image with the raster's dtype is scaled like the raster. If it has the raster's number of bands too, its bands
      are used in the raster's order. This rule is not used if the raster has a palette.
    - In every other 8-bit image, the values 0 to 255 are already the colours.

    Args:
        store: store with the credentials for an image on S3.
        plan: the dataset's plan.
        chip: profile of the image.
        uri: address of the image.

    Raises:
        DataError: if none of these rules fits the image. The meaning of its values is then not known.
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
        "give an image cut from such a raster, or an 8-bit picture"
    )


def _resize(
    pixels: NDArray[np.generic], valid: NDArray[np.bool_], side: int
) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
    """Resize a square image bilinearly with antialiasing.

    A new pixel is a weighted average of old pixels. Invalid pixels are left out of this average. The new pixel is valid
    if valid pixels have at least half of the weight. An image with the right side is returned unchanged.

    Args:
        pixels: shape (channels, rows, columns), rows equal to columns.
        valid: shape (rows, columns).
        side: side of the result, px.
    """
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
